/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Passes over up to IN_FLIGHT keys, each touching the lines that the pass before asked for.
 * Buckets: most keys that are not there leave here. Then, in rounds, the groups of the fingerprints
 * that fit, and the whole keys; what is found in neither goes on to the next bucket of its chain,
 * if that may hold it, and through another round. In the end what the caller reads next.
 */
#include "common/shm/lookup.h"

/*
 * Measured with 4 and 10 million groups: 256 need two thirds of the time a key that 64 do, since
 * the wait for the last line of a pass is shared by more. A bucket each stays in the first-level
 * cache.
 */
#define IN_FLIGHT	256
#define ENDPOINTS_AHEAD 192 /* bytes of a block that are asked for */

/* A key whose bucket knows of something. */
struct candidate {
	uint32_t idx; /* of the key */
	uint32_t bucket;
	const struct fan_group *group; /* the first whose fingerprint fits, or NULL */
};

static inline const struct fan_group *group_at(const struct fan_table *t, uint32_t value)
{
	return value - 1 < t->group_cnt ? &t->groups[value - 1] : NULL; /* 0 wraps around */
}

static inline bool key_is(const struct fan_group *group, const void *key)
{
	uint64_t a[3], b[3];

	memcpy(a, key, sizeof(a));
	memcpy(b, group->handle, 16);
	b[2] = group->channel;
	return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2])) == 0;
}

/* All that a bucket has of this fingerprint. */
static const struct fan_group *bucket_search(const struct fan_table *t,
					     const struct fan_bucket *bucket, const void *key,
					     uint64_t hash)
{
	for (unsigned mask = fan_bucket_match(bucket, fan_table_fp(hash)); mask; mask &= mask - 1) {
		/* pairs with the release in control/registry that publishes a group */
		uint32_t value =
			__atomic_load_n(&bucket->group[__builtin_ctz(mask)], __ATOMIC_ACQUIRE);
		const struct fan_group *group = group_at(t, value);

		if (group && key_is(group, key))
			return group;
	}
	return NULL;
}

/* The bucket that follows where it may hold the hash's group, or UINT32_MAX. */
static inline uint32_t next_of(const struct fan_table *t, const struct fan_bucket *bucket,
			       uint64_t hash)
{
	/* pairs with the release in control/registry that links a bucket */
	uint32_t chain = __atomic_load_n(&bucket->chain, __ATOMIC_ACQUIRE);
	uint32_t mark = fan_chain_mark(hash);

	return (chain & mark) == mark ? fan_chain_next(t, chain) : UINT32_MAX;
}

/* Notes the keys that may be there, without a branch that depends on it. How many. */
static inline unsigned buckets_pass(const struct fan_table *t, const uint64_t *hashes, unsigned cnt,
				    const struct fan_group **groups, struct candidate *candidates)
{
	unsigned noted = 0;

	for (unsigned i = 0; i < cnt; i++) {
		uint32_t idx = fan_table_bucket_idx(t, hashes[i]), mark = fan_chain_mark(hashes[i]);
		const struct fan_bucket *bucket = &t->buckets[idx];
		unsigned mask = fan_bucket_match(bucket, fan_table_fp(hashes[i]));
		uint32_t chain = __atomic_load_n(&bucket->chain, __ATOMIC_RELAXED);

		groups[i] = NULL;
		candidates[noted].idx = i;
		candidates[noted].bucket = idx;
		noted += (mask != 0) | ((chain & mark) == mark);
	}
	return noted;
}

static inline void groups_pass(const struct fan_table *t, const uint64_t *hashes, unsigned noted,
			       struct candidate *candidates)
{
	for (unsigned i = 0; i < noted; i++) {
		uint64_t hash = hashes[candidates[i].idx];
		const struct fan_bucket *bucket = &t->buckets[candidates[i].bucket];
		unsigned mask = fan_bucket_match(bucket, fan_table_fp(hash));
		uint32_t next;

		candidates[i].group = NULL;
		if (mask) { /* pairs with the release that publishes a group */
			candidates[i].group =
				group_at(t, __atomic_load_n(&bucket->group[__builtin_ctz(mask)],
							    __ATOMIC_ACQUIRE));
			__builtin_prefetch(candidates[i].group);
			continue;
		}
		next = next_of(t, bucket, hash);
		if (next != UINT32_MAX)
			__builtin_prefetch(&t->buckets[next]);
	}
}

/* Whole keys. Those that were not found yet stay noted, at the next bucket. How many. */
static inline unsigned keys_pass(const struct fan_table *t, const void *const *keys,
				 const uint64_t *hashes, unsigned noted,
				 struct candidate *candidates, const struct fan_group **groups)
{
	unsigned left = 0;

	for (unsigned i = 0; i < noted; i++) {
		const struct fan_group *group = candidates[i].group;
		uint32_t idx = candidates[i].idx, next;
		const struct fan_bucket *bucket = &t->buckets[candidates[i].bucket];

		if (!group || !key_is(group, keys[idx]))
			group = bucket_search(t, bucket, keys[idx], hashes[idx]);
		groups[idx] = group;
		if (group)
			continue;
		next = next_of(t, bucket, hashes[idx]);
		if (next == UINT32_MAX)
			continue;
		__builtin_prefetch(&t->buckets[next]);
		candidates[left++] = (struct candidate){.idx = idx, .bucket = next};
	}
	return left;
}

static inline void ahead_pass(const struct fan_table *t, unsigned cnt,
			      const struct fan_group *const *groups,
			      const struct fan_group_state *states)
{
	for (unsigned i = 0; i < cnt; i++) {
		const struct fan_endpoint *endpoints;
		uint32_t endpoint_cnt, len;

		if (!groups[i])
			continue;
		__builtin_prefetch(&states[fan_group_idx(t, groups[i])], 1);
		endpoints = fan_group_endpoints(t, groups[i], &endpoint_cnt);
		len = endpoint_cnt * (uint32_t)sizeof(*endpoints);
		for (uint32_t off = 0; off < len && off < ENDPOINTS_AHEAD; off += FAN_CACHE_LINE)
			__builtin_prefetch((const char *)endpoints + off);
	}
}

static void lookup_some(const struct fan_table *t, const void *const *keys, const uint64_t *hashes,
			unsigned cnt, const struct fan_group **groups)
{
	struct candidate candidates[IN_FLIGHT];
	unsigned noted;

	for (unsigned i = 0; i < cnt; i++)
		__builtin_prefetch(&t->buckets[fan_table_bucket_idx(t, hashes[i])]);
	noted = buckets_pass(t, hashes, cnt, groups, candidates);
	for (uint32_t round = 0; noted && round <= t->bucket_total; round++) {
		groups_pass(t, hashes, noted, candidates);
		noted = keys_pass(t, keys, hashes, noted, candidates, groups);
	}
}

void fan_table_lookup_bulk(const struct fan_table *t, const void *const *keys,
			   const uint64_t *hashes, unsigned cnt, const struct fan_group **groups)
{
	for (unsigned i = 0; i < cnt; i += IN_FLIGHT)
		lookup_some(t, keys + i, hashes + i, cnt - i < IN_FLIGHT ? cnt - i : IN_FLIGHT,
			    groups + i);
}

void fan_table_lookup_bulk_ahead(const struct fan_table *t, const void *const *keys,
				 const uint64_t *hashes, unsigned cnt,
				 const struct fan_group **groups,
				 const struct fan_group_state *states)
{
	fan_table_lookup_bulk(t, keys, hashes, cnt, groups);
	ahead_pass(t, cnt, groups, states);
}
