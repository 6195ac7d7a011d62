/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

static struct engine engine;
static struct fan_publisher *publisher;
static const struct fan_credential credential = {.name = "orders", .secret = "s"};

static void setup(void)
{
	engine_start(&engine);
	cr_assert_eq(fan_publisher_open(&publisher, engine.path, &credential), 0, "%s",
		     fan_error());
}

static void teardown(void)
{
	fan_publisher_close(publisher);
	engine_stop(&engine);
}

TestSuite(publisher, .init = setup, .fini = teardown, .timeout = 30);

struct seen { /* what on_receipt was told */
	unsigned cnt;
	int status[512];
	int64_t ticket[512];
	struct fan_receipt receipt[512];
};

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct seen *seen = arg;

	seen->status[seen->cnt] = status;
	seen->ticket[seen->cnt] = ticket;
	seen->receipt[seen->cnt++] = *receipt;
}

static int64_t start(const char *payload)
{
	struct fan_event_spec event = {
		.user = "alice", .kind = 4, .payload = payload, .payload_len = strlen(payload)};

	return fan_publish_start(publisher, &event);
}

/*
 * Accepts what is in the socket strictly in order and answers; loses what a dropper says, publishes
 * (it is told their sequence) and acknowledgements (0).
 */
static void serve(unsigned *seen_cnt, bool (*drop)(uint64_t sequence, unsigned nth))
{
	struct engine_publish publish;

	while (engine_recv(&engine, &publish, 0)) {
		uint64_t sequence = publish.header.publisher_sequence;
		struct fan_result result = engine_result(sequence);

		if (drop && drop(sequence, (*seen_cnt)++))
			continue;
		if (sequence > engine.accepted + 1)
			continue;
		if (sequence == engine.accepted + 1)
			engine.accepted++;
		if (drop && drop(0, (*seen_cnt)++))
			continue; /* the acknowledgement */
		engine_ack(&engine, engine.accepted, &result, 1, false);
	}
}

static void run(struct seen *seen, bool (*drop)(uint64_t sequence, unsigned nth))
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < 2000; i++) {
		serve(&cnt, drop);
		if (fan_publisher_step(publisher, 5, on_receipt, seen) == 0)
			return;
	}
	cr_assert_fail("events are still in flight");
}

/* What a program does that has nothing to publish: it steps when the descriptor says so. */
static void idle(struct seen *seen)
{
	struct pollfd poller = {.fd = fan_publisher_fd(publisher), .events = POLLIN};

	if (poll(&poller, 1, 10) > 0)
		fan_publisher_step(publisher, 0, on_receipt, seen);
}

Test(publisher, gives_the_engines_result)
{
	struct seen seen = {0};

	cr_assert_gt(start("hello"), 0);
	run(&seen, NULL);
	cr_assert_eq(seen.cnt, 1);
	cr_assert_eq(seen.status[0], 0);
	cr_assert_eq(seen.receipt[0].epoch, 77);
	cr_assert_eq(seen.receipt[0].sequence, 1001);
	cr_assert_eq(seen.receipt[0].attempted, 3);
	cr_assert_eq(seen.receipt[0].sent, 2);
}

Test(publisher, seals_the_event_and_its_header)
{
	struct engine_publish publish;
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t channel;
	struct fan_event_spec event = {
		.user = "bob", .thread = "room", .kind = 300, .payload = "x", .payload_len = 1};

	cr_assert_eq(fan_publish_start(publisher, &event), 1);
	cr_assert(engine_recv(&engine, &publish, 1000));
	fan_handle(handle, "bob", 3);
	fan_thread_channel(&channel, "room", 4);
	cr_assert_arr_eq(publish.header.handle, handle, FAN_HANDLE_LEN);
	cr_assert_eq(publish.header.channel, channel);
	cr_assert_eq(publish.header.kind, 300);
	cr_assert_eq(publish.header.session, ENGINE_SESSION);
	cr_assert_eq(publish.header.publisher_sequence, 1);
	cr_assert_eq(publish.header.flags, FAN_FLAG_BEGIN | FAN_FLAG_END);
	cr_assert_eq(publish.payload[0], 'x');
}

static bool drop_first(uint64_t sequence, unsigned nth)
{
	return nth == 0;
}

Test(publisher, resends_what_got_lost)
{
	struct seen seen = {0};

	start("lost");
	run(&seen, drop_first);
	cr_assert_eq(seen.cnt, 1);
	cr_assert_eq(seen.status[0], 0);
}

