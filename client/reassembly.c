/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/reassembly.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Room for one more element of an array that doubles. */
static int grow(struct reassembly_range **ranges, size_t cnt, size_t *room)
{
	size_t wanted = *room ? *room * 2 : 8;
	struct reassembly_range *larger;

	if (cnt < *room)
		return 0;
	larger = realloc(*ranges, wanted * sizeof(**ranges));
	if (!larger)
		return -ENOMEM;
	*ranges = larger;
	*room = wanted;
	return 0;
}

static int append(struct reassembly_range **ranges, size_t from, size_t *cnt, size_t *room,
		  const struct reassembly_range *range)
{
	struct reassembly_range *last = *cnt > from ? &(*ranges)[*cnt - 1] : NULL;

	if (last && last->channel == range->channel && last->epoch == range->epoch &&
	    last->last + 1 == range->first) {
		last->last = range->last;
		return 0;
	}
	if (grow(ranges, *cnt, room) < 0)
		return -ENOMEM;
	(*ranges)[(*cnt)++] = *range;
	return 0;
}

void reassembly_lose(struct reassembly_lost *lost, const struct reassembly_range *range)
{
	if (append(&lost->ranges, lost->head, &lost->cnt, &lost->room, range) < 0)
		lost->dropped = true;
}

bool reassembly_next_lost(struct reassembly_lost *lost, struct reassembly_range *range)
{
	if (lost->head == lost->cnt)
		return false;
	*range = lost->ranges[lost->head++];
	if (lost->head == lost->cnt)
		lost->head = lost->cnt = 0;
	return true;
}

static void release(struct reassembly *r, struct assembly *a)
{
	free(a->bytes);
	free(a->runs);
	memset(a, 0, sizeof(*a));
	r->used_cnt--;
}

static void give_up(struct reassembly *r, struct assembly *a)
{
	for (size_t i = 0; !a->silent && !r->muted && i < a->run_cnt; i++)
		reassembly_lose(&r->lost, &a->runs[i]);
	release(r, a);
}

void reassembly_fini(struct reassembly *r)
{
	for (unsigned i = 0; i < REASSEMBLY_CNT; i++) {
		if (r->assemblies[i].used)
			release(r, &r->assemblies[i]);
	}
	free(r->complete);
	free(r->lost.ranges);
	memset(r, 0, sizeof(*r));
}

static struct assembly *find(struct reassembly *r, const struct fan_delivery *d)
{
	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		struct assembly *a = &r->assemblies[i];

		if (a->used && a->channel == d->channel && a->epoch == d->epoch &&
		    a->session == d->session)
			return a;
	}
	return NULL;
}

/* A free one, or the one that waited for the longest, which is given up for it. */
static struct assembly *make(struct reassembly *r, const struct fan_delivery *d)
{
	struct assembly *a = &r->assemblies[0];

	for (unsigned i = 0; i < REASSEMBLY_CNT && a->used; i++) {
		struct assembly *other = &r->assemblies[i];

		if (!other->used || other->touched_ns < a->touched_ns)
			a = other;
	}
	if (a->used) {
		bool muted = r->muted;

		r->muted = false; /* this one is another's */
		give_up(r, a);
		r->muted = muted;
	}
	r->used_cnt++;
	a->used = true;
	a->channel = d->channel;
	a->epoch = d->epoch;
	a->session = d->session;
	return a;
}

static void set_broken(struct assembly *a)
{
	free(a->bytes);
	a->bytes = NULL;
	a->len = a->room = 0;
	a->broken = true;
}

