/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

static struct engine engine;
static struct fan_subscription *subscription;
static const char *const threads[] = {"room"};
static const struct fan_subscribe_options options = {
	.token = "t", .threads = threads, .thread_cnt = 1, .timeout_ms = 3000};

static void setup(void)
{
	engine_start(&engine);
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), 0, "%s", fan_error());
}

static void teardown(void)
{
	fan_subscription_close(subscription);
	engine_stop(&engine);
}

TestSuite(subscription, .init = setup, .fini = teardown, .timeout = 30);

static void deliver(uint64_t sequence)
{
	struct fan_delivery d = engine_delivery(sequence, 5);

	engine_deliver(&engine, &d, "hello");
}

static void expect_data(uint64_t sequence)
{
	struct fan_event event;

	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_eq(event.type, FAN_EVENT_DATA);
	cr_assert_eq(event.sequence, sequence);
}

static void expect_lost(uint64_t first, uint64_t last)
{
	struct fan_event event;

	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_eq(event.type, FAN_EVENT_LOST);
	cr_assert_eq(event.lost_first, first);
	cr_assert_eq(event.lost_last, last);
}

static void expect_nothing(int timeout_ms)
{
	struct fan_event event;

	cr_assert_eq(fan_receive(subscription, &event, timeout_ms), 0);
}

Test(subscription, answers_the_challenge_and_knows_itself)
{
	cr_assert_eq(engine.echoes, 1);
	cr_assert_eq(fan_subscription_id(subscription), ENGINE_ID);
	cr_assert_str_eq(fan_subscription_user(subscription), "alice");
	cr_assert_geq(fan_subscription_socket(subscription), 0);
}

Test(subscription, receives_an_event)
{
	struct fan_delivery d = engine_delivery(41, 5);
	struct fan_event event;

	d.time_ns = 123;
	engine_deliver(&engine, &d, "hello");
	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_eq(event.type, FAN_EVENT_DATA);
	cr_assert_eq(event.epoch, 7);
	cr_assert_eq(event.sequence, 41);
	cr_assert_eq(event.kind, 9);
	cr_assert_eq(event.publisher, 5);
	cr_assert_eq(event.time_ns, 123);
	cr_assert_eq(event.channel, FAN_CHANNEL_ALL);
	cr_assert_null(event.thread);
	cr_assert_eq(event.payload_len, 5);
	cr_assert_arr_eq(event.payload, "hello", 5);
}

Test(subscription, names_the_thread)
{
	struct fan_delivery d = engine_delivery(1, 0);
	struct fan_event event;

	fan_thread_channel(&d.channel, "room", 4);
	engine_deliver(&engine, &d, NULL);
	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_str_eq(event.thread, "room");
	cr_assert_eq(event.payload_len, 0);
}

Test(subscription, drops_duplicates_and_what_is_behind)
{
	deliver(10);
	deliver(10);
	deliver(9);
	deliver(11);
	expect_data(10);
	expect_data(11);
	expect_nothing(50);
}

Test(subscription, tells_a_gap_before_what_follows_it)
{
	deliver(1);
	deliver(5);
	deliver(6);
	expect_data(1);
	expect_lost(2, 4);
	expect_data(5);
	expect_data(6);
	expect_nothing(50);
}

Test(subscription, keeps_channels_apart)
{
	struct fan_delivery d = engine_delivery(90, 0);

	fan_thread_channel(&d.channel, "room", 4);
	deliver(1);
	engine_deliver(&engine, &d, NULL);
	deliver(2);
	expect_data(1);
	expect_data(90);
	expect_data(2);
}

Test(subscription, starts_a_stream_anew_with_its_epoch)
{
	struct fan_delivery d = engine_delivery(1, 0);

	deliver(8);
	d.epoch = 70;
	d.time_ns += 100;
	engine_deliver(&engine, &d, NULL);
	deliver(9); /* of the old epoch: too late */
	d.sequence = 3;
	engine_deliver(&engine, &d, NULL);
	expect_data(8);
	expect_lost(9, UINT64_MAX); /* nobody can say how far the old one went */
	expect_data(1);
	expect_lost(2, 2);
	expect_data(3);
	expect_nothing(50);
}

