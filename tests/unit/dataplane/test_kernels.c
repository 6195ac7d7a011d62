/* SPDX-License-Identifier: BSD-3-Clause */
/* Every level of kernels that this CPU runs writes what plain code says. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "dataplane/kernels/kernels.h"

enum { LEVELS = 5, COPIES = 12, ROOM = 9 * 1024, HEADERS4 = 42, HEADERS6 = 62 };

struct buffer { /* an mbuf and its room, as a pool has them */
	struct rte_mbuf mbuf;
	uint8_t room[RTE_PKTMBUF_HEADROOM + ROOM] __attribute__((aligned(64)));
};

static void random_fill(void *to, size_t len)
{
	uint8_t *bytes = to;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(rand() >> 7);
}

static const struct kernels *level_at(unsigned level)
{
	const struct kernels *kernels = kernels_level(level);

	if (!kernels)
		fprintf(stderr, "this CPU lacks level %u: not compared\n", level);
	return kernels;
}

Test(kernels, best_is_one_that_runs)
{
	cr_assert_not_null(kernels_best());
	cr_expect_not_null(kernels_level(2));
	cr_expect_null(kernels_level(1));
	cr_expect_null(kernels_level(LEVELS));
}

Test(kernels, tags_are_those_of_the_wire_format)
{
	uint8_t images[KERNEL_LANES][FAN_DELIVERY_LEN], keys[KERNEL_LANES][16];
	const uint8_t *key[KERNEL_LANES];
	uint8_t *image[KERNEL_LANES];

	for (unsigned level = 2; level < LEVELS; level++)
		for (unsigned cnt = 1; level_at(level) && cnt <= KERNEL_LANES; cnt++) {
			random_fill(images, sizeof(images));
			random_fill(keys, sizeof(keys));
			for (unsigned i = 0; i < KERNEL_LANES; i++) {
				image[i] = images[i];
				key[i] = keys[i];
			}
			kernels_level(level)->tag(image, key, cnt);
			for (unsigned i = 0; i < KERNEL_LANES; i++)
				cr_expect_eq(fan_filter_tag_ok(images[i], keys[i]), i < cnt,
					     "level %u, %u of %u", level, i, cnt);
		}
}

Test(kernels, sums_are_those_of_dpdk)
{
	static uint8_t bytes[ROOM + KERNEL_SLACK + 8];

	for (unsigned level = 2; level < LEVELS; level++)
		for (unsigned len = 1; level_at(level) && len < ROOM; len += 1 + len / 40) {
			unsigned off = len % 8;

			random_fill(bytes, sizeof(bytes));
			if (len % 5 == 0)
				memset(bytes, 0xff, sizeof(bytes)); /* the largest carries */
			cr_expect_eq(kernels_level(level)->sum(bytes + off, len) % 0xffff,
				     rte_raw_cksum(bytes + off, len) % 0xffff, "level %u, %u bytes",
				     level, len);
		}
}

/* ---- copies ---- */

static struct buffer *buffers;
static struct rte_mbuf *mbufs[COPIES];

static void buffers_make(void)
{
	buffers = aligned_alloc(64, COPIES * sizeof(*buffers));
	for (unsigned i = 0; i < COPIES; i++) {
		random_fill(&buffers[i], sizeof(buffers[i]));
		buffers[i].mbuf.buf_addr = buffers[i].room;
		mbufs[i] = &buffers[i].mbuf;
	}
}

/* A frame without destination and checksums, and what emit() has to know of it. */
static void event_make(struct kernel_emit *event, uint8_t *frame, unsigned headers, uint32_t len)
{
	struct rte_udp_hdr *udp = (void *)(frame + headers - sizeof(*udp));

	random_fill(frame, len);
	udp->dst_port = udp->dgram_cksum = 0;
	*event = (struct kernel_emit){.frame = frame, .len = len};
	random_fill(event->handle, sizeof(event->handle));
	random_fill(event->mbuf, sizeof(event->mbuf));
	udp->dgram_len = rte_cpu_to_be_16((uint16_t)(len - headers + sizeof(*udp)));
	if (headers == HEADERS4) {
		struct rte_ipv4_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);

		ip->version_ihl = RTE_IPV4_VHL_DEF;
		ip->next_proto_id = IPPROTO_UDP;
		ip->total_length = rte_cpu_to_be_16((uint16_t)(len - RTE_ETHER_HDR_LEN));
		ip->dst_addr = ip->hdr_checksum = 0;
		event->ip_sum = rte_raw_cksum(ip, sizeof(*ip));
		event->udp_sum = rte_ipv4_phdr_cksum(ip, 0);
	} else {
		struct rte_ipv6_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);

		event->hop = FAN_HOP_IPV6 | 5;
		ip->proto = IPPROTO_UDP;
		ip->payload_len = udp->dgram_len;
		memset(ip->dst_addr, 0, sizeof(ip->dst_addr));
		event->udp_sum = rte_ipv6_phdr_cksum(ip, 0);
	}
	event->udp_sum += rte_raw_cksum(udp, len - headers + sizeof(*udp));
}

