/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/subscription.h"

#define BACKLOG_NS (100 * CLOCK_MS_NS) /* until one asks though the socket may hold the answer */

/* ---- what is at hand ------------------------------------------------------------------------- */

/* True where a datagram is at hand; fills the batch when it is used up. */
static bool batch_fill(struct fan_subscription *s)
{
	if (s->batch.next < s->batch.cnt)
		return true;
	if (!s->transport->fill(s))
		return false;
	s->batch.filled_ns = s->transport->now(s);
	s->batch.looked = false;
	return true;
}

static uint8_t *batch_head(const struct fan_subscription *s, size_t *len)
{
	*len = s->batch.lens[s->batch.next];
	return s->batch.packets[s->batch.next];
}

/* The kernel's filter has judged already; this holds where it is absent. */
static bool head_decode(const struct fan_subscription *s, struct fan_delivery *d)
{
	size_t len;
	const uint8_t *packet = batch_head(s, &len);

	return fan_delivery_decode(packet, len, d) == FAN_WIRE_OK &&
	       memcmp(d->handle, s->handle, FAN_HANDLE_LEN) == 0;
}

static void answer_challenge(struct fan_subscription *s, const struct fan_delivery *d)
{
	struct fan_echo echo = {.connection = s->id, .salt = d->epoch, .proof = d->sequence};
	uint8_t packet[FAN_ECHO_LEN];

	if (d->channel != (FAN_CHANNEL_SINGLE | s->id))
		return;
	fan_echo_encode(packet, &echo);
	s->transport->send(s, packet, sizeof(packet));
}

void receive_challenges(struct fan_subscription *s)
{
	struct fan_delivery d;

	while (batch_fill(s)) {
		if (head_decode(s, &d)) {
			if (d.type != FAN_TYPE_CHALLENGE)
				return;
			answer_challenge(s, &d);
		}
		s->batch.next++;
	}
}

/* ---- one datagram ---------------------------------------------------------------------------- */

/* Looks for what follows in streams from..to - 1 before anything else is taken. */
static void settle(struct fan_subscription *s, size_t from, size_t to)
{
	s->settle_at = from;
	s->settle_end = to;
}

static void settle_one(struct fan_subscription *s, const struct stream *stream)
{
	size_t idx = (size_t)(stream - s->streams);

	if (stream_behind(stream))
		settle(s, idx, idx + 1);
}

/* The next datagram of a stream, in order: 1 where it completes *event, 0 or -ENOMEM. */
static int give(struct fan_subscription *s, const struct stream *stream, bool followed,
		const struct fan_delivery *d, const uint8_t *payload, struct fan_event *event)
{
	struct reassembled whole;
	int status;

	s->reassembly.muted = stream_told(stream, d->sequence);
	status = reassembly_add(&s->reassembly, d, payload, followed, s->batch.filled_ns, &whole);
	if (status > 0 && s->reassembly.muted)
		status = 0;
	s->reassembly.muted = false;
	if (status <= 0)
		return status;
	s->held_first = whole.first;
	*event = (struct fan_event){.type = FAN_EVENT_DATA,
				    .channel = d->channel,
				    .thread = stream->thread,
				    .epoch = d->epoch,
				    .sequence = d->sequence,
				    .time_ns = d->time_ns,
				    .kind = d->kind,
				    .publisher = d->session,
				    .payload = whole.bytes,
				    .payload_len = whole.len,
				    .recovered = whole.recovered};
	return 1;
}

/* What does not open has not come. */
static bool open_seal(struct fan_subscription *s, const struct fan_delivery *d)
{
	size_t len;
	uint8_t *packet = batch_head(s, &len);

	/* keys rotate: those of a new generation are sent before it is used, by another way */
	if (!unseal_knows(&s->unseal, d->key_generation) && !s->batch.looked) {
		s->batch.looked = true;
		subscription_listen(s, s->batch.filled_ns);
	}
	if (unseal_open(&s->unseal, d, packet) == 0) {
		s->counts.opened++;
		return true;
	}
	s->counts.failed++;
	return false;
}

