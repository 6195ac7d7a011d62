/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stream against a simulated engine over a bad network: datagrams get lost, come twice, late and
 * spoilt, requests too; the log forgets. What comes out must be each sequence once, in order, as
 * the event or as lost; and lost only what the engine does not have. Time is the simulation's.
 *
 * FANWIRE_SEED=N runs one seed alone.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "client/stream.h"

#define EVENTS	    300
#define FLIGHT_MOST 8192
#define SEEDS	    1000
#define CHANNEL	    UINT64_C(0)
#define EPOCH	    UINT64_C(70)
#define END_NS	    (600 * CLOCK_S_NS)

struct packet {
	uint64_t at_ns;
	struct fan_delivery header;
	bool spoilt;
	bool request; /* to the engine: sequence .. publisher_sequence */
};

struct world {
	uint64_t seed, random;
	unsigned loss_permille;
	uint64_t now_ns;
	struct packet flight[FLIGHT_MOST];
	unsigned flight_cnt;

	/* the engine */
	uint64_t epoch, tail;
	bool gone[EVENTS + 1]; /* of the log */
	uint64_t status_ns;

	struct stream stream;
	struct reassembly reassembly;
	size_t room;
	uint64_t told; /* the last sequence that came out */
	uint64_t lost_cnt, came_cnt;
};

static struct world w;

static uint64_t draw(uint64_t below)
{
	w.random ^= w.random << 13;
	w.random ^= w.random >> 7;
	w.random ^= w.random << 17;
	return (w.random >> 13) % below;
}

static bool chance(unsigned permille)
{
	return draw(1000) < permille;
}

/* ---- the network ----------------------------------------------------------------------------- */

static void fly(const struct packet *packet)
{
	cr_assert(w.flight_cnt < FLIGHT_MOST, "seed %" PRIu64 ": too much is asked for", w.seed);
	w.flight[w.flight_cnt] = *packet;
	/* some are overtaken by many */
	w.flight[w.flight_cnt++].at_ns = w.now_ns + 50000 + draw(chance(100) ? 4000000 : 100000);
}

static void send_packet(struct packet packet)
{
	if (chance(w.loss_permille))
		return;
	packet.spoilt = chance(w.loss_permille / 10);
	fly(&packet);
	if (chance(100))
		fly(&packet);
}

static void send_header(uint8_t type, uint8_t flags, uint64_t sequence, uint64_t last)
{
	send_packet((struct packet){.header = {.type = type,
					       .flags = flags | FAN_FLAG_BEGIN | FAN_FLAG_END,
					       .payload_len = 8,
					       .channel = CHANNEL,
					       .epoch = w.epoch,
					       .sequence = sequence,
					       .publisher_sequence = last}});
}

/* ---- the engine ------------------------------------------------------------------------------ */

static void engine_publish(void)
{
	w.tail++;
	w.gone[w.tail] = chance(10);
	send_header(FAN_TYPE_DELIVERY, 0, w.tail, w.tail);
	w.status_ns = w.now_ns + 20 * CLOCK_MS_NS;
}

static void engine_answer(uint64_t first, uint64_t last)
{
	for (uint64_t i = first; i <= last && i <= w.tail; i++) {
		uint64_t to = i;

		while (w.gone[i] && to < last && to < w.tail && w.gone[to + 1])
			to++;
		send_header(w.gone[i] ? FAN_TYPE_LOST : FAN_TYPE_DELIVERY,
			    w.gone[i] ? 0 : FAN_FLAG_REPLAY, i, w.gone[i] ? to : i);
		i = to;
	}
	send_header(FAN_TYPE_STATUS, 0, w.tail, 0);
}

/* ---- the subscriber, as receive.c does it ---------------------------------------------------- */

static void out(uint64_t first, uint64_t last, bool lost)
{
	cr_assert_eq(first, w.told + 1, "seed %" PRIu64 ": %" PRIu64 " came after %" PRIu64, w.seed,
		     first, w.told);
	for (uint64_t i = first; lost && i <= last; i++)
		cr_assert(w.stream.policy != FAN_CATCH_UP || w.gone[i],
			  "seed %" PRIu64 ": %" PRIu64 " is called lost and is in the log", w.seed,
			  i);
	w.told = last;
	*(lost ? &w.lost_cnt : &w.came_cnt) += last - first + 1;
}

