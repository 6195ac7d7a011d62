/* SPDX-License-Identifier: BSD-3-Clause */
/* Publisher sessions: order, results, and what is never answered. */
#include <criterion/criterion.h>

#include "tests/unit/dataplane/pipeline.h"

static struct pipeline p;

static void open_one(void)
{
	pipeline_open(&p, 1);
	region_add_group(&p.regions, "alice", 0, 2, 4, 0, 25500);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(session, .init = open_one, .fini = close_one);

/* Throws copies away; the one acknowledgement that is expected, opened. */
static struct fan_result answer(uint32_t slot, uint64_t *cumulative)
{
	struct fan_result results[FAN_ACK_RESULT_MAX] = {0};
	struct frame frame;
	unsigned acks = 0;

	while (take(&p, &frame))
		if (frame.wire[1] == FAN_TYPE_ACK) {
			cr_expect_eq(ack_open(&frame, slot, cumulative, results), 1);
			acks++;
		}
	cr_expect_eq(acks, 1, "%u acknowledgements", acks);
	return results[0];
}

static struct fan_result publish_one(uint64_t sequence, uint64_t *cumulative)
{
	publish(&p, &(struct publish_spec){.sequence = sequence, .payload_len = 10});
	return answer(0, cumulative);
}

Test(session, accepts_in_order)
{
	uint64_t cumulative, epoch = 0;

	for (uint64_t i = 1; i <= 5; i++) {
		struct fan_result result = publish_one(i, &cumulative);

		cr_expect_eq(result.status, FAN_RESULT_OK);
		cr_expect_eq(result.publisher_sequence, i);
		cr_expect_eq(result.sequence, i);
		cr_expect_eq(result.attempted, 2);
		cr_expect_eq(result.sent, 2);
		cr_expect_eq(cumulative, i);
		cr_expect_neq(result.epoch, 0);
		cr_expect(i == 1 || result.epoch == epoch);
		epoch = result.epoch;
	}
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_accepted), 5);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 10);
	cr_expect_eq(counter(&p, FAN_COUNTER_acks_sent), 5);
}

Test(session, answers_a_retransmission_with_the_original_result)
{
	uint64_t cumulative;
	struct fan_result first = publish_one(1, &cumulative), again;

	publish_one(2, &cumulative);
	publish(&p, &(struct publish_spec){.sequence = 1, .payload_len = 10});
	again = answer(0, &cumulative);
	cr_expect_eq(memcmp(&first, &again, sizeof(first)), 0);
	cr_expect_eq(cumulative, 2);
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_repeated), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_sequenced), 2);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 4, "a retransmission is not sent again");
}

static struct fan_result_record pending; /* as it stands when the first copy leaves */

static uint16_t on_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t cnt,
			    void *arg)
{
	if (!pending.phase)
		pending = p.plane.session_states[1].results[1];
	return cnt;
}

Test(session, answers_a_gap_with_what_it_has)
{
	struct fan_result results[FAN_ACK_RESULT_MAX];
	struct frame frame;
	uint64_t cumulative;

	publish_one(1, &cumulative);
	publish(&p, &(struct publish_spec){.sequence = 3, .payload_len = 10});
	cr_assert(take(&p, &frame));
	cr_expect_eq(ack_open(&frame, 0, &cumulative, results), 0);
	cr_expect_eq(cumulative, 1);
	cr_expect_not(take(&p, &frame));
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_gap), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_sequenced), 1);
}

Test(session, forgets_results_after_1024)
{
	uint64_t cumulative;

	for (uint64_t i = 1; i <= FAN_RESULTS_KEPT + 1; i++)
		publish_one(i, &cumulative);
	cr_expect_eq(publish_one(2, &cumulative).status, FAN_RESULT_OK);
	cr_expect_eq(publish_one(1, &cumulative).status, FAN_RESULT_EXPIRED);
	cr_expect_eq(publish_one(0, &cumulative).status, FAN_RESULT_EXPIRED);
	cr_expect_eq(cumulative, FAN_RESULTS_KEPT + 1);
}

