/* SPDX-License-Identifier: BSD-3-Clause */
/* Replay: who asks rightly is sent what he missed, at his registered place; nobody else is. */
#include <criterion/criterion.h>

#include "common/wire/handle.h"
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
	p.plane.workers[0]->log->share_max = UINT32_MAX; /* all of ring 0 is anybody's */
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

/* One connection's repair costs the others nothing, and brings nothing of another channel. */
Test(replay, a_connection_is_sent_its_own_channel_only)
{
	struct fan_group *thread =
		region_add_group(&p.regions, "alice", FAN_CHANNEL_THREAD | 7, 1, 4, 0, PORT + 50);
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	/* Not a member of that channel, though of the same user. */
	request = ask_of(&p, thread, connection_of(alice, 0), 1, UINT64_MAX);
	request.epoch = p.plane.group_states[0].epoch;
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_unknown), 1);
}

/* A request of another's connection, another's key, another generation: nothing, to nobody. */
Test(replay, forged_and_foreign_requests_get_nothing)
{
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 5);
	ask(&p, &request, GENERATION + 1); /* a revoked generation's key */
	memcpy(request.handle, bob->handle, sizeof(request.handle));
	request.counter++;
	ask(&p, &request, GENERATION); /* a connection of alice's, for bob's channel */
	request = ask_of(&p, alice, connection_of(bob, 0), 1, 5);
	ask(&p, &request, GENERATION); /* bob's, under a key that only fanwired could make */
	request.channel = FAN_CHANNEL_THREAD | 9;
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_unknown), 3);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_sent), 0);
}

Test(replay, every_byte_of_a_request_is_under_its_tag)
{
	struct fan_replay request;
	uint8_t frame[2048];
	uint16_t len;

	publish_events(&p, "alice", 5, 30);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 5);
	len = ask_make(&p, frame, &request, GENERATION);
	for (unsigned i = len - FAN_REPLAY_LEN; i < len; i++) {
		frame[i] ^= 0x10;
		feed(&p, frame, len);
		frame[i] ^= 0x10;
		loops(&p, 0);
		see(&p, &seen);
		cr_assert_eq(seen.cnt, 0, "byte %u changed, and it was answered", i);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), 0);
	feed(&p, frame, len);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 6);
}

Test(replay, a_request_that_comes_again_is_not_answered_again)
{
	struct fan_replay request, later;

	publish_events(&p, "alice", 5, 30);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 5);
	later = ask_of(&p, alice, connection_of(alice, 0), 2, 3);
	ask(&p, &later, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 3);
	ask(&p, &later, GENERATION);
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 3);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_repeated), 2);
}

/* Another epoch, or behind the tail: where the stream stands, and no event. */
Test(replay, another_epoch_is_answered_by_a_status)
{
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 5);
	request.epoch ^= 1;
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	ask_range(alice, 0, 6, 9);
	ask_range(bob, 0, 1, 9);
	cr_assert_eq(seen.cnt, 3);
	for (unsigned i = 0; i < 3; i++)
		cr_expect_eq(seen.delivery[i].type, FAN_TYPE_STATUS);
	cr_expect_eq(seen.delivery[0].sequence, 5);
	cr_expect_eq(seen.delivery[0].epoch, p.plane.group_states[0].epoch);
	cr_expect_eq(seen.delivery[2].sequence, 0, "bob's has had no event");
	cr_expect_eq(seen.delivery[2].epoch, 0);
}

Test(replay, an_open_end_is_the_tail_as_it_is_then)
{
	publish_events(&p, "alice", 300, 30);
	ask_range(alice, 0, 251, UINT64_MAX);
	cr_assert_eq(seen.cnt, 51);
	expect_range(0, 251, 300, PORT);
}

/* Several requests of one connection become one job, each event in it sent once. */
Test(replay, requests_of_a_connection_are_joined)
{
	static const uint64_t ranges[][2] = {{30, 39}, {5, 9}, {10, 12}, {35, 45}, {1, 1}};
	struct rte_mbuf *none = NULL;
	uint64_t last = 0;

	publish_events(&p, "alice", 60, 30);
	for (unsigned i = 0; i < RTE_DIM(ranges); i++) {
		struct fan_replay request =
			ask_of(&p, alice, connection_of(alice, 0), ranges[i][0], ranges[i][1]);

		ask(&p, &request, GENERATION);
	}
	worker_burst(p.plane.workers[0], &none, 0);
	loops(&p, 0);
	see(&p, &seen);
	cr_assert_eq(seen.cnt, 1 + 8 + 16 + 1);
	for (unsigned i = 0; i + 1 < seen.cnt; i++) {
		cr_expect_gt(seen.delivery[i].sequence, last, "in order, and once");
		last = seen.delivery[i].sequence;
	}
	cr_expect_eq(seen_type(&seen, FAN_TYPE_STATUS), 1);
}

