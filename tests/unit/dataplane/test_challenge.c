/* SPDX-License-Identifier: BSD-3-Clause */
/* Challenges go where fanwired says; only the very address that was challenged can answer. */
#include <criterion/criterion.h>
#include <rte_ethdev.h>
#include <time.h>

#include "common/shm/ring.h"
#include "common/wire/handle.h"
#include "dataplane/housekeeping.h"
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

TestSuite(challenge, .init = open_one, .fini = close_one);

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void request_push(uint32_t nexthop, uint64_t deadline_ns)
{
	struct fan_request request = {.type = FAN_REQUEST_CHALLENGE,
				      .nexthop = nexthop,
				      .connection = 77,
				      .salt = 0x1122334455667788,
				      .user_generation = 9,
				      .port = 25555,
				      .family = 4,
				      .key_generation = 2,
				      .deadline_ns = deadline_ns};

	memcpy(request.address, receiver4, 16);
	memset(request.handle, 0x42, sizeof(request.handle));
	memset(request.tag_key, 0x24, sizeof(request.tag_key));
	cr_assert(fan_ring_try_push(p.regions.requests, FAN_REQUEST_CNT, sizeof(request),
				    &p.regions.root->request_head, &p.plane.state->request_tail,
				    &request));
}

static void request(uint32_t nexthop)
{
	request_push(nexthop, monotonic_ns() + 1000000000u);
	worker_burst(p.plane.workers[0], NULL, 0);
	housekeeping(p.plane.workers[0], 0);
}

static void echo(uint64_t proof, uint16_t port)
{
	struct fan_echo echo = {.connection = 77, .salt = 0x1122334455667788, .proof = proof};
	uint8_t wire[FAN_ECHO_LEN], frame[2048];

	fan_echo_encode(wire, &echo);
	feed(&p, frame, datagram_make(frame, 4, port, wire, sizeof(wire)));
}

Test(challenge, is_sent_and_its_echo_reported)
{
	struct fan_report report;
	struct fan_delivery d;
	struct frame frame;

	request(0);
	cr_assert(take(&p, &frame));
	cr_assert_eq(fan_delivery_decode(frame.wire, frame.wire_len, &d), FAN_WIRE_OK);
	cr_expect_eq(d.type, FAN_TYPE_CHALLENGE);
	cr_expect_eq(d.channel, FAN_CHANNEL_SINGLE | 77);
	cr_expect_eq(d.epoch, 0x1122334455667788);
	cr_expect_eq(d.user_generation, 9);
	cr_expect_eq(d.key_generation, 2);
	cr_expect(fan_filter_tag_ok(frame.wire, (const uint8_t[16]){[0 ... 15] = 0x24}));
	cr_expect_eq(frame.target_port, 25555);
	cr_expect_eq(memcmp(frame.target, receiver4, 16), 0);

	echo(d.sequence ^ 1, 25555);
	echo(d.sequence, 25556);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_echo_forged), 2);
	echo(d.sequence, 25555);
	cr_expect_eq(counter(&p, FAN_COUNTER_echoes_accepted), 1);
	cr_assert(fan_ring_try_pop(p.plane.worker_states[0].reports, FAN_REPORT_CNT, sizeof(report),
				   &p.plane.worker_states[0].report_head,
				   &p.regions.root->report_tail[0], &report));
	cr_expect_eq(report.type, FAN_REPORT_ECHO);
	cr_expect_eq(report.connection, 77);
	cr_expect_eq(report.salt, 0x1122334455667788);
	cr_expect_eq(p.plane.workers[0]->counters[FAN_COUNTER_challenges_sent] +
			     p.plane.worker_states[0].counters[FAN_COUNTER_challenges_sent],
		     1);
}

Test(challenge, follows_no_wild_next_hop)
{
	request(4000000);
	request(5);
	cr_expect_eq(take_all(&p), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_endpoint_range), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_nexthop), 1);
}

Test(challenge, a_full_report_ring_is_counted)
{
	const uint8_t *key = p.regions.root->challenge_key;
	uint64_t proof = fan_challenge_proof(key, 77, 0x1122334455667788, receiver4, 25555);

	for (unsigned i = 0; i <= FAN_REPORT_CNT; i++)
		echo(proof, 25555);
	cr_expect_eq(counter(&p, FAN_COUNTER_echoes_accepted), FAN_REPORT_CNT);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_report_full), 1);
}

/* ---- whose port it was is another user's by now ---- */

Test(challenge, is_not_sent_after_its_deadline)
{
	request_push(0, monotonic_ns() - 1);
	housekeeping(p.plane.workers[0], 0);
	cr_expect_eq(take_all(&p), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_request_late), 1);
	cr_expect_eq(p.plane.state->request_tail, 1);
}

Test(challenge, of_a_predecessor_is_never_sent)
{
	request_push(0, UINT64_MAX);
	request_push(0, UINT64_MAX);
	pipeline_restart(&p);
	cr_expect_eq(p.plane.state->run, 2, "the state region was taken over");
	cr_expect_eq(p.plane.state->request_tail, 2);
	housekeeping(p.plane.workers[0], 0);
	cr_expect_eq(take_all(&p), 0);
	request(0);
	cr_expect_eq(take_all(&p), 1);
}

static uint16_t on_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t cnt,
			    void *seen)
{
	*(uint32_t *)seen = p.plane.state->request_tail;
	return cnt;
}

Test(challenge, counts_as_done_only_when_it_has_left)
{
	uint32_t seen = UINT32_MAX;

	cr_assert_not_null(rte_eth_add_tx_callback(p.plane.port_id, 0, on_transmit, &seen));
	request(0);
	cr_expect_eq(seen, 0, "the worker can be stopped right before it sends");
	cr_expect_eq(p.plane.state->request_tail, 1);
	cr_expect_eq(take_all(&p), 1);
}
