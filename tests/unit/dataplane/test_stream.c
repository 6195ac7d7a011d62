/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams and regions across incarnations, restarts and new registry regions. */
#include <criterion/criterion.h>

#include "dataplane/housekeeping.h"
#include "dataplane/regions.h"
#include "tests/unit/dataplane/pipeline.h"

static struct pipeline p;

static void open_one(void)
{
	pipeline_open(&p, 1);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(stream, .init = open_one, .fini = close_one);

Test(stream, begins_anew_with_each_incarnation)
{
	struct fan_group *group = region_add_group(&p.regions, "alice", 0, 1, 4, 0, 25500);
	const struct fan_group_state *state = &p.plane.group_states[0];
	uint64_t first;

	publish(&p, &(struct publish_spec){.sequence = 1});
	publish(&p, &(struct publish_spec){.sequence = 2});
	first = state->epoch;
	cr_expect_eq(state->sequence, 2);
	group->incarnation = 99;
	publish(&p, &(struct publish_spec){.sequence = 3});
	cr_expect_eq(state->sequence, 1);
	cr_expect_eq(state->incarnation, 99);
	cr_expect_neq(state->epoch, first);
	cr_expect_neq(state->epoch, 0);
}

Test(stream, goes_on_after_a_restart)
{
	uint64_t epoch, run = p.plane.state->run;

	region_add_group(&p.regions, "alice", 0, 1, 4, 0, 25500);
	publish(&p, &(struct publish_spec){.sequence = 1});
	epoch = p.plane.group_states[0].epoch;
	pipeline_restart(&p);
	publish(&p, &(struct publish_spec){.sequence = 2});
	cr_expect_eq(p.plane.state->run, run + 1);
	cr_expect_eq(p.plane.group_states[0].epoch, epoch);
	cr_expect_eq(p.plane.group_states[0].sequence, 2);
	cr_expect_eq(p.plane.session_states[0].ack_counter, 2, "no nonce is used twice");
}

Test(stream, state_of_another_registry_is_made_anew)
{
	uint64_t before = p.plane.state->header.creation_epoch;

	p.regions.root->header.creation_epoch++;
	p.regions.root->request_head = 5000;
	p.regions.root->report_tail[3] = 70;
	pipeline_restart(&p);
	cr_expect_neq(p.plane.state->header.creation_epoch, before);
	cr_expect_eq(p.plane.state->run, 1);
	cr_expect_eq(p.plane.state->request_tail, 5000, "requests to a predecessor are skipped");
	cr_expect_eq(p.plane.worker_states[3].report_head, 70);
}

Test(stream, two_dataplanes_do_not_share_a_region)
{
	struct plane other = {.config = p.plane.config, .table = p.plane.table, .worker_cnt = 1};

	cr_expect_eq(regions_open_state(&other), -EBUSY);
}

Test(stream, word_is_odd_in_the_loop_and_even_outside)
{
	const uint64_t *word = &p.plane.worker_states[0].quiescent;
	struct worker *w = p.plane.workers[0];
	uint64_t before;

	cr_expect_eq(*word % 2, 0);
	worker_enter(w);
	cr_expect_eq(*word % 2, 1);
	before = *word;
	worker_quiesce(w);
	cr_expect_eq(*word, before + 2);
	pipeline_restart(&p); /* it died in its loop: whoever waits sees the word change */
	word = &p.plane.worker_states[0].quiescent;
	cr_expect_eq(*word % 2, 0);
	cr_expect_gt(*word, before + 2);
	w = p.plane.workers[0];
	worker_enter(w);
	worker_leave(w);
	cr_expect_eq(*word % 2, 0);
}
