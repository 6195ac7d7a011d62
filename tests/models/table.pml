/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registration table: a first-level bucket of one slot with an overflow bucket of two behind
 * it, two users whose fingerprints are equal, groups, and blocks of endpoints; one writer, two
 * readers. README.md says which line of C each step is.
 *
 * Properties: what a reader takes for a user's group is that user's and stays so until the reader's
 * next quiescent point, and so is every endpoint of the block that it reads there (assertions in
 * serve()); a group that stands in the table during a whole lookup is found (in search()).
 *
 * All stores that matter here are message passing (fill, then publish with release; load with
 * acquire), which keeps its order. Where the C code allows two stores in either order, the model
 * chooses. Who still reads what was unlinked is taken from quiescence.pml: exactly.
 */
#ifndef CHANGES
#define CHANGES 3 /* of the writer */
#endif
#ifndef LOOKUPS
#define LOOKUPS 1 /* of each reader */
#endif
#ifndef READERS
#define READERS 2
#endif
#define USERS	 2
#define GROUPS	 3
#define CELLS	 5
#define SLOTS	 3 /* 0: of the first-level bucket; 1, 2: of the overflow bucket */
#define NONE	 15
#define LINKED	 1 /* in `chain` */
#define MARK(u)	 (2 << (u))
#define WORD(first, cnt) ((first) * 4 + (cnt))
#define FIRST(word)	 ((word) / 4)
#define CNT(word)	 ((word) % 4)

/* The region. */
byte chain;
bit fp[SLOTS];	    /* all users have one fingerprint; 0: the empty slot's */
byte slot[SLOTS];   /* group + 1 */
byte owner[GROUPS]; /* the group's user + 1 */
byte word[GROUPS];  /* its endpoints: position and count */
byte cell[CELLS];   /* an endpoint's user + 1 */

/* The writer's books, and for how many readers each thing still rests: a bit a reader. */
bool group_used[GROUPS], cell_used[CELLS], overflow_used;
byte group_rests[GROUPS], cell_rests[CELLS], overflow_rests;
byte reading; /* a bit a reader that is in its loop */

/* What is true, for the assertions: changes of a user's group so far; odd: it is in the table. */
byte truth[USERS];

#ifdef EARLY_RECLAIM
#define REST(what) what = 0
#else
#define REST(what) what = reading
#endif

/* ---- the writer ---- */

inline take_group(g)
{
	d_step {
		g = 0;
		do
		:: g < GROUPS && (group_used[g] || group_rests[g]) -> g++
		:: else -> break
		od;
		if :: g == GROUPS -> g = NONE :: else -> group_used[g] = true fi
	}
}

#define IS_FREE(c) (!cell_used[c] && !cell_rests[c])

inline take_block(first, cnt)
{
	d_step {
		first = 0;
		do
		:: first + cnt <= CELLS && !(IS_FREE(first) && (cnt == 1 || IS_FREE(first + cnt - 1))) ->
			first++
		:: else -> break
		od;
		if
		:: first + cnt > CELLS -> first = NONE
		:: else -> cell_used[first] = true; cell_used[first + cnt - 1] = true
		fi
	}
}

inline retire_block(w)
{
	d_step {
		if
		:: CNT(w) > 0 ->
			cell_used[FIRST(w)] = false; REST(cell_rests[FIRST(w)])
		:: else
		fi;
		if
		:: CNT(w) > 1 ->
			cell_used[FIRST(w) + 1] = false; REST(cell_rests[FIRST(w) + 1])
		:: else
		fi
	}
}

inline retire_group(g)
{
	d_step { group_used[g] = false; REST(group_rests[g]) }
}

inline fill_block(first, cnt, u)
{
	d_step {
		cell[first] = u + 1;
		if :: cnt == 2 -> cell[first + 1] = u + 1 :: else fi
	}
}