static void take_out_lost(void)
{
	struct reassembly_range range;

	while (reassembly_next_lost(&w.reassembly.lost, &range))
		out(range.first, range.last, true);
}

static void take_out(void)
{
	struct stream_range range;
	struct stream_held *held;
	enum stream_step step;

	take_out_lost();
	while ((step = stream_next(&w.stream, &range, &held)) != STREAM_NOTHING) {
		if (step == STREAM_LOST) {
			out(range.first, range.last, true);
			continue;
		}
		out(held->header.sequence, held->header.sequence, false);
		cr_assert_eq(memcmp(held->payload, &held->header.sequence, 8), 0);
		stream_release(&w.stream, held);
	}
}

static void subscriber_take(const struct packet *p)
{
	const struct fan_delivery *d = &p->header;

	if (d->type == FAN_TYPE_STATUS && !p->spoilt) {
		stream_status(&w.stream, &(struct stream_word){d->epoch, d->sequence, d->time_ns},
			      w.now_ns, &w.reassembly);
	} else if (d->type == FAN_TYPE_LOST && !p->spoilt) {
		stream_gone(&w.stream, d->epoch, d->sequence, d->publisher_sequence, w.now_ns,
			    &w.reassembly);
	} else if (d->type == FAN_TYPE_DELIVERY && stream_judge(&w.stream, d) == STREAM_NEW) {
		if (p->spoilt)
			return;
		if (stream_take(&w.stream, d, (const uint8_t *)&d->sequence, w.now_ns,
				&w.reassembly) == STREAM_NEXT) {
			take_out_lost();
			out(d->sequence, d->sequence, false);
		}
	}
	take_out();
}

static void subscriber_look(void)
{
	struct stream_range ranges[STREAM_ASKS];
	unsigned cnt = stream_due(&w.stream, w.now_ns, ranges);

	for (unsigned i = 0; i < cnt; i++) {
		struct packet request = {.request = true};

		cr_assert_leq(ranges[i].first, ranges[i].last);
		request.header.sequence = ranges[i].first;
		request.header.publisher_sequence = ranges[i].last;
		send_packet(request);
	}
	take_out();
}

/* ---- time ------------------------------------------------------------------------------------ */

/* What comes next; its packet is out of the flight. */
static bool land(struct packet *packet, uint64_t until_ns)
{
	unsigned first = 0;

	for (unsigned i = 1; i < w.flight_cnt; i++) {
		if (w.flight[i].at_ns < w.flight[first].at_ns)
			first = i;
	}
	if (w.flight_cnt == 0 || w.flight[first].at_ns > until_ns)
		return false;
	*packet = w.flight[first];
	w.flight[first] = w.flight[--w.flight_cnt];
	return true;
}

/* Up to a moment, with everything that falls due before it. */
static void run_until(uint64_t until_ns)
{
	for (;;) {
		uint64_t next_ns =
			clock_earlier(until_ns, clock_earlier(w.stream.due_ns, w.status_ns));
		struct packet packet;

		if (land(&packet, next_ns)) {
			w.now_ns = packet.at_ns > w.now_ns ? packet.at_ns : w.now_ns;
			if (packet.request)
				engine_answer(packet.header.sequence,
					      packet.header.publisher_sequence);
			else
				subscriber_take(&packet);
			continue;
		}
		w.now_ns = next_ns > w.now_ns ? next_ns : w.now_ns;
		if (w.now_ns >= w.stream.due_ns)
			subscriber_look();
		else if (w.now_ns >= w.status_ns) {
			w.status_ns = CLOCK_NEVER;
			send_header(FAN_TYPE_STATUS, 0, w.tail, 0);
		} else if (w.now_ns >= until_ns) {
			return;
		}
	}
}

static void world_init(uint64_t seed, unsigned loss_permille, int policy)
{
	memset(&w, 0, sizeof(w));
	w.seed = seed;
	w.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	w.loss_permille = loss_permille;
	w.now_ns = CLOCK_S_NS;
	w.epoch = EPOCH;
	w.status_ns = CLOCK_NEVER;
	w.room = STREAM_ROOM;
	stream_init(&w.stream, CHANNEL, policy, &w.room, seed);
	w.stream.mendable = true;
	stream_begin(&w.stream, &(struct stream_word){.epoch = EPOCH}, w.now_ns, &w.reassembly);
	for (unsigned i = 0; i < 20; i++)
		draw(2);
}

