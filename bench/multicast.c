/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/multicast.h"

#include <errno.h>
#include <netinet/in.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>
#include <string.h>

#include "bench/region.h"
#include "common/wire/wire.h"

#define PREFETCH_OFFSET 3 /* as the sample */
#define POOL_CNT	8191
#define POOL_CACHE	256
#define HEADER_ROOM	(2 * RTE_PKTMBUF_HEADROOM)
#define ENTRY_BYTES	160 /* of the hash, an upper bound: key slot, bucket entries, free list */

/* ---- set up ---- */

void multicast_key(uint8_t key[MULTICAST_KEY_LEN], uint32_t user)
{
	uint64_t channel = FAN_CHANNEL_ALL;

	bench_user_handle(key, user);
	memcpy(key + 16, &channel, sizeof(channel));
}

unsigned multicast_memory_mb(uint32_t users, uint32_t fanout)
{
	uint64_t bytes = (uint64_t)users * (ENTRY_BYTES + fanout * sizeof(struct multicast_target));

	return 160 + (unsigned)(bytes >> 20);
}

static uint32_t words_sum(const void *bytes, unsigned len)
{
	const unaligned_uint16_t *words = bytes;
	uint32_t sum = 0;

	for (unsigned i = 0; i < len / 2; i++)
		sum += words[i];
	return sum;
}

static void template_fill(struct multicast *m)
{
	struct rte_ether_hdr *ethernet = (void *)m->template;
	struct rte_ipv4_hdr *ip = (void *)(ethernet + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);

	ethernet->ether_type = htons(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG);
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->src_addr, bench_engine + 12, 4);
	udp->src_port = htons(BENCH_ENGINE_PORT);
	m->ip_sum = words_sum(ip, sizeof(*ip));
	m->udp_sum = words_sum(&ip->src_addr, 4) + htons(IPPROTO_UDP) + udp->src_port;
}

static int users_fill(struct multicast *m, uint32_t users, uint32_t fanout)
{
	int err = 0;

	for (uint32_t i = 0; i < users && !err; i++) {
		uint64_t first = (uint64_t)i * fanout;
		uint8_t key[MULTICAST_KEY_LEN];

		multicast_key(key, i);
		err = rte_hash_add_key_data(m->hash, key, (void *)(first << 32 | fanout));
		for (uint32_t j = 0; j < fanout; j++) {
			struct multicast_target *target = &m->targets[first + j];

			memcpy(&target->address, bench_peer + 12, 4);
			target->port = htons((uint16_t)(20000 + (first + j) % 4000));
			memcpy(target->mac, (const uint8_t[6]){2, 0, 0, 0, 0, 1}, 6);
		}
	}
	return err;
}

int multicast_init(struct multicast *m, uint32_t users, uint32_t fanout, uint16_t port_id,
		   bool clone, unsigned tx_burst)
{
	const struct rte_hash_parameters parameters = {
		.name = "multicast",
		/* a power of two follows: not so full that keys stand in their second bucket */
		.entries = RTE_MAX(users / 3 * 4, 64u),
		.key_len = MULTICAST_KEY_LEN,
		.hash_func = rte_hash_crc,
		.socket_id = SOCKET_ID_ANY,
	};

	*m = (struct multicast){.port_id = port_id, .clone = clone, .tx_burst = tx_burst};
	template_fill(m);
	m->targets = rte_zmalloc("targets", (size_t)users * fanout * sizeof(*m->targets), 64);
	m->hash = rte_hash_create(&parameters);
	m->header_pool = rte_pktmbuf_pool_create("headers", POOL_CNT, POOL_CACHE, 0, HEADER_ROOM,
						 SOCKET_ID_ANY);
	m->clone_pool =
		rte_pktmbuf_pool_create("clones", POOL_CNT, POOL_CACHE, 0, 0, SOCKET_ID_ANY);
	if (!m->targets || !m->hash || !m->header_pool || !m->clone_pool)
		return -ENOMEM;
	return users_fill(m, users, fanout);
}

void multicast_fini(struct multicast *m)
{
	rte_hash_free(m->hash);
	rte_free(m->targets);
	rte_mempool_free(m->header_pool);
	rte_mempool_free(m->clone_pool);
}

/* ---- sending ---- */

void multicast_flush(struct multicast *m)
{
	uint16_t sent = rte_eth_tx_burst(m->port_id, 0, m->tx, (uint16_t)m->tx_cnt);

	m->sent += sent;
	if (unlikely(sent < m->tx_cnt))
		rte_pktmbuf_free_bulk(m->tx + sent, m->tx_cnt - sent);
	m->tx_cnt = 0;
}

