/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lock-free, wait-free reader of the registration table. Common case inline: this is the hot path.
 *
 * Who: dataplane workers between two quiescent points; fanwired's own code; tests. What a lookup
 * returns may be used until the caller's next quiescent point, and not after.
 * Source of the layout: bucketed hash with in-line fingerprints and chained overflow, as in
 * docs/shared-memory.md.
 */
#pragma once

#include <string.h>

#include "common/plant.h"
#include "common/shm/registry.h"

/* ThreadSanitizer does not know that a vector's elements are read whole. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#define FAN_VECTOR_LOADS
#include <emmintrin.h>
#endif

#define FAN_BUCKET_MASK ((1u << FAN_BUCKET_SLOTS) - 1)

/* A mapped registry with its offsets resolved and bounds known. Filled by fan_table_init(). */
struct fan_table {
	const struct fan_registry *registry;
	const struct fan_bucket *buckets;
	const struct fan_group *groups;
	const struct fan_endpoint *endpoints;
	const struct fan_connection *connections;
	const struct fan_nexthop *nexthops;
	const struct fan_session *sessions;
	uint64_t seed[2];
	uint32_t bucket_cnt;   /* first-level */
	uint32_t bucket_total; /* first-level and overflow */
	uint32_t group_cnt;
	uint32_t endpoint_cnt;
	uint32_t connection_cnt;
	uint32_t nexthop_cnt;
	uint32_t session_mask;
};

/* Checks every offset and count against the region's size. -EPROTO where one does not fit. */
int fan_table_init(struct fan_table *table, const struct fan_region *region);

/*
 * Hash of (handle, channel) under the region's seed. A handle is BLAKE2b output that an adversary
 * can choose by grinding names, so the seed enters through two multiply-fold rounds (wyhash's
 * mixing step) rather than by exclusive-or alone.
 */
static inline uint64_t fan_mix(uint64_t a, uint64_t b)
{
	__uint128_t r = (__uint128_t)a * b;

	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static inline uint64_t fan_table_hash(const uint64_t seed[2], const uint8_t handle[16],
				      uint64_t channel)
{
	uint64_t lo, hi;

	memcpy(&lo, handle, 8);
	memcpy(&hi, handle + 8, 8);
	lo = fan_mix(lo ^ seed[0], hi ^ seed[1] ^ UINT64_C(0x9e3779b97f4a7c15));
	return fan_mix(lo ^ channel ^ seed[1], seed[0] ^ UINT64_C(0xe7037ed1a0b428db));
}

/* First-level bucket of a hash: its low 32 bits scaled to any count (Lemire, 2016). */
static inline uint32_t fan_bucket_idx(uint32_t bucket_cnt, uint64_t hash)
{
	return (uint32_t)(((uint64_t)(uint32_t)hash * bucket_cnt) >> 32);
}

static inline uint32_t fan_table_bucket_idx(const struct fan_table *t, uint64_t hash)
{
	return fan_bucket_idx(t->bucket_cnt, hash);
}

/* Never 0: 0 marks an empty slot. */
static inline uint16_t fan_table_fp(uint64_t hash)
{
	uint16_t fp = (uint16_t)(hash >> 48);

	return fp ? fp : 1;
}

/* What a bucket's `chain` says of a group with this hash that stands behind it. */
static inline uint32_t fan_chain_mark(uint64_t hash)
{
	return UINT32_C(1) << (24 + (hash >> 32 & 7)) | UINT32_C(1) << (24 + (hash >> 35 & 7));
}

/* The bucket that follows, or UINT32_MAX where there is none or it would lie outside. */
static inline uint32_t fan_chain_next(const struct fan_table *t, uint32_t chain)
{
	uint32_t next = chain & FAN_CHAIN_NEXT;

	return next - 1 < t->bucket_total - t->bucket_cnt ? t->bucket_cnt + next - 1 : UINT32_MAX;
}

/* Bit i set where slot i's fingerprint equals fp. Each is read whole: it may change. */
static inline unsigned fan_bucket_match(const struct fan_bucket *bucket, uint16_t fp)
{
#ifdef FAN_VECTOR_LOADS
	/* An aligned load of a vector reads each of its 16-bit elements whole. */
	__m128i wanted = _mm_set1_epi16((short)fp);
	__m128i first = _mm_load_si128((const __m128i *)(const void *)bucket);
	__m128i last = _mm_loadl_epi64((const __m128i *)(const void *)&bucket->fp[8]);

	first = _mm_cmpeq_epi16(first, wanted);
	last = _mm_cmpeq_epi16(last, wanted);
	return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(first, last)) & FAN_BUCKET_MASK;
#else
	unsigned mask = 0;

	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++)
		mask |= (unsigned)(__atomic_load_n(&bucket->fp[i], __ATOMIC_RELAXED) == fp) << i;
	return mask;
