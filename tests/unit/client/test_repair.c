/* SPDX-License-Identifier: BSD-3-Clause */
/* A whole subscription: sealed deliveries, requests for what is missing, resuming, policies. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

#define TAILS "[{\"channel\":\"0000000000000000\",\"epoch\":\"0000000000000007\",\"sequence\":%d}]"

static struct engine engine;
static struct fan_subscription *subscription;
static struct fan_subscribe_options options;
static char tails[256];

static void setup(void)
{
	engine_start(&engine);
	engine.seals = true;
	options = (struct fan_subscribe_options){.token = "t", .timeout_ms = 3000};
}

static void teardown(void)
{
	fan_subscription_close(subscription);
	engine_stop(&engine);
}

TestSuite(repair, .init = setup, .fini = teardown, .timeout = 60);

static void subscribe(int tail)
{
	snprintf(tails, sizeof(tails), TAILS, tail);
	engine.tails = tails;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), 0, "%s", fan_error());
}

static void deliver_as(uint64_t sequence, uint8_t flags, uint8_t generation)
{
	struct fan_delivery d = engine_delivery(sequence, 5);

	d.flags |= flags;
	d.key_generation = generation;
	engine_deliver(&engine, &d, "hello");
}

static void deliver(uint64_t sequence)
{
	deliver_as(sequence, 0, 1);
}

static void replay(uint64_t sequence)
{
	deliver_as(sequence, FAN_FLAG_REPLAY, 1);
}

static void say(uint8_t type, uint64_t sequence, uint64_t last)
{
	struct fan_delivery d = engine_delivery(sequence, 0);

	d.type = type;
	d.flags = 0;
	d.publisher_sequence = last;
	engine_deliver(&engine, &d, NULL);
}

static struct fan_event expect(enum fan_event_type type)
{
	struct fan_event event = {0};

	cr_assert_eq(fan_receive(subscription, &event, 4000), 1, "nothing comes");
	cr_assert_eq(event.type, type);
	return event;
}

static void expect_data(uint64_t sequence, int recovered)
{
	struct fan_event event = expect(FAN_EVENT_DATA);

	cr_assert_eq(event.sequence, sequence);
	cr_assert_eq(event.recovered != 0, recovered);
	cr_assert_eq(event.payload_len, 5);
	cr_assert_arr_eq(event.payload, "hello", 5);
}

static void expect_lost(uint64_t first, uint64_t last)
{
	struct fan_event event = expect(FAN_EVENT_LOST);

	cr_assert_eq(event.lost_first, first);
	cr_assert_eq(event.lost_last, last);
}

static void expect_ended(const char *why)
{
	struct fan_event event = expect(FAN_EVENT_ENDED);

	cr_assert_eq(strncmp(event.payload, why, strlen(why)), 0, "%s", (char *)event.payload);
}

static void expect_nothing(int timeout_ms)
{
	struct fan_event event;

	cr_assert_eq(fan_receive(subscription, &event, timeout_ms), 0);
}

static void expect_asks(uint64_t first, uint64_t last)
{
	struct fan_replay request;

	for (unsigned i = 0; !engine_asked(&engine, &request, 1); i++) {
		cr_assert_lt(i, 1000, "it does not ask");
		expect_nothing(5);
	}
	cr_assert_eq(request.channel, 0);
	cr_assert_eq(request.epoch, 7);
	cr_assert_eq(request.first, first);
	cr_assert_eq(request.last, last);
}

static struct fan_subscription_counts counts(void)
{
	struct fan_subscription_counts c;

	fan_subscription_counts(subscription, &c);
	return c;
}

Test(repair, asks_for_a_gap_and_gives_all_in_order)
{
	subscribe(0);
	deliver(1);
	deliver(4);
	deliver(5);
	expect_data(1, 0);
	expect_asks(2, 3);
	replay(3);
	replay(2);
	replay(2);
	expect_data(2, 1);
	expect_data(3, 1);
	expect_data(4, 0);
	expect_data(5, 0);
	expect_nothing(30);
	cr_assert_eq(counts().repaired, 2);
	cr_assert_eq(counts().duplicates, 1);
	cr_assert_eq(counts().lost, 0);
}

Test(repair, a_reorder_of_the_network_is_not_asked_for)
{
	struct fan_replay request;

	subscribe(0);
	deliver(2);
	deliver(1);
	expect_data(1, 0);
	expect_data(2, 0);
	expect_nothing(50);
	cr_assert_not(engine_asked(&engine, &request, 0));
}

Test(repair, tells_what_the_engine_does_not_have)
{
	subscribe(0);
	deliver(5);
	expect_asks(1, 4);
	say(FAN_TYPE_LOST, 1, 3);
	replay(4);
	expect_lost(1, 3);
	expect_data(4, 1);
	expect_data(5, 0);
	cr_assert_eq(counts().lost, 3);
}

Test(repair, learns_of_a_lost_tail_from_the_status)
{
	subscribe(0);
	say(FAN_TYPE_STATUS, 2, 0);
	expect_asks(1, 2);
	replay(1);
	replay(2);
	expect_data(1, 1);
	expect_data(2, 1);
}

Test(repair, learns_of_a_lost_tail_from_a_renewal)
{
	engine.lease_s = 1;
	subscribe(0);
	snprintf(tails, sizeof(tails), TAILS, 1);
	expect_asks(1, 1);
	replay(1);
	expect_data(1, 1);
}

Test(repair, learns_of_a_lost_tail_when_it_attaches_again)
{
	subscribe(0);
	snprintf(tails, sizeof(tails), TAILS, 1);
	engine_hang_up(&engine);
	expect_asks(1, 1);
	replay(1);
	expect_data(1, 1);
}

Test(repair, what_does_not_open_has_not_come)
{
	struct fan_delivery d = engine_delivery(1, 5);

	subscribe(0);
	deliver_as(1, 0, 0); /* not sealed at all */
	d.key_generation = 0;
	memset(d.seal_tag, 7, sizeof(d.seal_tag));
	engine_deliver(&engine, &d, "hello");
	expect_nothing(30);
	cr_assert_eq(counts().failed, 2);
	say(FAN_TYPE_STATUS, 1, 0);
	expect_asks(1, 1);
	replay(1);
	expect_data(1, 1);
	cr_assert_eq(counts().opened, 1);
}