/* The slot of the user's group, or NONE. */
inline slot_of(u, s)
{
	d_step {
		s = 0;
		do
		:: s < SLOTS && !(slot[s] && (s == 0 || overflow_used) && owner[slot[s] - 1] == u + 1) -> s++
		:: else -> break
		od;
		if :: s == SLOTS -> s = NONE :: else fi
	}
}

/* Any empty slot of the chain; one of a new overflow bucket where there is none linked. */
inline publish(u, g)
{
	if
	:: slot[0] == 0 -> s = 0
	:: overflow_used && slot[1] == 0 -> s = 1
	:: overflow_used && slot[2] == 0 -> s = 2
	:: !overflow_used && overflow_rests == 0 -> s = NONE
	fi;
	if
	:: s != NONE ->
		if
		:: s > 0 ->
#ifndef MARK_FORGOTTEN
			chain = chain | MARK(u) /* before it appears */
#else
			skip
#endif
		:: else
		fi;
#ifndef FINGERPRINT_FORGOTTEN
		fp[s] = 1;
#endif
		slot[s] = g + 1
	:: else ->
		overflow_used = true;
		fp[2] = 0; slot[2] = 0;
		fp[1] = 1; slot[1] = g + 1;
		chain = LINKED | MARK(u)
	fi
}

inline trim()
{
	if
	:: slot[1] == 0 && slot[2] == 0 ->
		chain = 0;
		d_step { overflow_used = false; REST(overflow_rests) }
	:: else -> /* marks of what is still behind, and no others */
		d_step {
			w = LINKED;
			if :: slot[1] -> w = w | MARK(owner[slot[1] - 1] - 1) :: else fi;
			if :: slot[2] -> w = w | MARK(owner[slot[2] - 1] - 1) :: else fi
		}
		chain = w
	fi
}

/* A connection joins: a block of one more, and a group of its own where there is none. */
inline join(u)
{
	slot_of(u, s);
	if
	:: s == NONE && (overflow_used || overflow_rests == 0 || slot[0] == 0) ->
		take_group(g);
		take_block(first, 1);
		if
		:: g != NONE && first != NONE ->
#ifdef PUBLISH_BEFORE_FILL
			publish(u, g);
#endif
			fill_block(first, 1, u);
			d_step { owner[g] = u + 1; word[g] = WORD(first, 1) }
#ifndef PUBLISH_BEFORE_FILL
			publish(u, g);
#endif
			truth[u]++
		:: else -> /* no room: nothing happens */
			if :: g != NONE -> group_used[g] = false :: else fi;
			if :: first != NONE -> cell_used[first] = false :: else fi
		fi
	:: s != NONE && CNT(word[slot[s] - 1]) < 2 ->
		g = slot[s] - 1;
		old = word[g];
		take_block(first, CNT(old) + 1);
		if
		:: first != NONE ->
#ifdef BLOCK_BEFORE_FILL
			word[g] = WORD(first, CNT(old) + 1);
			fill_block(first, CNT(old) + 1, u);
#else
			fill_block(first, CNT(old) + 1, u);
#ifdef COUNT_BEFORE_POSITION
			word[g] = WORD(FIRST(old), CNT(old) + 1);
			word[g] = WORD(first, CNT(old) + 1);
#else
			word[g] = WORD(first, CNT(old) + 1);
#endif
#endif
			retire_block(old)
		:: else
		fi
	:: else
	fi
}

/* The first or the last of a block leaves where it is; a group without endpoints lingers. */
inline leave(u)
{
	slot_of(u, s);
	if
	:: s != NONE && CNT(word[slot[s] - 1]) > 0 ->
		g = slot[s] - 1;
		old = word[g];
		if
		:: CNT(old) == 1 -> word[g] = 0; retire_block(old)
		:: CNT(old) == 2 ->
#ifdef COUNT_AFTER_POSITION
			word[g] = WORD(FIRST(old) + 1, 2);
#endif
			word[g] = WORD(FIRST(old) + 1, 1); retire_block(WORD(FIRST(old), 1))
		:: CNT(old) == 2 -> word[g] = WORD(FIRST(old), 1); retire_block(WORD(FIRST(old) + 1, 1))
		fi
	:: else
	fi
}