/* More ranges than a job holds are joined with what lies between them: nothing asked for is lost.
 */
Test(replay, more_ranges_than_a_job_holds_are_joined)
{
	uint64_t last = 0;

	publish_events(&p, "alice", 200, 30);
	for (uint64_t s = 200; s > 100; s -= 4) {
		struct fan_replay request = ask_of(&p, alice, connection_of(alice, 0), s, s);

		ask(&p, &request, GENERATION);
	}
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_geq(seen.cnt, 26);
	for (unsigned i = 0; i + 1 < seen.cnt; i++) {
		cr_expect_gt(seen.delivery[i].sequence, last);
		last = seen.delivery[i].sequence;
	}
	for (uint64_t s = 104; s <= 200; s += 4) {
		bool sent = false;

		for (unsigned i = 0; i < seen.cnt; i++)
			sent |= seen.delivery[i].type == FAN_TYPE_DELIVERY &&
				seen.delivery[i].sequence == s;
		cr_expect(sent, "%lu was asked for", (unsigned long)s);
	}
}

/* What has been overwritten is told as one range, in front of what is still there. */
Test(replay, what_is_gone_is_told_as_lost)
{
	const struct fan_group_state *state = p.plane.group_states;
	uint64_t first;

	publish_events(&p, "alice", 900, 1000); /* 1 MiB does not hold them */
	ask_range(alice, 0, 1, UINT64_MAX);
	cr_assert_gt(seen.cnt, 10);
	cr_expect_eq(seen.delivery[0].type, FAN_TYPE_LOST);
	cr_expect_eq(seen.delivery[0].sequence, 1);
	first = seen.delivery[0].publisher_sequence + 1;
	cr_expect_eq(seen_type(&seen, FAN_TYPE_LOST), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_lost), first - 1);
	expect_range(1, first, state->sequence, PORT);
	cr_expect_eq(seen.delivery[seen.cnt - 1].type, FAN_TYPE_STATUS);
}

/* It goes on from the tail where the record that a walk had reached is overwritten meanwhile. */
Test(replay, goes_on_where_its_place_in_the_log_is_overwritten)
{
	struct fan_replay request;

	publish_events(&p, "alice", 200, 1000);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 150);
	ask(&p, &request, GENERATION);
	replay_serve(p.plane.workers[0], true); /* a part of it */
	publish_events(&p, "alice", 900, 1000);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_LOST), 1);
	cr_expect_eq(seen.delivery[seen.cnt - 2].publisher_sequence, 150);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), 0);
}

/* From the tail of 2,000 events to the first in a few steps, and no loop does more than its part.
 */
Test(replay, few_records_are_visited)
{
	struct worker *w = p.plane.workers[0];
	struct fan_replay request;
	unsigned visits;

	publish_events(&p, "alice", 2000, 0);
	request = ask_of(&p, alice, connection_of(alice, 0), 3, 3);
	ask(&p, &request, GENERATION);
	visits = replay_serve(w, false);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 2);
	cr_expect_eq(seen.delivery[0].sequence, 3);
	cr_expect_leq(visits, 80, "%u visits", visits);
	request = ask_of(&p, alice, connection_of(alice, 0), 1, UINT64_MAX);
	ask(&p, &request, GENERATION);
	while ((visits = replay_serve(w, true))) {
		cr_assert_leq(visits, REPLAY_VISITS_BUSY + REPLAY_CHUNK, "%u visits", visits);
		see(&p, &seen);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_sent), 2001);
}

/* Who has left his group between request and answer gets nothing; nor does who got his place. */
Test(replay, who_has_left_is_sent_nothing)
{
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	request = ask_of(&p, alice, connection_of(alice, 1), 1, 5);
	ask(&p, &request, GENERATION);
	alice->endpoints--; /* the last one has gone */
	loops(&p, 0);
	alice->endpoints++;
	request = ask_of(&p, alice, connection_of(alice, 1), 1, 5);
	ask(&p, &request, GENERATION);
	alice->incarnation += 1000; /* revoked, and the user is there again */
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_unknown), 2);
}