Test(repair, takes_the_keys_of_a_rotation_before_what_is_sealed_with_them)
{
	char one[2 * FAN_KEY_LEN + 1], two[2 * FAN_KEY_LEN + 1], text[512];

	subscribe(0);
	deliver(1);
	expect_data(1, 0);
	engine_key(one, 1);
	engine_key(two, 2);
	snprintf(text, sizeof(text),
		 "{\"event\":\"keys\",\"connection\":\"0000000000000011\",\"keys\":"
		 "[{\"generation\":1,\"key\":\"%s\"},{\"generation\":2,\"key\":\"%s\"}]}",
		 one, two);
	deliver_as(2, 0, 1);
	deliver_as(3, 0, 2); /* in the same batch as one before the keys were looked for */
	engine_say(&engine, text);
	expect_data(2, 0);
	expect_data(3, 0);
	cr_assert_eq(counts().failed, 0);
	snprintf(text, sizeof(text),
		 "{\"event\":\"keys\",\"connection\":\"0000000000000011\",\"keys\":"
		 "[{\"generation\":2,\"key\":\"%s\"}]}",
		 two);
	engine_say(&engine, text);
	expect_nothing(30);
	deliver_as(4, 0, 1);
	expect_nothing(30);
	cr_assert_eq(counts().failed, 1);
}

Test(repair, resumes_after_its_cursor_before_anything_newer)
{
	struct fan_cursor cursor = {.epoch = 7, .sequence = 3};

	options.cursors = &cursor;
	options.cursor_cnt = 1;
	subscribe(5);
	deliver(6);
	expect_asks(4, 5);
	replay(4);
	replay(5);
	expect_data(4, 1);
	expect_data(5, 1);
	expect_data(6, 0);
}

/* A fragment of session 5 or 6; their publisher sequences are those of `number`. */
static void fragment(uint64_t sequence, uint64_t session, uint64_t number, uint8_t flags)
{
	struct fan_delivery d = engine_delivery(sequence, 5);

	d.flags = flags;
	d.session = session;
	d.publisher_sequence = number;
	engine_deliver(&engine, &d, "hello");
}

static void resume(struct fan_cursor *cursor, int tail)
{
	options.cursors = cursor;
	options.cursor_cnt = 1;
	subscribe(tail);
}

/* Two publishers' events, of which one is whole between the fragments of the other. */
Test(repair, a_cursor_does_not_cut_what_is_unfinished)
{
	struct fan_event event;

	subscribe(0);
	fragment(1, 5, 1, FAN_FLAG_BEGIN);
	fragment(2, 6, 1, FAN_FLAG_BEGIN);
	fragment(3, 6, 2, FAN_FLAG_END);
	event = expect(FAN_EVENT_DATA);
	cr_assert_eq(event.sequence, 3);
	cr_assert_eq(event.unfinished, 1);
	fragment(4, 5, 2, FAN_FLAG_END);
	event = expect(FAN_EVENT_DATA);
	cr_assert_eq(event.sequence, 4);
	cr_assert_eq(event.unfinished, 0);
}