static void world_fini(void)
{
	stream_fini(&w.stream);
	cr_assert_eq(w.room, STREAM_ROOM, "seed %" PRIu64 ": what was held is not given back",
		     w.seed);
	reassembly_fini(&w.reassembly);
}

static void publish_all(void)
{
	while (w.tail < EVENTS) {
		unsigned burst = 1 + (unsigned)draw(40);

		for (unsigned i = 0; i < burst && w.tail < EVENTS; i++)
			engine_publish();
		run_until(w.now_ns + draw(30 * CLOCK_MS_NS));
	}
}

/* Renewals tell the tail each 20 s. */
static void run_to_the_end(void)
{
	while (w.told < EVENTS && w.now_ns < END_NS) {
		run_until(w.now_ns + 20 * CLOCK_S_NS);
		stream_answer(&w.stream, &(struct stream_word){w.epoch, w.tail, 0}, w.now_ns,
			      w.now_ns, &w.reassembly);
	}
	cr_assert_eq(w.told, EVENTS, "seed %" PRIu64 ": only %" PRIu64 " came", w.seed, w.told);
}

static void run(uint64_t seed, unsigned loss_permille)
{
	world_init(seed, loss_permille, FAN_CATCH_UP);
	publish_all();
	run_to_the_end();
	cr_assert_eq(w.came_cnt + w.lost_cnt, EVENTS);
	cr_assert(loss_permille < 100 || w.stream.request_cnt, "seed %" PRIu64 ": nothing was lost",
		  seed);
	world_fini();
}

static void run_seeds(unsigned loss_permille)
{
	const char *one = getenv("FANWIRE_SEED");

	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run(one ? strtoull(one, NULL, 10) : seed, loss_permille);
}

Test(stream, mends_a_loss_of_a_thousandth)
{
	run_seeds(1);
}

Test(stream, mends_a_loss_of_a_hundredth)
{
	run_seeds(10);
}

Test(stream, mends_a_loss_of_a_twentieth)
{
	run_seeds(50);
}

Test(stream, mends_a_loss_of_a_fifth)
{
	run_seeds(200);
}

Test(stream, mends_a_loss_of_a_half)
{
	run_seeds(500);
}

/* Whatever does not wait: the same order and the same completeness, without requests. */
Test(stream, tells_every_gap_where_only_the_latest_is_wanted)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		world_init(seed, 200, FAN_LATEST);
		publish_all();
		run_to_the_end();
		cr_assert_eq(w.stream.request_cnt, 0);
		cr_assert_gt(w.lost_cnt, 0);
		cr_assert_gt(w.came_cnt, 0);
		cr_assert_eq(w.came_cnt + w.lost_cnt, EVENTS);
		world_fini();
	}
}

/* ---- one thing at a time --------------------------------------------------------------------- */

static struct stream s;
static struct reassembly reassembly;
static size_t room;

static void setup(void)
{
	room = STREAM_ROOM;
	stream_init(&s, CHANNEL, FAN_CATCH_UP, &room, 1);
	s.mendable = true;
}

static void teardown(void)
{
	stream_fini(&s);
	reassembly_fini(&reassembly);
}

TestSuite(one_stream, .init = setup, .fini = teardown);

static void begin(uint64_t epoch, uint64_t sequence)
{
	stream_begin(&s, &(struct stream_word){epoch, sequence, 0}, 0, &reassembly);
}

static void status(uint64_t epoch, uint64_t sequence, uint64_t time_ns)
{
	stream_status(&s, &(struct stream_word){epoch, sequence, time_ns}, 0, &reassembly);
}

static enum stream_verdict judge(uint64_t epoch, uint64_t sequence, uint64_t time_ns)
{
	return stream_judge(&s, &(struct fan_delivery){
					.epoch = epoch, .sequence = sequence, .time_ns = time_ns});
}

static enum stream_taken take_at(uint64_t epoch, uint64_t sequence, uint8_t flags, uint64_t time_ns)
{
	struct fan_delivery d = {
		.epoch = epoch, .sequence = sequence, .flags = flags, .time_ns = time_ns};

	cr_assert_eq(stream_judge(&s, &d), STREAM_NEW);
	return stream_take(&s, &d, (const uint8_t *)"", 0, &reassembly);
}

static enum stream_taken take_of(uint64_t epoch, uint64_t sequence, uint8_t flags)
{
	return take_at(epoch, sequence, flags, 0);
}

static enum stream_taken take(uint64_t sequence)
{
	return take_of(EPOCH, sequence, 0);
}

