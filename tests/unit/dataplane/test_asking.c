/* SPDX-License-Identifier: BSD-3-Clause */
/* Who asks too often, in another's name, or for too much: it costs him, and nobody else. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "common/wire/handle.h"
#include "dataplane/housekeeping.h"
#include "dataplane/log.h"
#include "dataplane/replay.h"
#include "tests/unit/dataplane/replay_asks.h"

#define PORT	   25500
#define GENERATION 3 /* the fixture's users' */
#define SECOND_NS  1000000000u

static struct pipeline p;
static struct fan_group *alice;
static struct seen seen;

static void open_workers(unsigned cnt)
{
	pipeline_open(&p, cnt);
	status_hold(&p);
	for (unsigned i = 0; i < cnt; i++)
		p.plane.workers[i]->log->share_max = UINT32_MAX;
	memset(p.regions.root->replay_root, 0x33, sizeof(p.regions.root->replay_root));
	alice = region_add_group(&p.regions, "alice", 0, 2, 4, 0, PORT);
}

static void open_one(void)
{
	open_workers(1);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(asking, .init = open_one, .fini = close_one);

static struct fan_endpoint *endpoint_at(const struct fan_group *group, unsigned idx)
{
	return &p.regions.endpoints[(group->endpoints >> FAN_ENDPOINT_CNT_BITS) + idx];
}

static struct fan_replay request_of(const struct fan_group *group, unsigned idx, uint64_t first,
				    uint64_t last)
{
	return ask_of(&p, group, endpoint_at(group, idx)->connection, first, last);
}

static void ask_all(const struct fan_group *group, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++) {
		struct fan_replay request = request_of(group, i, 1, UINT64_MAX);

		ask(&p, &request, GENERATION);
	}
}

/* Turns until the connection at this port has the one event that it asked for, at most `max`. */
static bool served_within(unsigned max, uint16_t port)
{
	struct frame frame;
	bool got = false;

	for (unsigned i = 0; i < max && !got; i++) {
		replay_serve(p.plane.workers[0], false);
		while (take(&p, &frame))
			got |= frame.target_port == port && frame.wire[1] == FAN_TYPE_DELIVERY;
	}
	return got;
}

/* A connection that asks for ever is sent no more than its budget has. */
Test(asking, each_connection_has_a_budget)
{
	struct worker *w = p.plane.workers[0];
	uint64_t visits = 0, started;

	publish_events(&p, "alice", 2000, 0);
	started = w->monotonic_ns;
	for (unsigned n = 0; n < 200; n++) {
		struct fan_replay request = request_of(alice, 0, 1, UINT64_MAX);

		ask(&p, &request, GENERATION);
		for (unsigned i = 0; i < 20; i++)
			visits += replay_serve(w, false);
		take_all(&p);
	}
	cr_expect_leq(visits, REPLAY_RATE_KEPT + REPLAY_CHUNK + REPLAY_VISITS_IDLE +
				      (w->monotonic_ns - started) * REPLAY_RATE / 1000000000);
	cr_expect_geq(visits, REPLAY_RATE_KEPT / 2);
}

/* With nothing kept it is served seldom and a good piece at once, not ever anew for a few records:
 * most of what is visited is sent. */
Test(asking, a_spent_budget_is_no_crawl)
{
	struct worker *w = p.plane.workers[0];
	uint64_t visits[2] = {0}, sent[2] = {0}; /* while there is some left, and after that */
	unsigned spent = 0, turns = 0;
	uint64_t until;

	publish_events(&p, "alice", 2000, 0);
	worker_clock(w);
	until = w->monotonic_ns + SECOND_NS / 2;
	ask_all(alice, 1);
	while (w->monotonic_ns < until) {
		unsigned now = replay_serve(w, false);
		struct frame frame;

		spent |= now == 0;
		visits[spent] += now;
		turns += spent && now;
		while (take(&p, &frame)) {
			sent[spent] += frame.wire[1] == FAN_TYPE_DELIVERY;
			if (frame.wire[1] == FAN_TYPE_STATUS)
				ask_all(alice, 1);
		}
	}
	cr_assert(spent);
	cr_expect_geq(sent[1], 1000);
	cr_expect_geq(visits[1], 128 * turns, "%lu visits in %u turns", (unsigned long)visits[1],
		      turns);
	cr_expect_leq(visits[1], 4 * sent[1], "%lu visits for %lu records",
		      (unsigned long)visits[1], (unsigned long)sent[1]);
}