Test(repair, goes_on_with_what_was_unfinished_and_tells_nothing_twice)
{
	struct fan_cursor cursor = {.epoch = 7, .sequence = 5, .unfinished = 2};
	struct fan_event event;

	resume(&cursor, 6);
	expect_asks(2, 6);
	fragment(2, 5, 1, FAN_FLAG_BEGIN | FAN_FLAG_REPLAY);
	fragment(3, 8, 9, FAN_FLAG_REPLAY); /* of one that began before, and was told at 4 */
	fragment(4, 8, 10, FAN_FLAG_END | FAN_FLAG_REPLAY);
	say(FAN_TYPE_LOST, 5, 5);
	fragment(6, 5, 2, FAN_FLAG_END | FAN_FLAG_REPLAY);
	event = expect(FAN_EVENT_DATA);
	cr_assert_eq(event.sequence, 6);
	cr_assert_eq(event.payload_len, 10);
	cr_assert_eq(event.unfinished, 0);
	cr_assert_eq(counts().lost, 0);
}

Test(repair, what_was_unfinished_and_is_gone_is_told_as_lost)
{
	struct fan_cursor cursor = {.epoch = 7, .sequence = 3, .unfinished = 1};

	resume(&cursor, 4);
	expect_asks(1, 4);
	say(FAN_TYPE_LOST, 1, 3);
	fragment(4, 5, 2, FAN_FLAG_END | FAN_FLAG_REPLAY);
	expect_lost(4, 4);
	expect_nothing(10);
}

Test(repair, what_waits_behind_a_loss_is_unfinished_too)
{
	struct fan_event event;

	subscribe(0);
	fragment(1, 5, 1, FAN_FLAG_BEGIN);
	fragment(2, 6, 1, FAN_FLAG_BEGIN);
	fragment(3, 5, 5, FAN_FLAG_BEGIN | FAN_FLAG_END); /* which gives up the first */
	event = expect(FAN_EVENT_LOST);
	cr_assert_eq(event.lost_last, 1);
	cr_assert_eq(event.unfinished, 2);
	event = expect(FAN_EVENT_DATA);
	cr_assert_eq(event.sequence, 3);
	cr_assert_eq(event.unfinished, 2);
}

Test(repair, of_another_epoch_the_cursors_rest_is_lost)
{
	struct fan_cursor cursor = {.epoch = 6, .sequence = 3};
	struct fan_event event;

	options.cursors = &cursor;
	options.cursor_cnt = 1;
	subscribe(1);
	event = expect(FAN_EVENT_LOST);
	cr_assert_eq(event.epoch, 6);
	cr_assert_eq(event.lost_first, 4);
	cr_assert_eq(event.lost_last, UINT64_MAX);
	expect_asks(1, 1);
	replay(1);
	expect_data(1, 1);
}

/* Each type of an earlier epoch's datagrams, as somebody on the way has kept them. */
static void send_again(uint64_t time_ns)
{
	static const uint8_t types[] = {FAN_TYPE_DELIVERY, FAN_TYPE_STATUS, FAN_TYPE_LOST};

	for (unsigned i = 0; i < 3; i++) {
		struct fan_delivery d = engine_delivery(1, i ? 0 : 5);

		d.type = types[i];
		d.flags = i ? 0 : d.flags;
		d.epoch = 6;
		d.time_ns = time_ns;
		d.publisher_sequence = 9;
		engine_deliver(&engine, &d, "hello");
	}
}

Test(repair, what_is_sent_again_of_an_earlier_epoch_changes_nothing)
{
	subscribe(0);
	send_again(ENGINE_TIME_NS);
	deliver(1);
	expect_data(1, 0);
	send_again(ENGINE_TIME_NS - 1000);
	deliver(3);
	send_again(ENGINE_TIME_NS);
	expect_asks(2, 2);
	send_again(ENGINE_TIME_NS);
	replay(2);
	expect_data(2, 1);
	expect_data(3, 0);
	expect_nothing(50);
	cr_assert_eq(counts().lost, 0);
}

