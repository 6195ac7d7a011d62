/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a session sends again and when, on a clock of the test's own: the library's window against
 * an engine that takes strictly in order, over a network that loses what a seed says. A batch of
 * what has arrived is answered with one acknowledgement, a round trip after it was sent.
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "client/publisher.h"
#include "engine.h"

#define RTT_NS	   (100 * CLOCK_MS_NS / 1000)
#define BATCH	   FAN_ACK_RESULT_MAX
#define FLIGHT_MAX 64 /* acknowledgements on their way */

struct answer {
	uint64_t at_ns, accepted;
	struct fan_result results[FAN_ACK_RESULT_MAX];
	unsigned cnt;
};

struct world {
	struct engine engine;
	struct fan_publisher *p;
	uint64_t began_ns, now_ns, seed;
	unsigned loss; /* of 1000, both ways */
	uint64_t refused_until_ns;
	uint64_t sent, sent_now, most_now; /* datagrams: ever, in this turn, in any turn */
	uint64_t published, finished;
	struct answer answers[FLIGHT_MAX];
	unsigned answer_cnt;
};

static struct world world;
static const struct fan_credential credential = {.name = "orders", .secret = "s"};

static void setup(void)
{
	struct world *w = &world;

	memset(w, 0, sizeof(*w));
	engine_start(&w->engine);
	cr_assert_eq(fan_publisher_open(&w->p, w->engine.path, &credential), 0);
	w->began_ns = w->now_ns = clock_now_ns();
	w->seed = 7;
}

static void teardown(void)
{
	fan_publisher_close(world.p);
	engine_stop(&world.engine);
}

TestSuite(recovery, .init = setup, .fini = teardown, .timeout = 60);

static bool lost(struct world *w)
{
	w->seed = w->seed * UINT64_C(6364136223846793005) + 1;
	return (w->seed >> 33) % 1000 < w->loss;
}

/* ---- the application ---- */

/* An event of one datagram, where there is room. */
static bool publish(struct world *w)
{
	static const uint8_t payload[8];
	struct fan_publisher *p = w->p;
	struct publisher_event *event = &p->events[p->ticket_next % PUBLISHER_EVENTS];

	if (event->ticket || p->next - p->base >= PUBLISHER_WINDOW)
		return false;
	*event = (struct publisher_event){.ticket = p->ticket_next, .unresolved = 1};
	p->cut = (struct publisher_cut){
		.ticket = p->ticket_next++, .data = payload, .len = 8, .fragments_left = 1};
	p->active_cnt++;
	w->published++;
	cr_assert_eq(window_pump(p, w->now_ns), 0);
	return true;
}

static void collect(struct world *w)
{
	for (unsigned i = 0; i < PUBLISHER_EVENTS; i++) {
		struct publisher_event *event = &w->p->events[i];

		if (!event->finished)
			continue;
		cr_assert_eq(event->receipt.sequence, 1000 + (uint64_t)event->ticket);
		memset(event, 0, sizeof(*event));
		w->p->finished_cnt--;
		w->finished++;
	}
}

/* ---- the network and the engine ---- */

static void take(struct world *w, struct answer *answer, uint64_t sequence, bool *early)
{
	struct engine *e = &w->engine;

	if (sequence > e->accepted + 1) {
		*early = true;
		return;
	}
	if (sequence == e->accepted + 1 && w->now_ns < w->refused_until_ns)
		return; /* no room: dropped without a word */
	if (sequence == e->accepted + 1)
		e->accepted++;
	if (answer->cnt < FAN_ACK_RESULT_MAX)
		answer->results[answer->cnt++] = engine_result(sequence);
}

/* What was sent in this instant. */
static void serve(struct world *w)
{
	struct engine_publish publish;
	bool more = true;

	w->sent_now = 0;
	while (more) {
		struct answer answer = {.at_ns = w->now_ns + RTT_NS};
		bool early = false;

		for (unsigned i = 0; i < BATCH && more; i++) {
			more = engine_recv(&w->engine, &publish, 0);
			w->sent_now += more;
			if (more && !lost(w))
				take(w, &answer, publish.header.publisher_sequence, &early);
		}
		answer.accepted = w->engine.accepted;
		if ((answer.cnt || early) && !lost(w) && w->answer_cnt < FLIGHT_MAX)
			w->answers[w->answer_cnt++] = answer;
	}
	w->sent += w->sent_now;
	if (w->most_now < w->sent_now)
		w->most_now = w->sent_now;
}

static void answers_arrive(struct world *w)
{
	unsigned left = 0;

	for (unsigned i = 0; i < w->answer_cnt; i++) {
		const struct answer *a = &w->answers[i];

		if (a->at_ns <= w->now_ns)
			engine_ack(&w->engine, a->accepted, a->results, a->cnt, false);
		else
			w->answers[left++] = *a;
	}
	w->answer_cnt = left;
}

/* To the next thing that happens, or the end. */
static void turn(struct world *w, uint64_t end_ns)
{
	uint64_t next_ns = clock_earlier(end_ns, recovery_deadline(w->p));

	for (unsigned i = 0; i < w->answer_cnt; i++)
		next_ns = clock_earlier(next_ns, w->answers[i].at_ns);
	if (w->now_ns < next_ns)
		w->now_ns = next_ns;
	answers_arrive(w);
	window_receive(w->p, w->now_ns);
	recovery_expire(w->p, w->now_ns);
	cr_assert_eq(window_pump(w->p, w->now_ns), 0);
	serve(w);
	collect(w);
}

