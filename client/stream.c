/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/stream.h"

#include <stdlib.h>
#include <string.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "common/plant.h"

#define REORDER_NS     (2 * CLOCK_MS_NS) /* what the network may have put in another order */
#define REORDER_SPREAD (3 * CLOCK_MS_NS)
#define IMPATIENCE_NS  (50 * CLOCK_MS_NS) /* until what is missing counts as lost unasked */
#define BACKOFF_FIRST  (20 * CLOCK_MS_NS)
#define BACKOFF_LAST   CLOCK_S_NS
#define PROBE_NS       CLOCK_S_NS /* of quiet, until the tail is asked for */
#define PROBES_MOST    3
#define CHUNK_FIRST    256
#define CHUNK_LEAST    16

/* A slot of the window: the engine does not have it any more. */
static struct stream_held gone_mark;

void stream_init(struct stream *s, uint64_t channel, int policy, size_t *room, uint64_t seed)
{
	*s = (struct stream){.channel = channel,
			     .policy = policy,
			     .room = room,
			     .due_ns = CLOCK_NEVER,
			     .seed = seed | 1,
			     .chunk = CHUNK_FIRST};
}

/* ---- what is held back ----------------------------------------------------------------------- */

static size_t held_len(const struct stream_held *held)
{
	return sizeof(*held) + held->header.payload_len;
}

void stream_release(struct stream *s, struct stream_held *held)
{
	*s->room += held_len(held);
	free(held);
}

/* The slot of a sequence; NULL where that lies outside the window, or there is none. */
static struct stream_held **slot_of(const struct stream *s, uint64_t sequence)
{
	if (!s->window || sequence <= s->cursor || sequence - s->cursor > STREAM_WINDOW)
		return NULL;
	return &s->window[sequence % STREAM_WINDOW];
}

static struct stream_held *held_at(const struct stream *s, uint64_t sequence)
{
	struct stream_held **slot = slot_of(s, sequence);

	return slot ? *slot : NULL;
}

static void slot_fill(struct stream *s, uint64_t sequence, struct stream_held *held)
{
	s->held_cnt += !s->window[sequence % STREAM_WINDOW];
	s->window[sequence % STREAM_WINDOW] = held;
}

/* What was in it is the caller's. */
static void slot_empty(struct stream *s, struct stream_held **slot)
{
	*slot = NULL;
	if (--s->held_cnt)
		return;
	free(s->window);
	s->window = NULL;
}

static bool window_make(struct stream *s)
{
	if (!s->window)
		s->window = calloc(STREAM_WINDOW, sizeof(*s->window));
	return s->window;
}

static void window_drop(struct stream *s)
{
	for (unsigned i = 0; s->window && i < STREAM_WINDOW; i++) {
		if (s->window[i] && s->window[i] != &gone_mark)
			stream_release(s, s->window[i]);
	}
	free(s->window);
	s->window = NULL;
	s->held_cnt = 0;
}

void stream_fini(struct stream *s)
{
	window_drop(s);
	free(s->thread);
	s->thread = NULL;
}

static enum stream_taken hold(struct stream *s, const struct fan_delivery *d,
			      const uint8_t *payload)
{
	size_t len = sizeof(struct stream_held) + d->payload_len;
	struct stream_held *held;

	if (d->sequence - s->cursor > STREAM_WINDOW || len > *s->room || !window_make(s))
		return STREAM_FULL;
	held = malloc(len);
	if (!held) {
		if (!s->held_cnt)
			window_drop(s);
		return STREAM_FULL;
	}
	held->header = *d;
	memcpy(held->payload, payload, d->payload_len);
	*s->room -= len;
	slot_fill(s, d->sequence, held);
	return STREAM_HELD;
}

/* ---- time ------------------------------------------------------------------------------------ */

static uint64_t spread(struct stream *s, uint64_t most)
{
	s->seed ^= s->seed << 13;
	s->seed ^= s->seed >> 7;
	s->seed ^= s->seed << 17;
	return (s->seed >> 11) % (most + 1);
}

/* Half of it to one and a half: those who lost the same must not all ask in the same instant. */
static uint64_t jittered(struct stream *s, uint64_t ns)
{
	return ns / 2 + spread(s, ns);
}

