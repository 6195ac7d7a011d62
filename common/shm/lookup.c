/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Passes over up to LOOKUP_IN_FLIGHT keys, each touching the lines that the pass before asked for.
 * Buckets: most keys that are not there leave here. Then, in rounds, the groups of the fingerprints
 * that fit, and the whole keys; what is found in neither goes on to the next bucket of its chain,
 * if that may hold it, and through another round.
 */
#include "common/shm/lookup.h"

#include "common/shm/lookup_passes.h"

#define ENDPOINTS_AHEAD 192 /* bytes of a block that are asked for */

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
	return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2])) == 0 ||
	       fan_planted(PLANT_KEY_NOT_COMPARED);
}

static inline uint64_t hash_of(const struct fan_table *t, const void *key)
{
	uint64_t channel;

	memcpy(&channel, (const char *)key + 16, sizeof(channel));
	return fan_table_hash(t->seed, key, channel);
}

static inline unsigned mask_of(const struct fan_bucket *bucket, uint64_t hash)
{
	/* pairs with the release in control/registry that links a bucket */
	uint32_t chain = __atomic_load_n(&bucket->chain, __ATOMIC_ACQUIRE);
	uint32_t mark = fan_chain_mark(hash);

	return fan_bucket_match(bucket, fan_table_fp(hash)) |
	       ((chain & mark) == mark ? LOOKUP_CHAIN : 0);
}

/* Without a branch that depends on what is found. */
unsigned lookup_buckets_scalar(const struct fan_table *t, const uint64_t *hashes, unsigned cnt,
			       struct lookup_work *work)
{
	unsigned noted = 0;

	for (unsigned i = 0; i < cnt; i++) {
		unsigned mask = mask_of(&t->buckets[work->bucket[i]], hashes[i]);

		work->mask[i] = (uint16_t)mask;
		work->noted[noted] = (uint16_t)i;
		noted += mask != 0;
	}
	return noted;
}

/* Asks for the group of the first fingerprint that fits, or for the next bucket. */
static inline void groups_pass(const struct fan_table *t, unsigned noted, struct lookup_work *work)
{
	for (unsigned i = 0; i < noted; i++) {
		unsigned key = work->noted[i];
		const struct fan_bucket *bucket = &t->buckets[work->bucket[key]];
		unsigned slots = work->mask[key] & FAN_BUCKET_MASK;

		work->group[i] = NULL;
		if (slots) { /* pairs with the release that publishes a group */
			const uint32_t *slot = &bucket->group[__builtin_ctz(slots)];

			work->group[i] = group_at(t, __atomic_load_n(slot, __ATOMIC_ACQUIRE));
			__builtin_prefetch(work->group[i]);
			continue;
		}
		uint32_t next =
			fan_chain_next(t, __atomic_load_n(&bucket->chain, __ATOMIC_ACQUIRE));

		if (next != UINT32_MAX)
			__builtin_prefetch(&t->buckets[next]);
	}
}

/* The other fingerprints of a bucket that fit. */
static const struct fan_group *slots_search(const struct fan_table *t,
					    const struct fan_bucket *bucket, unsigned slots,
					    const void *key)
{
	for (; slots; slots &= slots - 1) {
		const uint32_t *slot = &bucket->group[__builtin_ctz(slots)];
		const struct fan_group *group =
			group_at(t, __atomic_load_n(slot, __ATOMIC_ACQUIRE));

		if (group && key_is(group, key))
			return group;
	}
	return NULL;
}

/* Whole keys. Those that the chain may hold stay noted, at their next bucket. How many. */
static inline unsigned keys_pass(const struct fan_table *t, const void *const *keys, unsigned noted,
				 struct lookup_work *work, const struct fan_group **groups)
{
	unsigned left = 0;

