/* SPDX-License-Identifier: BSD-3-Clause */
/* What leaves: every byte of it, to whom, and what never does. */
#include <criterion/criterion.h>
#include <sodium.h>

#include "dataplane/frame.h"
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

TestSuite(fanout, .init = open_one, .fini = close_one);

static void tag_check(const struct frame *frame, const struct fan_group *group)
{
	uint8_t tag[8];

	crypto_shorthash(tag, frame->wire, 92, group->tag_key);
	cr_expect_eq(memcmp(tag, frame->wire + 92, 8), 0, "filter tag");
}

static void delivery_check(const struct frame *frame, const struct fan_group *group,
			   const struct publish_spec *spec, uint64_t sequence)
{
	struct fan_delivery d;

	cr_assert_eq(fan_delivery_decode(frame->wire, frame->wire_len, &d), FAN_WIRE_OK);
	cr_expect_eq(d.type, FAN_TYPE_DELIVERY);
	cr_expect_eq(d.flags, FAN_FLAG_BEGIN | FAN_FLAG_END);
	cr_expect_eq(d.key_generation, group->key_generation);
	cr_expect_eq(d.kind, spec->kind);
	cr_expect_eq(memcmp(d.handle, group->handle, 16), 0);
	cr_expect_eq(d.channel, group->channel);
	cr_expect_eq(d.epoch, p.plane.group_states[group - p.regions.groups].epoch);
	cr_expect_eq(d.sequence, sequence);
	cr_expect_neq(d.time_ns, 0);
	cr_expect_eq(d.user_generation, group->user_generation);
	cr_expect_eq(d.session, pipeline_session(spec->slot));
	cr_expect_eq(d.publisher_sequence, spec->sequence);
	cr_expect(sodium_is_zero(d.seal_tag, sizeof(d.seal_tag)));
	cr_expect_eq(d.payload_len, spec->payload_len);
	cr_expect_eq(memcmp(frame->wire + FAN_DELIVERY_LEN, spec->payload, spec->payload_len), 0);
	tag_check(frame, group);
}

/* Odd and even lengths: each way through the checksum. */
static void one_family(uint8_t family)
{
	static const char text[] = "the quick brown fox";
	const struct fan_group *group =
		region_add_group(&p.regions, "alice", 0, 3, family, family == 4 ? 0 : 1, 25500);
	struct frame first = {0}, frame;

	for (uint16_t len = 0; len < sizeof(text); len++) {
		struct publish_spec spec = {.slot = family == 4 ? 0 : 2,
					    .sequence = len + 1u,
					    .kind = 7,
					    .payload = text,
					    .payload_len = len};

		publish(&p, &spec);
		for (uint16_t i = 0; i < 3; i++) {
			cr_assert(take(&p, &frame));
			delivery_check(&frame, group, &spec, len + 1u);
			cr_expect_eq(frame.family, family);
			cr_expect_eq(frame.target_port, 25500 + i);
			cr_expect_eq(frame.source_port, TEST_ENGINE_PORT);
			cr_expect_eq(memcmp(frame.bytes,
					    (uint8_t[]){2, 0, 0, 0, 0, family == 4 ? 1 : 2}, 6),
				     0);
			cr_expect_eq(memcmp(frame.bytes + 6, p.plane.mac, 6), 0);
			if (i == 0)
				first = frame;
			cr_expect_eq(memcmp(first.wire, frame.wire, frame.wire_len), 0,
				     "every copy of an event has the same bytes");
		}
		cr_assert(take(&p, &frame));
		cr_expect_eq(frame.wire[1], FAN_TYPE_ACK);
		cr_expect_not(take(&p, &frame));
	}
}

Test(fanout, ipv4)
{
	one_family(4);
}

Test(fanout, ipv6)
{
	one_family(6);
}

Test(fanout, fills_transmit_bursts_across_events)
{
	struct publish_spec specs[64] = {0};

	region_add_group(&p.regions, "alice", 0, 50, 4, 0, 25500);
	for (unsigned i = 0; i < 64; i++)
		specs[i] = (struct publish_spec){.sequence = i + 1, .payload_len = 100};
	publish_many(&p, specs, 64);
	cr_expect_eq(take_all(&p), 64 * 50 + counter(&p, FAN_COUNTER_acks_sent));
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 64 * 50);
	cr_expect_eq(p.plane.group_states[0].copies, 64 * 50);
}

/* The result of the only acknowledgement among what left. */
static struct fan_result result_of(unsigned *copies)
{
	struct fan_result results[FAN_ACK_RESULT_MAX] = {0};
	struct frame frame;
	uint64_t cumulative;

	*copies = 0;
	while (take(&p, &frame))
		if (frame.wire[1] == FAN_TYPE_ACK)
			cr_expect_eq(ack_open(&frame, 0, &cumulative, results), 1);
		else
			(*copies)++;
	return results[0];
}

static void expect(uint64_t sequence, uint32_t attempted, uint32_t sent, enum fan_counter drop)
{
	struct publish_spec spec = {.sequence = sequence, .payload_len = 10};
	uint64_t before = counter(&p, drop);
	struct fan_result result;
	unsigned copies;

	publish(&p, &spec);
	result = result_of(&copies);
	cr_expect_eq(result.status, FAN_RESULT_OK);
	cr_expect_eq(result.attempted, attempted);
	cr_expect_eq(result.sent, sent);
	cr_expect_eq(copies, sent);
	if (drop != FAN_COUNTER_CNT)
		cr_expect_geq(counter(&p, drop), before + 1, "%s", fan_counter_name(drop));
}

Test(fanout, never_sends_to_another_users_endpoint)
{
	region_add_group(&p.regions, "alice", 0, 3, 4, 0, 25500);
	p.regions.endpoints[1].handle[15] ^= 1;
	expect(1, 3, 2, FAN_COUNTER_drop_endpoint_foreign);
}