static void endpoints_make(struct fan_endpoint *endpoints, const struct kernel_emit *event)
{
	random_fill(endpoints, COPIES * sizeof(*endpoints));
	for (unsigned i = 0; i < COPIES; i++) {
		memcpy(endpoints[i].handle, event->handle, sizeof(event->handle));
		endpoints[i].hop = event->hop;
	}
}

/* 0xffff where UDP's checksum is right. */
static uint32_t sum_of_both(uint32_t pseudo, const struct rte_udp_hdr *udp, uint32_t payload_len)
{
	uint32_t sum = pseudo + rte_raw_cksum(udp, sizeof(*udp) + payload_len);

	return (sum & 0xffff) + (sum >> 16);
}

/* Headers as sent are right, and all else is the event's. */
static void copy_check(const struct kernel_emit *event, const struct fan_endpoint *to,
		       const struct buffer *copy, unsigned headers)
{
	const uint8_t *frame = copy->room + RTE_PKTMBUF_HEADROOM;
	const struct rte_udp_hdr *udp = (const void *)(frame + headers - sizeof(*udp));
	const struct rte_ipv4_hdr *ip4 = (const void *)(frame + RTE_ETHER_HDR_LEN);
	const struct rte_ipv6_hdr *ip6 = (const void *)(frame + RTE_ETHER_HDR_LEN);

	cr_expect_eq(memcmp(frame + headers, event->frame + headers, event->len - headers), 0);
	cr_expect_eq(memcmp(frame, event->frame, RTE_ETHER_HDR_LEN), 0);
	cr_expect_eq(memcmp((const uint8_t *)&copy->mbuf + 16, event->mbuf, KERNEL_MBUF_LEN), 0);
	cr_expect_eq(rte_be_to_cpu_16(udp->dst_port), to->port);
	cr_expect_neq(udp->dgram_cksum, 0);
	if (headers == HEADERS4) {
		cr_expect_eq(memcmp(&ip4->dst_addr, to->address + 12, 4), 0);
		cr_expect_eq(rte_raw_cksum(ip4, sizeof(*ip4)), 0xffff);
		cr_expect_eq(sum_of_both(rte_ipv4_phdr_cksum(ip4, 0), udp, event->len - headers),
			     0xffff);
	} else {
		cr_expect_eq(memcmp(ip6->dst_addr, to->address, 16), 0);
		cr_expect_eq(sum_of_both(rte_ipv6_phdr_cksum(ip6, 0), udp, event->len - headers),
			     0xffff);
	}
}

static void copies_check(const struct kernels *kernels, unsigned headers, uint32_t len)
{
	static uint8_t frame[ROOM + KERNEL_SLACK];
	struct fan_endpoint endpoints[COPIES];
	struct kernel_emit event;

	event_make(&event, frame, headers, len);
	endpoints_make(endpoints, &event);
	event.end = endpoints + COPIES;
	cr_assert_eq(kernels->emit(&event, endpoints, COPIES, mbufs), COPIES);
	for (unsigned i = 0; i < COPIES; i++)
		copy_check(&event, &endpoints[i], &buffers[i], headers);
	endpoints[3].handle[15] ^= 1;
	cr_expect_eq(kernels->emit(&event, endpoints, COPIES, mbufs), 3, "another user's");
	endpoints[2].hop ^= 1;
	cr_expect_eq(kernels->emit(&event, endpoints, COPIES, mbufs), 2, "another way");
}

Test(kernels, copies_are_whole_and_stop_before_another_user)
{
	buffers_make();
	for (unsigned level = 2; level < LEVELS; level++)
		for (unsigned payload = 0; level_at(level) && payload < 8192;
		     payload += payload < 600 ? 13 : 1013) {
			copies_check(kernels_level(level), HEADERS4,
				     HEADERS4 + FAN_DELIVERY_LEN + payload);
			copies_check(kernels_level(level), HEADERS6,
				     HEADERS6 + FAN_DELIVERY_LEN + payload);
		}
	free(buffers);
}