static void expect_datagram(uint64_t sequence)
{
	struct stream_range range;
	struct stream_held *held;

	cr_assert_eq(stream_next(&s, &range, &held), STREAM_DATAGRAM);
	cr_assert_eq(held->header.sequence, sequence);
	stream_release(&s, held);
}

static void expect_gone(uint64_t first, uint64_t last)
{
	struct stream_range range;
	struct stream_held *held;

	cr_assert_eq(stream_next(&s, &range, &held), STREAM_LOST);
	cr_assert_eq(range.first, first);
	cr_assert_eq(range.last, last);
}

static void expect_waits(void)
{
	struct stream_range range;
	struct stream_held *held;

	cr_assert_eq(stream_next(&s, &range, &held), STREAM_NOTHING);
}

static void expect_lost(uint64_t epoch, uint64_t first, uint64_t last)
{
	struct reassembly_range range;

	cr_assert(reassembly_next_lost(&reassembly.lost, &range));
	cr_assert_eq(range.epoch, epoch);
	cr_assert_eq(range.first, first);
	cr_assert_eq(range.last, last);
}

static void expect_ask(uint64_t first, uint64_t last)
{
	struct stream_range ranges[STREAM_ASKS];

	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 1);
	cr_assert_eq(ranges[0].first, first);
	cr_assert_eq(ranges[0].last, last);
}

Test(one_stream, asks_soon_and_then_ever_more_seldom)
{
	uint64_t asked_ns = 0, pause_ns = 0;

	begin(EPOCH, 0);
	cr_assert_eq(take(1), STREAM_NEXT);
	cr_assert_eq(take(5), STREAM_HELD);
	cr_assert(s.due_ns >= 2 * CLOCK_MS_NS && s.due_ns <= 5 * CLOCK_MS_NS);
	for (unsigned i = 0; i < 12; i++) {
		pause_ns = s.due_ns - asked_ns;
		asked_ns = s.due_ns;
		expect_ask(2, 4);
	}
	cr_assert(pause_ns >= 500 * CLOCK_MS_NS && pause_ns <= 1500 * CLOCK_MS_NS);
}

Test(one_stream, asks_for_several_gaps_and_no_more_than_it_can_hold)
{
	struct stream_range ranges[STREAM_ASKS];

	begin(EPOCH, 0);
	take(3);
	take(6);
	status(EPOCH, 1000000, 0);
	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 3);
	cr_assert(ranges[0].first == 1 && ranges[0].last == 2);
	cr_assert(ranges[1].first == 4 && ranges[1].last == 5);
	cr_assert_eq(ranges[2].first, 7);
	cr_assert_leq(ranges[2].last, STREAM_WINDOW);
}

Test(one_stream, holds_back_no_more_than_its_room)
{
	begin(EPOCH, 0);
	cr_assert_eq(take(STREAM_WINDOW + 1), STREAM_FULL);
	cr_assert_eq(take(STREAM_WINDOW), STREAM_HELD);
	room = 1;
	cr_assert_eq(take(2), STREAM_FULL);
	cr_assert_eq(take(1), STREAM_NEXT);
	room += STREAM_ROOM - 1;
	expect_waits();
	expect_ask(2, 257);
}

Test(one_stream, a_held_one_is_a_duplicate_the_second_time)
{
	begin(EPOCH, 0);
	take(2);
	cr_assert_eq(judge(EPOCH, 2, 0), STREAM_DUPLICATE);
	cr_assert_eq(judge(EPOCH, 0, 0), STREAM_OLD);
	take(1);
	expect_datagram(2);
	cr_assert_eq(judge(EPOCH, 1, 0), STREAM_DUPLICATE);
}

Test(one_stream, what_the_engine_has_lost_is_told_where_it_was)
{
	begin(EPOCH, 0);
	take(3);
	take(9);
	stream_gone(&s, EPOCH, 5, 6, 0, &reassembly);
	expect_waits();
	stream_gone(&s, EPOCH, 1, 2, 0, &reassembly);
	expect_gone(1, 2);
	expect_datagram(3);
	expect_waits();
	take(4);
	expect_gone(5, 6);
	expect_waits();
	stream_gone(&s, EPOCH, 1, 50000, 0, &reassembly);
	expect_gone(7, 8);
	expect_datagram(9);
	expect_gone(10, 50000);
	expect_waits();
	cr_assert_eq(s.held_cnt, 0);
}

