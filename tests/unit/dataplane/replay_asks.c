/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/dataplane/replay_asks.h"

#include <criterion/criterion.h>

#include "common/wire/handle.h"
#include "dataplane/housekeeping.h"
#include "dataplane/status.h"

static uint64_t published; /* of session slot 0 */

struct fan_replay ask_of(const struct pipeline *p, const struct fan_group *group,
			 uint64_t connection, uint64_t first, uint64_t last)
{
	static uint64_t counter_last;
	struct fan_replay request = {
		.connection = connection,
		.channel = group->channel,
		.epoch = p->plane.group_states[group - p->regions.groups].epoch,
		.first = first,
		.last = last,
		.counter = ++counter_last,
	};

	memcpy(request.handle, group->handle, sizeof(request.handle));
	return request;
}

/* Of those that the fixture made. */
static const struct fan_endpoint *endpoint_of(const struct pipeline *p, uint64_t connection)
{
	const struct fan_endpoint *endpoint = p->regions.endpoints;

	while (endpoint->connection != connection)
		cr_assert_lt(++endpoint - p->regions.endpoints, p->regions.endpoint_next);
	return endpoint;
}

uint16_t ask_make(const struct pipeline *p, uint8_t frame[2048], const struct fan_replay *request,
		  uint32_t user_generation)
{
	const struct fan_endpoint *endpoint = endpoint_of(p, request->connection);
	uint8_t key[FAN_TAG_KEY_LEN], wire[FAN_REPLAY_LEN];

	fan_replay_key(key, p->regions.root->replay_root, request->connection,
		       p->regions.connections[endpoint->record].generation, user_generation,
		       request->handle);
	fan_replay_encode(wire, request, key);
	return datagram_make(frame, 4, endpoint->port, wire, sizeof(wire));
}

void ask(struct pipeline *p, const struct fan_replay *request, uint32_t user_generation)
{
	uint8_t frame[2048];

	feed(p, frame, ask_make(p, frame, request, user_generation));
}

void loops(struct pipeline *p, unsigned idx)
{
	struct worker *w = p->plane.workers[idx];

	while (housekeeping(w, worker_burst(w, NULL, 0)))
		;
}

void see(struct pipeline *p, struct seen *seen)
{
	struct frame frame;

	while (take(p, &frame)) {
		struct fan_delivery *d = &seen->delivery[seen->cnt];

		if (frame.wire[1] == FAN_TYPE_ACK)
			continue;
		cr_assert_lt(seen->cnt, SEEN_MAX);
		cr_assert_eq(fan_delivery_decode(frame.wire, frame.wire_len, d), FAN_WIRE_OK);
		cr_expect(fan_filter_tag_ok(frame.wire, p->regions.groups[0].tag_key));
		seen->port[seen->cnt++] = frame.target_port;
	}
}

unsigned seen_type(const struct seen *seen, uint8_t type)
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < seen->cnt; i++)
		cnt += seen->delivery[i].type == type;
	return cnt;
}

void status_hold(struct pipeline *p)
{
	for (unsigned i = 0; i < p->plane.worker_cnt; i++)
		for (unsigned stage = 0; stage < STATUS_STAGES; stage++)
			p->plane.workers[i]->status->waits[stage] = INT32_MAX;
}

void publish_events(struct pipeline *p, const char *user, unsigned cnt, uint16_t payload_len)
{
	for (unsigned i = 0; i < cnt; i++) {
		publish(p, &(struct publish_spec){.sequence = ++published,
						  .user = user,
						  .payload_len = payload_len});
		take_all(p);
	}
}