static int take_delivery(struct fan_subscription *s, struct stream *stream,
			 const struct fan_delivery *d, struct fan_event *event)
{
	enum stream_verdict verdict = stream_judge(stream, d);
	bool followed = stream->followed;
	const uint8_t *payload;
	enum stream_taken taken;
	bool sealed;
	size_t len;

	s->counts.duplicates += verdict == STREAM_DUPLICATE;
	if (verdict != STREAM_NEW)
		return 0;
	/* where it is said to be off, and fanwired's word of the change is still on its way */
	sealed = s->seal || !sodium_is_zero(d->seal_tag, sizeof(d->seal_tag));
	if (sealed && !open_seal(s, d)) {
		if (d->flags & FAN_FLAG_REPLAY)
			stream_spoilt(stream, d->epoch, d->sequence);
		settle_one(s, stream);
		return 0;
	}
	payload = batch_head(s, &len) + FAN_DELIVERY_LEN;
	taken = stream_take(stream, d, payload, s->batch.filled_ns, &s->reassembly);
	if (taken == STREAM_FULL)
		return 0;
	s->counts.repaired += (d->flags & FAN_FLAG_REPLAY) != 0;
	if (taken == STREAM_HELD)
		return 0;
	settle_one(s, stream);
	return give(s, stream, followed, d, payload, event);
}

static struct stream *find_stream(struct fan_subscription *s, uint64_t channel)
{
	for (size_t i = 0; i < s->stream_cnt; i++) {
		if (s->streams[i].channel == channel)
			return &s->streams[i];
	}
	return NULL;
}

static int take_of_stream(struct fan_subscription *s, struct stream *stream,
			  const struct fan_delivery *d, struct fan_event *event)
{
	struct stream_word word = {d->epoch, d->sequence, d->time_ns};

	switch (d->type) {
	case FAN_TYPE_DELIVERY:
		return take_delivery(s, stream, d, event);
	case FAN_TYPE_STATUS:
		stream_status(stream, &word, s->batch.filled_ns, &s->reassembly);
		return 0;
	case FAN_TYPE_LOST:
		stream_gone(stream, d->epoch, d->sequence, d->publisher_sequence,
			    s->batch.filled_ns, &s->reassembly);
		settle_one(s, stream);
		return 0;
	}
	return 0;
}

/* 1: *event; 0: nothing to tell; the datagram at the head is used up either way. */
static int take_head(struct fan_subscription *s, struct fan_event *event)
{
	struct stream *stream;
	struct fan_delivery d;
	int status;

	if (!head_decode(s, &d))
		return 0;
	if (d.type == FAN_TYPE_CHALLENGE) {
		answer_challenge(s, &d);
		return 0;
	}
	stream = find_stream(s, d.channel);
	if (!stream)
		return 0;
	status = take_of_stream(s, stream, &d, event);
	if (d.epoch && d.epoch != stream->epoch) /* which of both is the present one, then? */
		subscription_hasten(s);
	return status;
}

/* ---- what follows ---------------------------------------------------------------------------- */

/* Of what is held back, and of what is known to be gone: as take_head(). */
static int take_settled(struct fan_subscription *s, struct fan_event *event)
{
	struct stream *stream = &s->streams[s->settle_at];
	struct reassembly_range lost;
	struct stream_range range;
	bool followed = stream->followed;

	switch (stream_next(stream, &range, &s->given)) {
	case STREAM_NOTHING:
		s->settle_at++;
		return 0;
	case STREAM_LOST:
		if (stream_told(stream, range.last))
			return 0;
		if (stream_told(stream, range.first))
			range.first = stream->told_to + 1;
		lost = (struct reassembly_range){stream->channel, stream->epoch, range.first,
						 range.last};
		reassembly_lose(&s->reassembly.lost, &lost);
		return 0;
	case STREAM_DATAGRAM:
		s->given_by = stream;
		return give(s, stream, followed, &s->given->header, s->given->payload, event);
	}
	return 0;
}

/* What the application had until now. */
static void release_given(struct fan_subscription *s)
{
	if (s->given)
		stream_release(s->given_by, s->given);
	s->given = NULL;
}

/* Of the event's stream, what is not told with it. An event that waits behind a loss is the rest.
 */
static uint64_t unfinished(const struct fan_subscription *s, const struct fan_event *event)
{
	uint64_t first = reassembly_unfinished(&s->reassembly, event->channel, event->epoch);

	if (s->holds && s->held.channel == event->channel && s->held.epoch == event->epoch &&
	    (!first || s->held_first < first))
		first = s->held_first;
	return first;
}

static bool next_lost(struct fan_subscription *s, struct fan_event *event)
{
	struct reassembly_range range;
	struct stream *stream;

	if (!reassembly_next_lost(&s->reassembly.lost, &range))
		return false;
	stream = find_stream(s, range.channel);
	s->counts.lost += range.last == UINT64_MAX ? 1 : range.last - range.first + 1;
	*event = (struct fan_event){.type = FAN_EVENT_LOST,
				    .channel = range.channel,
				    .thread = stream ? stream->thread : NULL,
				    .epoch = range.epoch,
				    .sequence = range.last,
				    .lost_first = range.first,
				    .lost_last = range.last};
	event->unfinished = unfinished(s, event);
	return true;
}

