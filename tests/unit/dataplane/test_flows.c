/* SPDX-License-Identifier: BSD-3-Clause */
/* Fan-outs that go on in later bursts: exact, in order, and nobody waits for them. */
#include <criterion/criterion.h>
#include <rte_cycles.h>

#include "dataplane/flows.h"
#include "dataplane/housekeeping.h"
#include "tests/unit/dataplane/pipeline.h"

#define PORT	  20000 /* of alice's endpoints */
#define BOBS_PORT 30000
#define LARGE	  1000 /* endpoints */
#define SEEN_MAX  4096

static struct pipeline p;
static struct worker *w;

/* What left, by alice's endpoints. */
static struct seen {
	uint32_t next[SEEN_MAX]; /* the last sequence that each endpoint got */
	unsigned copies, bobs, out_of_order, wrong_bytes, results;
	unsigned bobs_last; /* place of bob's last copy among all frames */
	unsigned frames;
	struct fan_result last[SEEN_MAX]; /* by publisher sequence, of slot 0 */
} seen;

static void open_one(void)
{
	pipeline_open(&p, 1);
	w = p.plane.workers[0];
	memset(&seen, 0, sizeof(seen));
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(flows, .init = open_one, .fini = close_one);

static void see_ack(const struct frame *frame)
{
	struct fan_result results[FAN_ACK_RESULT_MAX];
	uint64_t cumulative;
	uint32_t slot = frame->wire[15];
	unsigned cnt = ack_open(frame, slot, &cumulative, results);

	for (unsigned i = 0; slot == 0 && i < cnt; i++) {
		seen.last[results[i].publisher_sequence] = results[i];
		seen.results++;
	}
}

static void see(void)
{
	struct frame frame;
	struct fan_delivery d;

	while (take(&p, &frame)) {
		seen.frames++;
		if (frame.wire[1] == FAN_TYPE_ACK) {
			see_ack(&frame);
			continue;
		}
		cr_assert_eq(fan_delivery_decode(frame.wire, frame.wire_len, &d), FAN_WIRE_OK);
		if (frame.target_port >= BOBS_PORT) {
			seen.bobs++;
			seen.bobs_last = seen.frames;
			continue;
		}
		seen.copies++;
		seen.out_of_order += d.sequence != ++seen.next[frame.target_port - PORT];
		seen.wrong_bytes +=
			frame.wire[FAN_DELIVERY_LEN] != (uint8_t)('a' + d.publisher_sequence);
	}
}

static struct publish_spec spec_of(uint64_t sequence)
{
	static char payloads[26][8];
	char *payload = payloads[sequence % 26];

	memset(payload, (uint8_t)('a' + sequence), sizeof(payloads[0]));
	return (struct publish_spec){.sequence = sequence, .payload = payload, .payload_len = 8};
}

/* Events first to last for alice, received in one burst, as if others had had some just now. */
static void burst_of(uint64_t first, uint64_t last)
{
	struct publish_spec specs[BURST_MAX];

	w->mixed_tsc = rte_rdtsc();
	for (uint64_t i = first; i <= last; i++)
		specs[i - first] = spec_of(i);
	publish_burst(&p, specs, (unsigned)(last - first + 1));
	see();
}

static void go_on(void)
{
	w->mixed_tsc = rte_rdtsc();
	worker_burst(w, NULL, 0);
	see();
}

static void go_on_to_the_end(void)
{
	for (unsigned i = 0; w->flow_cnt; i++) {
		cr_assert_lt(i, 100000, "a flow has no end");
		go_on();
	}
}

static void expect_result(uint64_t sequence, uint16_t status, uint32_t attempted, uint32_t sent)
{
	const struct fan_result *result = &seen.last[sequence];

	cr_expect_eq(result->publisher_sequence, sequence, "no result");
	cr_expect_eq(result->status, status);
	cr_expect_eq(result->attempted, attempted);
	cr_expect_eq(result->sent, sent);
}

/* Nobody finds the group any more. */
static void unlink_group(uint32_t group)
{
	for (unsigned i = 0; i < p.regions.root->bucket_cnt; i++)
		for (unsigned slot = 0; slot < FAN_BUCKET_SLOTS; slot++)
			if (p.regions.buckets[i].group[slot] == group + 1)
				p.regions.buckets[i].group[slot] = 0;
}

Test(flows, each_endpoint_gets_each_event_once_and_in_order)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 3);
	cr_expect_leq(seen.copies, FLOW_SHARE + FLOW_SLICE);
	cr_expect_eq(seen.results, 0, "acknowledged before it was done");
	burst_of(4, 4); /* behind those that wait */
	go_on_to_the_end();
	cr_expect_eq(seen.copies, 4 * LARGE);
	cr_expect_eq(seen.out_of_order, 0);
	cr_expect_eq(seen.wrong_bytes, 0);
	for (unsigned i = 0; i < LARGE; i++)
		cr_expect_eq(seen.next[i], 4);
	for (uint64_t i = 1; i <= 4; i++)
		expect_result(i, FAN_RESULT_OK, LARGE, LARGE);
	cr_expect_eq(seen.results, 4, "one result an event");
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 4 * LARGE);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_attempted), 4 * LARGE);
	cr_expect_eq(p.plane.group_states[0].copies, 4 * LARGE);
}