#endif
}

/*
 * The group of (handle, channel), or NULL. Bounded: the chain is no longer than the number of
 * overflow buckets, and every index is checked before it is followed.
 */
static inline const struct fan_group *fan_table_lookup(const struct fan_table *t,
						       const uint8_t handle[16], uint64_t channel,
						       uint64_t hash)
{
	uint16_t fp = fan_table_fp(hash);
	uint32_t mark = fan_chain_mark(hash), idx = fan_table_bucket_idx(t, hash);

	for (uint32_t hops = 0; hops <= t->bucket_total && idx != UINT32_MAX; hops++) {
		const struct fan_bucket *bucket = &t->buckets[idx];

		for (unsigned mask = fan_bucket_match(bucket, fp); mask; mask &= mask - 1) {
			unsigned slot = (unsigned)__builtin_ctz(mask);
			/* pairs with the release in control/registry that publishes a group */
			uint32_t group = __atomic_load_n(&bucket->group[slot], __ATOMIC_ACQUIRE);

			if (group == 0 || group > t->group_cnt)
				continue;
			const struct fan_group *g = &t->groups[group - 1];
			if ((g->channel == channel && memcmp(g->handle, handle, 16) == 0) ||
			    fan_planted(PLANT_KEY_NOT_COMPARED))
				return g;
		}
		/* pairs with the release in control/registry that links a bucket */
		uint32_t chain = __atomic_load_n(&bucket->chain, __ATOMIC_ACQUIRE);

		if ((chain & mark) != mark)
			return NULL;
		idx = fan_chain_next(t, chain);
	}
	return NULL;
}

/* Endpoints of a group as one consistent view; *cnt 0 where there are none or they are out of
 * range. */
static inline const struct fan_endpoint *
fan_group_endpoints(const struct fan_table *t, const struct fan_group *group, uint32_t *cnt)
{
	/* pairs with the release in control/registry that publishes a block */
	uint64_t word = __atomic_load_n(&group->endpoints, __ATOMIC_ACQUIRE);
	uint64_t first = word >> FAN_ENDPOINT_CNT_BITS;
	uint32_t n = (uint32_t)word & FAN_ENDPOINT_CNT_MAX;

	if (first + n > t->endpoint_cnt)
		n = 0, first = 0;
	*cnt = n;
	return &t->endpoints[first];
}

/* The generation of an endpoint's registration; 0: out of range. Constant while it is published. */
static inline uint32_t fan_endpoint_generation(const struct fan_table *t,
					       const struct fan_endpoint *endpoint)
{
	return endpoint->record < t->connection_cnt ? t->connections[endpoint->record].generation
						    : 0;
}

static inline uint32_t fan_group_idx(const struct fan_table *t, const struct fan_group *group)
{
	return (uint32_t)(group - t->groups);
}

/* The session of an id, or NULL. */
static inline const struct fan_session *fan_table_session(const struct fan_table *t, uint64_t id)
{
	const struct fan_session *session = &t->sessions[(uint32_t)id & t->session_mask];

	/* pairs with the release in control/registry that opens a session */
	return id && __atomic_load_n(&session->id, __ATOMIC_ACQUIRE) == id ? session : NULL;
}