/* All connections of a user together have eight times one's budget, not as often as there are. */
Test(asking, each_user_has_a_budget)
{
	struct fan_group *bob = region_add_group(&p.regions, "bob", 0, 32, 4, 0, PORT + 100);
	struct worker *w = p.plane.workers[0];
	uint64_t visits = 0, started;

	publish_events(&p, "bob", 2000, 0);
	worker_clock(w);
	started = w->monotonic_ns;
	for (unsigned n = 0; n < 40; n++) {
		ask_all(bob, 32);
		for (unsigned i = 0; i < 100; i++) {
			visits += replay_serve(w, false);
			take_all(&p);
		}
	}
	cr_expect_leq(visits, REPLAY_USER_KEPT + 32 * (REPLAY_CHUNK + REPLAY_VISITS_IDLE) +
				      (w->monotonic_ns - started) * REPLAY_RATE_USER / SECOND_NS);
	cr_expect_geq(visits, REPLAY_USER_KEPT / 2);
}

/* ---- places ---- */

/* 256 that ask for all are served beside; each user has his turn, however many jobs another has. */
Test(asking, a_user_with_many_jobs_makes_room_for_others)
{
	struct fan_group *greedy[4];
	struct fan_replay request;
	char name[16];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "greedy-%u", i);
		greedy[i] = region_add_group(&p.regions, name, 0, 64, 4, 0,
					     (uint16_t)(26000 + 100 * i));
		publish_events(&p, name, 400, 0);
	}
	publish_events(&p, "alice", 5, 30);
	for (unsigned i = 0; i < 4; i++)
		ask_all(greedy[i], 64);
	cr_assert_eq(counter(&p, FAN_COUNTER_replay_requests), REPLAY_JOBS);
	request = request_of(alice, 1, 3, 3);
	ask(&p, &request, GENERATION);
	cr_expect(served_within(10, PORT + 1));
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_full), 1, "one of theirs was given up");
}

/* Nor do many users that have had much keep out the one that has had nothing. */
Test(asking, who_has_had_much_makes_room_for_who_has_had_nothing)
{
	struct fan_group *deep = region_add_group(&p.regions, "deep", 0, 1, 4, 0, 26000);
	struct fan_replay request;
	char name[16];

	publish_events(&p, "deep", 2000, 0);
	publish_events(&p, "alice", 5, 30);
	ask_all(deep, 1);
	for (unsigned i = 0; i < 3; i++)
		replay_serve(p.plane.workers[0], false);
	for (unsigned i = 1; i < REPLAY_JOBS; i++) {
		snprintf(name, sizeof(name), "other-%u", i);
		ask_all(region_add_group(&p.regions, name, 0, 1, 4, 0, (uint16_t)(27000 + i)), 1);
	}
	cr_assert_eq(counter(&p, FAN_COUNTER_drop_replay_full), 0);
	request = request_of(alice, 1, 3, 3);
	ask(&p, &request, GENERATION);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_full), 1);
	cr_expect(served_within(30, PORT + 1));
}

/* ---- registrations ---- */

/* What an earlier registration of the id asked for binds the next one in nothing. */
Test(asking, a_new_registration_begins_anew)
{
	struct fan_replay request, old;
	uint8_t captured[2048];
	uint16_t len;

	publish_events(&p, "alice", 5, 30);
	old = request_of(alice, 0, 1, 5);
	old.counter = UINT64_MAX - 1;
	ask(&p, &old, GENERATION);
	loops(&p, 0);
	take_all(&p);
	old.counter++;
	len = ask_make(&p, captured, &old, GENERATION);
	p.regions.connections[endpoint_at(alice, 0)->record].generation += 1000;
	feed(&p, captured, len);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag), 1, "signed in another registration");
	request = request_of(alice, 0, 4, 4);
	request.counter = 1; /* of another clock */
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_repeated), 0);
}