static inline uint16_t sum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Headers before the payload, in `mbuf`'s headroom; payload_sum is its partial checksum. */
static inline void copy_send(struct multicast *m, struct rte_mbuf *mbuf,
			     const struct multicast_target *target, uint16_t payload_len,
			     uint16_t payload_sum)
{
	uint8_t *frame = (uint8_t *)rte_pktmbuf_prepend(mbuf, MULTICAST_HEADERS);
	struct rte_ipv4_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);
	struct rte_udp_hdr *udp = (void *)(ip + 1);
	uint32_t address_sum = (target->address & 0xffff) + (target->address >> 16);
	uint16_t udp_len = htons((uint16_t)(sizeof(*udp) + payload_len));

	rte_memcpy(frame, m->template, MULTICAST_HEADERS);
	memcpy(frame, target->mac, sizeof(target->mac));
	ip->total_length = htons((uint16_t)(sizeof(*ip) + sizeof(*udp) + payload_len));
	ip->dst_addr = target->address;
	ip->hdr_checksum = (uint16_t)~sum_fold(m->ip_sum + ip->total_length + address_sum);
	udp->dst_port = target->port;
	udp->dgram_len = udp_len;
	udp->dgram_cksum = (uint16_t)~sum_fold(m->udp_sum + payload_sum + address_sum +
					       target->port + 2u * udp_len);
	if (udp->dgram_cksum == 0)
		udp->dgram_cksum = 0xffff;
	m->tx[m->tx_cnt] = mbuf;
	if (++m->tx_cnt == m->tx_burst)
		multicast_flush(m);
}

/* mcast_out_pkt() of the sample: a header mbuf before the payload, or before a clone of it. */
static inline struct rte_mbuf *out_packet(struct multicast *m, struct rte_mbuf *payload)
{
	struct rte_mbuf *header = rte_pktmbuf_alloc(m->header_pool);

	if (unlikely(!header))
		return NULL;
	if (m->clone) {
		payload = rte_pktmbuf_clone(payload, m->clone_pool);
		if (unlikely(!payload)) {
			rte_pktmbuf_free(header);
			return NULL;
		}
	}
	header->data_off = HEADER_ROOM / 2;
	header->next = payload;
	header->pkt_len = header->data_len + payload->pkt_len;
	header->nb_segs = (uint16_t)(payload->nb_segs + 1);
	return header;
}

/* mcast_forward() of the sample, from where the targets are known. */
static inline void forward(struct multicast *m, struct rte_mbuf *event,
			   const struct multicast_target *targets, unsigned cnt)
{
	uint16_t len = event->data_len;
	uint16_t sum = rte_raw_cksum(rte_pktmbuf_mtod(event, void *), len);
	unsigned with_header = m->clone ? cnt - 1 : cnt;

	if (!m->clone)
		rte_pktmbuf_refcnt_update(event, (int16_t)cnt);
	for (unsigned i = 0; i < with_header; i++) {
		struct rte_mbuf *copy = out_packet(m, event);

		if (likely(copy != NULL)) {
			copy_send(m, copy, &targets[i], len, sum);
			continue;
		}
		m->missed++;
		if (!m->clone)
			rte_pktmbuf_refcnt_update(event, -1);
	}
	if (m->clone) /* the last one needs no header mbuf: ours is before the payload */
		copy_send(m, event, &targets[cnt - 1], len, sum);
	else
		rte_pktmbuf_free(event);
}

void multicast_burst(struct multicast *m, struct rte_mbuf **events, unsigned cnt)
{
	for (unsigned i = 0; i < RTE_MIN(cnt, PREFETCH_OFFSET + 0u); i++)
		rte_prefetch0(rte_pktmbuf_mtod(events[i], void *));
	for (unsigned i = 0; i < cnt; i++) {
		const void *key = rte_pktmbuf_mtod(events[i], void *);
		void *data;

		if (i + PREFETCH_OFFSET < cnt)
			rte_prefetch0(rte_pktmbuf_mtod(events[i + PREFETCH_OFFSET], void *));
		if (rte_hash_lookup_data(m->hash, key, &data) < 0) {
			m->missed++;
			rte_pktmbuf_free(events[i]);
			continue;
		}
		forward(m, events[i], &m->targets[(uint64_t)data >> 32], (uint32_t)(uint64_t)data);
	}
}