bool stream_asks(const struct stream *s)
{
	return s->mendable && s->policy == FAN_CATCH_UP;
}

static void due_by(struct stream *s, uint64_t at_ns)
{
	s->due_ns = clock_earlier(s->due_ns, at_ns);
}

/* After anything that may have moved cursor or tail; `was_behind`: before it. */
static void arm(struct stream *s, bool was_behind, uint64_t now_ns)
{
	if (!stream_behind(s)) {
		if (stream_asks(s) && !s->sure)
			due_by(s, now_ns + PROBE_NS);
		return;
	}
	if (!was_behind) {
		s->asked = false;
		s->mended_cnt = 0;
		s->backoff_ns = BACKOFF_FIRST;
		due_by(s, now_ns + (stream_asks(s) ? REORDER_NS + spread(s, REORDER_SPREAD)
						   : IMPATIENCE_NS));
	} else if (s->asked && s->cursor >= s->asked_to) {
		due_by(s, now_ns); /* all of it has come: the next part */
	}
}

static void cursor_set(struct stream *s, uint64_t sequence)
{
	s->cursor = sequence;
	s->spoilt_cnt = 0;
	s->followed = true;
	if (s->tail < sequence)
		s->tail = sequence;
}

/* ---- where the stream is --------------------------------------------------------------------- */

static void place(struct stream *s, uint64_t epoch, uint64_t sequence)
{
	window_drop(s);
	s->joined = true;
	s->epoch = epoch;
	s->cursor = s->tail = s->told_to = sequence;
	s->followed = sequence == 0;
	s->gone_to = 0;
	s->spoilt_cnt = 0;
	s->asked = false;
	s->sure = false;
	s->probe_cnt = 0;
	s->due_ns = CLOCK_NEVER;
}

/* But for what was told before. */
static void lose(const struct stream *s, uint64_t first, uint64_t last,
		 struct reassembly *reassembly)
{
	struct reassembly_range range = {s->channel, s->epoch, first, last};

	if (stream_told(s, first))
		range.first = s->told_to + 1;
	if (range.first <= last)
		reassembly_lose(&reassembly->lost, &range);
}

static bool was_left(const struct stream *s, uint64_t epoch, uint64_t *cursor)
{
	unsigned kept = s->left_cnt < STREAM_HISTORY ? s->left_cnt : STREAM_HISTORY;

	for (unsigned i = 0; i < kept; i++) {
		if (s->left[i].epoch != epoch)
			continue;
		*cursor = s->left[i].cursor;
		return true;
	}
	return false;
}

static void leave(struct stream *s)
{
	unsigned kept = s->left_cnt < STREAM_HISTORY ? s->left_cnt : STREAM_HISTORY;
	unsigned idx = s->left_cnt % STREAM_HISTORY;

	for (unsigned i = 0; i < kept; i++) {
		if (s->left[i].epoch == s->epoch)
			idx = i;
	}
	s->left_cnt += idx == s->left_cnt % STREAM_HISTORY;
	s->left[idx].epoch = s->epoch;
	s->left[idx].cursor = s->cursor;
}

/*
 * The old epoch is over. What was missing of it cannot be had, nor can anybody say how far it went:
 * whatever came after the last that was seen is lost. In one that was left by mistake it goes on
 * where it was, so that nothing is given out twice.
 */
static void enter(struct stream *s, uint64_t epoch, uint64_t now_ns, struct reassembly *reassembly)
{
	uint64_t cursor = 0;

	if (s->epoch) {
		reassembly_drop_stream(reassembly, s->channel, s->epoch);
		lose(s, s->cursor + 1, UINT64_MAX, reassembly);
		leave(s);
	}
	was_left(s, epoch, &cursor);
	place(s, epoch, cursor);
	s->followed = true;
	s->entered_ns = now_ns;
	s->other = 0;
}

static void heard(struct stream *s, uint64_t time_ns)
{
	if (s->time_ns < time_ns)
		s->time_ns = time_ns;
}

/*
 * Epochs are random numbers: by themselves they have no order, and whoever is on the way can send a
 * datagram of any earlier one again. What orders them is the engine's clock, under the tag: all of
 * an epoch is from before its successor.
 */