static bool drop_third(uint64_t sequence, unsigned nth)
{
	return nth == 4; /* the third datagram, once: acknowledgements count too */
}

Test(publisher, goes_back_to_the_gap)
{
	struct seen seen = {0};

	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(start("event"), i + 1);
	run(&seen, drop_third);
	cr_assert_eq(engine.accepted, 10);
	cr_assert_eq(seen.cnt, 10);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert_eq(seen.ticket[i], i + 1);
		cr_assert_eq(seen.receipt[i].sequence, 1001 + i);
	}
}

static bool drop_a_quarter(uint64_t sequence, unsigned nth)
{
	return random() % 4 == 0;
}

Test(publisher, survives_loss_both_ways_in_order)
{
	struct seen seen = {0};

	srandom(7);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_gt(start("event"), 0);
	run(&seen, drop_a_quarter);
	cr_assert_eq(seen.cnt, 100);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(seen.receipt[i].sequence, 1000 + (uint64_t)seen.ticket[i]);
}

Test(publisher, asks_again_only_for_the_missing_result)
{
	struct engine_publish publish;
	struct seen seen = {0};
	struct fan_result results[3];

	for (unsigned i = 0; i < 4; i++)
		start("event");
	for (unsigned i = 0; i < 4; i++)
		cr_assert(engine_recv(&engine, &publish, 1000));
	/* all four are accepted, but the result of the second went astray */
	results[0] = engine_result(1);
	results[1] = engine_result(3);
	results[2] = engine_result(4);
	engine_ack(&engine, 4, results, 3, false);
	cr_assert_eq(fan_publisher_step(publisher, 100, on_receipt, &seen), 1);
	cr_assert_eq(seen.cnt, 3);
	fan_publisher_step(publisher, 200, on_receipt, &seen);
	cr_assert(engine_recv(&engine, &publish, 1000));
	cr_assert_eq(publish.header.publisher_sequence, 2);
	results[0] = engine_result(2);
	engine_ack(&engine, 4, results, 1, false);
	cr_assert_eq(fan_publisher_step(publisher, 1000, on_receipt, &seen), 0);
	cr_assert_eq(seen.cnt, 4);
	cr_assert_eq(seen.receipt[3].sequence, 1002);
	while (engine_recv(&engine, &publish, 0))
		cr_assert_eq(publish.header.publisher_sequence, 2, "resent what was answered");
}

Test(publisher, is_not_stuck_behind_what_is_still_on_its_way)
{
	struct engine_publish publish;
	struct seen seen = {0};
	struct fan_result results[10];

	for (unsigned i = 0; i < 40; i++)
		start("event");
	while (engine_recv(&engine, &publish, 0))
		;
	for (unsigned i = 0; i < 10; i++)
		results[i] = engine_result(i + 1);
	/* half of them are accepted, a quarter answered; then there is silence for a while */
	engine.accepted = 20;
	engine_ack(&engine, 20, results, 10, false);
	for (unsigned i = 0; i < 10; i++)
		fan_publisher_step(publisher, 100, on_receipt, &seen);
	run(&seen, NULL);
	cr_assert_eq(seen.cnt, 40);
}

Test(publisher, does_not_take_its_callers_absence_for_a_slow_network)
{
	struct engine_publish publish;
	struct seen seen = {0};
	struct fan_result result = engine_result(1);

	start("a");
	engine_ack(&engine, 1, &result, 1, false);
	usleep(400000); /* the answer waits for the caller */
	cr_assert_eq(fan_publisher_step(publisher, 0, on_receipt, &seen), 0);
	start("b");
	fan_publisher_step(publisher, 200, on_receipt, &seen);
	cr_assert(engine_recv(&engine, &publish, 1000));
	cr_assert(engine_recv(&engine, &publish, 1000));
	cr_assert(engine_recv(&engine, &publish, 0), "not resent within 200 ms");
	cr_assert_eq(publish.header.publisher_sequence, 2);
}

Test(publisher, takes_acknowledgements_in_any_order)
{
	struct seen seen = {0};
	struct fan_result result;

	start("a");
	start("b");
	result = engine_result(2);
	engine_ack_as(&engine, 9, 2, &result, 1);
	result = engine_result(1);
	engine_ack_as(&engine, 8, 1, &result, 1);
	for (unsigned i = 0; i < 10 && seen.cnt < 2; i++)
		fan_publisher_step(publisher, 100, on_receipt, &seen);
	cr_assert_eq(seen.cnt, 2);
	cr_assert_eq(seen.status[0], 0);
}

