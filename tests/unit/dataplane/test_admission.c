/* SPDX-License-Identifier: BSD-3-Clause */
/* Who sends far more than a share waits; the others do not, and nothing is lost for good. */
#include <criterion/criterion.h>
#include <rte_cycles.h>

#include "dataplane/admission.h"
#include "tests/unit/dataplane/pipeline.h"

#define FLOOD 0 /* slot that sends much, to alice; the endpoint is at PORT */
#define LIGHT 1 /* that sends little, to bob; at PORT + 100 */
#define PORT  25500
#define A_LOT 250 /* publishes in a burst */

static struct pipeline p;
static struct worker *w;

static struct seen {
	unsigned copies[2], out_of_order, frames;
	unsigned last[2]; /* place of the last copy among the burst's frames */
	uint64_t next[2];
} seen;

static void open_one(void)
{
	pipeline_open(&p, 1);
	w = p.plane.workers[0];
	memset(&seen, 0, sizeof(seen));
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	region_add_group(&p.regions, "bob", 0, 1, 4, 0, PORT + 100);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(admission, .init = open_one, .fini = close_one);

static void see(void)
{
	struct frame frame;
	struct fan_delivery d;

	for (seen.frames = 0; take(&p, &frame); seen.frames++) {
		unsigned who = frame.target_port >= PORT + 100;

		if (frame.wire[1] != FAN_TYPE_DELIVERY)
			continue;
		cr_assert_eq(fan_delivery_decode(frame.wire, frame.wire_len, &d), FAN_WIRE_OK);
		seen.out_of_order +=
			d.sequence != ++seen.next[who] || d.publisher_sequence != seen.next[who];
		seen.copies[who]++;
		seen.last[who] = seen.frames;
	}
}

static uint64_t accepted(uint32_t slot)
{
	return p.plane.session_states[slot].accepted;
}

static uint32_t waiting(uint32_t slot)
{
	return w->admission.sessions[slot].waiting;
}

/* So many of each session in one burst, LIGHT's last. A publisher goes on behind what waits. */
static void burst(unsigned flood, unsigned light)
{
	uint64_t from[2] = {accepted(FLOOD) + waiting(FLOOD), accepted(LIGHT) + waiting(LIGHT)};
	struct publish_spec specs[BURST_MAX];

	for (unsigned i = 0; i < flood; i++)
		specs[i] = (struct publish_spec){.slot = FLOOD, .sequence = from[0] + i + 1};
	for (unsigned i = 0; i < light; i++)
		specs[flood + i] = (struct publish_spec){
			.slot = LIGHT, .sequence = from[1] + i + 1, .user = "bob"};
	publish_burst(&p, specs, flood + light);
	see();
}

static void windows(unsigned cnt, unsigned flood, unsigned light)
{
	for (uint32_t until = w->admission.window + cnt; w->admission.window != until;)
		burst(flood, light);
}

static void drain(void)
{
	for (unsigned i = 0; w->admission.waiting || w->flow_cnt; i++) {
		cr_assert_lt(i, 1000, "what waits has no end");
		worker_burst(w, NULL, 0);
		see();
	}
}

static void expect_nothing_lost(void)
{
	for (uint32_t slot = 0; slot < 2; slot++)
		cr_expect_eq(seen.copies[slot], accepted(slot));
	cr_expect_eq(seen.out_of_order, 0);
}

Test(admission, one_that_is_alone_is_not_held_back)
{
	for (unsigned i = 1; i <= 4 * ADMISSION_WINDOW / A_LOT; i++) {
		burst(A_LOT, 0);
		cr_assert_eq(accepted(FLOOD), i * A_LOT);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_share), 0);
	expect_nothing_lost();
}

Test(admission, even_shares_are_not_held_back)
{
	for (unsigned i = 1; i <= 4 * ADMISSION_WINDOW / 200; i++) {
		burst(100, 100);
		cr_assert_eq(accepted(FLOOD), i * 100);
		cr_assert_eq(accepted(LIGHT), i * 100);
	}
	expect_nothing_lost();
}

Test(admission, a_flood_loses_nothing_of_another_session)
{
	uint64_t before;

	windows(2, A_LOT, 4);
	for (unsigned i = 0; i < 3 * ADMISSION_WINDOW / A_LOT; i++) {
		before = accepted(LIGHT);
		burst(A_LOT, 4);
		cr_assert_eq(accepted(LIGHT), before + 4, "lost, or made to wait");
		cr_expect_leq(seen.last[LIGHT], 4, "served behind the flood");
	}
	cr_expect_gt(counter(&p, FAN_COUNTER_drop_session_share), 0);
	expect_nothing_lost();
}

