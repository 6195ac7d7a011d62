/* SPDX-License-Identifier: BSD-3-Clause */
/* Replay: who asks rightly is sent what he missed, at his registered place; nobody else is. */
#include <criterion/criterion.h>

#include "dataplane/housekeeping.h"
#include "dataplane/log.h"
#include "dataplane/replay.h"
#include "tests/unit/dataplane/replay_asks.h"

#define PORT	   25500
#define GENERATION 3 /* the fixture's users' */

static struct pipeline p;
static struct fan_group *alice, *bob;
static struct seen seen;

static void open_one(void)
{
	pipeline_open(&p, 1);
	status_hold(&p);
	memset(p.regions.root->replay_root, 0x33, sizeof(p.regions.root->replay_root));
	alice = region_add_group(&p.regions, "alice", 0, 2, 4, 0, PORT);
	bob = region_add_group(&p.regions, "bob", 0, 2, 4, 0, PORT + 100);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(replay, .init = open_one, .fini = close_one);

static uint64_t connection_of(const struct fan_group *group, unsigned idx)
{
	return p.regions.endpoints[(group->endpoints >> FAN_ENDPOINT_CNT_BITS) + idx].connection;
}

static void ask_range(const struct fan_group *group, unsigned idx, uint64_t first, uint64_t last)
{
	struct fan_replay request = ask_of(&p, group, connection_of(group, idx), first, last);

	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
}

/* Sequences first..last came to this port, marked as sent again, then a status. */
static void expect_range(unsigned from, uint64_t first, uint64_t last, uint16_t port)
{
	for (uint64_t s = first; s <= last; s++, from++) {
		const struct fan_delivery *d = &seen.delivery[from];

		cr_assert_lt(from, seen.cnt);
		cr_expect_eq(d->type, FAN_TYPE_DELIVERY);
		cr_expect_eq(d->sequence, s);
		cr_expect(d->flags & FAN_FLAG_REPLAY);
		cr_expect_eq(seen.port[from], port);
	}
}

Test(replay, sends_a_range_again_in_order_then_says_where_the_stream_stands)
{
	publish_events(&p, "alice", 40, 30);
	ask_range(alice, 1, 7, 19);
	cr_assert_eq(seen.cnt, 14);
	expect_range(0, 7, 19, PORT + 1);
	cr_expect_eq(seen.delivery[13].type, FAN_TYPE_STATUS);
	cr_expect_eq(seen.delivery[13].sequence, 40);
	cr_expect_eq(seen.delivery[13].epoch, p.plane.group_states[0].epoch);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_sent), 13);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), 1);
}
