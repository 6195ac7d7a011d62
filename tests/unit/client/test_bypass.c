/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bypass library against what a hostile dataplane, link or neighbour sends: nothing but this
 * user's own events, whole and with a right tag, comes through, and each drop is counted. A ring
 * stands in for the memif.
 */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/bypass/link.h"
#include "common/wire/wire.h"

#define PORT 20000

static struct bypass_scope scope;
static uint8_t packet[FAN_DELIVERY_LEN + 64];
static size_t packet_len;

/* An event of the scope's user, right in everything. */
static void packet_make(void)
{
	struct fan_delivery delivery = {.type = FAN_TYPE_DELIVERY,
					.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
					.key_generation = scope.key_generation,
					.payload_len = 5,
					.channel = FAN_CHANNEL_ALL,
					.epoch = 7,
					.sequence = 1,
					.user_generation = scope.user_generation};

	memcpy(delivery.handle, scope.handle, sizeof(delivery.handle));
	fan_delivery_encode(packet, &delivery);
	memcpy(packet + FAN_DELIVERY_LEN, "hello", 5);
	fan_filter_tag(packet, scope.tag_key);
	packet_len = FAN_DELIVERY_LEN + 5;
}

static void scope_make(void)
{
	cr_assert_geq(sodium_init(), 0);
	fan_handle(scope.handle, "alice", 5);
	scope.user_generation = 3;
	scope.key_generation = 2;
	scope.previous_key_generation = 1;
	memset(scope.tag_key, 0xaa, sizeof(scope.tag_key));
	memset(scope.previous_tag_key, 0xbb, sizeof(scope.previous_tag_key));
	packet_make();
}

static enum bypass_verdict judge_by(const struct bypass_scope *by)
{
	struct bypass_case one = {.scope = by, .packet = packet, .len = packet_len};

	bypass_judge(&one, 1);
	return one.verdict;
}

static enum bypass_verdict judge(void)
{
	return judge_by(&scope);
}

/* Changed after the tag was made over it, and then tagged again: only its own check can find it. */
static enum bypass_verdict judge_with(unsigned off, uint8_t value)
{
	packet_make();
	packet[off] = value;
	fan_filter_tag(packet, scope.tag_key);
	return judge();
}

TestSuite(scope, .init = scope_make, .timeout = 60);

Test(scope, its_own_event_passes)
{
	cr_assert_eq(judge(), BYPASS_ACCEPTED);
}

Test(scope, another_users_event_is_dropped)
{
	struct bypass_scope alice = scope;

	fan_handle(scope.handle, "bob", 3);
	packet_make();
	cr_assert_eq(judge_by(&alice), BYPASS_DROP_FOREIGN_USER);
}

Test(scope, in_a_burst_each_is_judged_by_its_own_tag)
{
	enum { CNT = 21 }; /* some lanes of eight full, the last ones not */
	static uint8_t packets[CNT][FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX];
	struct bypass_case cases[CNT];

	for (unsigned wrong = 0; wrong < CNT; wrong++) {
		for (unsigned i = 0; i < CNT; i++) {
			packet_make();
			packet[40] = (uint8_t)i;
			fan_filter_tag(packet, scope.tag_key);
			memcpy(packets[i], packet, packet_len);
			cases[i] = (struct bypass_case){&scope, packets[i], packet_len,
							BYPASS_ACCEPTED};
		}
		packets[wrong][41] ^= 1;	    /* its tag does not fit any more */
		packets[(wrong + 3) % CNT][0] ^= 1; /* no lane is used for it */
		bypass_judge(cases, CNT);
		for (unsigned i = 0; i < CNT; i++)
			cr_assert_eq(cases[i].verdict,
				     i == wrong		      ? BYPASS_DROP_TAG
				     : i == (wrong + 3) % CNT ? BYPASS_DROP_VERSION
							      : BYPASS_ACCEPTED,
				     "%u of %u, %u is wrong", i, CNT, wrong);
	}
}

Test(scope, each_bit_of_the_header_is_covered)
{
	for (unsigned bit = 0; bit < 8 * FAN_DELIVERY_LEN; bit++) {
		packet_make();
		packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(judge(), BYPASS_ACCEPTED, "bit %u of byte %u", bit % 8, bit / 8);
	}
}

Test(scope, a_wrong_tag_is_dropped)
{
	memset(scope.tag_key, 0xcc, sizeof(scope.tag_key));
	cr_assert_eq(judge(), BYPASS_DROP_TAG);
}