Test(one_stream, what_is_missing_at_the_end_is_lost_and_what_is_there_is_not)
{
	begin(EPOCH, 0);
	take(3);
	status(EPOCH, 5000, 0);
	stream_finish(&s);
	expect_gone(1, 2);
	expect_datagram(3);
	expect_gone(4, 5000);
	expect_waits();
}

Test(one_stream, resumes_after_its_cursor)
{
	stream_resume(&s, EPOCH, 10, 0);
	begin(EPOCH, 14);
	cr_assert_eq(take(15), STREAM_HELD, "what is newer waits");
	expect_ask(11, 14);
	for (uint64_t i = 11; i <= 14; i++)
		take_of(EPOCH, i, FAN_FLAG_REPLAY);
	expect_datagram(15);
	cr_assert(s.followed);
}

Test(one_stream, of_another_epoch_the_cursors_rest_is_lost)
{
	stream_resume(&s, EPOCH, 10, 0);
	begin(EPOCH + 1, 3);
	expect_lost(EPOCH, 11, UINT64_MAX);
	expect_ask(1, 3);
	cr_assert_eq(judge(EPOCH, 11, 0), STREAM_OLD);
}

Test(one_stream, a_cursor_ahead_of_the_stream_is_told_and_waits_for_nothing)
{
	stream_resume(&s, EPOCH, 100, 0);
	begin(EPOCH, 14);
	expect_lost(EPOCH, 101, UINT64_MAX); /* and it is told of it */
	cr_assert_not(stream_behind(&s));
	cr_assert_eq(take(15), STREAM_NEXT);
}

Test(one_stream, begins_where_the_engine_says)
{
	begin(0, 0); /* no event yet: all of it is ours */
	cr_assert_eq(take_at(EPOCH, 2, 0, 1), STREAM_HELD);
	expect_ask(1, 1);
	cr_assert_eq(reassembly.lost.cnt, 0);
}

Test(one_stream, asks_for_the_tail_after_a_quiet_second_and_not_for_ever)
{
	struct stream_range ranges[STREAM_ASKS];

	begin(EPOCH, 0);
	take(1);
	cr_assert_eq(s.due_ns, CLOCK_S_NS);
	for (unsigned i = 0; i < 3; i++)
		expect_ask(2, UINT64_MAX);
	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 0);
	cr_assert_eq(s.due_ns, CLOCK_NEVER);
	take(2);
	status(EPOCH, 2, 0); /* the engine has said it */
	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 0);
	cr_assert_eq(s.due_ns, CLOCK_NEVER);
}

Test(one_stream, what_never_opens_does_not_stop_it_for_ever)
{
	begin(EPOCH, 0);
	take(2);
	for (unsigned i = 0; i < STREAM_SPOILT_MOST; i++) {
		expect_waits();
		stream_spoilt(&s, EPOCH, 1);
		stream_spoilt(&s, EPOCH, 5); /* not what it waits for */
	}
	expect_gone(1, 1);
	expect_datagram(2);
}

Test(one_stream, leaves_where_that_is_the_policy)
{
	struct stream_range ranges[STREAM_ASKS];

	s.policy = FAN_DISCONNECT;
	begin(EPOCH, 0);
	take(2); /* overtaken in the network: no reason to leave */
	take(1);
	expect_datagram(2);
	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 0);
	cr_assert_not(s.slow);
	take(4);
	cr_assert_eq(stream_due(&s, s.due_ns, ranges), 0);
	cr_assert(s.slow);
}

/* ---- epochs ---------------------------------------------------------------------------------- */

#define AT 1000 /* the engine's clock when the stream was begun */

static void begin_at(uint64_t epoch, uint64_t sequence)
{
	stream_begin(&s, &(struct stream_word){epoch, sequence, AT}, 1, &reassembly);
}

static bool answer(uint64_t epoch, uint64_t sequence, uint64_t asked_ns)
{
	return stream_answer(&s, &(struct stream_word){epoch, sequence, AT}, asked_ns, asked_ns + 1,
			     &reassembly);
}

static void expect_nothing_lost(void)
{
	struct reassembly_range range;

	cr_assert_not(reassembly_next_lost(&reassembly.lost, &range));
}