Test(subscription, ignores_what_is_not_its_own)
{
	struct fan_delivery d = engine_delivery(1, 0);

	fan_handle(d.handle, "bob", 3);
	engine_deliver(&engine, &d, NULL);
	d = engine_delivery(1, 0);
	d.channel = FAN_CHANNEL_SINGLE | 99;
	engine_deliver(&engine, &d, NULL);
	d = engine_delivery(0, 0);
	engine_deliver(&engine, &d, NULL);
	sendto(engine.udp, "\1\20junk", 6, 0, (struct sockaddr *)&engine.peer, sizeof(engine.peer));
	expect_nothing(100);
	deliver(1);
	expect_data(1);
}

Test(subscription, learns_of_a_lost_tail_from_the_status)
{
	struct fan_delivery d = engine_delivery(4, 0);

	d.type = FAN_TYPE_STATUS;
	d.flags = 0;
	deliver(1);
	expect_data(1);
	engine_deliver(&engine, &d, NULL);
	deliver(2); /* it may be overtaken a little */
	expect_data(2);
	expect_lost(3, 4);
	expect_nothing(100);
}

Test(subscription, does_not_miss_what_was_before_it)
{
	struct fan_delivery d = engine_delivery(4, 0);

	d.type = FAN_TYPE_STATUS;
	d.flags = 0;
	engine_deliver(&engine, &d, NULL);
	expect_nothing(100);
	deliver(5);
	expect_data(5);
}

static void deliver_fragment(uint64_t sequence, uint8_t flags, char byte)
{
	struct fan_delivery d = engine_delivery(sequence, 1);

	d.flags = flags;
	engine_deliver(&engine, &d, &byte);
}

Test(subscription, puts_fragments_together)
{
	struct fan_event event;

	deliver_fragment(1, FAN_FLAG_BEGIN, 'a');
	deliver_fragment(2, 0, 'b');
	deliver_fragment(2, 0, 'b');
	deliver_fragment(3, FAN_FLAG_END, 'c');
	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_eq(event.sequence, 3);
	cr_assert_eq(event.payload_len, 3);
	cr_assert_arr_eq(event.payload, "abc", 3);
}

Test(subscription, waits_for_fragments_that_come_later)
{
	deliver_fragment(1, FAN_FLAG_BEGIN, 'a');
	expect_nothing(30);
	deliver_fragment(2, 0, 'b');
	expect_nothing(0);
	deliver_fragment(3, FAN_FLAG_END, 'c');
	expect_data(3);
}

Test(subscription, reports_a_fragmented_event_that_lost_a_piece)
{
	deliver_fragment(1, FAN_FLAG_BEGIN | FAN_FLAG_END, 'x');
	deliver_fragment(2, FAN_FLAG_BEGIN, 'a');
	deliver_fragment(4, 0, 'c');
	deliver_fragment(5, FAN_FLAG_END, 'd');
	deliver(6);
	expect_data(1);
	expect_lost(3, 3);
	expect_lost(2, 2);
	expect_lost(4, 5);
	expect_data(6);
}

Test(subscription, its_descriptor_stays_readable_while_events_wait)
{
	struct pollfd poller = {.fd = fan_subscription_fd(subscription), .events = POLLIN};

	cr_assert_eq(poll(&poller, 1, 0), 0);
	for (uint64_t i = 1; i <= 5; i++)
		deliver(i);
	for (uint64_t i = 1; i <= 5; i++) {
		cr_assert_eq(poll(&poller, 1, 1000), 1, "event %d waits unseen", (int)i);
		expect_data(i);
	}
	cr_assert_eq(poll(&poller, 1, 0), 0, "readable for nothing");
}