static bool may_enter(const struct stream *s, uint64_t epoch, uint64_t time_ns)
{
	uint64_t cursor;

	if (fan_planted(PLANT_OLD_EPOCH_ENTERED))
		return true;
	return time_ns > s->time_ns && !was_left(s, epoch, &cursor);
}

void stream_resume(struct stream *s, uint64_t epoch, uint64_t sequence, uint64_t unfinished)
{
	place(s, epoch, unfinished && unfinished <= sequence ? unfinished - 1 : sequence);
	s->told_to = sequence;
	s->followed = true;
}

void stream_begin(struct stream *s, const struct stream_word *word, uint64_t now_ns,
		  struct reassembly *reassembly)
{
	if (!s->joined) {
		place(s, word->epoch, word->sequence);
	} else if (word->epoch != s->epoch) {
		enter(s, word->epoch, now_ns, reassembly);
	} else if (word->sequence < s->told_to) { /* of no stream that there is */
		lose(s, s->told_to + 1, UINT64_MAX, reassembly);
		place(s, word->epoch, word->sequence);
	}
	s->told_to = clock_earlier(s->told_to, word->sequence);
	s->tail = word->sequence;
	s->sure = true;
	s->touched_ns = s->entered_ns = now_ns;
	heard(s, word->time_ns);
	arm(s, false, now_ns);
}

/* The present epoch's stream goes up to there; `behind`: as it was before. */
static void reach(struct stream *s, uint64_t sequence, bool behind, uint64_t now_ns)
{
	if (sequence >= s->tail) {
		s->tail = sequence;
		s->sure = true;
		arm(s, behind, now_ns);
	}
	/* it ends an answer, too: what is still missing was lost on its way */
	if (behind && s->asked && s->mended_cnt) {
		s->asked = false;
		due_by(s, now_ns + REORDER_NS);
	}
}

void stream_status(struct stream *s, const struct stream_word *word, uint64_t now_ns,
		   struct reassembly *reassembly)
{
	bool behind = stream_behind(s);

	if (word->epoch == 0)
		return;
	if (!s->joined || word->epoch != s->epoch) {
		if (!may_enter(s, word->epoch, word->time_ns))
			return;
		if (s->joined)
			enter(s, word->epoch, now_ns, reassembly);
		else
			place(s, word->epoch, word->sequence); /* what was before is not ours */
		behind = false;
	}
	heard(s, word->time_ns);
	reach(s, word->sequence, behind, now_ns);
}

/* Whether the epoch is another one, and it is believed. */
static bool named_twice(struct stream *s, uint64_t epoch, uint64_t asked_ns)
{
	bool again = s->other == epoch || s->epoch == 0;

	if (asked_ns < s->entered_ns) /* it was perhaps read before the present one began */
		return false;
	s->other = epoch;
	return again;
}

bool stream_answer(struct stream *s, const struct stream_word *word, uint64_t asked_ns,
		   uint64_t now_ns, struct reassembly *reassembly)
{
	bool behind = stream_behind(s);

	if (word->epoch == 0)
		return false;
	if (!s->joined) {
		stream_begin(s, word, now_ns, reassembly);
		return false;
	}
	if (word->epoch != s->epoch) {
		if (!named_twice(s, word->epoch, asked_ns))
			return true;
		enter(s, word->epoch, now_ns, reassembly);
		s->time_ns = word->time_ns; /* its clock may have been set back */
		behind = false;
	}
	s->other = 0;
	heard(s, word->time_ns);
	reach(s, word->sequence, behind, now_ns);
	return false;
}

void stream_gone(struct stream *s, uint64_t epoch, uint64_t first, uint64_t last, uint64_t now_ns,
		 struct reassembly *reassembly)
{
	bool behind = stream_behind(s);

	if (epoch == 0 || epoch != s->epoch || !s->joined || first == 0 || first > last ||
	    last == UINT64_MAX)
		return;
	if (s->tail < last)
		s->tail = last;
	if (first <= s->cursor + 1 && s->gone_to < last)
		s->gone_to = last;
	for (uint64_t i = first; first > s->cursor + 1 && i <= last; i++) {
		/* what lies beyond the window is told again when it is asked for */
		if (i - s->cursor > STREAM_WINDOW || !window_make(s))
			break;
		if (!held_at(s, i))
			slot_fill(s, i, &gone_mark);
	}
	s->mended_cnt++;
	s->mended_ns = now_ns;
	arm(s, behind, now_ns);
}