/* What somebody on the way has kept, of each type: it changes nothing. */
static void send_again(uint64_t epoch, uint64_t time_ns)
{
	uint64_t present = s.epoch, cursor = s.cursor, tail = s.tail;

	cr_assert_eq(judge(epoch, 1, time_ns), STREAM_OLD);
	status(epoch, 50, time_ns);
	stream_gone(&s, epoch, 1, 60, 0, &reassembly);
	stream_gone(&s, epoch, 1, UINT64_MAX, 0, &reassembly);
	expect_waits();
	expect_nothing_lost();
	cr_assert(s.epoch == present && s.cursor == cursor && s.tail == tail);
}

Test(epochs, what_is_sent_again_of_an_earlier_one_changes_nothing, .init = setup, .fini = teardown)
{
	begin_at(EPOCH, 0);
	send_again(EPOCH - 1, AT - 1);
	send_again(EPOCH - 1, AT);
	take_at(EPOCH, 1, 0, AT + 10);
	send_again(EPOCH - 1, AT + 10);
	take_at(EPOCH + 1, 1, 0, AT + 20);
	expect_lost(EPOCH, 2, UINT64_MAX);
	send_again(EPOCH, AT + 10);
	send_again(EPOCH, AT + 30); /* with a clock that was ahead */
	send_again(EPOCH - 1, AT + 5);
	cr_assert_eq(take_at(EPOCH + 1, 2, 0, AT + 21), STREAM_NEXT);
	status(EPOCH + 2, 1, AT + 40);
	expect_lost(EPOCH + 1, 3, UINT64_MAX);
	send_again(EPOCH + 1, AT + 20);
	send_again(EPOCH, AT + 10);
	cr_assert_eq(take_at(EPOCH + 2, 1, 0, AT + 35), STREAM_NEXT, "it began before its status");
}

Test(epochs, before_the_first_event_nothing_older_than_the_grant_is_taken, .init = setup,
     .fini = teardown)
{
	begin_at(0, 0);
	send_again(EPOCH, AT);
	cr_assert_eq(take_at(EPOCH + 1, 1, 0, AT + 1), STREAM_NEXT);
	expect_nothing_lost();
}

Test(epochs, a_lost_range_begins_none, .init = setup, .fini = teardown)
{
	begin_at(EPOCH, 0);
	stream_gone(&s, EPOCH + 1, 1, 5, 0, &reassembly);
	cr_assert_eq(s.epoch, EPOCH);
}

Test(epochs, fanwireds_word_heals_what_no_clock_can, .init = setup, .fini = teardown)
{
	begin_at(EPOCH, 3);
	take_at(EPOCH, 4, 0, AT + 10);
	take_at(EPOCH - 1, 1, 0, AT + 1000); /* of a day when the clock was wrong, sent again */
	expect_lost(EPOCH, 5, UINT64_MAX);
	cr_assert_eq(judge(EPOCH, 5, AT + 20), STREAM_OLD);
	cr_assert(answer(EPOCH, 6, 100), "named once: to be asked again");
	cr_assert_eq(s.epoch, EPOCH - 1);
	cr_assert_not(answer(EPOCH, 6, 200));
	cr_assert_eq(s.epoch, EPOCH);
	expect_lost(EPOCH - 1, 2, UINT64_MAX);
	cr_assert_eq(judge(EPOCH, 4, AT + 10), STREAM_DUPLICATE, "where it was, not from 1 on");
	expect_ask(5, 6);
	take_of(EPOCH, 5, FAN_FLAG_REPLAY);
	send_again(EPOCH - 1, AT + 1000);
	take_at(EPOCH + 1, 1, 0, AT + 20); /* the clock's present time counts again */
}

Test(epochs, a_tail_that_was_read_before_the_switch_is_not_believed, .init = setup,
     .fini = teardown)
{
	begin_at(EPOCH, 0);
	take_at(EPOCH, 1, 0, AT + 10);
	stream_status(&s, &(struct stream_word){EPOCH + 1, 0, AT + 20}, 500, &reassembly);
	expect_lost(EPOCH, 2, UINT64_MAX);
	for (unsigned i = 0; i < 3; i++)
		cr_assert(answer(EPOCH, 1, 499));
	cr_assert_eq(s.epoch, EPOCH + 1);
	cr_assert(answer(EPOCH, 1, 500));
	cr_assert_not(answer(EPOCH + 1, 0, 600), "the present one: the other is forgotten");
	cr_assert(answer(EPOCH, 1, 700));
	cr_assert_eq(s.epoch, EPOCH + 1);
}