/* A job of a registration that has ended is nobody's, though the id is there again. */
Test(asking, a_job_ends_with_its_registration)
{
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	request = request_of(alice, 0, 1, 5);
	ask(&p, &request, GENERATION);
	p.regions.connections[endpoint_at(alice, 0)->record].generation += 1000;
	loops(&p, 0);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_unknown), 1);
}

/* However many others asked in between. */
Test(asking, no_captured_request_is_forgotten)
{
	struct fan_group *many = region_add_group(&p.regions, "many", 0, 4000, 4, 0, 30000);
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	request = request_of(alice, 0, 1, 5);
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	for (unsigned i = 0; i < 4000; i++) {
		struct fan_replay other = request_of(many, i, 1, 1);

		ask(&p, &other, GENERATION);
		loops(&p, 0);
		take_all(&p);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), 4001);
	ask(&p, &request, GENERATION);
	loops(&p, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_repeated), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_sent), 5);
}

/* ---- another's name ---- */

static struct rte_mbuf *forged_of(const struct fan_replay *request, bool from_its_place)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p.plane.pool);
	uint8_t frame[2048];
	uint16_t len = ask_make(&p, frame, request, GENERATION + 1);

	if (!from_its_place)
		frame[34] ^= 0x40; /* the UDP source port */
	memcpy(rte_pktmbuf_append(mbuf, len), frame, len);
	return mbuf;
}

static struct rte_mbuf *right_of(const struct fan_replay *request)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p.plane.pool);
	uint8_t frame[2048];
	uint16_t len = ask_make(&p, frame, request, GENERATION);

	memcpy(rte_pktmbuf_append(mbuf, len), frame, len);
	return mbuf;
}

/* A whole burst of them in front of a right one, and that one is served. */
Test(asking, who_cannot_spoof_an_address_costs_nobody)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	for (unsigned i = 0; i < BURST_MAX - 1; i++) {
		request = request_of(alice, i % 2, 1, 5);
		mbufs[i] = forged_of(&request, false);
	}
	request = request_of(alice, 1, 3, 3);
	mbufs[BURST_MAX - 1] = right_of(&request);
	worker_burst(p.plane.workers[0], mbufs, BURST_MAX);
	counters_flush(p.plane.workers[0]);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_source), BURST_MAX - 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag), 0, "no key was derived for them");
	cr_expect(served_within(1, PORT + 1));
}

/* Not even a right one, sent from elsewhere. */
Test(asking, a_request_from_elsewhere_is_not_answered)
{
	struct fan_replay request;
	uint8_t frame[2048];
	uint16_t len;

	publish_events(&p, "alice", 5, 30);
	request = request_of(alice, 0, 1, 5);
	len = ask_make(&p, frame, &request, GENERATION);
	frame[34] ^= 0x40;
	feed(&p, frame, len);
	frame[34] ^= 0x40;
	frame[26] ^= 1; /* the IPv4 source address */
	feed(&p, frame, len);
	loops(&p, 0);
	cr_expect_eq(take_all(&p), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_source), 2);
	frame[26] ^= 1;
	feed(&p, frame, len);
	loops(&p, 0);
	cr_expect_eq(take_all(&p), 6, "neither raised its counter");
}