Test(scope, generations)
{
	cr_assert_eq(judge_with(59, 2), BYPASS_DROP_USER_GENERATION);
	cr_assert_eq(judge_with(59, 4), BYPASS_DROP_USER_GENERATION);
	cr_assert_eq(judge_with(3, 3), BYPASS_DROP_KEY_GENERATION);
	/* the previous one is accepted, under its own key alone */
	cr_assert_eq(judge_with(3, 1), BYPASS_DROP_TAG);
	packet[3] = 1;
	fan_filter_tag(packet, scope.previous_tag_key);
	cr_assert_eq(judge(), BYPASS_ACCEPTED);
}

Test(scope, form)
{
	cr_assert_eq(judge_with(0, 2), BYPASS_DROP_VERSION);
	cr_assert_eq(judge_with(1, FAN_TYPE_PUBLISH), BYPASS_DROP_TYPE);
	cr_assert_eq(judge_with(1, FAN_TYPE_LOST + 1), BYPASS_DROP_TYPE);
	cr_assert_eq(judge_with(5, 6), BYPASS_DROP_LENGTH);
	for (packet_len = 0; packet_len < FAN_DELIVERY_LEN; packet_len++)
		cr_assert_eq(judge(), BYPASS_DROP_SHORT);
	packet_make();
	packet_len++;
	cr_assert_eq(judge(), BYPASS_DROP_LENGTH);
	packet_len -= 2;
	cr_assert_eq(judge(), BYPASS_DROP_LENGTH);
}

/* ---- frames ---- */

static uint8_t frame[256];
static const uint8_t own[4] = {198, 18, 0, 9};

static size_t frame_make(void)
{
	struct rte_ether_hdr *ethernet = (void *)frame;
	struct rte_ipv4_hdr *ip = (void *)(ethernet + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);

	memset(frame, 0, sizeof(frame));
	ethernet->ether_type = htons(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->total_length = htons((uint16_t)(sizeof(*ip) + sizeof(*udp) + packet_len));
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->dst_addr, own, sizeof(own));
	udp->dst_port = htons(PORT);
	udp->dgram_len = htons((uint16_t)(sizeof(*udp) + packet_len));
	memcpy(udp + 1, packet, packet_len);
	return sizeof(*ethernet) + sizeof(*ip) + sizeof(*udp) + packet_len;
}

TestSuite(frame, .init = scope_make, .timeout = 60);

Test(frame, a_right_one_is_found)
{
	struct frame_datagram datagram;
	size_t len = frame_make();

	cr_assert_eq(frame_parse(frame, len, &datagram), FRAME_OK);
	cr_assert_eq(datagram.port, PORT);
	cr_assert_eq(datagram.len, packet_len);
	cr_assert_eq(memcmp(datagram.payload, packet, packet_len), 0);
}

Test(frame, no_length_leads_out_of_it)
{
	struct frame_datagram datagram;
	size_t len = frame_make();

	for (size_t cut = 0; cut < len; cut++)
		cr_assert_eq(frame_parse(frame, cut, &datagram), FRAME_MALFORMED, "%zu bytes", cut);
	for (unsigned value = 0; value < 65536; value++) {
		frame_make();
		frame[14 + 2] = (uint8_t)(value >> 8); /* IPv4's total length */
		frame[14 + 3] = (uint8_t)value;
		if (frame_parse(frame, len, &datagram) == FRAME_OK)
			cr_assert_leq(datagram.payload + datagram.len, frame + len);
		frame_make();
		frame[14 + 20 + 4] = (uint8_t)(value >> 8); /* UDP's */
		frame[14 + 20 + 5] = (uint8_t)value;
		if (frame_parse(frame, len, &datagram) == FRAME_OK)
			cr_assert_leq(datagram.payload + datagram.len, frame + len);
	}
}

Test(frame, fragments_and_options_are_malformed)
{
	struct frame_datagram datagram;
	size_t len = frame_make();

	frame[14 + 6] = 0x20; /* more fragments */
	cr_assert_eq(frame_parse(frame, len, &datagram), FRAME_MALFORMED);
	frame_make();
	frame[14 + 7] = 1; /* not the first one */
	cr_assert_eq(frame_parse(frame, len, &datagram), FRAME_MALFORMED);
	frame_make();
	frame[14] = 0x46; /* options */
	cr_assert_eq(frame_parse(frame, len, &datagram), FRAME_MALFORMED);
	frame_make();
	frame[14 + 9] = IPPROTO_TCP;
	cr_assert_eq(frame_parse(frame, len, &datagram), FRAME_STRANGE);
}

/* ---- the link: every drop has its counter ---- */

static struct fan_bypass link_;
static struct receiver *receiver, *receivers[2], *ready[2];
static struct rte_ring *ring;

