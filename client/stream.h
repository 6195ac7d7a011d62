/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One channel's stream as a subscriber follows it: the place in it, what came too early and is held
 * back, what is missing, and when to ask for that again. No sockets, no clock, no keys: its owner
 * says what came and what time it is, and takes out what follows in order. One thread at a time.
 *
 * Everything at or below the cursor has been given out or told as lost, each sequence once. What is
 * known to exist lies at or below the tail; so something is missing exactly while cursor < tail.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/reassembly.h"
#include "common/wire/wire.h"

#define STREAM_HISTORY	   8	     /* epochs that were left and are remembered */
#define STREAM_WINDOW	   1024	     /* sequences behind the cursor that may be held back */
#define STREAM_ROOM	   (4 << 20) /* bytes held back, all streams of a subscription together */
#define STREAM_ASKS	   8	     /* ranges asked for at a time */
#define STREAM_SPOILT_MOST 8 /* replays of one sequence that do not open, until it is given up */

/* What has come early, copied. */
struct stream_held {
	struct fan_delivery header;
	uint8_t payload[];
};

/* The engine's or fanwired's word: by its clock at time_ns the stream stood there. */
struct stream_word {
	uint64_t epoch, sequence;
	uint64_t time_ns;
};

struct stream_range {
	uint64_t first, last; /* last UINT64_MAX: up to the tail, wherever it is */
};

struct stream {
	uint64_t channel;
	char *thread;  /* name, or NULL */
	int policy;    /* FAN_CATCH_UP … */
	bool mendable; /* what is missing can be asked for */

	bool joined;	/* epoch, cursor and tail hold */
	bool followed;	/* what comes next did not begin before us */
	bool finished;	/* nothing will come any more: what is missing is lost */
	bool slow;	/* FAN_DISCONNECT: something has been missing for too long */
	uint64_t epoch; /* 0: the stream has no event yet */
	uint64_t cursor, tail;
	uint64_t told_to; /* whoever was here before has been told of everything up to here */
	uint64_t gone_to; /* what is missing up to here cannot be had */
	struct {
		uint64_t epoch, cursor;
	} left[STREAM_HISTORY]; /* former epochs, and how far we were in them */
	unsigned left_cnt;
	uint64_t time_ns;    /* the engine's clock: no other epoch began before */
	uint64_t entered_ns; /* ours, when the epoch was entered */
	uint64_t other;	     /* epoch that fanwired named instead, once; 0: none */

	struct stream_held **window; /* of sequence s: slot s % STREAM_WINDOW; NULL: none at all */
	unsigned held_cnt;
	size_t *room; /* bytes that may still be held; the subscription's */

	uint64_t due_ns;     /* when to look at what is missing */
	uint64_t touched_ns; /* something new came last */
	uint64_t backoff_ns;
	uint64_t seed; /* of the jitter */
	bool asked;    /* a request is out, for: */
	uint64_t asked_to;
	uint32_t asked_cnt, chunk; /* sequences; chunk: how many at a time */
	uint32_t mended_cnt;	   /* of what was missing, what has come since */
	uint64_t mended_ns;
	bool sure;	      /* the tail is the engine's own word, and nothing came since */
	unsigned probe_cnt;   /* times that the tail was asked for since something came */
	unsigned spoilt_cnt;  /* replays of cursor + 1 that did not open */
	uint64_t request_cnt; /* ranges asked for, for the counters */
};

/* Of a datagram that has come, before its seal is opened. */
enum stream_verdict {
	STREAM_NEW,
	STREAM_DUPLICATE, /* given out, told as lost, or held already */
	STREAM_OLD,	  /* of an epoch that is not to be entered, or no place at all */
};

enum stream_taken {
	STREAM_NEXT, /* it is what follows: give it out; then look at stream_next() */
	STREAM_HELD,
	STREAM_FULL, /* no room: it will have to come again */
};

enum stream_step {
	STREAM_NOTHING,
	STREAM_LOST,	 /* *range */
	STREAM_DATAGRAM, /* *held, which the caller releases */
};

/* room: shared with the subscription's other streams; it must outlive this one. */
void stream_init(struct stream *stream, uint64_t channel, int policy, size_t *room, uint64_t seed);
void stream_fini(struct stream *stream);

/*
 * fanwired's word when the connection began: what comes after it is ours. Where
 * the application has been there before, stream_resume() goes first: then all after its cursor is.
 * What it had begun to receive lies before the cursor, from `unfinished` on (0: nothing does): that
 * much comes again, to be put together, and stream_told() says what of it is not to be told twice.
 */
void stream_resume(struct stream *stream, uint64_t epoch, uint64_t sequence, uint64_t unfinished);
void stream_begin(struct stream *stream, const struct stream_word *word, uint64_t now_ns,
		  struct reassembly *reassembly);

/*
 * A status, which anybody may have sent again: another epoch is entered only if the word is later
 * than all that was heard of the present one. What an epoch that ended has lost is reassembly's to
 * tell.
 */
void stream_status(struct stream *stream, const struct stream_word *word, uint64_t now_ns,
		   struct reassembly *reassembly);
/*
 * fanwired's word, in its answer to what was asked at asked_ns: it overrules whatever came over the
 * network. Another epoch is entered once it was named twice running. True: ask again soon.
 */
bool stream_answer(struct stream *stream, const struct stream_word *word, uint64_t asked_ns,
		   uint64_t now_ns, struct reassembly *reassembly);
/* The engine's word that it does not have first..last of the present epoch any more. */
void stream_gone(struct stream *stream, uint64_t epoch, uint64_t first, uint64_t last,
		 uint64_t now_ns, struct reassembly *reassembly);

enum stream_verdict stream_judge(const struct stream *stream, const struct fan_delivery *header);
/* A datagram that is STREAM_NEW, opened; it may begin another epoch, and the old one is over. */
enum stream_taken stream_take(struct stream *stream, const struct fan_delivery *header,
			      const uint8_t *payload, uint64_t now_ns,
			      struct reassembly *reassembly);
/* A replayed datagram that did not open: after some of them its sequence counts as gone. */
void stream_spoilt(struct stream *stream, uint64_t epoch, uint64_t sequence);

/* What follows of what is there; until STREAM_NOTHING. */
enum stream_step stream_next(struct stream *stream, struct stream_range *range,
			     struct stream_held **held);
void stream_release(struct stream *stream, struct stream_held *held);
/* Nothing will come any more. */
void stream_finish(struct stream *stream);

/*
 * What is due at now_ns: ranges to ask for (how many; each bounded by what can be held), or, with
 * the other policies, what is missing counts as lost (stream_next()) or ends it (stream->slow).
 */
unsigned stream_due(struct stream *stream, uint64_t now_ns,
		    struct stream_range ranges[STREAM_ASKS]);
/* Whether it asks for what is missing, rather than call it lost. */
bool stream_asks(const struct stream *stream);
/* Whether an event or a loss that ends here has been told before. */
static inline bool stream_told(const struct stream *stream, uint64_t sequence)
{
	return sequence <= stream->told_to;
}
/* Whether something is known to be missing. */
static inline bool stream_behind(const struct stream *stream)
{
	return stream->cursor < stream->tail;
}