Test(flows, a_retransmission_of_what_is_under_way_is_not_sent_again)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 1);
	burst_of(1, 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_pending), 1);
	go_on_to_the_end();
	burst_of(1, 1);
	cr_expect_eq(seen.copies, LARGE);
	expect_result(1, FAN_RESULT_OK, LARGE, LARGE);
	cr_expect_eq(seen.results, 2);
}

Test(flows, others_are_served_meanwhile)
{
	struct publish_spec specs[2] = {spec_of(1), {.slot = 1, .sequence = 1, .user = "bob"}};
	unsigned before;

	region_add_group(&p.regions, "alice", 0, 2000, 4, 0, PORT);
	region_add_group(&p.regions, "bob", 0, 2, 4, 0, BOBS_PORT);
	publish_burst(&p, specs, 2);
	see();
	cr_expect_eq(seen.bobs, 2);
	cr_expect_leq(seen.bobs_last, FLOW_SHARE + 2);
	while (seen.copies + 2 * FLOW_SLICE < 2000) {
		before = seen.frames;
		specs[1].sequence++;
		publish_burst(&p, &specs[1], 1);
		see();
		cr_expect_eq(seen.bobs, 2 * specs[1].sequence);
		if (rte_rdtsc() - w->pinned_tsc < rte_get_tsc_hz() / 1000000 * FLOW_PIN_MAX_US) {
			cr_expect_leq(seen.bobs_last, before + 2, "bob waited for alice");
			cr_expect_leq(seen.frames - before, 2 + FLOW_SLICE + 1);
		}
	}
	go_on_to_the_end();
	cr_expect_eq(seen.copies, 2000);
	cr_expect_eq(seen.out_of_order, 0);
}

static bool quiesced(void)
{
	uint64_t before = w->shared->quiescent;

	worker_quiesce(w);
	return w->shared->quiescent != before;
}

Test(flows, withhold_the_quiescence_word_for_a_bounded_time)
{
	uint64_t begun;

	region_add_group(&p.regions, "alice", 0, 4000, 4, 0, PORT);
	cr_expect(quiesced());
	begun = rte_rdtsc();
	burst_of(1, 1);
	cr_expect_not(quiesced());
	go_on();
	if (rte_rdtsc() - begun < rte_get_tsc_hz() / 1000000 * FLOW_PIN_MAX_US)
		cr_expect_not(quiesced(), "what is under way refers to the registry");
	rte_delay_us_block(FLOW_PIN_MAX_US + 100);
	go_on();
	cr_expect_eq(seen.copies, 4000, "all of it at once");
	cr_expect(quiesced());
	cr_expect_eq(w->pinned_tsc, 0);
}

/* Or one event after the other would hold it for ever. */
Test(flows, begin_no_other_event_once_the_word_is_late)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 3);
	rte_delay_us_block(FLOW_PIN_SOFT_US + 10);
	for (unsigned i = 0; i < LARGE && !quiesced(); i++)
		go_on();
	cr_expect_eq(seen.copies, LARGE, "the first one ended, and no other began");
	cr_expect_eq(w->flow_cnt, 1);
	go_on();
	cr_expect_gt(seen.copies, LARGE);
	go_on_to_the_end();
	cr_expect_eq(seen.copies, 3 * LARGE);
	cr_expect(quiesced());
}

Test(flows, events_that_wait_for_a_revoked_group_go_to_nobody)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 3);
	unlink_group(0);
	burst_of(4, 4);
	go_on_to_the_end();
	cr_expect_eq(seen.copies, LARGE, "what was under way ends");
	expect_result(1, FAN_RESULT_OK, LARGE, LARGE);
	for (uint64_t i = 2; i <= 4; i++) {
		expect_result(i, FAN_RESULT_NO_GROUP, 0, 0);
		cr_expect_eq(seen.last[i].epoch, 0);
		cr_expect_eq(seen.last[i].sequence, 0);
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_events_no_group), 3);
}