	for (unsigned i = 0; i < noted; i++) {
		const struct fan_group *group = work->group[i];
		unsigned key = work->noted[i], mask = work->mask[key];
		const struct fan_bucket *bucket = &t->buckets[work->bucket[key]];

		if (!group || !key_is(group, keys[key]))
			group = slots_search(t, bucket, mask & FAN_BUCKET_MASK, keys[key]);
		groups[key] = group;
		if (group || !(mask & LOOKUP_CHAIN))
			continue;
		uint32_t next =
			fan_chain_next(t, __atomic_load_n(&bucket->chain, __ATOMIC_ACQUIRE));

		if (next == UINT32_MAX)
			continue;
		__builtin_prefetch(&t->buckets[next]);
		work->bucket[key] = next;
		work->noted[left++] = (uint16_t)key;
	}
	return left;
}

/* One bucket further down their chains. */
static unsigned chain_pass(const struct fan_table *t, const uint64_t *hashes, unsigned noted,
			   struct lookup_work *work)
{
	unsigned left = 0;

	for (unsigned i = 0; i < noted; i++) {
		unsigned key = work->noted[i];

		work->mask[key] = (uint16_t)mask_of(&t->buckets[work->bucket[key]], hashes[key]);
		work->noted[left] = (uint16_t)key;
		left += work->mask[key] != 0;
	}
	return left;
}

static inline void bucket_ask(const struct fan_table *t, uint64_t hash, uint32_t *bucket)
{
	*bucket = fan_table_bucket_idx(t, hash);
	__builtin_prefetch(&t->buckets[*bucket]);
}

/* Buckets are asked for as soon as their hash is known. A chain that is a ring ends, too. */
static void lookup_some(lookup_buckets_fn *buckets, const struct fan_table *t,
			const void *const *keys, const uint64_t *hashes, unsigned cnt,
			const struct fan_group **groups)
{
	uint64_t made[LOOKUP_IN_FLIGHT];
	struct lookup_work work;
	unsigned noted;

	for (unsigned i = 0; hashes && i < cnt; i++)
		bucket_ask(t, hashes[i], &work.bucket[i]);
	for (unsigned i = 0; !hashes && i < cnt; i++) {
		made[i] = hash_of(t, keys[i]);
		bucket_ask(t, made[i], &work.bucket[i]);
	}
	memset(groups, 0, cnt * sizeof(*groups));
	hashes = hashes ? hashes : made;
	noted = buckets(t, hashes, cnt, &work);
	for (uint32_t round = 0; noted && round <= t->bucket_total; round++) {
		groups_pass(t, noted, &work);
		noted = keys_pass(t, keys, noted, &work, groups);
		noted = chain_pass(t, hashes, noted, &work);
	}
}

void lookup_by(lookup_buckets_fn *buckets, const struct fan_table *t, const void *const *keys,
	       const uint64_t *hashes, unsigned cnt, const struct fan_group **groups)
{
	for (unsigned i = 0; i < cnt; i += LOOKUP_IN_FLIGHT)
		lookup_some(buckets, t, keys + i, hashes ? hashes + i : NULL,
			    cnt - i < LOOKUP_IN_FLIGHT ? cnt - i : LOOKUP_IN_FLIGHT, groups + i);
}

static lookup_buckets_fn *best(void)
{
	return lookup_has_avx512() ? lookup_buckets_avx512 : lookup_buckets_scalar;
}

void fan_table_lookup_bulk(const struct fan_table *t, const void *const *keys,
			   const uint64_t *hashes, unsigned cnt, const struct fan_group **groups)
{
	if (cnt)
		lookup_by(best(), t, keys, hashes, cnt, groups);
}

void fan_table_find_bulk(const struct fan_table *t, const void *const *keys, unsigned cnt,
			 const struct fan_group **groups)
{
	if (cnt)
		lookup_by(best(), t, keys, NULL, cnt, groups);
}

void fan_table_lookup_bulk_ahead(const struct fan_table *t, const void *const *keys,
				 const uint64_t *hashes, unsigned cnt,
				 const struct fan_group **groups,
				 const struct fan_group_state *states)
{
	fan_table_lookup_bulk(t, keys, hashes, cnt, groups);
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