void stream_spoilt(struct stream *s, uint64_t epoch, uint64_t sequence)
{
	if (epoch != s->epoch || sequence != s->cursor + 1 || ++s->spoilt_cnt < STREAM_SPOILT_MOST)
		return;
	if (s->tail < sequence)
		s->tail = sequence;
	if (s->gone_to < sequence)
		s->gone_to = sequence;
}

/* ---- what comes ------------------------------------------------------------------------------ */

enum stream_verdict stream_judge(const struct stream *s, const struct fan_delivery *d)
{
	uint64_t sequence = d->sequence;
	struct stream_held *held;

	if (d->epoch == 0 || sequence == 0 || sequence == UINT64_MAX)
		return STREAM_OLD;
	if (!s->joined || d->epoch != s->epoch)
		return may_enter(s, d->epoch, d->time_ns) ? STREAM_NEW : STREAM_OLD;
	held = held_at(s, sequence);
	return sequence <= s->cursor || (held && held != &gone_mark) ? STREAM_DUPLICATE
								     : STREAM_NEW;
}

/* It is what follows, or whoever does not wait for the rest makes it so. */
static bool follows(struct stream *s, uint64_t sequence, struct reassembly *reassembly)
{
	bool waits = s->policy == FAN_DISCONNECT || stream_asks(s);

	if (sequence != s->cursor + 1 && waits)
		return false;
	if (sequence != s->cursor + 1) {
		lose(s, s->cursor + 1, sequence - 1, reassembly);
		window_drop(s);
	}
	return true;
}

enum stream_taken stream_take(struct stream *s, const struct fan_delivery *d,
			      const uint8_t *payload, uint64_t now_ns,
			      struct reassembly *reassembly)
{
	enum stream_taken taken = STREAM_NEXT;
	bool behind = stream_behind(s);

	if (!s->joined) {
		place(s, d->epoch, d->sequence - 1);
	} else if (d->epoch != s->epoch) {
		enter(s, d->epoch, now_ns, reassembly);
		behind = false;
	}
	heard(s, d->time_ns);
	s->touched_ns = now_ns;
	if (s->tail < d->sequence) {
		s->tail = d->sequence;
		s->sure = false;
		s->probe_cnt = 0;
	}
	if (follows(s, d->sequence, reassembly)) {
		struct stream_held **mark = slot_of(s, d->sequence);

		if (mark && *mark)
			slot_empty(s, mark);
		cursor_set(s, d->sequence);
	} else {
		taken = hold(s, d, payload);
	}
	if (taken != STREAM_FULL && behind &&
	    (taken == STREAM_NEXT || d->flags & FAN_FLAG_REPLAY)) {
		s->mended_cnt++;
		s->mended_ns = now_ns;
	}
	arm(s, behind, now_ns);
	return taken;
}

/* ---- what follows ---------------------------------------------------------------------------- */

static bool is_gone(const struct stream *s, uint64_t sequence)
{
	struct stream_held *held = held_at(s, sequence);

	if (held)
		return held == &gone_mark;
	return s->finished || sequence <= s->gone_to;
}

/* The last of what is gone from cursor + 1 on. */
static uint64_t gone_last(const struct stream *s)
{
	uint64_t edge = s->tail - s->cursor > STREAM_WINDOW ? s->cursor + STREAM_WINDOW : s->tail;
	uint64_t last = s->cursor + 1, beyond;

	while (last < edge && is_gone(s, last + 1))
		last++;
	if (last < edge || last == s->tail)
		return last;
	beyond = s->finished ? s->tail : clock_earlier(s->gone_to, s->tail);
	return beyond > last ? beyond : last;
}

enum stream_step stream_next(struct stream *s, struct stream_range *range,
			     struct stream_held **held)
{
	struct stream_held **slot;