static void link_make(void)
{
	char *argv[] = {"test", "--no-huge", "--no-pci",    "--no-telemetry", "--log-level=warning",
			"-m",	"64",	     "--no-shconf", "--lcores=0@0"};
	struct rte_eth_conf conf = {0};
	int port;

	scope_make();
	cr_assert_geq(rte_eal_init(RTE_DIM(argv), argv), 0);
	ring = rte_ring_create("in", 64, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	cr_assert_not_null(ring);
	port = rte_eth_from_ring(ring);
	cr_assert_geq(port, 0);
	link_ = (struct fan_bypass){.port_id = (uint16_t)port,
				    .address = {[10] = 0xff, 0xff, 198, 18, 0, 9},
				    .family = 4,
				    .port_first = PORT,
				    .port_last = PORT + 1,
				    .receivers = receivers,
				    .ready = ready};
	link_.pool = rte_pktmbuf_pool_create("pool", 4095, 0, 0, 1024, 0);
	cr_assert_not_null(link_.pool);
	cr_assert_eq(rte_eth_dev_configure(link_.port_id, 1, 1, &conf), 0);
	cr_assert_eq(rte_eth_rx_queue_setup(link_.port_id, 0, 64, 0, NULL, link_.pool), 0);
	cr_assert_eq(rte_eth_tx_queue_setup(link_.port_id, 0, 64, 0, NULL), 0);
	cr_assert_eq(rte_eth_dev_start(link_.port_id), 0);
	receiver = link_receiver_add(&link_);
	cr_assert_not_null(receiver);
	receiver->scope = scope;
	receiver->scoped = true;
}

static struct rte_mbuf *mbuf_make(size_t len)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(link_.pool);

	cr_assert_not_null(mbuf);
	memcpy(rte_pktmbuf_append(mbuf, (uint16_t)len), frame, len);
	return mbuf;
}

/* Sends one mbuf through the link; it must raise this counter, and reach the receiver only as said.
 */
static void expect(struct rte_mbuf *mbuf, const uint64_t *counter, bool comes)
{
	uint64_t before = *counter;
	uint32_t head = receiver->head;

	cr_assert_eq(rte_ring_enqueue(ring, mbuf), 0);
	cr_assert_eq(link_poll(&link_), 1);
	cr_assert_eq(*counter, before + 1);
	cr_assert_eq(receiver->head, head + (comes ? 1 : 0));
}

TestSuite(link, .init = link_make, .timeout = 60);

Test(link, drops_are_counted_and_nothing_hostile_comes_through)
{
	unsigned available = rte_mempool_avail_count(link_.pool);
	struct rte_mbuf *mbuf;
	size_t len = frame_make();

	expect(mbuf_make(len), &link_.counts.accepted, true);
	cr_assert_eq(receiver->queue[0].len, packet_len);
	cr_assert_eq(memcmp(receiver->queue[0].packet, packet, packet_len), 0);
	expect(mbuf_make(len - 1), &link_.counts.malformed, false); /* truncated */
	mbuf = mbuf_make(len);
	cr_assert_eq(rte_pktmbuf_chain(mbuf, mbuf_make(len)), 0);
	expect(mbuf, &link_.counts.super_packet, false);
	frame[14 + 19] = 8; /* another address */
	expect(mbuf_make(len), &link_.counts.not_ours, false);
	frame_make();
	frame[14 + 20 + 3]++; /* a port that nobody reads */
	expect(mbuf_make(len), &link_.counts.not_ours, false);
	receiver->scope.user_generation++;
	frame_make();
	expect(mbuf_make(len), &link_.counts.user_generation, false);
	receiver->scope.user_generation--;
	packet[FAN_DELIVERY_LEN - 1] ^= 1;
	frame_make();
	expect(mbuf_make(len), &link_.counts.tag, false);
	fan_handle(scope.handle, "bob", 3);
	packet_make();
	frame_make();
	expect(mbuf_make(len), &link_.counts.foreign_user, false);
	receiver->scoped = false; /* its registration has ended */
	scope_make();
	frame_make();
	expect(mbuf_make(len), &link_.counts.not_ours, false);
	cr_assert_eq(rte_mempool_avail_count(link_.pool), available - 1); /* but for what waits */
	link_receiver_del(receiver);
	cr_assert_eq(rte_mempool_avail_count(link_.pool), available);
}

Test(link, a_receiver_that_is_not_read_holds_so_many_and_no_more)
{
	size_t len = frame_make();

	for (unsigned i = 0; i < RECEIVER_QUEUE; i++)
		expect(mbuf_make(len), &link_.counts.accepted, true);
	expect(mbuf_make(len), &link_.counts.queue_full, false);
}
