/* SPDX-License-Identifier: BSD-3-Clause */
/* A publisher's budget: its arithmetic, and what becomes of a publish that is over it. */
#include <criterion/criterion.h>
#include <pthread.h>

#include "dataplane/budget.h"
#include "tests/unit/dataplane/pipeline.h"

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS	  UINT64_C(1000000)
#define METER	  UINT64_C(0x700000001)
#define THREADS	  4

static struct publisher_budget b;

static uint64_t burst_of(uint64_t rate)
{
	return rate * BUDGET_BURST_MS / 1000 + 1;
}

/* Spends all that it may from `from_ns` on for so long, in events of these sizes in turn. */
static uint64_t spend_all(uint64_t rate, uint64_t from_ns, uint64_t for_ns, const uint64_t *sizes,
			  unsigned size_cnt, uint64_t *events)
{
	uint64_t now_ns = from_ns, spent = 0;
	uint32_t wait_ms;

	for (*events = 0; now_ns < from_ns + for_ns;) {
		wait_ms = budget_spend(&b, METER, rate, now_ns, sizes[*events % size_cnt]);
		now_ns += wait_ms * MS_NS;
		if (wait_ms == 0)
			spent += sizes[(*events)++ % size_cnt];
	}
	return spent;
}

Test(budget, a_day_is_exact_to_the_burst_and_one_event)
{
	static const uint64_t sizes[] = {1, 132, 3696, 64 * 1232, 7};
	const uint64_t rate = 1000003, day = 86400;
	uint64_t events, spent = spend_all(rate, 5, day * SECOND_NS, sizes, 5, &events);

	cr_expect_leq(spent, rate * day + burst_of(rate) + 64 * 1232);
	cr_expect_geq(spent, rate * day - 64 * 1232, "more was withheld than the last wait");
	cr_expect_gt(events, 1000000);
}

Test(budget, after_idling_there_is_a_burst_and_no_more)
{
	const uint64_t rate = 1000000, size = 1000;
	uint64_t now_ns = 100 * SECOND_NS, cnt = 0;

	for (unsigned again = 0; again < 3; again++, now_ns += 1000 * SECOND_NS) {
		for (cnt = 0; budget_spend(&b, METER, rate, now_ns, size) == 0;)
			cnt++;
		cr_expect_eq(cnt, burst_of(rate) / size + 1);
	}
}

Test(budget, the_wait_that_is_told_is_long_enough_and_no_longer)
{
	const uint64_t rate = 1000000;
	uint64_t now_ns = SECOND_NS;
	uint32_t wait_ms;

	cr_assert_eq(budget_spend(&b, METER, rate, now_ns, 5 * rate), 0);
	wait_ms = budget_spend(&b, METER, rate, now_ns, 1);
	cr_expect_geq(wait_ms, 4900);
	cr_expect_leq(wait_ms, 4901);
	cr_expect_neq(budget_spend(&b, METER, rate, now_ns + (wait_ms - 2) * MS_NS, 1), 0);
	cr_expect_eq(budget_spend(&b, METER, rate, now_ns + wait_ms * MS_NS, 1), 0);
}

/* All endpoints that a group can have, at a byte a second: 4,750 years of debt, and no overflow. */
Test(budget, the_largest_event_at_the_least_rate)
{
	const uint64_t bytes = UINT64_C(0xffffff) * (FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX);
	uint64_t year_ns = 365 * 86400 * SECOND_NS;

	cr_assert_eq(budget_spend(&b, METER, 1, SECOND_NS, bytes), 0);
	cr_expect_eq(budget_spend(&b, METER, 1, SECOND_NS, 1), BUDGET_WAIT_MAX_MS + 1);
	cr_expect_eq(budget_spend(&b, METER, 1, 500 * year_ns, 1), BUDGET_WAIT_MAX_MS + 1);
}

/* The scale is modulo 2^64, which at the highest rate comes after less than six years. */
Test(budget, the_scale_comes_round)
{
	static const uint64_t sizes[] = {64 * 1232};
	const uint64_t rate = UINT64_C(100000000000), round_s = UINT64_MAX / rate;
	uint64_t events, spent;

	spent = spend_all(rate, (round_s - 1) * SECOND_NS, 2 * SECOND_NS, sizes, 1, &events);
	cr_expect_leq(spent, 2 * rate + burst_of(rate) + sizes[0]);
	cr_expect_geq(spent, 2 * rate);
}