Test(admission, what_a_flood_lost_gets_through_when_sent_again)
{
	uint64_t before;

	windows(2, A_LOT, 4);
	burst(A_LOT, 4);
	before = accepted(FLOOD);
	burst(A_LOT, 4);
	cr_expect_eq(accepted(FLOOD), before + ADMISSION_QUANTUM, "a few in each burst");
	cr_expect_gt(counter(&p, FAN_COUNTER_drop_session_share), 0);
	drain();
	before = accepted(FLOOD);
	burst(3, 0);
	drain();
	cr_expect_eq(accepted(FLOOD), before + 3);
	expect_nothing_lost();
}

/* It was alone and sent much; then comes the flood, and it sends little. */
Test(admission, one_that_sends_little_again_does_not_wait_behind_a_flood)
{
	uint64_t before;

	windows(3, 0, A_LOT);
	windows(2, A_LOT, 5);
	cr_expect_gt(w->admission.waiting, 0);
	for (unsigned i = 0; i < 50; i++) {
		before = accepted(LIGHT) + waiting(LIGHT);
		burst(A_LOT, 5);
		cr_assert_eq(accepted(LIGHT), before + 5);
		cr_assert_eq(waiting(LIGHT), 0);
	}
	expect_nothing_lost();
}

/* Two that are held back: neither takes all the room, and each has its turn. */
Test(admission, two_floods_share)
{
	uint64_t before[2];

	/* Six more sessions with a little each would do; so the shares are set by hand. */
	windows(2, 128, 128);
	burst(0, 0);
	for (uint32_t slot = 0; slot < 2; slot++) {
		w->admission.sessions[slot].last = ADMISSION_WINDOW / 2;
		w->admission.sessions[slot].window = w->admission.window;
	}
	w->admission.last_active = 8;
	w->admission.cnt = 0;
	burst(200, 50);
	cr_expect_gt(waiting(LIGHT), 0);
	for (unsigned i = 0; i < 4; i++) {
		before[0] = accepted(FLOOD);
		before[1] = accepted(LIGHT);
		burst(200, 50);
		cr_expect_eq(accepted(FLOOD), before[0] + ADMISSION_QUANTUM);
		cr_expect_eq(accepted(LIGHT), before[1] + ADMISSION_QUANTUM);
		cr_expect_leq(waiting(FLOOD), ADMISSION_QUEUE / 2, "no room for the other");
	}
	drain();
	expect_nothing_lost();
}

Test(admission, one_that_is_alone_again_is_held_back_no_more)
{
	uint64_t before;

	windows(2, A_LOT, 4);
	windows(1, A_LOT, 0); /* still has the other one in it */
	rte_delay_us_block(ADMISSION_ALONE_MS * 1000 + 1000);
	windows(1, A_LOT, 0);
	drain(); /* so many events at once were alice's share, too */
	before = accepted(FLOOD) + waiting(FLOOD);
	burst(100, 0);
	burst(100, 0);
	cr_expect_eq(w->admission.waiting, 0);
	cr_expect_eq(accepted(FLOOD), before + 2 * 100);
	expect_nothing_lost();
}

Test(admission, what_waits_of_a_revoked_session_reaches_nobody)
{
	uint64_t before, copies;
	uint32_t waited;

	windows(2, A_LOT, 4);
	before = counter(&p, FAN_COUNTER_drop_session_unknown);
	copies = seen.copies[FLOOD];
	waited = waiting(FLOOD);
	cr_assert_gt(waited, 0);
	p.regions.sessions[FLOOD].id = 0;
	drain();
	cr_expect_eq(seen.copies[FLOOD], copies);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_unknown), before + waited);
}

/* pipeline_close() fails where a buffer is not given back. */
Test(admission, gives_back_its_buffers_when_the_dataplane_ends)
{
	windows(2, A_LOT, 4);
	cr_assert_gt(w->admission.waiting, 0);
	pipeline_restart(&p);
	cr_expect_eq(rte_mempool_in_use_count(p.plane.pool), 0);
	w = p.plane.workers[0];
}

Test(admission, what_waits_is_opened_before_what_follows)
{
	uint64_t before, gaps;

	windows(2, A_LOT, 4);
	burst(A_LOT, 4);
	before = accepted(FLOOD) + waiting(FLOOD);
	gaps = counter(&p, FAN_COUNTER_drop_publish_gap);
	cr_assert_gt(waiting(FLOOD), 0);
	w->admission.sessions[FLOOD].last = 0; /* it sent little in the window before */
	burst(10, 0);
	cr_expect_eq(accepted(FLOOD), before + 10);
	cr_expect_eq(waiting(FLOOD), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_gap), gaps);
	expect_nothing_lost();
}