Test(publisher, ignores_forged_and_foreign_acknowledgements)
{
	struct seen seen = {0};
	struct fan_result right = engine_result(1), beyond = engine_result(99);

	start("a");
	engine_ack(&engine, 1, &right, 1, true);
	engine_ack(&engine, 99, &beyond, 1, false);
	sendto(engine.udp, "\1\2", 2, 0, (struct sockaddr *)&engine.peer, sizeof(engine.peer));
	cr_assert_eq(fan_publisher_step(publisher, 100, on_receipt, &seen), 1);
	cr_assert_eq(seen.cnt, 0, "a forged acknowledgement was believed");
	run(&seen, NULL);
	cr_assert_eq(seen.status[0], 0);
}

Test(publisher, ignores_a_replayed_acknowledgement)
{
	struct seen seen = {0};
	struct fan_result result = engine_result(1);

	start("a");
	engine_ack_as(&engine, 5, 1, &result, 1);
	cr_assert_eq(fan_publisher_step(publisher, 1000, on_receipt, &seen), 0);
	start("b");
	result = engine_result(
		2); /* counter 5 is used up: whoever says it again is not the engine */
	engine_ack_as(&engine, 5, 2, &result, 1);
	cr_assert_eq(fan_publisher_step(publisher, 50, on_receipt, &seen), 1);
	engine_ack_as(&engine, 6, 2, &result, 1);
	cr_assert_eq(fan_publisher_step(publisher, 1000, on_receipt, &seen), 0);
	cr_assert_eq(seen.cnt, 2);
}

Test(publisher, fragments_an_event_of_a_mebibyte)
{
	struct fan_event_spec event = {.user = "alice", .payload_len = FAN_EVENT_MAX};
	uint8_t *payload = malloc(FAN_EVENT_MAX + 1), *whole = malloc(FAN_EVENT_MAX);
	struct engine_publish publish;
	struct seen seen = {0};
	uint64_t accepted = 0, fragments = FAN_EVENT_MAX / ENGINE_LIMIT;

	for (size_t i = 0; i < FAN_EVENT_MAX; i++)
		payload[i] = (uint8_t)(i * 31 + i / 251);
	event.payload = payload;
	cr_assert_eq(fan_publish_start(publisher, &event), 1);
	memset(payload, 0, FAN_EVENT_MAX); /* the library has its own copy */
	cr_assert_eq(start("next"), -EAGAIN, "an event overtook the fragments before it");
	while (seen.cnt == 0) {
		while (engine_recv(&engine, &publish, 0)) {
			uint64_t sequence = publish.header.publisher_sequence;
			struct fan_result result = engine_result(sequence);

			result.sent = sequence == 100 ? 1 : 3;
			if (sequence == accepted + 1) {
				memcpy(whole + accepted * ENGINE_LIMIT, publish.payload,
				       ENGINE_LIMIT);
				cr_assert_eq(publish.header.flags, sequence == 1 ? FAN_FLAG_BEGIN
								   : sequence == fragments
									   ? FAN_FLAG_END
									   : 0);
				accepted++;
			}
			if (sequence <= accepted)
				engine_ack(&engine, accepted, &result, 1, false);
		}
		fan_publisher_step(publisher, 1, on_receipt, &seen);
	}
	cr_assert_eq(seen.status[0], 0);
	cr_assert_eq(seen.receipt[0].sequence, 1000 + fragments);
	cr_assert_eq(seen.receipt[0].sent, 1, "not the least of its fragments");
	for (size_t i = 0; i < FAN_EVENT_MAX; i++)
		cr_assert_eq(whole[i], (uint8_t)(i * 31 + i / 251));
	free(payload);
	free(whole);
}

/* An event of two fragments, answered with these epochs: the one in `first` before the other. */
static struct fan_receipt two_fragments(uint64_t epoch1, uint64_t epoch2, unsigned first)
{
	static const uint8_t payload[2 * ENGINE_LIMIT];
	struct fan_event_spec event = {
		.user = "alice", .payload = payload, .payload_len = sizeof(payload)};
	struct fan_result results[2] = {engine_result(1), engine_result(2)};
	struct engine_publish publish;
	struct seen seen = {0};