static void expect_interrupted_after(uint32_t restarts)
{
	struct fan_result_record *record = &p.plane.session_states[0].results[1];
	struct frame frame;
	uint64_t cumulative;

	publish_one(1, &cumulative);
	record->phase = FAN_RESULT_PHASE_PENDING;
	record->epoch = p.plane.state->run;
	publish(&p, &(struct publish_spec){.sequence = 1, .payload_len = 10});
	cr_expect_not(take(&p, &frame));
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_pending), 1);

	p.plane.state->run += restarts - 1;
	pipeline_restart(&p);
	cr_expect_eq(publish_one(1, &cumulative).status, FAN_RESULT_INTERRUPTED);
	cr_expect_eq(publish_one(2, &cumulative).sequence, 2, "the stream goes on");
}

Test(session, tells_pending_from_interrupted)
{
	expect_interrupted_after(1);
}

Test(session, tells_pending_from_interrupted_after_any_number_of_restarts)
{
	expect_interrupted_after(256);
}

/* Accepted, and the work not finished: what a kill leaves between the two. */
Test(session, a_record_is_logged_in_the_run_that_accepted_it)
{
	const struct fan_result_record *record = &p.plane.session_states[1].results[1];
	struct fan_session *session = &p.regions.sessions[1];

	pipeline_restart(&p);
	session->state_epoch = p.plane.state->header.creation_epoch;
	rte_eth_add_tx_callback(p.plane.port_id, 0, on_transmit, NULL);
	publish(&p, &(struct publish_spec){.slot = 1, .sequence = 1});
	cr_expect_eq(pending.phase, FAN_RESULT_PHASE_LOGGED, "logged before a copy leaves");
	cr_expect_eq(pending.sent, ~2u);
	cr_expect_eq(record->phase, FAN_RESULT_PHASE_DONE);
	cr_expect_eq(record->epoch, p.plane.group_states[0].epoch);
	take_all(&p);
}

/* Its result comes back from another worker when another session has its slot already. */
Test(session, the_packets_of_a_closed_one_take_no_acknowledgement_away)
{
	struct worker *w = p.plane.workers[0];
	struct rte_mbuf *old = rte_pktmbuf_alloc(p.plane.pool);
	struct packet *packet = packet_of(old);
	uint64_t cumulative;

	memset(packet, 0, sizeof(*packet));
	packet->publish.session = pipeline_session(0) ^ UINT64_C(1) << 60;
	packet->answered = true;
	stage_add(w->done, &w->done_cnt, old);
	cr_expect_eq(publish_one(1, &cumulative).status, FAN_RESULT_OK);
	cr_expect_eq(cumulative, 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_closed), 1);
}

Test(session, never_answers_what_is_not_sealed_rightly)
{
	uint8_t bytes[2048];
	struct frame frame;
	uint16_t len = publish_make(bytes, &(struct publish_spec){.sequence = 1, .payload_len = 9});

	for (unsigned i = 42; i < len; i++) { /* every byte of the datagram */
		bytes[i] ^= 0x04;
		feed(&p, bytes, len);
		bytes[i] ^= 0x04;
		cr_assert_not(take(&p, &frame), "byte %u changed, and it was answered", i);
	}
	cr_expect_gt(counter(&p, FAN_COUNTER_drop_publish_tag), 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_accepted), 0);
	feed(&p, bytes, len);
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_accepted), 1);
}

Test(session, knows_its_publisher_by_address)
{
	struct frame frame;

	publish(&p, &(struct publish_spec){.sequence = 1, .source_port = 25999});
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_address), 1);
	p.regions.sessions[0].address[15] ^= 1;
	publish(&p, &(struct publish_spec){.sequence = 1});
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_address), 2);
	cr_expect_not(take(&p, &frame));
}

