/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/shm/lookup.h"

#define CHUNK		64  /* keys under way at once */
#define ENDPOINTS_AHEAD 192 /* bytes of a block that are asked for */

/* What the first-level bucket said of a key. */
struct candidate {
	const struct fan_group *group; /* whose fingerprint fits; NULL: none */
	bool more;		       /* if it is not that one, the key may stand elsewhere */
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

/* The rare way: several fingerprints fit, or the chain goes on. */
static __attribute__((noinline)) const struct fan_group *
lookup_whole(const struct fan_table *t, const void *key, uint64_t hash)
{
	uint8_t handle[16];
	uint64_t channel;

	memcpy(handle, key, sizeof(handle));
	memcpy(&channel, (const char *)key + sizeof(handle), sizeof(channel));
	return fan_table_lookup(t, handle, channel, hash);
}

static inline struct candidate candidate_get(const struct fan_table *t, uint64_t hash)
{
	const struct fan_bucket *bucket = &t->buckets[fan_table_bucket_idx(t, hash)];
	unsigned mask = fan_bucket_match(bucket, fan_table_fp(hash));
	uint32_t next = __atomic_load_n(&bucket->next, __ATOMIC_ACQUIRE);
	struct candidate candidate = {.more = (mask & (mask - 1)) || next};

	if (mask) /* pairs with the release in control/registry that publishes a group */
		candidate.group = group_at(
			t, __atomic_load_n(&bucket->group[__builtin_ctz(mask)], __ATOMIC_ACQUIRE));
	if (candidate.group)
		__builtin_prefetch(candidate.group);
	else if (next - 1 < t->bucket_total)
		__builtin_prefetch(&t->buckets[next - 1]);
	return candidate;
}

static inline void ahead(const struct fan_table *t, const struct fan_group *group,
			 const struct fan_group_state *states)
{
	const struct fan_endpoint *endpoints;
	uint32_t cnt;

	__builtin_prefetch(&states[group - t->groups], 1);
	endpoints = fan_group_endpoints(t, group, &cnt);
	for (uint32_t off = 0; off < cnt * sizeof(*endpoints) && off < ENDPOINTS_AHEAD; off += 64)
		__builtin_prefetch((const char *)endpoints + off);
}

static inline void lookup_chunk(const struct fan_table *t, const void *const *keys,
				const uint64_t *hashes, unsigned cnt,
				const struct fan_group **groups,
				const struct fan_group_state *states)
{
	struct candidate candidates[CHUNK];

	for (unsigned i = 0; i < cnt; i++)
		__builtin_prefetch(&t->buckets[fan_table_bucket_idx(t, hashes[i])]);
	for (unsigned i = 0; i < cnt; i++)
		candidates[i] = candidate_get(t, hashes[i]);
	for (unsigned i = 0; i < cnt; i++) {
		const struct fan_group *group = candidates[i].group;

		if (group && !key_is(group, keys[i]))
			group = NULL;
		if (!group && candidates[i].more)
			group = lookup_whole(t, keys[i], hashes[i]);
		groups[i] = group;
		if (states && group)
			ahead(t, group, states);
	}
}

void fan_table_lookup_bulk(const struct fan_table *t, const void *const *keys,
			   const uint64_t *hashes, unsigned cnt, const struct fan_group **groups)
{
	for (unsigned i = 0; i < cnt; i += CHUNK)
		lookup_chunk(t, keys + i, hashes + i, cnt - i < CHUNK ? cnt - i : CHUNK, groups + i,
			     NULL);
}

void fan_table_lookup_bulk_ahead(const struct fan_table *t, const void *const *keys,
				 const uint64_t *hashes, unsigned cnt,
				 const struct fan_group **groups,
				 const struct fan_group_state *states)
{
	for (unsigned i = 0; i < cnt; i += CHUNK)
		lookup_chunk(t, keys + i, hashes + i, cnt - i < CHUNK ? cnt - i : CHUNK, groups + i,
			     states);
}
