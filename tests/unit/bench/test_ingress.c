/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <sodium.h>
#include <stdlib.h>

#include "bench/ingress.h"

#define RTO 1000

static struct rig rig;
static struct ingress ingress;
static struct publisher publisher;

static void open_rig(void)
{
	cr_assert_geq(sodium_init(), 0);
	cr_assert_eq(feed_init(&rig.feed, NULL, 8, 1, 32), 0);
	rig.feed.ids[0] = 77;
	rig.plane.session_states = calloc(1, sizeof(struct fan_session_state));
	cr_assert_not_null(rig.plane.session_states);
	ingress.frame_len = feed_frame_len(&rig.feed);
	cr_assert_eq(publisher_init(&publisher, &rig, 0, 8, 0, 8), 0);
}

static void close_rig(void)
{
	publisher_fini(&publisher);
	free(rig.plane.session_states);
	feed_fini(&rig.feed);
}

TestSuite(ingress, .init = open_rig, .fini = close_rig);

/* As the worker does: the session is its own, and that many were accepted. */
static void accept_until(uint64_t sequence)
{
	rig.plane.session_states[0].session = 77;
	rig.plane.session_states[0].accepted = sequence;
}

static uint64_t sequence_of(const uint8_t *frame)
{
	struct fan_publish publish;

	cr_assert_eq(fan_publish_decode(frame + 42, ingress.frame_len - 42u, &publish),
		     FAN_WIRE_OK);
	return publish.publisher_sequence;
}

static void send_many(unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++)
		publisher_send(&publisher, &ingress);
}

Test(ingress, publishes_arrive_in_their_order)
{
	send_many(8);
	cr_assert_eq(ingress.head - ingress.tail, 8u);
	for (unsigned i = 0; i < 8; i++)
		cr_expect_eq(sequence_of(ingress.frames[i]), i + 1);
}

Test(ingress, what_finds_the_queue_full_is_lost_and_counted)
{
	for (unsigned i = 0; i < INGRESS_CNT + 5; i++)
		ingress_push(&ingress, publisher.frames);
	cr_expect_eq(ingress.lost, 5u);
	cr_expect_eq(ingress.head - ingress.tail, (uint32_t)INGRESS_CNT);
}

Test(ingress, goes_back_to_what_was_not_accepted)
{
	send_many(6);
	accept_until(4);
	publisher_go_back(&publisher);
	publisher_send(&publisher, &ingress);
	cr_expect_eq(sequence_of(ingress.frames[6]), 5u);
}

Test(ingress, times_out_only_where_nothing_moves)
{
	send_many(4);
	accept_until(1);
	cr_expect_not(publisher_timeout(&publisher, 10, RTO), "that moved");
	cr_expect_not(publisher_timeout(&publisher, 10 + RTO - 1, RTO), "not yet");
	accept_until(2);
	cr_expect_not(publisher_timeout(&publisher, 10 + RTO, RTO), "it moved in time");
	cr_expect(publisher_timeout(&publisher, 10 + 2 * RTO, RTO));
	cr_expect_eq(publisher.sent, 2u, "what is not accepted is sent again");
	cr_expect_not(publisher_timeout(&publisher, 11 + 2 * RTO, RTO), "the time begins anew");
}

Test(ingress, nothing_under_way_never_times_out)
{
	send_many(3);
	accept_until(3);
	cr_expect_not(publisher_timeout(&publisher, 10, RTO));
	cr_expect_not(publisher_timeout(&publisher, 10 + 5 * RTO, RTO));
}

Test(ingress, a_restarted_session_is_nobodys)
{
	send_many(3);
	accept_until(3);
	publisher_restart(&publisher);
	cr_expect_eq(publisher_accepted(&publisher), 0u);
	cr_expect_eq(rig.plane.session_states[0].session, 0u);
	publisher_send(&publisher, &ingress);
	cr_expect_eq(sequence_of(ingress.frames[3]), 1u);
}