	results[0].epoch = epoch1;
	results[1].epoch = epoch2;
	cr_assert_eq(fan_publish_start(publisher, &event), 1);
	for (unsigned i = 0; i < 2; i++)
		cr_assert(engine_recv(&engine, &publish, 1000));
	engine_ack(&engine, 2, &results[first], 1, false);
	engine_ack(&engine, 2, &results[!first], 1, false);
	for (unsigned i = 0; i < 10 && seen.cnt == 0; i++)
		fan_publisher_step(publisher, 100, on_receipt, &seen);
	cr_assert_eq(seen.cnt, 1);
	cr_assert_eq(seen.status[0], 0);
	cr_assert_eq(seen.receipt[0].epoch, epoch2);
	cr_assert_eq(seen.receipt[0].sequence, 1002);
	cr_assert_eq(seen.receipt[0].attempted, 3);
	return seen.receipt[0];
}

Test(publisher, fragments_of_one_stream_were_sent)
{
	cr_assert_eq(two_fragments(77, 77, 1).sent, 2);
}

Test(publisher, fragments_of_two_streams_were_sent_to_nobody)
{
	cr_assert_eq(two_fragments(77, 78, 0).sent, 0);
}

Test(publisher, fragments_of_two_streams_were_sent_to_nobody_in_any_order)
{
	cr_assert_eq(two_fragments(77, 78, 1).sent, 0);
}

Test(publisher, refuses_what_cannot_be_an_event)
{
	char long_name[257];
	struct fan_event_spec event = {.user = "alice", .payload = long_name};

	memset(long_name, 'x', 256);
	long_name[256] = 0;
	event.payload_len = FAN_EVENT_MAX + 1;
	cr_assert_eq(fan_publish_start(publisher, &event), -EMSGSIZE);
	event.payload_len = 0;
	event.user = "";
	cr_assert_eq(fan_publish_start(publisher, &event), -EINVAL);
	event.user = long_name;
	cr_assert_eq(fan_publish_start(publisher, &event), -EINVAL);
	event.user = NULL;
	cr_assert_eq(fan_publish_start(publisher, &event), -EINVAL);
	event.user = "alice";
	event.thread = "t";
	event.connection = 1;
	cr_assert_eq(fan_publish_start(publisher, &event), -EINVAL);
	event.thread = NULL;
	event.connection = UINT64_C(1) << 62;
	cr_assert_eq(fan_publish_start(publisher, &event), -EINVAL);
	event.connection = 1;
	cr_assert_eq(fan_publish_start(publisher, &event), 1);
}

Test(publisher, has_a_window)
{
	struct seen seen = {0};

	for (unsigned i = 0; i < 256; i++)
		cr_assert_eq(start("event"), i + 1);
	cr_assert_eq(start("event"), -EAGAIN);
	run(&seen, NULL);
	cr_assert_eq(seen.cnt, 256);
	cr_assert_eq(start("event"), 257);
}

Test(publisher, tells_each_status_of_the_engine)
{
	static const struct {
		uint16_t status;
		int error;
	} cases[] = {{FAN_RESULT_NO_GROUP, 0},		{FAN_RESULT_SCOPE, -EPERM},
		     {FAN_RESULT_TOO_LARGE, -EMSGSIZE}, {FAN_RESULT_INTERRUPTED, -EIO},
		     {FAN_RESULT_EXPIRED, -EIO},	{FAN_RESULT_CHANNEL, -EINVAL},
		     {FAN_RESULT_UNATTENDED, -ENETDOWN}};
	struct seen seen = {0};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fan_result result = {.publisher_sequence = i + 1, .status = cases[i].status};

		start("event");
		engine_ack(&engine, i + 1, &result, 1, false);
		cr_assert_eq(fan_publisher_step(publisher, 1000, on_receipt, &seen), 0);
		cr_assert_eq(seen.status[i], cases[i].error);
	}
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

Test(publisher, gives_up_in_time_and_goes_on_later)
{
	struct fan_event_spec event = {.user = "alice", .payload = "x", .payload_len = 1};
	struct fan_receipt receipt;
	struct seen seen = {0};
	uint64_t begun_ms = now_ms();

	cr_assert_eq(fan_publish(publisher, &event, &receipt, 200), -ETIMEDOUT);
	cr_assert_geq(now_ms() - begun_ms, 200);
	cr_assert_leq(now_ms() - begun_ms, 1000);
	/* the one given up holds its place in the order, so the next is still accepted */
	cr_assert_eq(start("y"), 2);
	run(&seen, NULL);
	cr_assert_eq(engine.accepted, 2);
	cr_assert_eq(seen.cnt, 1, "an event that was given up was reported");
	cr_assert_eq(seen.ticket[0], 2);
}

