/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reclamation by quiescent words: one engine, a dataplane of two workers that may be killed at any
 * step, and a dataplane of one worker that takes over. README.md says which line of C each step is.
 *
 * Property: no worker ever reads an object that was reused since it met it (the assertions), and
 * the engine never waits for ever (no invalid end state).
 *
 * Spin's memory is sequentially consistent, so what release and acquire leave open is modelled: a
 * release store goes into a buffer of its process and reaches memory later, in order. A fence waits
 * for the buffer to be empty; an exchange writes memory itself.
 */
#define OBJECTS 2 /* that the engine publishes in turn, so each is used again and again */
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef LOOPS
#define LOOPS 2
#endif
#define TURN(o) ((o + 1) % OBJECTS)
#define IS_ODD(w) (w & 1)

/* Memory that they share. */
byte link;	    /* the object that readers find */
byte life[OBJECTS]; /* which use of it this is */
byte word[2];	    /* fan_worker_state.quiescent */
bool lock;	    /* on the state region: a dataplane lives */

/* The kernel's view. */
byte killed;  /* this run was killed */
byte threads; /* of the present run */

mtype = { LINK, REUSE };
chan stores = [3] of { mtype, byte }; /* the engine's store buffer */
#ifdef NO_EXCHANGE
chan advances[2] = [1] of { byte }; /* a worker's, where its word is a mere release store */
#endif

/* ---- the engine ---- */

active proctype memory()
{
	byte o;
end:	do
	:: atomic { stores?LINK(o) -> link = o }
	:: atomic { stores?REUSE(o) -> life[o]++ }
#ifdef NO_EXCHANGE
	:: atomic { advances[0]?o -> word[0] = o }
	:: atomic { advances[1]?o -> word[1] = o }
#endif
	od
}

#ifdef EVEN_IS_WAITED_FOR
#define IS_RUNNING(w) true
#else
#define IS_RUNNING(w) IS_ODD(w)
#endif

active proctype engine()
{
	byte round, old, now, seen[2];
#ifdef DEATH_ASKED_BEFORE
	bool dead;
#endif

	do
	:: round < ROUNDS ->
		round++;
		old = now;
		now = TURN(now);
#ifdef DEATH_ASKED_BEFORE
		dead = !lock;
#endif
unlink:		stores!LINK(now);
#ifndef NO_FENCE
fence:		empty(stores);
#endif
snap:		d_step { seen[0] = 0; seen[1] = 0 }
		atomic { if :: IS_RUNNING(word[0]) -> seen[0] = word[0] :: else fi };
		atomic { if :: IS_RUNNING(word[1]) -> seen[1] = word[1] :: else fi };
#ifndef EARLY_RECLAIM
wait:		do
		:: seen[0] && word[0] != seen[0] -> seen[0] = 0
		:: seen[1] && word[1] != seen[1] -> seen[1] = 0
		:: !seen[0] && !seen[1] -> break
#ifdef DEATH_ASKED_BEFORE
		:: dead -> break
#elif !defined(DEATH_NOT_SEEN)
		:: !lock -> break /* the kernel let go of it: no thread of that run is left */
#endif
		od;
#endif
reuse:		stores!REUSE(old)
	:: else -> break
	od
}

/* ---- the dataplane ---- */

#ifdef NO_EXCHANGE
#define STORE(value) mine = value; advances[me]!mine
#else
#define STORE(value) mine = value; word[me] = mine
#endif
#define USE assert(life[held] == met)

proctype worker(byte me; byte run_no)
{
	byte n, held, met, mine;
	bool pinned;

	{
		d_step { mine = word[me]; n = run_no - 1 }
enter:		STORE(mine + 1 + IS_ODD(mine));
		do
		:: n < LOOPS ->
			n++;
			if
			:: !pinned ->
lookup:				d_step { held = link; met = life[held]; pinned = true }
			:: else
			fi;
			if /* it ends, or its rest is for the next loop */
			:: d_step { USE; pinned = false }
			:: n < LOOPS -> USE
			fi;
quiesce:		if
#ifdef PINS_FORGOTTEN
			:: STORE(mine + 2)
#elif defined(LAST_USE_AFTER)
			:: !pinned -> STORE(mine + 2); USE /* no release: a load comes late */
			:: else
#else
			:: !pinned -> STORE(mine + 2)
			:: else /* withheld */
#endif
			fi
		:: n >= LOOPS -> break
		od;
leave:		STORE(mine + IS_ODD(mine))
	} unless { killed == run_no };
#ifdef NO_EXCHANGE
	empty(advances[me]); /* what a dead thread stored gets to memory */
#endif
	/* The lock goes when the last thread has gone. */
	d_step {
		threads--;
		if :: threads == 0 -> lock = false :: else fi
	}
}

active proctype kernel()
{
	if
	:: killed = 1 /* kill -9, at any moment */
	:: skip
	fi
}

/* A restarted dataplane, if one comes, of fewer workers than the one before. It stays. */
proctype takeover()
{
	!lock ->
	if
	:: lock = true
	:: goto stays_away
	fi;
#ifndef WORDS_NOT_SETTLED
	word[0] = word[0] + 2 + IS_ODD(word[0]);
	word[1] = word[1] + 2 + IS_ODD(word[1]);
#endif
	threads = 2; /* and the main one */
	run worker(0, 2);
stays_away: skip
}

init {
	atomic {
		lock = true;
		threads = 2;
		word[0] = 2; /* 0 stands for "not waited for" in what the engine has seen */
		word[1] = 2;
		run worker(0, 1);
		run worker(1, 1);
		run takeover()
	}
}