Test(budget, a_clock_that_jumps_ahead_gives_one_burst)
{
	const uint64_t rate = 1000000, size = 1000;
	uint64_t cnt = 0;

	cr_assert_eq(budget_spend(&b, METER, rate, SECOND_NS, 50 * rate), 0);
	while (budget_spend(&b, METER, rate, 10 * 365 * 86400 * SECOND_NS, size) == 0)
		cnt++;
	cr_expect_eq(cnt, burst_of(rate) / size + 1);
}

Test(budget, a_clock_that_jumps_back_holds_nobody_for_ever)
{
	const uint64_t rate = 1000000;
	uint64_t now_ns = 7200 * SECOND_NS, cnt = 0;

	cr_assert_eq(budget_spend(&b, METER, rate, now_ns, 1000), 0);
	now_ns -= 3600 * SECOND_NS;
	while (budget_spend(&b, METER, rate, now_ns, 1000) == 0)
		cnt++;
	cr_expect_eq(cnt, burst_of(rate) / 1000 + 1, "begun anew, with a burst");
}

/* Workers read their clocks at different moments: that forgives no debt. */
Test(budget, a_time_that_is_a_little_old_forgives_nothing)
{
	const uint64_t rate = 1000000;

	cr_assert_eq(budget_spend(&b, METER, rate, 10 * SECOND_NS, 300000), 0);
	cr_expect_neq(budget_spend(&b, METER, rate, 10 * SECOND_NS, 1), 0);
	cr_expect_neq(budget_spend(&b, METER, rate, 10 * SECOND_NS - 50 * MS_NS, 1), 0);
}

Test(budget, another_publisher_begins_with_nothing_spent)
{
	cr_assert_eq(budget_spend(&b, METER, 1000, SECOND_NS, 1000000), 0);
	cr_assert_neq(budget_spend(&b, METER, 1000, SECOND_NS, 1), 0);
	cr_expect_eq(budget_spend(&b, METER + 1, 1000, SECOND_NS, 1), 0);
}

/* However many sessions: what all of them had is bounded by the one meter. */
Test(budget, sessions_of_one_publisher_share_it)
{
	const uint64_t rate = 10000000, size = 396;
	uint64_t spent = 0, until = 20 * SECOND_NS;
	struct budget_ahead ahead[8] = {0};

	for (uint64_t now_ns = SECOND_NS; now_ns < until; now_ns += MS_NS)
		for (unsigned i = 0; i < 8; i++)
			while (!budget_charge(&b, &ahead[i], METER, rate, now_ns, size))
				spent += size;
	cr_expect_leq(spent, 19 * rate + burst_of(rate) + size + burst_of(rate) / BUDGET_AHEAD);
	cr_expect_geq(spent, 19 * rate);
}

static void *spender(void *arg)
{
	uint64_t *spent = arg;

	while (budget_spend(&b, METER, UINT64_C(1000000000), SECOND_NS, 100) == 0)
		*spent += 100;
	return NULL;
}

Test(budget, workers_that_spend_at_once_spend_no_more)
{
	uint64_t spent[THREADS] = {0}, sum = 0, burst = burst_of(1000000000);
	pthread_t threads[THREADS];

	/* so that it is theirs already: a meter that changes hands has one session, and one worker
	 */
	cr_assert_eq(budget_spend(&b, METER, UINT64_C(1000000000), SECOND_NS, 100), 0);
	for (unsigned i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, spender, &spent[i]), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		sum += spent[i];
	}
	cr_expect_eq(sum + 100, (burst + 99) / 100 * 100);
}

/* ---- in the pipeline ---- */

#define PAYLOAD "hello"
#define COST	(3 * (FAN_DELIVERY_LEN + sizeof(PAYLOAD) - 1))
#define RATE	(COST / 5) /* an event each five seconds */

static struct pipeline p;

static void open_two(void)
{
	pipeline_open(&p, 1);
	region_add_group(&p.regions, "alice", 0, 3, 4, 0, 25500);
	p.regions.sessions[0].meter = METER;
	p.regions.sessions[0].budget = RATE;
}

static void close_two(void)
{
	pipeline_close(&p);
}

TestSuite(budget_pipeline, .init = open_two, .fini = close_two);

/* What came out: copies, and what the last acknowledgement says. */
static struct out {
	unsigned copies, acks, results;
	uint64_t cumulative;
	struct fan_ack ack;
	struct fan_result result[FAN_ACK_RESULT_MAX];
} out;