/* Kept from a day when the engine's clock was ahead: fanwired is asked at once, and heals it. */
Test(repair, is_back_in_the_present_epoch_soon_and_where_it_was)
{
	struct fan_event event;

	subscribe(0);
	deliver(1);
	expect_data(1, 0);
	send_again(ENGINE_TIME_NS * 5);
	event = expect(FAN_EVENT_LOST);
	cr_assert(event.epoch == 7 && event.lost_first == 2);
	event = expect(FAN_EVENT_DATA);
	cr_assert_eq(event.epoch, 6);
	snprintf(tails, sizeof(tails), TAILS, 2);
	deliver(2);
	do /* the range that came with it, and then its end */
		event = expect(FAN_EVENT_LOST);
	while (event.lost_last != UINT64_MAX);
	cr_assert_eq(event.epoch, 6);
	cr_assert_eq(engine.renews, 2);
	expect_asks(2, 2);
	replay(1);
	replay(2);
	expect_data(2, 1);
	send_again(ENGINE_TIME_NS * 5);
	deliver(3);
	expect_data(3, 0);
}

/* scope.seal was changed while the daemons were down: fanwired says so at the attachment. */
Test(repair, follows_the_site_when_it_ceases_to_seal_and_seals_again)
{
	subscribe(0);
	deliver(1);
	expect_data(1, 0);
	engine.seals = false;
	deliver(2);
	expect_nothing(50); /* not on a datagram's word */
	engine_hang_up(&engine);
	for (unsigned i = 0; engine.attaches < 1 && i < 100; i++)
		expect_nothing(20);
	cr_assert_eq(counts().failed, 1);
	expect_nothing(50);
	deliver(2);
	expect_data(2, 0);
	engine.seals = true;
	deliver(3); /* and what is sealed is never taken for plain text */
	expect_data(3, 0);
	engine_hang_up(&engine);
	for (unsigned i = 0; engine.attaches < 2 && i < 100; i++)
		expect_nothing(20);
	expect_nothing(50);
	deliver_as(4, 0, 0);
	expect_nothing(50);
	cr_assert_eq(counts().failed, 2);
}

Test(repair, retired_keys_open_what_waits_in_the_socket)
{
	char text[256], hex[2 * FAN_KEY_LEN + 1];

	subscribe(0);
	for (uint64_t i = 1; i <= 5; i++)
		deliver(i);
	engine_key(hex, 2);
	snprintf(text, sizeof(text),
		 "{\"event\":\"keys\",\"connection\":\"0000000000000011\","
		 "\"keys\":[{\"generation\":2,\"key\":\"%s\"}]}",
		 hex);
	engine_say(&engine, text);
	deliver_as(6, 0, 2);
	for (uint64_t i = 1; i <= 6; i++)
		expect_data(i, 0);
	expect_nothing(50);
	deliver_as(7, 0, 1);
	expect_nothing(50);
	cr_assert_eq(counts().failed, 1, "the socket was empty: retired keys are gone");
}

Test(repair, refuses_a_cursor_of_a_channel_that_is_not_joined)
{
	struct fan_cursor cursor = {.thread = "elsewhere", .epoch = 6, .sequence = 3};

	options.cursors = &cursor;
	options.cursor_cnt = 1;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), -EINVAL);
	subscription = NULL;
}

Test(repair, at_its_end_tells_what_is_missing_and_gives_what_is_there)
{
	subscribe(0);
	deliver(3);
	say(FAN_TYPE_STATUS, 4, 0);
	expect_nothing(10);
	engine_say(&engine, "{\"event\":\"ended\",\"connection\":\"0000000000000011\","
			    "\"reason\":\"disconnected\",\"message\":\"by root\"}");
	expect_lost(1, 2);
	expect_data(3, 0);
	expect_lost(4, 4);
	expect_ended("disconnected");
}

Test(repair, the_latest_policy_tells_a_gap_at_once_and_asks_for_nothing)
{
	struct fan_replay request;

	options.policy = FAN_LATEST;
	subscribe(0);
	deliver(3);
	deliver(2);
	expect_lost(1, 2);
	expect_data(3, 0);
	say(FAN_TYPE_STATUS, 5, 0);
	expect_lost(4, 5);
	expect_nothing(100);
	cr_assert_not(engine_asked(&engine, &request, 0));
}

Test(repair, the_disconnect_policy_leaves_with_what_it_had)
{
	struct fan_event event;

	options.policy = FAN_DISCONNECT;
	subscribe(0);
	deliver(2);
	deliver(1);
	expect_data(1, 0);
	expect_data(2, 0);
	expect_nothing(80);
	deliver(5);
	expect_lost(3, 4);
	expect_data(5, 0);
	expect_ended("slow");
	cr_assert_eq(fan_receive(subscription, &event, 0), -ENOTCONN);
	for (unsigned i = 0; i < 200 && engine.client >= 0; i++)
		usleep(10000);
	cr_assert_lt(engine.client, 0, "the registration is not left");
}

Test(repair, refuses_a_policy_that_is_none)
{
	options.policy = 3;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), -EINVAL);
	subscription = NULL;
}