/* Publishes as much as fits until `cnt` are acknowledged; microseconds that it took. */
static uint64_t run(struct world *w, uint64_t cnt)
{
	uint64_t end_ns = w->now_ns + 600 * CLOCK_S_NS, began_ns = w->now_ns;

	while (w->finished < cnt && w->now_ns < end_ns) {
		while (w->published < cnt && publish(w))
			;
		serve(w);
		turn(w, end_ns);
	}
	cr_assert_eq(w->finished, cnt, "%lu of %lu acknowledged", w->finished, cnt);
	cr_assert_eq(w->engine.accepted, cnt);
	return (w->now_ns - began_ns) / 1000;
}

/* ---- what is asked of it ---- */

Test(recovery, sends_nothing_twice_where_nothing_is_lost)
{
	uint64_t us = run(&world, 5000);

	cr_assert_eq(world.sent, 5000);
	cr_assert_leq(us, 5000 * 100 / 32, "%lu us", us);
}

#define SEEDS 12

/* A session of its own for each seed: its beginning, when nothing is known yet, is the worst. */
static void crawl(unsigned loss, uint64_t cnt, uint64_t most_us_each, unsigned most_sent_each)
{
	uint64_t us = 0, worst_us = 0, sent = 0;

	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		uint64_t one_us;

		teardown();
		setup();
		world.loss = loss;
		world.seed = seed;
		one_us = run(&world, cnt);
		us += one_us;
		worst_us = worst_us > one_us ? worst_us : one_us;
		sent += world.sent;
	}
	cr_assert_leq(us, SEEDS * cnt * most_us_each, "%lu us an event at %u of 1000",
		      us / cnt / SEEDS, loss);
	cr_assert_leq(worst_us, 3 * cnt * most_us_each, "%lu us an event at worst at %u of 1000",
		      worst_us / cnt, loss);
	cr_assert_leq(sent, SEEDS * cnt * most_sent_each, "%lu datagrams for %lu events", sent,
		      SEEDS * cnt);
}

/* Waiting for the clock alone would be 1,000 us for each loss. */
Test(recovery, a_twentieth_lost_costs_little)
{
	crawl(50, 1000, 25, 3);
}

Test(recovery, a_fifth_lost_is_no_crawl)
{
	crawl(200, 1000, 90, 8);
}

Test(recovery, half_of_all_lost_is_no_crawl)
{
	crawl(500, 500, 1500, 24);
}

Test(recovery, a_gap_is_filled_one_round_trip_after_it_was_told)
{
	struct world *w = &world;

	for (unsigned i = 0; i < 20; i++)
		cr_assert(publish(w));
	serve(w); /* all are taken */
	turn(w, CLOCK_NEVER);
	cr_assert_eq(w->finished, 20);
	w->loss = 1000;
	cr_assert(publish(w));
	serve(w);
	w->loss = 0;
	cr_assert(publish(w));
	serve(w);
	w->began_ns = w->now_ns;
	while (w->finished < 22)
		turn(w, CLOCK_NEVER);
	cr_assert_eq(w->now_ns - w->began_ns, 2 * RTT_NS, "%lu ns", w->now_ns - w->began_ns);
	cr_assert_eq(w->sent, 24, "the one that was lost, and the one that was dropped");
}

Test(recovery, silence_is_asked_ever_more_slowly)
{
	struct world *w = &world;
	uint64_t end_ns, before;

	run(w, 100);
	w->loss = 1000;
	for (unsigned i = 0; i < 200; i++)
		publish(w);
	serve(w);
	w->most_now = 0;
	before = w->sent;
	end_ns = w->now_ns + 10 * CLOCK_S_NS;
	while (w->now_ns < end_ns)
		turn(w, end_ns);
	cr_assert_leq(w->sent - before, 300, "%lu datagrams in ten seconds", w->sent - before);
	cr_assert_leq(w->most_now, PUBLISHER_WINDOW / 2);
	w->loss = 0; /* and it goes on as if nothing had been */
	w->began_ns = w->now_ns;
	run(w, 1000);
	cr_assert_leq(w->now_ns - w->began_ns, 600 * CLOCK_MS_NS);
}

/* The next one is dropped for want of room, and what is behind it answered as early each time. */
Test(recovery, an_engine_without_room_is_not_pressed)
{
	struct world *w = &world;

	run(w, 100);
	w->refused_until_ns = w->now_ns + 50 * CLOCK_MS_NS;
	w->sent = 0;
	run(w, 400);
	cr_assert_leq(w->sent, 300 + 30 * 16, "%lu datagrams for 300", w->sent);
	cr_assert_lt(w->now_ns, w->refused_until_ns + 60 * CLOCK_MS_NS);
}

Test(recovery, what_is_in_flight_is_bounded_at_any_loss)
{
	struct world *w = &world;

	for (unsigned loss = 0; loss <= 900; loss += 100) {
		uint64_t end_ns = w->now_ns + 200 * CLOCK_MS_NS;

		w->loss = loss;
		while (w->now_ns < end_ns) {
			while (publish(w))
				;
			serve(w);
			turn(w, end_ns);
			cr_assert_leq(w->p->in_flight_cnt, PUBLISHER_WINDOW + 3);
		}
	}
}