static void publish_one(uint32_t slot, uint64_t sequence)
{
	struct publish_spec spec = {.slot = slot,
				    .sequence = sequence,
				    .payload = PAYLOAD,
				    .payload_len = sizeof(PAYLOAD) - 1};
	struct frame frame;

	memset(&out, 0, sizeof(out));
	publish(&p, &spec);
	while (take(&p, &frame)) {
		if (frame.wire[1] != FAN_TYPE_ACK) {
			out.copies++;
			continue;
		}
		out.acks++;
		cr_assert_eq(fan_ack_decode(frame.wire, frame.wire_len, &out.ack), FAN_WIRE_OK);
		out.results = ack_open(&frame, slot, &out.cumulative, out.result);
	}
}

static uint64_t accepted(uint32_t slot)
{
	return p.plane.session_states[slot].accepted;
}

/* As if so many seconds had passed. */
static void seconds_pass(unsigned s)
{
	p.plane.budgets[METER & p.plane.table.session_mask].spent -= (uint64_t)s * RATE;
}

Test(budget_pipeline, over_budget_is_held_back_before_it_has_a_place)
{
	publish_one(0, 1);
	cr_expect_eq(out.copies, 3);
	cr_expect_eq(out.ack.flags, 0);
	publish_one(0, 2);
	cr_expect_eq(out.copies, 0);
	cr_expect_eq(accepted(0), 1);
	cr_expect_eq(p.plane.group_states[0].sequence, 1, "it was given a place");
	cr_expect_eq(out.acks, 1);
	cr_expect_eq(out.results, 0);
	cr_expect_eq(out.cumulative, 1);
	cr_expect_eq(out.ack.flags, FAN_ACK_OVER_BUDGET);
	cr_expect_geq(out.ack.wait_ms, 3000);
	cr_expect_leq(out.ack.wait_ms, 5100);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_budget), 1);
	cr_expect_eq(p.plane.session_states[0].over_budget, 1);
}

Test(budget_pipeline, sent_again_it_gets_through_and_is_answered_once)
{
	publish_one(0, 1);
	publish_one(0, 2);
	publish_one(0, 2);
	cr_expect_eq(accepted(0), 1);
	seconds_pass(6);
	publish_one(0, 2);
	cr_expect_eq(out.copies, 3);
	cr_expect_eq(out.results, 1);
	cr_expect_eq(out.ack.flags, 0);
	cr_expect_eq(out.result[0].publisher_sequence, 2);
	cr_expect_eq(out.result[0].sequence, 2);
	cr_expect_eq(out.result[0].status, FAN_RESULT_OK);
	publish_one(0, 2); /* its answer was lost: not charged, not delivered again */
	cr_expect_eq(out.copies, 0);
	cr_expect_eq(out.results, 1);
	cr_expect_eq(out.result[0].sequence, 2);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_sequenced), 2);
}

Test(budget_pipeline, another_publisher_is_not_held_back)
{
	publish_one(0, 1);
	for (uint64_t s = 1; s <= 50; s++) {
		publish_one(0, 2);
		publish_one(1, s);
		cr_assert_eq(out.copies, 3);
		cr_assert_eq(accepted(1), s);
	}
	cr_expect_eq(accepted(0), 1);
}

Test(budget_pipeline, a_second_session_of_the_publisher_has_no_budget_of_its_own)
{
	p.regions.sessions[1].meter = METER;
	p.regions.sessions[1].budget = RATE;
	publish_one(0, 1);
	publish_one(1, 1);
	cr_expect_eq(out.copies, 0);
	cr_expect_eq(accepted(1), 0);
	cr_expect_eq(out.ack.flags, FAN_ACK_OVER_BUDGET);
}

Test(budget_pipeline, what_goes_to_nobody_costs_nothing)
{
	struct publish_spec spec = {.user = "nobody"};

	publish_one(0, 1);
	for (spec.sequence = 2; spec.sequence < 20; spec.sequence++)
		publish(&p, &spec);
	take_all(&p);
	cr_expect_eq(accepted(0), 19);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_budget), 0);
}

Test(budget_pipeline, none_is_unlimited)
{
	p.regions.sessions[0].budget = 0;
	for (uint64_t s = 1; s <= 100; s++)
		publish_one(0, s);
	cr_expect_eq(accepted(0), 100);
}
