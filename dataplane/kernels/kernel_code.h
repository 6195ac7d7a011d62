/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The code of all levels: included once by each kernels_v*.c, which is compiled for its level and
 * names the result KERNELS. Blocks and lanes are vectors of 64 bytes; the compiler makes one, two
 * or four registers of each.
 */
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <string.h>

#include "common/plant.h"
#include "common/wire/tags.h"
#include "common/wire/wire.h"
#include "dataplane/kernels/kernels.h"

typedef uint8_t block_t __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint64_t lanes_t __attribute__((vector_size(64)));
typedef uint64_t pair_t __attribute__((vector_size(16), aligned(1), may_alias));

#define REGISTER_BLOCKS 8  /* 512 bytes: frames up to that long are held in registers */
#define AHEAD		32 /* endpoints: what memory takes to answer */

#define IP_OFF	 RTE_ETHER_HDR_LEN
#define UDP4_OFF (IP_OFF + 20)
#define UDP6_OFF (IP_OFF + 40)

/* Offsets in the headers: RFC 791, RFC 8200, RFC 768. */
#define IP4_SUM (IP_OFF + 10)
#define IP4_DST (IP_OFF + 16)
#define IP6_DST (IP_OFF + 24)
#define UDP_DST 2
#define UDP_SUM 6

_Static_assert(offsetof(struct rte_mbuf, rearm_data) == 16 &&
		       offsetof(struct rte_mbuf, vlan_tci_outer) >= 16 + KERNEL_MBUF_LEN,
	       "the fields of an mbuf that emit() writes");

static inline void put16(uint8_t *to, uint32_t value)
{
	uint16_t v = (uint16_t)value;

	memcpy(to, &v, sizeof(v));
}

static inline void put64(uint8_t *to, uint64_t value)
{
	memcpy(to, &value, sizeof(value));
}

static inline uint64_t get64(const uint8_t *from)
{
	uint64_t v;

	memcpy(&v, from, sizeof(v));
	return v;
}

static inline uint32_t get32(const uint8_t *from)
{
	uint32_t v;

	memcpy(&v, from, sizeof(v));
	return v;
}

static inline uint32_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static inline uint32_t halves(uint32_t word)
{
	return (word & 0xffff) + (word >> 16);
}

/* 0 would mean "no checksum". */
static inline uint32_t udp_checksum(uint32_t sum)
{
	uint32_t checksum = ~fold(sum) & 0xffff;

	return checksum ? checksum : 0xffff;
}

/* What differs from copy to copy in an IPv4 frame, stored as the words that it lies in. */
static inline void patch_ipv4(uint8_t *frame, const struct kernel_emit *event, uint64_t source,
			      uint64_t ports_len, const struct fan_endpoint *to)
{
	uint32_t address = get32(to->address + 12), words = halves(address);
	uint32_t port = __builtin_bswap16(to->port);
	uint64_t checksum = ~fold(event->ip_sum + words) & 0xffff;

	put64(frame + IP4_SUM, checksum | source | (uint64_t)address << 48);
	put64(frame + IP4_DST + 2, (address >> 16) | ports_len | (uint64_t)port << 32);
	put16(frame + UDP4_OFF + UDP_SUM, udp_checksum(event->udp_sum + words + port));
}

static inline void patch_ipv6(uint8_t *frame, const struct kernel_emit *event,
			      const struct fan_endpoint *to)
{
	uint32_t port = __builtin_bswap16(to->port), words = port;

	for (unsigned i = 0; i < 16; i += 4)
		words += halves(get32(to->address + i));
	memcpy(frame + IP6_DST, to->address, sizeof(to->address));
	put16(frame + UDP6_OFF + UDP_DST, port);
	put16(frame + UDP6_OFF + UDP_SUM, udp_checksum(event->udp_sum + words));
}

static inline bool is_served(const struct kernel_emit *event, const struct fan_endpoint *to)
{
	pair_t differs = *(const pair_t *)to->handle ^ *(const pair_t *)event->handle;

	return (!(differs[0] | differs[1]) || fan_planted(PLANT_ENDPOINT_NOT_COMPARED)) &&
	       to->hop == event->hop;
}

/*
 * blocks: of the frame, known to the compiler, which keeps as many of them in registers as it has;
 * 0: any number, moved through memory.
 */