enum receive_outcome receive_next(struct fan_subscription *s, struct fan_event *event)
{
	for (unsigned useless = 0; useless < RECEIVE_BATCH;) {
		int status;

		if (s->reassembly.lost.dropped) /* and now for ever: nothing may come after it */
			return RECEIVE_NO_MEMORY;
		if (next_lost(s, event))
			return RECEIVE_EVENT;
		if (s->holds) {
			*event = s->held;
			s->holds = false;
			event->unfinished = unfinished(s, event);
			return RECEIVE_EVENT;
		}
		release_given(s);
		/* what is lost before an event is told before it */
		if (s->settle_at < s->settle_end) {
			status = take_settled(s, &s->held);
		} else {
			if (!batch_fill(s)) {
				unseal_drained(&s->unseal);
				return RECEIVE_EMPTY;
			}
			status = take_head(s, &s->held);
			s->batch.next++;
			useless++;
		}
		s->holds = status == 1;
		if (status < 0)
			return RECEIVE_NO_MEMORY;
	}
	return RECEIVE_MORE;
}

/* ---- what only time tells -------------------------------------------------------------------- */

static void request(struct fan_subscription *s, const struct stream *stream,
		    const struct stream_range *range)
{
	struct fan_replay replay = {.connection = s->id,
				    .channel = stream->channel,
				    .epoch = stream->epoch,
				    .first = range->first,
				    .last = range->last,
				    .counter = ++s->replay_counter};
	uint8_t packet[FAN_REPLAY_LEN];

	memcpy(replay.handle, s->handle, FAN_HANDLE_LEN);
	fan_replay_encode(packet, &replay, s->replay_key);
	s->transport->send(s, packet, sizeof(packet));
	s->counts.requests++;
}

void receive_expire(struct fan_subscription *s, uint64_t now_ns, bool empty)
{
	struct stream_range ranges[STREAM_ASKS];
	bool behind = false;

	for (size_t i = 0; i < s->stream_cnt; i++) {
		struct stream *stream = &s->streams[i];
		unsigned cnt = 0;

		behind |= stream_behind(stream);
		if (empty ? now_ns >= stream->due_ns
			  : stream_asks(stream) && now_ns > stream->due_ns + BACKLOG_NS)
			cnt = stream_due(stream, now_ns, ranges);
		for (unsigned k = 0; k < cnt; k++)
			request(s, stream, &ranges[k]);
		if (stream->slow && !s->ended)
			subscription_end(s, "slow",
					 "events were missed, and the policy is to leave then; "
					 "subscribe again");
	}
	if (!empty)
		return;
	if (behind) /* a stream whose missing counts as lost by now */
		settle(s, 0, s->stream_cnt);
	else /* while something is missing, its fragments may be */
		reassembly_expire(&s->reassembly, now_ns);
}

bool receive_finish(struct fan_subscription *s)
{
	switch (s->finishing++) {
	case 0:
		for (size_t i = 0; i < s->stream_cnt; i++)
			stream_finish(&s->streams[i]);
		settle(s, 0, s->stream_cnt);
		return true;
	case 1:
		reassembly_drop_all(&s->reassembly);
		return true;
	}
	s->finishing = 2;
	return false;
}

uint64_t receive_deadline(const struct fan_subscription *s)
{
	uint64_t deadline_ns = CLOCK_NEVER;
	bool behind = false;

	if (s->holds || s->reassembly.lost.cnt || s->batch.next < s->batch.cnt ||
	    s->settle_at < s->settle_end)
		return 0;
	for (size_t i = 0; i < s->stream_cnt; i++) {
		deadline_ns = clock_earlier(deadline_ns, s->streams[i].due_ns);
		behind |= stream_behind(&s->streams[i]);
	}
	return behind ? deadline_ns
		      : clock_earlier(deadline_ns, reassembly_deadline(&s->reassembly));
}

void receive_fini(struct fan_subscription *s)
{
	release_given(s);
	reassembly_fini(&s->reassembly);
	for (size_t i = 0; i < s->stream_cnt; i++)
		stream_fini(&s->streams[i]);
	free(s->streams);
	s->streams = NULL;
	s->stream_cnt = 0;
}