/* Another key: another group in the slot of the old one. */
inline swap(u)
{
	slot_of(u, s);
	if
	:: s != NONE && CNT(word[slot[s] - 1]) == 1 ->
		old = slot[s] - 1;
		take_group(g);
		take_block(first, 1);
		if
		:: g != NONE && first != NONE ->
			fill_block(first, 1, u);
			d_step { owner[g] = u + 1; word[g] = WORD(first, 1) }
#ifdef SWAP_BY_ZERO
			slot[s] = 0;
#endif
			slot[s] = g + 1;
			retire_block(word[old]);
			retire_group(old)
		:: else ->
			if :: g != NONE -> group_used[g] = false :: else fi;
			if :: first != NONE -> cell_used[first] = false :: else fi
		fi
	:: else
	fi
}

/* Out of the table, block and group; the fingerprint may be seen to go first or last. */
inline revoke(u)
{
	slot_of(u, s);
	if
	:: s != NONE ->
		g = slot[s] - 1;
		truth[u]++;
		if
		:: slot[s] = 0; fp[s] = 0
		:: fp[s] = 0; slot[s] = 0
		fi;
		if :: s > 0 -> trim() :: else fi;
		retire_block(word[g]);
		retire_group(g)
	:: else
	fi
}

active proctype writer()
{
	byte n, u, s, g, first, old, w;

	do
	:: n < CHANGES ->
		n++;
		d_step { s = 0; g = 0; first = 0; old = 0; w = 0 }
		if :: u = 0 :: u = 1 fi;
		if
		:: join(u)
		:: leave(u)
		:: swap(u)
		:: revoke(u)
		fi
	:: else -> break
	od
}

/* ---- a reader ---- */

/* A slot whose fingerprint fits: its group, if its whole key is the wanted one. */
inline look(s)
{
	if
	:: g == NONE && fp[s] ->
		w = slot[s];
		if
#ifdef NO_KEY_COMPARE
		:: w -> g = w - 1
#else
		:: w && owner[w - 1] == u + 1 -> g = w - 1
#endif
		:: else
		fi
	:: else
	fi
}

inline search()
{
	g = NONE;
	was = truth[u];
	look(0);
	if
	:: g == NONE ->
		w = chain;
		if
		:: (w & LINKED) && (w & MARK(u)) -> look(1); look(2)
		:: else
		fi
	:: else
	fi;
	assert(g != NONE || !(was & 1) || was != truth[u]) /* no miss */
}

#define SERVE(i) assert(owner[g] == u + 1 && cell[FIRST(w) + i] == u + 1)

inline serve()
{
	w = word[g];
	if :: CNT(w) > 0 -> SERVE(0) :: else fi;
	if :: CNT(w) > 1 -> SERVE(1) :: else fi
}

/* A quiescent point: this reader is waited for no more. */
inline pass()
{
	d_step {
		reading = reading & (255 - (1 << me));
		w = 0;
		do
		:: w < GROUPS -> group_rests[w] = group_rests[w] & (255 - (1 << me)); w++
		:: else -> break
		od;
		w = 0;
		do
		:: w < CELLS -> cell_rests[w] = cell_rests[w] & (255 - (1 << me)); w++
		:: else -> break
		od;
		overflow_rests = overflow_rests & (255 - (1 << me));
		w = 0; g = 0; was = 0; u = 0
	}
}

active [READERS] proctype reader()
{
	byte me, n, u, g, w, was;

	me = _pid - 1;
	do
	:: n < LOOKUPS ->
		n++;
		atomic { reading = reading | (1 << me); if :: u = 0 :: u = 1 fi }
		search();
		if :: g != NONE -> serve() :: else fi;
		pass()
	:: else -> break
	od
}