	if (!stream_behind(s))
		return STREAM_NOTHING;
	slot = slot_of(s, s->cursor + 1);
	if (slot && *slot && *slot != &gone_mark) {
		*held = *slot;
		slot_empty(s, slot);
		cursor_set(s, s->cursor + 1);
		return STREAM_DATAGRAM;
	}
	if (!is_gone(s, s->cursor + 1))
		return STREAM_NOTHING;
	*range = (struct stream_range){s->cursor + 1, gone_last(s)};
	for (uint64_t i = range->first; i <= range->last; i++) {
		slot = slot_of(s, i);
		if (!slot)
			break;
		if (*slot)
			slot_empty(s, slot);
	}
	cursor_set(s, range->last);
	return STREAM_LOST;
}

void stream_finish(struct stream *s)
{
	s->finished = true;
	s->due_ns = CLOCK_NEVER;
}

/* ---- what is missing ------------------------------------------------------------------------- */

/* What has come of the last request says how much at a time gets through. */
static void chunk_adapt(struct stream *s)
{
	if (s->cursor >= s->asked_to && s->chunk < STREAM_WINDOW)
		s->chunk *= 2;
	else if (s->mended_cnt && s->mended_cnt < s->asked_cnt / 4 && s->chunk > CHUNK_LEAST)
		s->chunk /= 2;
}

/* Runs of what is not there, from the cursor on, as much as a chunk has and the window holds. */
static unsigned missing(struct stream *s, struct stream_range ranges[STREAM_ASKS])
{
	uint64_t edge = s->tail - s->cursor > STREAM_WINDOW ? s->cursor + STREAM_WINDOW : s->tail;
	unsigned cnt = 0;

	s->asked_cnt = 0;
	for (uint64_t i = s->cursor + 1; i <= edge && s->asked_cnt < s->chunk; i++) {
		if (held_at(s, i))
			continue;
		if (cnt && ranges[cnt - 1].last + 1 == i) {
			ranges[cnt - 1].last = i;
		} else if (cnt < STREAM_ASKS) {
			ranges[cnt++] = (struct stream_range){i, i};
		} else {
			break;
		}
		s->asked_cnt++;
	}
	return cnt;
}

static unsigned ask(struct stream *s, uint64_t now_ns, struct stream_range ranges[STREAM_ASKS])
{
	unsigned cnt;

	if (s->asked && s->cursor < s->asked_to && s->mended_cnt &&
	    now_ns < s->mended_ns + BACKOFF_FIRST) { /* the answer is still coming */
		s->due_ns = s->mended_ns + BACKOFF_FIRST;
		return 0;
	}
	if (s->asked_cnt)
		chunk_adapt(s);
	if (s->mended_cnt || !s->asked)
		s->backoff_ns = BACKOFF_FIRST;
	cnt = missing(s, ranges);
	if (!cnt)
		return 0;
	s->due_ns = now_ns + jittered(s, s->backoff_ns);
	s->backoff_ns = clock_earlier(s->backoff_ns * 2, BACKOFF_LAST);
	s->asked = true;
	s->asked_to = ranges[cnt - 1].last;
	s->mended_cnt = 0;
	s->request_cnt += cnt;
	return cnt;
}

/* No status has come since the last event: it may have got lost, and events behind that one. */
static unsigned probe(struct stream *s, uint64_t now_ns, struct stream_range ranges[STREAM_ASKS])
{
	if (!stream_asks(s) || s->sure || s->probe_cnt == PROBES_MOST || !s->epoch) {
		s->due_ns = CLOCK_NEVER;
		return 0;
	}
	if (now_ns < s->touched_ns + PROBE_NS) {
		s->due_ns = s->touched_ns + PROBE_NS;
		return 0;
	}
	ranges[0] = (struct stream_range){s->cursor + 1, UINT64_MAX};
	s->due_ns = now_ns + jittered(s, PROBE_NS << s->probe_cnt++);
	s->request_cnt++;
	return 1;
}

unsigned stream_due(struct stream *s, uint64_t now_ns, struct stream_range ranges[STREAM_ASKS])
{
	if (now_ns < s->due_ns || s->finished)
		return 0;
	if (!stream_behind(s))
		return probe(s, now_ns, ranges);
	if (stream_asks(s))
		return ask(s, now_ns, ranges);
	s->due_ns = CLOCK_NEVER;
	if (s->policy == FAN_DISCONNECT)
		s->slow = true;
	else
		s->gone_to = s->tail;
	return 0;
}