/* Takes all that comes within so long; returns how many, and the last one's number. */
static unsigned take_for(int ms, uint64_t *sequence)
{
	struct engine_publish publish;
	struct seen seen = {0};
	unsigned cnt = 0;

	for (int i = 0; i < ms / 5; i++) {
		fan_publisher_step(publisher, 5, on_receipt, &seen);
		for (; engine_recv(&engine, &publish, 0); cnt++)
			*sequence = publish.header.publisher_sequence;
	}
	return cnt;
}

Test(publisher, waits_while_it_is_over_budget_and_loses_nothing)
{
	struct fan_result result = engine_result(1);
	struct seen seen = {0};
	unsigned served = 0;
	uint64_t last = 0;

	for (unsigned i = 0; i < 5; i++)
		cr_assert_gt(start("x"), 0);
	cr_assert_eq(take_for(10, &last), 5);
	engine_ack(&engine, 1, &result, 1, false);
	engine_hold_back(&engine, 1, 300);
	take_for(10, &last);
	cr_expect_eq(take_for(200, &last), 0, "it was told to wait");
	for (unsigned i = 0; i < 40 && !take_for(5, &last); i++)
		;
	cr_expect_eq(last, 2, "one datagram asks again");
	engine.accepted = 2;
	result = engine_result(2);
	engine_ack(&engine, 2, &result, 1, false);
	for (unsigned i = 0; i < 400 && fan_publisher_step(publisher, 5, on_receipt, &seen); i++)
		serve(&served, NULL);
	cr_expect_eq(engine.accepted, 5);
}

Test(publisher, says_that_it_is_over_budget)
{
	struct fan_event_spec event = {.user = "alice"};
	struct engine_publish publish;

	cr_assert_gt(start("x"), 0);
	cr_assert(engine_recv(&engine, &publish, 1000));
	engine_hold_back(&engine, 0, 60000);
	cr_expect_eq(fan_publish(publisher, &event, NULL, 100), -EDQUOT);
	cr_expect(strstr(fan_error(), "over budget"), "%s", fan_error());
}

Test(publisher, says_when_its_session_has_ended)
{
	struct seen seen = {0};

	start("a");
	engine_say(&engine, "{\"event\":\"ended\",\"session\":\"0123456789abcdef\","
			    "\"reason\":\"engine\",\"message\":\"gone\"}");
	cr_assert_eq(fan_publisher_step(publisher, 1000, on_receipt, &seen), 0);
	cr_assert_eq(seen.status[0], -EPIPE);
	cr_assert_eq(start("b"), -EPIPE);
	cr_assert_not_null(strstr(fan_error(), "gone"));
}

Test(publisher, publishes_on_while_it_attaches_again)
{
	struct seen seen = {0};

	engine_hang_up(&engine);
	start("a");
	run(&seen, NULL);
	cr_assert_eq(seen.status[0], 0);
	for (unsigned i = 0; i < 200 && engine.attaches == 0; i++)
		idle(&seen);
	cr_assert_eq(engine.attaches, 1);
	cr_assert_eq(engine.attached_same, 1, "it did not send its own socket back");
	start("b");
	run(&seen, NULL);
	cr_assert_eq(seen.cnt, 2);
	cr_assert_eq(engine.opens, 1, "it opened another session");
}

Test(publisher, ends_when_it_may_not_attach)
{
	struct seen seen = {0};

	engine.refuse = "connection_unknown";
	engine_hang_up(&engine);
	for (unsigned i = 0; i < 200; i++)
		idle(&seen);
	cr_assert_eq(start("a"), -EPIPE);
}

Test(open, tells_what_is_wrong)
{
	struct fan_publisher *p = NULL;
	struct fan_credential none = {.name = "orders"};
	struct engine e;

	cr_assert_eq(fan_publisher_open(&p, "/nonexistent/client.sock", &credential), -ENOENT);
	cr_assert_not_null(strstr(fan_error(), "/nonexistent/client.sock"));
	cr_assert_eq(fan_publisher_open(&p, "/nonexistent/client.sock", &none), -EINVAL);
	engine_start(&e);
	e.refuse = "credential";
	cr_assert_eq(fan_publisher_open(&p, e.path, &credential), -EACCES);
	e.refuse = "limit_overall";
	cr_assert_eq(fan_publisher_open(&p, e.path, &credential), -EAGAIN);
	engine_stop(&e);
}
