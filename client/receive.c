/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "client/error.h"
#include "client/subscription.h"

#define TAIL_GRACE_NS (50 * CLOCK_MS_NS) /* a status may overtake its event by a little */

/* True where a datagram is at hand; fills the batch when it is used up. */
static bool batch_fill(struct fan_subscription *s)
{
	if (s->batch.next < s->batch.cnt)
		return true;
	if (!s->transport->fill(s))
		return false;
	s->batch.filled_ns = s->transport->now(s);
	return true;
}

static const uint8_t *batch_head(const struct fan_subscription *s, size_t *len)
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

static struct stream *find_stream(struct fan_subscription *s, uint64_t channel)
{
	for (size_t i = 0; i < s->stream_cnt; i++) {
		if (s->streams[i].channel == channel)
			return &s->streams[i];
	}
	return NULL;
}

/* Whether an epoch is one that this stream has left: what comes from it came too late. */
static bool is_old(const struct stream *stream, uint64_t epoch)
{
	unsigned kept = stream->old_cnt < STREAM_HISTORY ? stream->old_cnt : STREAM_HISTORY;

	for (unsigned i = 0; i < kept; i++) {
		if (stream->old_epochs[i] == epoch)
			return true;
	}
	return false;
}

static void enter_epoch(struct fan_subscription *s, struct stream *stream, uint64_t epoch,
			uint64_t cursor)
{
	if (stream->joined) {
		reassembly_drop_stream(&s->reassembly, stream->channel, stream->epoch);
		stream->old_epochs[stream->old_cnt++ % STREAM_HISTORY] = stream->epoch;
	}
	stream->joined = true;
	stream->epoch = epoch;
	stream->cursor = cursor;
	stream->tail = 0;
	stream->tail_due_ns = CLOCK_NEVER;
}

static void lose_up_to(struct fan_subscription *s, struct stream *stream, uint64_t last)
{
	struct reassembly_range range = {stream->channel, stream->epoch, stream->cursor + 1, last};

	if (range.first > range.last)
		return;
	reassembly_lose(&s->reassembly.lost, &range);
	stream->cursor = last;
}

static void take_status(struct fan_subscription *s, struct stream *stream,
			const struct fan_delivery *d)
{
	if (!stream->joined) { /* what went before is not ours to miss */
		enter_epoch(s, stream, d->epoch, d->sequence);
		return;
	}
	if (d->epoch != stream->epoch)
		enter_epoch(s, stream, d->epoch, 0);
	if (d->sequence <= stream->cursor || d->sequence <= stream->tail)
		return;
	stream->tail = d->sequence;
	if (stream->tail_due_ns == CLOCK_NEVER)
		stream->tail_due_ns = clock_now_ns() + TAIL_GRACE_NS;
}

static int take_delivery(struct fan_subscription *s, struct stream *stream,
			 const struct fan_delivery *d, struct fan_event *event)
{
	bool joined = stream->joined;
	const uint8_t *bytes;
	size_t len;
	int status;

	if (!joined) {
		enter_epoch(s, stream, d->epoch, d->sequence - 1);
	} else if (d->epoch != stream->epoch) {
		enter_epoch(s, stream, d->epoch, 0);
	}
	if (d->sequence <= stream->cursor)
		return 0; /* a duplicate */
	lose_up_to(s, stream, d->sequence - 1);
	stream->cursor = d->sequence;
	if (stream->tail <= stream->cursor)
		stream->tail_due_ns = CLOCK_NEVER;
	status = reassembly_add(&s->reassembly, d, batch_head(s, &len) + FAN_DELIVERY_LEN, joined,
				s->batch.filled_ns, &bytes, &len);
	if (status <= 0)
		return status;
	*event = (struct fan_event){.type = FAN_EVENT_DATA,
				    .channel = d->channel,
				    .thread = stream->thread,
				    .epoch = d->epoch,
				    .sequence = d->sequence,
				    .time_ns = d->time_ns,
				    .kind = d->kind,
				    .publisher = d->session,
				    .payload = bytes,
				    .payload_len = len};
	return 1;
}

/* 1: *event; 0: nothing to tell; the datagram at the head is used up either way. */
static int take_head(struct fan_subscription *s, struct fan_event *event)
{
	struct stream *stream;
	struct fan_delivery d;

	if (!head_decode(s, &d))
		return 0;
	if (d.type == FAN_TYPE_CHALLENGE) {
		answer_challenge(s, &d);
		return 0;
	}
	stream = find_stream(s, d.channel);
	if (!stream || d.sequence == 0 || d.epoch == 0 || is_old(stream, d.epoch))
		return 0;
	if (d.type == FAN_TYPE_STATUS) {
		take_status(s, stream, &d);
		return 0;
	}
	return take_delivery(s, stream, &d, event);
}

static bool next_lost(struct fan_subscription *s, struct fan_event *event)
{
	struct reassembly_range range;
	struct stream *stream;

	if (!reassembly_next_lost(&s->reassembly.lost, &range))
		return false;
	stream = find_stream(s, range.channel);
	*event = (struct fan_event){.type = FAN_EVENT_LOST,
				    .channel = range.channel,
				    .thread = stream ? stream->thread : NULL,
				    .epoch = range.epoch,
				    .sequence = range.last,
				    .lost_first = range.first,
				    .lost_last = range.last};
	return true;
}

enum receive_outcome receive_next(struct fan_subscription *s, struct fan_event *event)
{
	for (unsigned useless = 0; useless < RECEIVE_BATCH; useless++) {
		int status;

		if (next_lost(s, event))
			return RECEIVE_EVENT;
		if (s->holds) {
			*event = s->held;
			s->holds = false;
			return RECEIVE_EVENT;
		}
		if (!batch_fill(s))
			return RECEIVE_EMPTY;
		/* what is lost before an event is told before it */
		status = take_head(s, &s->held);
		s->holds = status == 1;
		s->batch.next++;
		if (status < 0)
			return RECEIVE_NO_MEMORY;
	}
	return RECEIVE_MORE;
}

void receive_expire(struct fan_subscription *s, uint64_t now_ns)
{
	for (size_t i = 0; i < s->stream_cnt; i++) {
		struct stream *stream = &s->streams[i];

		if (now_ns < stream->tail_due_ns)
			continue;
		lose_up_to(s, stream, stream->tail);
		stream->tail_due_ns = CLOCK_NEVER;
	}
	reassembly_expire(&s->reassembly, now_ns);
}

uint64_t receive_deadline(const struct fan_subscription *s)
{
	uint64_t deadline_ns = reassembly_deadline(&s->reassembly);

	if (s->holds || s->reassembly.lost.cnt || s->batch.next < s->batch.cnt)
		return 0;
	for (size_t i = 0; i < s->stream_cnt; i++)
		deadline_ns = clock_earlier(deadline_ns, s->streams[i].tail_due_ns);
	return deadline_ns;
}
