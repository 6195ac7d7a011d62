/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/feed.h"

#include <errno.h>
#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <stdlib.h>

#include "bench/region.h"

#define HEADERS_LEN (RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_udp_hdr))

int feed_init(struct feed *feed, struct rte_mempool *pool, uint32_t users, uint32_t sessions,
	      uint16_t payload_len)
{
	*feed = (struct feed){
		.pool = pool,
		.users = users,
		.sessions = sessions,
		.payload_len = payload_len,
		.random = UINT64_C(0x9e3779b97f4a7c15), /* fixed: runs can be compared */
		.crypto = alloc_mb_mgr(0),
		.ids = calloc(sessions, sizeof(uint64_t)),
		.sequences = calloc(sessions, sizeof(uint64_t)),
		.keys = aligned_alloc(64, (sessions * sizeof(struct gcm_key_data) + 63) / 64 * 64),
	};
	if (!feed->crypto || !feed->ids || !feed->sequences || !feed->keys) {
		feed_fini(feed);
		return -ENOMEM;
	}
	init_mb_mgr_auto(feed->crypto, NULL);
	for (uint32_t slot = 0; slot < sessions; slot++) {
		uint8_t key[32];

		memset(key, (int)slot + 1, sizeof(key));
		IMB_AES256_GCM_PRE(feed->crypto, key, &feed->keys[slot]);
	}
	return 0;
}

void feed_fini(struct feed *feed)
{
	if (feed->crypto)
		free_mb_mgr(feed->crypto);
	free(feed->ids);
	free(feed->sequences);
	free(feed->keys);
}

/* xorshift64*, Vigna 2016. */
static uint32_t user_draw(struct feed *feed)
{
	feed->random ^= feed->random >> 12;
	feed->random ^= feed->random << 25;
	feed->random ^= feed->random >> 27;
	return (uint32_t)((feed->random * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % feed->users;
}

static void headers_fill(uint8_t *frame, uint16_t source_port, uint16_t wire_len)
{
	struct rte_ether_hdr *ethernet = (void *)frame;
	struct rte_ipv4_hdr *ip = (void *)(ethernet + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);

	memset(frame, 0, HEADERS_LEN);
	ethernet->ether_type = htons(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->total_length = htons((uint16_t)(sizeof(*ip) + sizeof(*udp) + wire_len));
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->src_addr, bench_peer + 12, 4);
	memcpy(&ip->dst_addr, bench_engine + 12, 4);
	udp->src_port = htons(source_port);
	udp->dst_port = htons(BENCH_ENGINE_PORT);
	udp->dgram_len = htons((uint16_t)(sizeof(*udp) + wire_len));
}

uint16_t feed_frame_len(const struct feed *feed)
{
	return (uint16_t)(HEADERS_LEN + FAN_PUBLISH_LEN + feed->payload_len + FAN_TAG_LEN);
}

void feed_seal(struct feed *feed, uint8_t *frame, uint32_t slot, uint32_t user)
{
	uint8_t *wire = frame + HEADERS_LEN, *payload = wire + FAN_PUBLISH_LEN;
	uint8_t nonce[FAN_NONCE_LEN];
	struct gcm_context_data context;
	struct fan_publish publish = {
		.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
		.payload_len = feed->payload_len,
		.session = feed->ids[slot],
		.publisher_sequence = ++feed->sequences[slot],
	};

	bench_user_handle(publish.handle, user);
	headers_fill(frame, (uint16_t)(BENCH_PUBLISHER_PORT + slot),
		     (uint16_t)(feed_frame_len(feed) - HEADERS_LEN));
	fan_publish_encode(wire, &publish);
	memset(payload, 'x', feed->payload_len);
	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, publish.publisher_sequence);
	IMB_AES256_GCM_ENC(feed->crypto, &feed->keys[slot], &context, payload, payload,
			   feed->payload_len, nonce, wire, FAN_PUBLISH_LEN,
			   payload + feed->payload_len, FAN_TAG_LEN);
}

static void publish_seal(struct feed *feed, struct rte_mbuf *mbuf)
{
	uint32_t slot = (uint32_t)(feed->produced++ % feed->sessions);
	uint8_t *frame = (void *)rte_pktmbuf_append(mbuf, feed_frame_len(feed));

	feed_seal(feed, frame, slot, user_draw(feed));
}

int feed_make(struct feed *feed, struct rte_mbuf **mbufs, unsigned cnt)
{
	if (rte_pktmbuf_alloc_bulk(feed->pool, mbufs, cnt))
		return -ENOMEM;
	for (unsigned i = 0; i < cnt; i++)
		publish_seal(feed, mbufs[i]);
	return 0;
}