Test(subscription, tells_its_end_once_and_after_the_events)
{
	struct fan_event event;

	deliver(1);
	engine_say(&engine, "{\"event\":\"ended\",\"connection\":\"0000000000000011\","
			    "\"reason\":\"revoked\",\"message\":\"by root\"}");
	usleep(50000);
	expect_data(1);
	cr_assert_eq(fan_receive(subscription, &event, 1000), 1);
	cr_assert_eq(event.type, FAN_EVENT_ENDED);
	cr_assert_eq(strncmp(event.payload, "revoked", 7), 0);
	cr_assert_eq(fan_receive(subscription, &event, 1000), -ENOTCONN);
}

Test(subscription, attaches_again_with_its_socket)
{
	engine_hang_up(&engine);
	for (unsigned i = 0; i < 100 && engine.attaches == 0; i++)
		expect_nothing(20);
	cr_assert_eq(engine.attaches, 1);
	cr_assert_eq(engine.attached_same, 1);
	deliver(1);
	expect_data(1);
	cr_assert_eq(engine.opens, 1);
}

Test(subscription, asks_to_attach_once_however_long_the_answer_takes)
{
	engine.attach_ms = 3000;
	engine_hang_up(&engine);
	for (unsigned i = 0; i < 200; i++)
		expect_nothing(20);
	cr_assert_eq(engine.attaches, 1, "a second try ends the first one");
	deliver(1);
	expect_data(1);
}

Test(subscription, ends_when_it_is_not_known_any_more)
{
	struct fan_event event = {0};

	engine.refuse = "connection_unknown";
	engine_hang_up(&engine);
	cr_assert_eq(fan_receive(subscription, &event, 3000), 1);
	cr_assert_eq(event.type, FAN_EVENT_ENDED);
	cr_assert_eq(strncmp(event.payload, "absent", 6), 0);
}

Test(subscription, renews_at_once_with_a_fresh_token)
{
	cr_assert_eq(fan_subscription_set_token(subscription, "fresh"), 0);
	expect_nothing(50);
	cr_assert(engine_saw(&engine.renews, 1));
}

Test(registration, renews_within_its_lease)
{
	engine_start(&engine);
	engine.lease_s = 1;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), 0);
	for (unsigned i = 0; i < 300 && engine.renews < 2; i++)
		expect_nothing(10);
	cr_assert_geq(engine.renews, 2);
	teardown();
}

Test(registration, is_active_though_the_event_was_lost)
{
	engine_start(&engine);
	engine.loses_active = true;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), 0, "%s", fan_error());
	cr_assert_eq(engine.attaches, 1);
	teardown();
}

Test(registration, needs_no_challenge_where_vouched)
{
	engine_start(&engine);
	engine.no_challenge = true;
	cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), 0);
	teardown();
}

Test(registration, tells_what_was_refused)
{
	static const struct {
		const char *name;
		int error;
	} cases[] = {{"token_expired", -EACCES}, {"connection_foreign", -EEXIST},
		     {"limit_user", -EDQUOT},	 {"no_port", -EAGAIN},
		     {"wall_failed", -ENETDOWN}, {"something_new", -EIO}};

	engine_start(&engine);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		engine.refuse = cases[i].name;
		cr_assert_eq(fan_subscribe(&subscription, engine.path, &options), cases[i].error);
		cr_assert_not_null(strstr(fan_error(), "refused by the test"));
	}
	engine_stop(&engine);
}

/* Bytes of a forged ICMP error would come past the filter, in an error queue. */
Test(subscription, turns_on_no_error_queue)
{
	unsigned datagram_sockets = 0;

	deliver(1);
	expect_data(1);
	for (int fd = 0; fd < 1024; fd++) {
		int type = 0, on = 0;
		socklen_t len = sizeof(type);

		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_DGRAM ||
		    getsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, &len))
			continue;
		datagram_sockets++;
		cr_expect_eq(on, 0, "descriptor %d", fd);
		if (getsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, &len) == 0)
			cr_expect_eq(on, 0, "descriptor %d, IPv6", fd);
	}
	cr_assert_geq(datagram_sockets, 2, "the engine's and the subscriber's");
}