/* Who can spoof one connection's address spends that one's checks, and needs several for all. */
Test(asking, no_more_tags_are_checked_in_a_burst_than_that)
{
	struct fan_group *many = region_add_group(&p.regions, "many", 0, 8, 4, 0, 26000);
	struct rte_mbuf *mbufs[BURST_MAX];
	struct fan_replay request;

	publish_events(&p, "alice", 5, 30);
	for (unsigned i = 0; i < REPLAY_CHECKS_CONNECTION + 8; i++) {
		request = request_of(alice, 0, 1, 5);
		mbufs[i] = forged_of(&request, true);
	}
	request = request_of(alice, 1, 3, 3);
	mbufs[REPLAY_CHECKS_CONNECTION + 8] = right_of(&request);
	worker_burst(p.plane.workers[0], mbufs, REPLAY_CHECKS_CONNECTION + 9);
	counters_flush(p.plane.workers[0]);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag), REPLAY_CHECKS_CONNECTION);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_budget), 8);
	cr_expect(served_within(1, PORT + 1));
	for (unsigned i = 0; i < BURST_MAX; i++) {
		request = request_of(many, i % 8, 1, 5);
		mbufs[i] = forged_of(&request, true);
	}
	worker_burst(p.plane.workers[0], mbufs, BURST_MAX);
	counters_flush(p.plane.workers[0]);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag),
		     REPLAY_CHECKS_CONNECTION + REPLAY_CHECKS);
}

/* In a group that is looked through in parts, each is found all the same. */
Test(asking, everyone_of_a_large_group_is_found)
{
	struct fan_group *many = region_add_group(&p.regions, "many", 0, 4000, 4, 0, 30000);
	struct rte_mbuf *mbufs[8];

	for (unsigned i = 0; i < 8; i++) {
		struct fan_replay request = request_of(many, 3992 + i, 1, 1);

		mbufs[i] = right_of(&request);
	}
	worker_burst(p.plane.workers[0], mbufs, 8);
	counters_flush(p.plane.workers[0]);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), REPLAY_LOOKS / 3992);
	for (unsigned n = 0; n < 4000 / REPLAY_LOOKS_EACH; n++) {
		for (unsigned i = 0; i < 8; i++) {
			struct fan_replay request = request_of(many, 3992 + i, 1, 1);

			mbufs[i] = right_of(&request);
		}
		worker_burst(p.plane.workers[0], mbufs, 8);
	}
	loops(&p, 0);
	take_all(&p);
	cr_expect_geq(counter(&p, FAN_COUNTER_statuses_sent), 8);
}

/* ---- streams ---- */

/* What an ended stream lost, found but not told yet, is not told of the next one. */
Test(asking, a_loss_is_told_of_its_own_stream_only)
{
	struct worker *w = p.plane.workers[0];

	for (unsigned turns = 1; turns <= 12; turns++) {
		publish_events(&p, "alice", 900, 1000); /* the first ones have left the log */
		ask_all(alice, 1);
		for (unsigned i = 0; i < turns; i++)
			replay_serve(w, true);
		alice->incarnation += 1000; /* revoked; another stream begins */
		publish_events(&p, "alice", 1, 0);
		ask_all(alice, 1);
		seen.cnt = 0;
		loops(&p, 0);
		see(&p, &seen);
		cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 1);
		cr_expect_eq(seen_type(&seen, FAN_TYPE_LOST), 0,
			     "after %u turns a loss of a stream that has one event", turns);
	}
}

/* ---- two workers ---- */

static struct fan_group *group_of_worker(unsigned idx, char name[16])
{
	for (unsigned i = 0;; i++) {
		uint8_t handle[FAN_HANDLE_LEN];

		snprintf(name, 16, "user-%u", i);
		fan_handle(handle, name, strlen(name));
		if (group_owner(&p.plane, fan_table_hash(p.plane.table.seed, handle, 0)) == idx)
			return region_add_group(&p.regions, name, 0, 2, 4, 0, 26000);
	}
}

/* Judged where it arrives, counted and served where its group is; neither is done twice. */
Test(asking_two, a_request_handed_over_is_judged_once, .fini = close_one)
{
	struct fan_replay request;
	struct fan_group *group;
	char name[16];

	open_workers(2);
	group = group_of_worker(1, name);
	request = request_of(group, 0, 1, 1);
	ask(&p, &request, GENERATION);
	ask(&p, &request, GENERATION);
	ask(&p, &request, GENERATION + 1);
	counters_flush(p.plane.workers[0]);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_tag), 1, "where it arrived");
	cr_expect_eq(counter(&p, FAN_COUNTER_handovers), 2);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), 0);
	loops(&p, 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_replay_requests), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_replay_repeated), 1, "where its group is");
	cr_expect_eq(take_all(&p), 1, "its status");
}