Test(session, refuses_what_was_closed_or_is_of_another_state_region)
{
	p.regions.sessions[0].state_epoch ^= 1;
	publish(&p, &(struct publish_spec){.sequence = 1});
	p.regions.sessions[1].id = 0;
	publish(&p, &(struct publish_spec){.sequence = 1, .slot = 1});
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_session_unknown), 2);
	cr_expect_eq(take_all(&p), 0);
}

Test(session, begins_anew_in_a_used_slot)
{
	struct fan_session_state *state = &p.plane.session_states[0];
	uint64_t cumulative;

	publish_one(1, &cumulative);
	publish_one(2, &cumulative);
	state->session ^= 1; /* as if the slot had been another session's */
	cr_expect_eq(publish_one(1, &cumulative).status, FAN_RESULT_OK);
	cr_expect_eq(cumulative, 1);
	cr_expect_eq(state->ack_counter, 1);
}

Test(session, answers_refusals_in_order)
{
	uint64_t cumulative;
	struct fan_session *session = &p.regions.sessions[0];
	struct publish_spec spec = {.sequence = 1, .user = "bob"};

	session->scope = FAN_SCOPE_ONE;
	memcpy(session->user, p.regions.groups[0].handle, 16);
	publish(&p, &spec);
	cr_expect_eq(answer(0, &cumulative).status, FAN_RESULT_SCOPE);
	spec = (struct publish_spec){.sequence = 2, .payload_len = FAN_PAYLOAD_DEFAULT + 1};
	publish(&p, &spec);
	cr_expect_eq(answer(0, &cumulative).status, FAN_RESULT_TOO_LARGE);
	spec = (struct publish_spec){.sequence = 3, .channel = 5};
	publish(&p, &spec);
	cr_expect_eq(answer(0, &cumulative).status, FAN_RESULT_CHANNEL);
	spec = (struct publish_spec){.sequence = 4, .channel = FAN_CHANNEL_THREAD | 9};
	publish(&p, &spec);
	cr_expect_eq(answer(0, &cumulative).status, FAN_RESULT_NO_GROUP);
	cr_expect_eq(publish_one(5, &cumulative).sequence, 1, "none of them took a sequence");
	cr_expect_eq(cumulative, 5);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_scope), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_size), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_channel), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_no_group), 1);
}

Test(session, stops_delivering_when_fanwired_is_away_too_long)
{
	uint64_t cumulative;

	p.regions.root->max_unattended_ns = 1;
	cr_expect_eq(publish_one(1, &cumulative).status, FAN_RESULT_UNATTENDED);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_unattended), 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 0);
	p.regions.root->max_unattended_ns = 0;
	cr_expect_eq(publish_one(2, &cumulative).status, FAN_RESULT_OK);
}

Test(session, acknowledges_a_burst_at_once)
{
	struct publish_spec specs[60] = {0};
	struct fan_result results[FAN_ACK_RESULT_MAX];
	uint64_t cumulative, expected[2] = {0};
	unsigned cnt[2] = {0};
	struct frame frame;

	/* One connection: 60 copies are within a group's share of a burst. */
	p.regions.groups[0].endpoints = UINT64_C(0) << FAN_ENDPOINT_CNT_BITS | 1;
	for (unsigned i = 0; i < 60; i++)
		specs[i] = (struct publish_spec){.slot = i % 2, .sequence = i / 2 + 1};
	publish_many(&p, specs, 60);
	while (take(&p, &frame)) {
		uint32_t slot = frame.wire[15];

		if (frame.wire[1] != FAN_TYPE_ACK)
			continue;
		unsigned n = ack_open(&frame, slot, &cumulative, results);

		cr_expect_eq(frame.target_port, TEST_PUBLISHER_PORT + slot);
		cr_expect_eq(cumulative, 30);
		for (unsigned i = 0; i < n; i++)
			cr_expect_eq(results[i].publisher_sequence, ++expected[slot]);
		cnt[slot]++;
	}
	cr_expect_eq(cnt[0], 2, "28 results and 2");
	cr_expect_eq(cnt[1], 2);
	cr_expect_eq(expected[0], 30);
	cr_expect_eq(expected[1], 30);
}
