/* SPDX-License-Identifier: BSD-3-Clause */
/* Two workers on lcores of their own: sessions and groups are owned, order holds, nothing is lost.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "dataplane/flows.h"
#include "dataplane/handover.h"
#include "dataplane/plane.h"
#include "tests/unit/dataplane/pipeline.h"

#define USERS	   20
#define EVENTS	   200
#define WAIT_MS	   10000
#define UNANSWERED 256 /* of a session: docs/wire-format.md, Limits */

static struct pipeline p;
static char names[USERS][16];

static void open_two(void)
{
	pipeline_open(&p, 2);
	for (unsigned i = 0; i < USERS; i++) {
		snprintf(names[i], sizeof(names[i]), "user-%u", i);
		region_add_group(&p.regions, names[i], 0, 2, 4, 0, (uint16_t)(25500 + 2 * i));
	}
}

static void close_two(void)
{
	pipeline_close(&p);
}

TestSuite(handover, .init = open_two, .fini = close_two);

static void launch(void)
{
	p.launched = true;
	cr_assert_eq(plane_launch(&p.plane), 0);
}

struct seen {
	uint64_t next[USERS][2]; /* next sequence by user and endpoint */
	uint64_t acked[2];	 /* results by session */
	unsigned copies, foreign;
};

static void see_delivery(struct seen *seen, const struct frame *frame)
{
	unsigned endpoint = frame->target_port - 25500u, user = endpoint / 2;
	struct fan_delivery d;

	cr_assert_lt(user, USERS);
	cr_assert_eq(fan_delivery_decode(frame->wire, frame->wire_len, &d), FAN_WIRE_OK);
	seen->foreign += memcmp(d.handle, p.regions.groups[user].handle, 16) != 0;
	cr_expect_eq(d.sequence, ++seen->next[user][endpoint % 2], "out of order");
	seen->copies++;
}

static void see(struct seen *seen)
{
	struct fan_result results[FAN_ACK_RESULT_MAX];
	struct frame frame;
	uint64_t cumulative;

	while (take(&p, &frame)) {
		uint32_t slot = frame.wire[15];

		if (frame.wire[1] == FAN_TYPE_DELIVERY)
			see_delivery(seen, &frame);
		if (frame.wire[1] != FAN_TYPE_ACK) /* and where a stream stands */
			continue;
		unsigned n = ack_open(&frame, slot, &cumulative, results);

		for (unsigned i = 0; i < n; i++) {
			cr_expect_eq(results[i].status, FAN_RESULT_OK);
			cr_expect_eq(results[i].sent, 2);
		}
		seen->acked[slot] += n;
	}
}

/* As long as two publishers have all unanswered that they may: without a core for worker 1, all
 * that is published at once fills what leads to it. */
static void wait_for_room(struct seen *seen, unsigned published)
{
	for (unsigned ms = 0; ms < WAIT_MS; ms++) {
		see(seen);
		if (published - (seen->acked[0] + seen->acked[1]) <= 2 * UNANSWERED - USERS)
			return;
		usleep(1000);
	}
}

/* Both sessions publish to all users; worker 0 receives everything. */
static void publish_all(struct seen *seen)
{
	struct publish_spec specs[USERS];

	for (unsigned event = 0; event < EVENTS; event++) {
		for (unsigned i = 0; i < USERS; i++)
			specs[i] = (struct publish_spec){.slot = event % 2,
							 .sequence = event / 2 * USERS + i + 1,
							 .user = names[i],
							 .payload_len = 64};
		wait_for_room(seen, event * USERS);
		publish_many(&p, specs, USERS);
	}
	for (unsigned ms = 0; ms < WAIT_MS; ms++) {
		see(seen);
		if (seen->copies == 2 * USERS * EVENTS &&
		    seen->acked[0] + seen->acked[1] == USERS * EVENTS)
			return;
		usleep(1000);
	}
}

static void judge(const struct seen *seen)
{
	cr_expect_eq(seen->copies, 2 * USERS * EVENTS, "%u copies", seen->copies);
	cr_expect_eq(seen->foreign, 0);
	cr_expect_eq(seen->acked[0], USERS * EVENTS / 2);
	cr_expect_eq(seen->acked[1], USERS * EVENTS / 2);
	for (unsigned i = 0; i < USERS; i++)
		cr_expect_eq(seen->next[i][0], EVENTS);
}