/* Headers and filter tag are of the group that took it: another one has other keys. */
Test(flows, events_that_wait_for_a_replaced_group_do_not_reach_the_new_one)
{
	struct fan_group *group = region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);

	burst_of(1, 2);
	group->incarnation = 77;
	go_on_to_the_end();
	cr_expect_eq(seen.copies, LARGE);
	expect_result(2, FAN_RESULT_NO_GROUP, 0, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_no_group), 1);
	memset(seen.next, 0, sizeof(seen.next)); /* a new stream */
	burst_of(3, 3);
	go_on_to_the_end();
	expect_result(3, FAN_RESULT_OK, LARGE, LARGE);
	cr_expect_eq(seen.out_of_order, 0);
}

Test(flows, what_is_under_way_keeps_its_block_and_the_next_takes_the_new_one)
{
	struct fan_group *group = region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);

	burst_of(1, 2);
	group->endpoints = group->endpoints >> FAN_ENDPOINT_CNT_BITS << FAN_ENDPOINT_CNT_BITS | 300;
	go_on_to_the_end();
	expect_result(1, FAN_RESULT_OK, LARGE, LARGE);
	expect_result(2, FAN_RESULT_OK, 300, 300);
	cr_expect_eq(seen.copies, LARGE + 300);
	cr_expect_eq(seen.out_of_order, 0);
}

Test(flows, another_users_endpoint_in_the_middle_gets_nothing)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	p.regions.endpoints[700].handle[0] ^= 1;
	burst_of(1, 2);
	go_on_to_the_end();
	cr_expect_eq(seen.next[700], 0);
	expect_result(2, FAN_RESULT_OK, LARGE, LARGE - 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_endpoint_foreign), 2);
}

Test(flows, many_ways_in_one_group)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	for (unsigned i = 0; i < LARGE; i++) {
		struct fan_endpoint *endpoint = &p.regions.endpoints[i];

		if (i % 3 == 0) {
			memcpy(endpoint->address, receiver6, 16);
			endpoint->hop = fan_hop(1, 6);
		}
		if (i % 5 == 0) /* bits that nobody knows yet */
			endpoint->hop |= (uint16_t)((i % 7) << 12);
	}
	burst_of(1, 2);
	go_on_to_the_end();
	cr_expect_eq(seen.copies, 2 * LARGE);
	cr_expect_eq(seen.out_of_order, 0);
	expect_result(2, FAN_RESULT_OK, LARGE, LARGE);
}

enum { REFUSE_TO = FLOW_EVENTS_MAX + 14 };

Test(flows, refuse_more_than_a_queue_holds_and_take_it_later)
{
	region_add_group(&p.regions, "alice", 0, FLOW_SHARE + 4, 4, 0, PORT);
	for (unsigned i = 0; i < FLOW_EVENTS_MAX / 128; i++)
		burst_of(i * 128 + 1, i * 128 + 128);
	for (unsigned i = 0; i < 50 && !counter(&p, FAN_COUNTER_drop_group_busy); i++) {
		uint64_t next = p.plane.session_states[0].accepted + 1;

		burst_of(next, next + 1); /* one has left meanwhile, or none */
	}
	cr_expect_geq(counter(&p, FAN_COUNTER_drop_group_busy), 1);
	cr_expect_leq(w->flow_event_cnt, FLOW_EVENTS_MAX + 1);
	go_on_to_the_end();
	for (uint64_t next; (next = p.plane.session_states[0].accepted + 1) <= REFUSE_TO;) {
		burst_of(next, next);
		go_on_to_the_end();
	}
	cr_expect_eq(seen.copies, REFUSE_TO * (FLOW_SHARE + 4));
	cr_expect_eq(seen.out_of_order, 0);
	for (uint64_t i = 1; i <= REFUSE_TO; i++)
		expect_result(i, FAN_RESULT_OK, FLOW_SHARE + 4, FLOW_SHARE + 4);
	cr_expect_eq(w->flow_event_cnt, 0);
}