Test(fanout, follows_no_reference_out_of_the_region)
{
	struct fan_group *group = region_add_group(&p.regions, "alice", 0, 3, 4, 0, 25500);
	uint64_t block = group->endpoints;

	group->endpoints = UINT64_C(4095) << FAN_ENDPOINT_CNT_BITS | 3;
	expect(1, 0, 0, FAN_COUNTER_drop_endpoint_range);
	group->endpoints = UINT64_MAX;
	expect(2, 0, 0, FAN_COUNTER_drop_endpoint_range);
	group->endpoints = block;
	p.regions.endpoints[0].hop = fan_hop(16, 4);
	p.regions.endpoints[1].hop = fan_hop(FAN_NEXTHOPS_MAX - 1, 4);
	expect(3, 3, 1, FAN_COUNTER_drop_endpoint_range);
	p.regions.endpoints[0].hop = fan_hop(1, 4); /* there, but of the other family */
	expect(4, 3, 1, FAN_COUNTER_drop_endpoint_range);
	for (unsigned i = 0; i < 256; i++) {
		memset(p.regions.buckets[i].group, 0xff, sizeof(p.regions.buckets[i].group));
		p.regions.buckets[i].chain = UINT32_MAX;
	}
	publish(&p, &(struct publish_spec){.sequence = 5});
	cr_expect_eq(counter(&p, FAN_COUNTER_events_no_group), 1);
}

Test(fanout, needs_a_resolved_next_hop)
{
	region_add_group(&p.regions, "alice", 0, 2, 4, 2, 25500);
	expect(1, 2, 0, FAN_COUNTER_drop_nexthop); /* a free slot */
	region_add_nexthop(&p.regions, 2, 4, engine4, 1500);
	expect(2, 2, 2, FAN_COUNTER_CNT);
	p.regions.nexthops[2].mac &= ~FAN_NEXTHOP_RESOLVED;
	expect(3, 2, 0, FAN_COUNTER_drop_nexthop);
}

Test(fanout, keeps_to_the_mtu)
{
	region_add_group(&p.regions, "alice", 0, 2, 4, 2, 25500);
	region_add_nexthop(&p.regions, 2, 4, engine4, 20 + 8 + FAN_DELIVERY_LEN + 10);
	expect(1, 2, 2, FAN_COUNTER_CNT);
	p.regions.nexthops[2].mtu--;
	expect(2, 2, 0, FAN_COUNTER_drop_mtu);
}

Test(fanout, counts_only_what_the_port_took)
{
	uint32_t sent;

	region_add_group(&p.regions, "alice", 0, 20, 4, 0, 25500);
	for (unsigned i = 0; rte_ring_free_count(p.tx[0]) > 5; i++) { /* room for five */
		struct rte_mbuf *filler = rte_pktmbuf_alloc(i % 2 ? p.plane.pool : p.plane.tx_pool);

		cr_assert_not_null(filler);
		rte_ring_enqueue(p.tx[0], filler);
	}
	publish(&p, &(struct publish_spec){.sequence = 1});
	sent = p.plane.session_states[0].results[1].sent;
	cr_expect_eq(sent, 5);
	cr_expect_eq(p.plane.session_states[0].results[1].attempted, 20);
	cr_expect_eq(counter(&p, FAN_COUNTER_copies_sent), 5);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_tx_full), 15 + 1);
	for (void *mbuf; rte_ring_dequeue(p.tx[0], &mbuf) == 0;)
		rte_pktmbuf_free(mbuf);
}

Test(fanout, goes_on_when_buffers_run_out)
{
	struct rte_mbuf *all[16384];
	unsigned cnt = 0;
	uint8_t bytes[2048];
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p.plane.pool);
	uint16_t len = publish_make(bytes, &(struct publish_spec){.sequence = 1});

	region_add_group(&p.regions, "alice", 0, 20, 4, 0, 25500);
	memcpy(rte_pktmbuf_append(mbuf, len), bytes, len);
	while (cnt < 16384 && (all[cnt] = rte_pktmbuf_alloc(p.plane.tx_pool)))
		cnt++;
	worker_burst(p.plane.workers[0], &mbuf, 1);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_no_mbuf), 20 + 1);
	rte_pktmbuf_free_bulk(all, cnt);
	publish(&p, &(struct publish_spec){.sequence = 1});
	cr_expect_eq(p.plane.session_states[0].accepted, 1);
	cr_expect_eq(take_all(&p), 1, "the publisher hears of it when it asks again");
}

Test(fanout, counts_events_of_a_lingering_group)
{
	region_add_group(&p.regions, "alice", 0, 0, 4, 0, 25500);
	expect(1, 0, 0, FAN_COUNTER_CNT);
	cr_expect_eq(p.plane.group_states[0].sequence, 1);
}

/* Users behind many next hops share a burst: a template that another takes the place of is work. */
Test(fanout, keeps_a_template_of_each_next_hop)
{
	struct worker *w = p.plane.workers[0];
	const struct frame_template *first;

	worker_burst(w, NULL, 0);
	first = frame_template_get(w, 0, 4, 100);
	for (uint32_t i = 2; i < 64; i++)
		region_add_nexthop(&p.regions, i, 4, engine4, (uint16_t)(1000 + i));
	for (uint32_t i = 2; i < 64; i++)
		cr_expect_eq(frame_template_get(w, i, 4, 100)->mtu, 1000 + i);
	for (uint32_t i = 2; i < 64; i++)
		cr_expect_neq(frame_template_get(w, i, 4, 100), first);
	cr_expect_eq(first->mtu, 1500);
}