Test(handover, two_workers_lose_and_reorder_nothing)
{
	struct seen seen = {0};
	unsigned mine = 0;

	for (unsigned i = 0; i < USERS; i++)
		mine += group_owner(&p.plane, fan_table_hash(p.plane.table.seed,
							     p.regions.groups[i].handle, 0)) == 0;
	cr_assert(mine > 0 && mine < USERS, "both own groups");
	launch();
	publish_all(&seen);
	judge(&seen);
	cr_expect_gt(counter(&p, FAN_COUNTER_handovers), 0);
	cr_expect_gt(p.plane.worker_states[1].counters[FAN_COUNTER_copies_sent], 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_handover_full), 0);
}

/* As with AF_XDP on veth, which has one queue: worker 1 opens and acknowledges, worker 0 sends. */
Test(handover, a_worker_without_a_queue_sends_through_another)
{
	struct seen seen = {0};

	p.plane.rx_queue_cnt = p.plane.tx_queue_cnt = 1;
	launch();
	publish_all(&seen);
	judge(&seen);
	cr_expect_gt(p.plane.worker_states[1].counters[FAN_COUNTER_publishes_accepted], 0);
	cr_expect_eq(p.plane.worker_states[1].counters[FAN_COUNTER_tx_packets], 0);
	cr_expect_eq(rte_ring_count(p.tx[1]), 0);
}

/* The users whose groups are worker 1's; returns how many. */
static unsigned users_of_other(const char *users[USERS])
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < USERS; i++)
		if (group_owner(&p.plane, fan_table_hash(p.plane.table.seed,
							 p.regions.groups[i].handle, 0)) == 1)
			users[cnt++] = names[i];
	return cnt;
}

/* One group's events, be they ever so many, leave room for those of the others. */
Test(handover, a_busy_group_of_another_worker_takes_only_its_share)
{
	struct fan_session_state *state = &p.plane.session_states[0];
	const char *users[USERS];

	cr_assert_geq(users_of_other(users), 2);
	for (uint64_t i = 1; i <= HANDOVER_GROUP_MAX + 10; i++)
		publish(&p, &(struct publish_spec){.sequence = i, .user = users[0]});
	cr_expect_eq(state->accepted, HANDOVER_GROUP_MAX);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_group_busy), 1, "the first; then it is a gap");
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_gap), 9);
	publish(&p, &(struct publish_spec){.sequence = HANDOVER_GROUP_MAX + 1, .user = users[1]});
	cr_expect_eq(state->accepted, HANDOVER_GROUP_MAX + 1);
	while (worker_burst(p.plane.workers[1], NULL, 0))
		take_all(&p);
	while (worker_burst(p.plane.workers[0], NULL, 0))
		take_all(&p);
	cr_expect(handover_is_quiet(&p.plane));
	for (unsigned i = 0; i < GROUP_PLACES; i++)
		cr_expect_eq(p.plane.workers[0]->in_flight_groups[i], 0);
	publish(&p, &(struct publish_spec){.sequence = HANDOVER_GROUP_MAX + 2, .user = users[0]});
	cr_expect_eq(state->accepted, HANDOVER_GROUP_MAX + 2);
}

/* Worker 1 stands still: what it would have to take is not accepted, and not lost either. */
Test(handover, a_full_ring_refuses_before_it_accepts)
{
	struct fan_session_state *state = &p.plane.session_states[0];
	const char *users[USERS];
	uint64_t sequence = 0;
	unsigned cnt = users_of_other(users);

	cr_assert_gt(cnt * HANDOVER_GROUP_MAX, HANDOVER_CNT + 10);
	for (unsigned i = 0; i < HANDOVER_CNT + 10; i++)
		publish(&p, &(struct publish_spec){.sequence = ++sequence, .user = users[i % cnt]});
	cr_expect_eq(state->accepted, HANDOVER_CNT);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_handover_full), 1, "the first; then it is a gap");
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_gap), 9);
	cr_expect_not(handover_is_quiet(&p.plane));
	while (worker_burst(p.plane.workers[1], NULL, 0))
		take_all(&p);
	while (worker_burst(p.plane.workers[0], NULL, 0))
		take_all(&p);
	cr_expect(handover_is_quiet(&p.plane));
	publish(&p, &(struct publish_spec){.sequence = HANDOVER_CNT + 1, .user = users[0]});
	cr_expect_eq(state->accepted, HANDOVER_CNT + 1);
}

Test(handover, draining_finishes_what_was_received)
{
	struct publish_spec specs[USERS];

	launch();
	for (unsigned i = 0; i < USERS; i++)
		specs[i] = (struct publish_spec){.sequence = i + 1, .user = names[i]};
	publish_many(&p, specs, USERS);
	while (rte_ring_count(p.rx[0]))
		usleep(10);
	plane_drain(&p.plane);
	p.launched = false;
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 2 * USERS);
	cr_expect_eq(p.plane.worker_states[0].quiescent % 2, 0);
	cr_expect_eq(p.plane.worker_states[1].quiescent % 2, 0);
}