/* More groups than there are flows: what finds none is ended at once. */
Test(flows, more_groups_than_flows)
{
	struct publish_spec specs[FLOWS_MAX + 4];
	struct fan_group *first = region_add_group(&p.regions, "alice", 0, 300, 4, 0, PORT), *group;
	struct frame frame;
	unsigned copies = 0;

	for (unsigned i = 0; i < FLOWS_MAX + 4; i++) {
		specs[i] = (struct publish_spec){.sequence = i + 1,
						 .channel = FAN_CHANNEL_SINGLE | (1 + i)};
		group = region_add_group(&p.regions, "alice", specs[i].channel, 0, 4, 0, PORT);
		group->endpoints = first->endpoints;
	}
	publish_burst(&p, specs, FLOWS_MAX + 4);
	cr_expect_eq(w->flow_cnt, FLOWS_MAX);
	while (w->flow_cnt)
		worker_burst(w, NULL, 0);
	while (take(&p, &frame))
		copies += frame.wire[1] == FAN_TYPE_DELIVERY;
	cr_expect_eq(copies, (FLOWS_MAX + 4) * 300);
	for (unsigned i = 1; i <= FLOWS_MAX + 4; i++)
		cr_expect_eq(p.plane.session_states[0].results[i].sent, 300);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), (FLOWS_MAX + 4) * 300);
}

Test(flows, count_exactly_where_buffers_run_out)
{
	struct rte_mbuf *all[16384];
	unsigned cnt = 0;

	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 1);
	while (cnt < 16384 && (all[cnt] = rte_pktmbuf_alloc(p.plane.tx_pool)))
		cnt++;
	go_on();
	go_on();
	rte_pktmbuf_free_bulk(all, cnt);
	go_on_to_the_end();
	cr_expect_gt(counter(&p, FAN_COUNTER_drop_no_mbuf), 0);
	expect_result(1, FAN_RESULT_OK, LARGE, seen.copies);
	cr_expect_eq(seen.copies + counter(&p, FAN_COUNTER_drop_no_mbuf), LARGE);
}

Test(flows, count_exactly_where_the_port_refuses)
{
	struct rte_mbuf *filler[16384];
	unsigned cnt = 0, copies = 0;
	struct frame frame;

	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	for (unsigned i = 0; rte_ring_free_count(p.tx[0]) > 400; i++) {
		filler[cnt] = rte_pktmbuf_alloc(i % 2 ? p.plane.pool : p.plane.tx_pool);
		cr_assert_not_null(filler[cnt]);
		rte_ring_enqueue(p.tx[0], filler[cnt++]);
	}
	publish_burst(&p, &(struct publish_spec){.sequence = 1}, 1);
	while (w->flow_cnt)
		worker_burst(w, NULL, 0);
	for (unsigned i = 0; i < cnt; i++) {
		void *mbuf;

		cr_assert_eq(rte_ring_dequeue(p.tx[0], &mbuf), 0);
		rte_pktmbuf_free(mbuf);
	}
	while (take(&p, &frame))
		copies += frame.wire[1] == FAN_TYPE_DELIVERY;
	cr_expect_eq(copies, 400);
	cr_expect_eq(p.plane.session_states[0].results[1].attempted, LARGE);
	cr_expect_eq(p.plane.session_states[0].results[1].sent, 400);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 400);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_tx_full), LARGE - 400 + 1);
}

/* Where its session is closed meanwhile, the event still goes out, and nobody is told. */
Test(flows, a_closed_session_hears_nothing)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 1);
	p.regions.sessions[0].id = 0;
	go_on_to_the_end();
	cr_expect_eq(seen.copies, LARGE);
	cr_expect_eq(seen.results, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_closed), 1);
}

/* pipeline_close() fails where a buffer is not given back. */
Test(flows, give_back_their_buffers_when_the_dataplane_ends)
{
	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 5);
	cr_expect_eq(w->flow_cnt, 1);
	pipeline_restart(&p);
	cr_expect_eq(rte_mempool_in_use_count(p.plane.pool), 0);
	cr_expect_eq(rte_mempool_in_use_count(p.plane.tx_pool), 0);
	w = p.plane.workers[0];
	burst_of(5, 5);
	cr_expect_eq(seen.last[5].status, FAN_RESULT_OK, "it is in the log");
	cr_expect_eq(seen.last[5].sequence, 5);
	burst_of(6, 6);
}

Test(flows, one_that_is_alone_gets_a_whole_share)
{
	unsigned bursts = 0;

	region_add_group(&p.regions, "alice", 0, LARGE, 4, 0, PORT);
	burst_of(1, 1);
	w->mixed_tsc = 0; /* long ago */
	for (; w->flow_cnt; bursts++)
		worker_burst(w, NULL, 0);
	see();
	cr_expect_eq(seen.copies, LARGE);
	cr_expect_leq(bursts, LARGE / FLOW_SHARE + 1);
}