Test(replay, keys_that_were_retired_take_their_events_along)
{
	publish_events(&p, "alice", 3, 30);
	region_set_roots(&p.regions, 1, 2);
	p.regions.root->key_generation = 2;
	alice->key_generation = 2;
	publish_events(&p, "alice", 3, 30);
	region_set_roots(&p.regions, 0, 0); /* the first generation is retired */
	ask_range(alice, 0, 1, 6);
	cr_assert_eq(seen.cnt, 5);
	cr_expect_eq(seen.delivery[0].type, FAN_TYPE_LOST);
	cr_expect_eq(seen.delivery[0].publisher_sequence, 3);
	expect_range(1, 4, 6, PORT);
}

/* One bit wrong in any byte of a record: that event is lost, and is sent to nobody. */
Test(replay, a_record_that_is_wrong_in_any_byte_is_never_sent)
{
	struct worker *w = p.plane.workers[0];
	struct fan_log_record *record;
	uint64_t tail;
	unsigned len;

	publish_events(&p, "alice", 4, 30);
	publish_events(&p, "bob", 4, 30);
	tail = log_tail(w, &p.plane.group_states[1]);
	cr_assert_eq(log_get(w, tail, bob->incarnation, UINT64_MAX,
			     (const struct fan_log_record **)&record),
		     LOG_FOUND);
	len = (unsigned)sizeof(*record) + record->image_len;
	for (unsigned i = 0; i < len; i++) {
		((uint8_t *)record)[i] ^= 0x20;
		seen.cnt = 0;
		ask_range(bob, 0, 4, 4);
		((uint8_t *)record)[i] ^= 0x20;
		cr_assert_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 0, "byte %u", i);
		cr_assert_eq(seen_type(&seen, FAN_TYPE_LOST), 1, "byte %u", i);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), len);
	seen.cnt = 0;
	ask_range(bob, 0, 1, 4);
	expect_range(0, 1, 4, PORT + 100);
}

/* A whole and right record of another user, where the group's own is looked for. */
Test(replay, another_users_record_is_never_sent)
{
	publish_events(&p, "alice", 4, 30);
	publish_events(&p, "bob", 4, 30);
	p.plane.group_states[1].log_tail = p.plane.group_states[0].log_tail;
	ask_range(bob, 0, 1, 4);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 0);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_LOST), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), 1);
	/* Even where the incarnation is taken over: then the image is not the group's. */
	seen.cnt = 0;
	p.plane.group_states[1].incarnation = bob->incarnation = alice->incarnation;
	p.plane.group_states[1].epoch = p.plane.group_states[0].epoch;
	ask_range(bob, 0, 1, 4);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), 2);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_endpoint_foreign), 0, "stopped before that");
}

/* In the middle of a stream: what is newer comes, what is older is lost. */
Test(replay, a_torn_record_ends_the_replay_there)
{
	struct worker *w = p.plane.workers[0];
	struct fan_log_record *record;
	uint64_t position;

	publish_events(&p, "alice", 10, 30);
	position = log_tail(w, &p.plane.group_states[0]);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(log_get(w, position, alice->incarnation, UINT64_MAX,
				     (const struct fan_log_record **)&record),
			     LOG_FOUND);
		position = record->previous;
	}
	cr_assert_eq(record->sequence, 7);
	record->position = 0; /* never got so far */
	ask_range(alice, 0, 1, 10);
	cr_assert_eq(seen.cnt, 5);
	cr_expect_eq(seen.delivery[0].type, FAN_TYPE_LOST);
	cr_expect_eq(seen.delivery[0].publisher_sequence, 7);
	expect_range(1, 8, 10, PORT);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), 1);
}

/* A sequence that a crash took between its giving and its log is lost, and nothing around it. */
Test(replay, a_sequence_that_was_never_logged_is_told_as_lost)
{
	publish_events(&p, "alice", 15, 30);
	p.plane.group_states[0].sequence++; /* 16: a skip would lead to it */
	publish_events(&p, "alice", 24, 30);
	ask_range(alice, 0, 10, 30);
	cr_assert_eq(seen.cnt, 22);
	expect_range(0, 10, 15, PORT);
	cr_expect_eq(seen.delivery[6].type, FAN_TYPE_LOST);
	cr_expect_eq(seen.delivery[6].sequence, 16);
	cr_expect_eq(seen.delivery[6].publisher_sequence, 16);
	expect_range(7, 17, 30, PORT);
	seen.cnt = 0;
	ask_range(alice, 0, 3, 3);
	expect_range(0, 3, 3, PORT);
}

/* While fanwired is away too long nobody can be revoked: nobody is sent anything. */
Test(replay, nothing_is_sent_while_unattended)
{
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	p.regions.root->max_unattended_ns = 1;
	p.regions.root->heartbeat_ns = 1;
	request = ask_of(&p, alice, connection_of(alice, 0), 1, 5);
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	p.regions.root->max_unattended_ns = 0;
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 6);
}