static inline __attribute__((always_inline)) unsigned
emit_blocks(const struct kernel_emit *event, const struct fan_endpoint *endpoints, unsigned cnt,
	    struct rte_mbuf **mbufs, bool ipv6, unsigned blocks)
{
	const struct kernel_emit e = *event; /* in registers: nothing here can change it */
	const uint64_t source = get64(e.frame + IP4_SUM) & UINT64_C(0x0000ffffffff0000);
	const uint64_t ports_len = get64(e.frame + IP4_DST + 2) & UINT64_C(0xffff0000ffff0000);
	block_t kept[REGISTER_BLOCKS];

	for (unsigned b = 0; b < blocks; b++)
		kept[b] = *(const block_t *)(e.frame + b * sizeof(block_t));
	for (unsigned i = 0; i < cnt; i++) {
		const struct fan_endpoint *to = &endpoints[i];
		struct rte_mbuf *mbuf = mbufs[i];
		uint8_t *frame = (uint8_t *)mbuf->buf_addr + RTE_PKTMBUF_HEADROOM;

		__builtin_prefetch(to + AHEAD < e.end ? to + AHEAD : to);
		if (__builtin_expect(!is_served(&e, to), 0))
			return i;
		memcpy((uint8_t *)mbuf + offsetof(struct rte_mbuf, rearm_data), e.mbuf,
		       sizeof(e.mbuf));
		for (unsigned b = 0; b < blocks; b++)
			*(block_t *)(frame + b * sizeof(block_t)) = kept[b];
		for (uint32_t at = blocks * sizeof(block_t); at < e.len; at += sizeof(block_t))
			*(block_t *)(frame + at) = *(const block_t *)(e.frame + at);
		if (ipv6)
			patch_ipv6(frame, &e, to);
		else
			patch_ipv4(frame, &e, source, ports_len, to);
	}
	return cnt;
}

#define EMIT_BLOCKS(n) \
	case n:        \
		return emit_blocks(event, endpoints, cnt, mbufs, ipv6, n)

static inline __attribute__((always_inline)) unsigned
emit_family(const struct kernel_emit *event, const struct fan_endpoint *endpoints, unsigned cnt,
	    struct rte_mbuf **mbufs, bool ipv6)
{
	switch ((event->len + sizeof(block_t) - 1) / sizeof(block_t)) {
		EMIT_BLOCKS(3); /* all headers and up to 50 bytes of payload */
		EMIT_BLOCKS(4);
		EMIT_BLOCKS(5);
		EMIT_BLOCKS(6);
		EMIT_BLOCKS(7);
		EMIT_BLOCKS(8);
	default:
		return emit_blocks(event, endpoints, cnt, mbufs, ipv6, 0);
	}
}

static unsigned emit(const struct kernel_emit *event, const struct fan_endpoint *endpoints,
		     unsigned cnt, struct rte_mbuf **mbufs)
{
	if (event->hop & FAN_HOP_IPV6)
		return emit_family(event, endpoints, cnt, mbufs, true);
	return emit_family(event, endpoints, cnt, mbufs, false);
}

static void tag(uint8_t *const *headers, const uint8_t *const *keys, unsigned cnt)
{
	uint64_t tags[FAN_TAGS_LANES];

	KERNELS_TAGS(tags, (const uint8_t *const *)headers, keys, cnt);
	for (unsigned i = 0; i < cnt; i++)
		memcpy(headers[i] + FAN_TAGS_COVERED, &tags[i], sizeof(tags[i]));
}

/* ---- checksum: the sum of 32-bit words is that of their halves, modulo 2^16 - 1 ---- */

static uint16_t sum(const uint8_t *bytes, uint32_t len)
{
	static const uint8_t keep[2 * sizeof(block_t)] = {[0 ... sizeof(block_t) - 1] = 0xff};
	typedef uint64_t words_t __attribute__((vector_size(64), aligned(1), may_alias));
	lanes_t even = {0}, odd = {0}, words;
	uint64_t total = 0;
	uint32_t at = 0;

	for (; at + sizeof(words) < len; at += sizeof(words)) {
		words = *(const words_t *)(bytes + at);
		even += words & 0xffffffff;
		odd += words >> 32;
	}
	words = *(const words_t *)(bytes + at) &
		*(const words_t *)(keep + sizeof(block_t) - (len - at));
	even += (words & 0xffffffff) + (words >> 32) + odd;
	for (unsigned i = 0; i < sizeof(even) / sizeof(even[0]); i++)
		total += even[i];
	total = (total & 0xffffffff) + (total >> 32);
	total = (total & 0xffffffff) + (total >> 32);
	return (uint16_t)fold((uint32_t)total);
}

const struct kernels KERNELS = {.name = KERNELS_NAME, .emit = emit, .tag = tag, .sum = sum};