static int take(struct assembly *a, const struct fan_delivery *d, const uint8_t *payload)
{
	struct reassembly_range range = {d->channel, d->epoch, d->sequence, d->sequence};

	a->next = d->publisher_sequence + 1;
	if (append(&a->runs, 0, &a->run_cnt, &a->run_room, &range) < 0)
		return -ENOMEM;
	if (a->len + d->payload_len > FAN_EVENT_MAX)
		set_broken(a); /* no publisher of ours sends that */
	if (a->broken)
		return 0;
	if (a->len + d->payload_len > a->room) {
		size_t wanted = a->room ? a->room * 2 : 16 * (size_t)FAN_PAYLOAD_MAX;
		uint8_t *larger = realloc(a->bytes, wanted);

		if (!larger)
			return -ENOMEM;
		a->bytes = larger;
		a->room = wanted;
	}
	memcpy(a->bytes + a->len, payload, d->payload_len);
	a->len += d->payload_len;
	return 0;
}

static int finish(struct reassembly *r, struct assembly *a, struct reassembled *event)
{
	if (a->broken) {
		give_up(r, a);
		return 0;
	}
	free(r->complete);
	r->complete = a->bytes;
	*event = (struct reassembled){a->bytes, a->len, a->recovered, a->runs[0].first};
	a->bytes = NULL;
	release(r, a);
	return 1;
}

int reassembly_add(struct reassembly *r, const struct fan_delivery *d, const uint8_t *payload,
		   bool followed, uint64_t now_ns, struct reassembled *event)
{
	struct assembly *a = find(r, d);
	bool recovered = d->flags & FAN_FLAG_REPLAY;
	int status;

	if (a && (d->publisher_sequence != a->next || (d->flags & FAN_FLAG_BEGIN))) {
		give_up(r, a);
		a = NULL;
	}
	if ((d->flags & FAN_FLAG_BEGIN) && (d->flags & FAN_FLAG_END)) {
		*event = (struct reassembled){payload, d->payload_len, recovered, d->sequence};
		return 1;
	}
	if (!a) {
		a = make(r, d);
		a->broken = !(d->flags & FAN_FLAG_BEGIN);
		a->silent = a->broken && !followed;
	}
	a->touched_ns = now_ns;
	a->recovered |= recovered;
	status = take(a, d, payload);
	if (status < 0) {
		give_up(r, a);
		return status;
	}
	return d->flags & FAN_FLAG_END ? finish(r, a, event) : 0;
}

uint64_t reassembly_unfinished(const struct reassembly *r, uint64_t channel, uint64_t epoch)
{
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		const struct assembly *a = &r->assemblies[i];

		if (a->used && !a->silent && a->channel == channel && a->epoch == epoch &&
		    a->run_cnt && a->runs[0].first < first)
			first = a->runs[0].first;
	}
	for (size_t i = r->lost.head; i < r->lost.cnt; i++) {
		const struct reassembly_range *lost = &r->lost.ranges[i];

		if (lost->channel == channel && lost->epoch == epoch && lost->first < first)
			first = lost->first;
	}
	return first == UINT64_MAX ? 0 : first;
}

void reassembly_expire(struct reassembly *r, uint64_t now_ns)
{
	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		struct assembly *a = &r->assemblies[i];

		if (a->used && now_ns >= a->touched_ns + REASSEMBLY_EXPIRY_NS)
			give_up(r, a);
	}
}

void reassembly_drop_stream(struct reassembly *r, uint64_t channel, uint64_t epoch)
{
	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		struct assembly *a = &r->assemblies[i];

		if (a->used && a->channel == channel && a->epoch == epoch)
			give_up(r, a);
	}
}

void reassembly_drop_all(struct reassembly *r)
{
	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		if (r->assemblies[i].used)
			give_up(r, &r->assemblies[i]);
	}
}

uint64_t reassembly_deadline(const struct reassembly *r)
{
	uint64_t deadline_ns = UINT64_MAX;

	for (unsigned i = 0; r->used_cnt && i < REASSEMBLY_CNT; i++) {
		const struct assembly *a = &r->assemblies[i];

		if (a->used && a->touched_ns + REASSEMBLY_EXPIRY_NS < deadline_ns)
			deadline_ns = a->touched_ns + REASSEMBLY_EXPIRY_NS;
	}
	return deadline_ns;
}
