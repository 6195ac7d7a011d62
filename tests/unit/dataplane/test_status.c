/* SPDX-License-Identifier: BSD-3-Clause */
/* Status: a group that falls silent hears three times where its stream stands, and no more. */
#include <criterion/criterion.h>
#include <rte_cycles.h>
#include <unistd.h>

#include "dataplane/housekeeping.h"
#include "dataplane/status.h"
#include "tests/unit/dataplane/replay_asks.h"

#define PORT	25500
#define WAIT_US 4000000

static struct pipeline p;
static struct seen seen;

static void open_one(void)
{
	pipeline_open(&p, 1);
	region_add_group(&p.regions, "alice", 0, 2, 4, 0, PORT);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(status, .init = open_one, .fini = close_one);

static unsigned waiting(void)
{
	const struct status *status = p.plane.workers[0]->status;
	unsigned cnt = 0;

	for (unsigned i = 0; i < STATUS_STAGES; i++)
		cnt += status->queues[i].head - status->queues[i].tail;
	return cnt;
}

/* Loops until so many statuses have been seen, or for far longer than it should take. */
static void wait_for(unsigned cnt)
{
	for (unsigned us = 0; us < WAIT_US && seen_type(&seen, FAN_TYPE_STATUS) < cnt; us += 500) {
		loops(&p, 0);
		see(&p, &seen);
		usleep(500);
	}
}

static uint64_t now_us(void)
{
	return rte_rdtsc() / (rte_get_tsc_hz() / 1000000);
}

Test(status, a_silent_group_hears_thrice_where_it_stands)
{
	static const unsigned waits_ms[] = STATUS_WAITS_MS;
	uint64_t since, waited;

	publish_events(&p, "alice", 3, 10);
	for (unsigned i = 0; i < 3; i++) {
		since = now_us();
		wait_for(2 * (i + 1));
		waited = now_us() - since;
		cr_assert_eq(seen.cnt, 2 * (i + 1));
		cr_expect_geq(waited, (i == 2 ? 1500u : waits_ms[i] / 2) * 1000);
	}
	for (unsigned i = 0; i < seen.cnt; i++) {
		cr_expect_eq(seen.delivery[i].type, FAN_TYPE_STATUS);
		cr_expect_eq(seen.delivery[i].sequence, 3);
		cr_expect_eq(seen.delivery[i].epoch, p.plane.group_states[0].epoch);
		cr_expect_eq(seen.port[i], PORT + i % 2);
	}
	cr_expect_eq(waiting(), 0, "and no more");
	cr_expect_eq(counter(&p, FAN_COUNTER_statuses_sent), 6);
}

/* Between events of a burst nothing is told; after it, of the last one. */
Test(status, a_group_with_events_is_left_alone)
{
	struct status *status = p.plane.workers[0]->status;

	status->waits[1] = status->waits[2] = INT32_MAX;
	for (unsigned i = 0; i < 100; i++) {
		status->queues[0].entries[status->queues[0].tail % STATUS_QUEUE].due =
			0; /* long ago, as it looks */
		publish_events(&p, "alice", 1, 10);
		loops(&p, 0);
		cr_assert_leq(waiting(), 1);
	}
	see(&p, &seen);
	wait_for(2);
	cr_expect_eq(seen.delivery[seen.cnt - 1].sequence, 100);
}

/* One with very many endpoints is told in parts, each endpoint once. */
Test(status, many_endpoints_are_told_in_parts)
{
	struct status *status = p.plane.workers[0]->status;
	unsigned cnt = 3 * FLOW_SHARE + 7;
	bool *told = calloc(cnt, sizeof(*told));

	status->waits[1] = INT32_MAX;
	region_add_group(&p.regions, "many", 0, cnt, 4, 0, PORT + 1000);
	publish_events(&p, "many", 1, 10);
	while (!status->told)
		status_serve(p.plane.workers[0], false);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, FLOW_SHARE);
	status_serve(p.plane.workers[0], true);
	see(&p, &seen);
	cr_expect_eq(seen.cnt, FLOW_SHARE + STATUS_COPIES_BUSY, "events come first");
	loops(&p, 0);
	see(&p, &seen);
	cr_assert_eq(seen.cnt, cnt);
	for (unsigned i = 0; i < cnt; i++) {
		cr_expect_not(told[seen.port[i] - PORT - 1000], "told twice");
		told[seen.port[i] - PORT - 1000] = true;
	}
	free(told);
}

/* Whose place in the table is another group's by now is told nothing, nor is that one. */
Test(status, a_group_that_has_gone_is_told_nothing)
{
	publish_events(&p, "alice", 1, 10);
	p.regions.groups[0].incarnation += 1000;
	for (unsigned us = 0; us < WAIT_US && waiting(); us += 500) {
		loops(&p, 0);
		usleep(500);
	}
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	cr_expect_eq(waiting(), 0);
}

Test(status, a_full_queue_is_counted_and_bounded)
{
	struct worker *w = p.plane.workers[0];
	struct fan_group_state state = {.incarnation = 1};

	for (uint32_t i = 0; i < STATUS_QUEUE + 5; i++)
		status_arm(w, 5, &state);
	cr_expect_eq(waiting(), STATUS_QUEUE);
	cr_expect_eq(counter(&p, FAN_COUNTER_statuses_skipped), 5);
	cr_expect_eq(w->status->armed[0] >> 5 & 1, 0, "the next event tries again");
}

/* What was logged and never sent: its subscribers hear of it once the dataplane is back. */
Test(status, groups_of_the_logs_end_are_told_after_a_restart)
{
	region_add_group(&p.regions, "quiet", 0, 1, 4, 0, PORT + 100);
	publish_events(&p, "alice", 7, 10);
	pipeline_restart(&p);
	cr_expect_eq(waiting(), 1, "and not who had no event");
	wait_for(2);
	cr_assert_eq(seen.cnt, 2);
	cr_expect_eq(seen.delivery[0].sequence, 7);
}

Test(status, nothing_is_told_while_unattended)
{
	publish_events(&p, "alice", 1, 10);
	p.regions.root->max_unattended_ns = 1;
	p.regions.root->heartbeat_ns = 1;
	for (unsigned i = 0; i < 100; i++) {
		loops(&p, 0);
		usleep(500);
	}
	see(&p, &seen);
	cr_expect_eq(seen.cnt, 0);
	p.regions.root->max_unattended_ns = 0;
	wait_for(2);
	cr_expect_eq(seen.cnt, 2);
}
