/* SPDX-License-Identifier: BSD-3-Clause */
/* Bounds of the table's reader: geometry at init, indices at lookup. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/shm/lookup.h"
#include "common/shm/lookup_passes.h"
#include "common/shm/table.h"

#define BUCKETS	    5u
#define OVERFLOW    2u
#define GROUPS	    8u
#define ENDPOINTS   16u
#define CONNECTIONS 8u /* 7 lines */
#define BULK	    300u

static struct fan_region region;
static struct fan_registry *root;
static struct fan_table table;

/* Arrays one behind the other, as the registry's writer lays them out; the last ends the region. */
static void init(void)
{
	uint64_t off = sizeof(struct fan_registry);

	region.size = 64 * 1024;
	region.base = aligned_alloc(64, region.size);
	cr_assert_not_null(region.base);
	memset(region.base, 0, region.size);
	root = region.base;
	root->bucket_cnt = BUCKETS;
	root->overflow_cnt = OVERFLOW;
	root->group_cnt = GROUPS;
	root->endpoint_cnt = ENDPOINTS;
	root->connection_cnt = CONNECTIONS;
	root->session_cnt = 2;
	root->nexthop_cnt = 4;
	root->request_cnt = 16;
	root->hash_seed[0] = 0x1234;
	root->hash_seed[1] = 0x5678;
	root->buckets_off = off;
	root->groups_off = off += (BUCKETS + OVERFLOW) * sizeof(struct fan_bucket);
	root->endpoints_off = off += GROUPS * sizeof(struct fan_group);
	root->connections_off = off += ENDPOINTS * sizeof(struct fan_endpoint);
	root->sessions_off = off += CONNECTIONS * sizeof(struct fan_connection);
	root->nexthops_off = off += 2 * sizeof(struct fan_session);
	root->requests_off = off += 4 * sizeof(struct fan_nexthop);
	region.size = off + 16 * sizeof(struct fan_request);
	cr_assert_eq(fan_table_init(&table, &region), 0);
}

static void fini(void)
{
	free(region.base);
}
TestSuite(table, .init = init, .fini = fini);

static void expect_refused(const char *what)
{
	struct fan_table other;

	memset(&other, 0x5a, sizeof(other));
	cr_expect_eq(fan_table_init(&other, &region), -EPROTO, "%s", what);
	cr_expect_eq(other.bucket_cnt, 0x5a5a5a5a, "%s: a refused region filled the table", what);
}

Test(table, geometry_is_taken_over)
{
	cr_expect_eq(table.bucket_cnt, BUCKETS);
	cr_expect_eq(table.bucket_total, BUCKETS + OVERFLOW);
	cr_expect_eq(table.group_cnt, GROUPS);
	cr_expect_eq(table.session_mask, 1);
	cr_expect_eq((const char *)table.groups, (const char *)region.base + root->groups_off);
	cr_expect_eq(table.seed[1], 0x5678);
}

Test(table, every_corrupt_offset_is_refused)
{
	uint64_t *const offs[] = {&root->buckets_off,	  &root->groups_off,   &root->endpoints_off,
				  &root->connections_off, &root->sessions_off, &root->nexthops_off,
				  &root->requests_off};

	for (unsigned i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
		const uint64_t good = *offs[i];
		const uint64_t bad[] = {0,
					sizeof(struct fan_registry) - 64, /* in the root */
					good + 8,			  /* unaligned */
					good + 64, /* into the next one, or over the end */
					region.size,
					region.size & ~63ull,
					(region.size + 64) & ~63ull,
					UINT64_MAX & ~63ull,
					UINT64_MAX};

		for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			*offs[i] = bad[j];
			expect_refused("offset");
		}
		*offs[i] = good;
	}
	cr_expect_eq(fan_table_init(&table, &region), 0);
}

Test(table, every_corrupt_count_is_refused)
{
	uint32_t *const cnts[] = {&root->bucket_cnt,	 &root->group_cnt,   &root->endpoint_cnt,
				  &root->connection_cnt, &root->session_cnt, &root->nexthop_cnt,
				  &root->request_cnt};
	static const uint32_t bad[] = {0, 1000, 1u << 20, 1u << 31, UINT32_MAX};

	for (unsigned i = 0; i < sizeof(cnts) / sizeof(cnts[0]); i++) {
		const uint32_t good = *cnts[i];

		for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			*cnts[i] = bad[j];
			expect_refused("count");
		}
		*cnts[i] = good;
	}
	root->overflow_cnt = UINT32_MAX - BUCKETS + 1;
	expect_refused("bucket total that wraps");
	root->overflow_cnt = FAN_OVERFLOW_MAX + 1;
	expect_refused("more overflow buckets than a chain can name");
}

Test(table, region_cut_short_is_refused)
{
	size_t whole = region.size;

	region.size = whole - 1;
	expect_refused("one byte short");
	region.size = sizeof(struct fan_registry) - 1;
	expect_refused("root cut");
	region.size = 0;
	expect_refused("empty");
	region.size = whole;
	cr_expect_eq(fan_table_init(&table, &region), 0);
}

Test(table, arrays_lie_on_cache_lines)
{
	region.size += 64;
	root->requests_off += 8;
	expect_refused("unaligned, though it would fit");
	root->requests_off += 56;
	cr_expect_eq(fan_table_init(&table, &region), 0);
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13; /* xorshift64, Marsaglia 2003 */
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* ---- lookup in a table that is not to be trusted ---- */

static const uint8_t ALICE[16] = {1, 2, 3}, BOB[16] = {4, 5, 6};

static struct fan_bucket *bucket_of(const uint8_t handle[16], uint64_t channel)
{
	uint64_t hash = fan_table_hash(table.seed, handle, channel);

	return (struct fan_bucket *)&table.buckets[fan_table_bucket_idx(&table, hash)];
}

static uint32_t mark_of(const uint8_t handle[16], uint64_t channel)
{
	return fan_chain_mark(fan_table_hash(table.seed, handle, channel));
}

static void put(struct fan_bucket *bucket, unsigned slot, uint32_t group, const uint8_t handle[16],
		uint64_t channel)
{
	uint16_t fp = fan_table_fp(fan_table_hash(table.seed, handle, channel));

	bucket->fp[slot] = fp;
	bucket->group[slot] = group;
}

/* BULK keys, every third of them a stranger's: the wanted one is found by each of them or by none.
 */
struct bulk {
	uint8_t wanted[FAN_TABLE_KEY_LEN], stranger[FAN_TABLE_KEY_LEN];
	const void *keys[BULK];
	uint64_t hashes[BULK];
	const struct fan_group *groups[BULK];
};

static void bulk_fill(struct bulk *bulk, const uint8_t handle[16], uint64_t channel)
{
	static const uint8_t stranger[16] = {0xee};

	memcpy(bulk->wanted, handle, 16);
	memcpy(bulk->stranger, stranger, 16);
	memcpy(bulk->wanted + 16, &channel, 8);
	memcpy(bulk->stranger + 16, &channel, 8);
	for (unsigned i = 0; i < BULK; i++) {
		bulk->keys[i] = i % 3 ? bulk->wanted : bulk->stranger;
		bulk->hashes[i] = fan_table_hash(table.seed, bulk->keys[i], channel);
	}
	memset(bulk->groups, 0x5a, sizeof(bulk->groups));
}

static void bulk_expect(const struct bulk *bulk, unsigned cnt, const struct fan_group *group,
			const char *way)
{
	for (unsigned i = 0; i < cnt; i++)
		cr_expect_eq(bulk->groups[i], i % 3 ? group : NULL, "%s: key %u of %u", way, i,
			     cnt);
	for (unsigned i = cnt; i < BULK; i++)
		cr_expect_eq((uintptr_t)bulk->groups[i], UINT64_C(0x5a5a5a5a5a5a5a5a),
			     "%s: key %u, beyond %u", way, i, cnt);
}

/* By itself, and among as many as there can be in each way of bulk lookup. */
static const struct fan_group *lookup(const uint8_t handle[16], uint64_t channel)
{
	uint64_t hash = fan_table_hash(table.seed, handle, channel);
	const struct fan_group *group = fan_table_lookup(&table, handle, channel, hash);
	static const unsigned cnts[] = {0, 1, 2, 7, 8, 9, 31, 33, 255, 256, 257, BULK};
	struct fan_group_state states[GROUPS] = {0};
	struct bulk bulk;

	for (unsigned i = 0; i < sizeof(cnts) / sizeof(cnts[0]); i++) {
		unsigned cnt = cnts[i];

		bulk_fill(&bulk, handle, channel);
		fan_table_lookup_bulk_ahead(&table, bulk.keys, bulk.hashes, cnt, bulk.groups,
					    states);
		bulk_expect(&bulk, cnt, group, "ahead");
		bulk_fill(&bulk, handle, channel);
		fan_table_find_bulk(&table, bulk.keys, cnt, bulk.groups);
		bulk_expect(&bulk, cnt, group, "hashes made");
		bulk_fill(&bulk, handle, channel);
		lookup_by(lookup_buckets_scalar, &table, bulk.keys, bulk.hashes, cnt, bulk.groups);
		bulk_expect(&bulk, cnt, group, "scalar");
		bulk_fill(&bulk, handle, channel);
		if (lookup_has_avx512()) {
			lookup_by(lookup_buckets_avx512, &table, bulk.keys, bulk.hashes, cnt,
				  bulk.groups);
			bulk_expect(&bulk, cnt, group, "AVX-512");
		}
	}
	return group;
}

/* Both passes see the same in buckets full of anything, fingerprints and marks that nearly fit. */
Test(table, both_passes_see_the_same)
{
	struct fan_bucket *buckets = (struct fan_bucket *)table.buckets;
	uint64_t hashes[LOOKUP_IN_FLIGHT], random = 1;
	struct lookup_work scalar = {0}, wide = {0};
	unsigned noted = 0, chains = 0, cnt;

	if (!lookup_has_avx512())
		cr_skip_test("this processor has no AVX-512");
	for (unsigned round = 0; round < 2000; round++) {
		for (unsigned i = 0; i < BUCKETS; i++)
			for (unsigned j = 0; j < sizeof(*buckets) / 8; j++)
				((uint64_t *)&buckets[i])[j] =
					random_next(&random) & random_next(&random);
		for (unsigned i = 0; i < LOOKUP_IN_FLIGHT; i++) {
			unsigned slot = i % FAN_BUCKET_SLOTS;
			uint64_t draw = random_next(&random);

			scalar.bucket[i] = wide.bucket[i] = (uint32_t)(draw % BUCKETS);
			hashes[i] = draw >> 16;
			if (i % 4) /* a fingerprint that is there, 0 among them */
				hashes[i] |= (uint64_t)buckets[scalar.bucket[i]].fp[slot] << 48;
		}
		cnt = (unsigned)(random_next(&random) % (LOOKUP_IN_FLIGHT + 1));
		noted = lookup_buckets_scalar(&table, hashes, cnt, &scalar);
		cr_assert_eq(lookup_buckets_avx512(&table, hashes, cnt, &wide), noted);
		cr_assert_arr_eq(scalar.mask, wide.mask, cnt * sizeof(scalar.mask[0]));
		cr_assert_arr_eq(scalar.noted, wide.noted, noted * sizeof(scalar.noted[0]));
		for (unsigned i = 0; i < cnt; i++)
			chains += (scalar.mask[i] & LOOKUP_CHAIN) != 0;
	}
	cr_expect_gt(chains, 1000);
}

Test(table, finds_in_every_slot_and_in_overflow)
{
	struct fan_group *group = (struct fan_group *)&table.groups[5];
	struct fan_bucket *first = bucket_of(ALICE, 7), *overflow;

	memcpy(group->handle, ALICE, 16);
	group->channel = 7;
	cr_expect_null(lookup(ALICE, 7));
	for (unsigned slot = 0; slot < FAN_BUCKET_SLOTS; slot++) {
		memset(first, 0, sizeof(*first));
		put(first, slot, 6, ALICE, 7);
		cr_expect_eq(lookup(ALICE, 7), group, "slot %u", slot);
		cr_expect_eq(fan_group_idx(&table, group), 5);
	}
	memset(first, 0, sizeof(*first));
	overflow = (struct fan_bucket *)&table.buckets[BUCKETS + 1];
	put(overflow, 3, 6, ALICE, 7);
	first->chain = 2;
	cr_expect_null(lookup(ALICE, 7), "not marked, so not there");
	first->chain = 2 | mark_of(ALICE, 7);
	cr_expect_eq(lookup(ALICE, 7), group);
	put(first, 0, 1, ALICE, 7); /* another group's, of the same fingerprint */
	cr_expect_eq(lookup(ALICE, 7), group);
	cr_expect_null(lookup(ALICE, 8));
	cr_expect_null(lookup(BOB, 7));
}

Test(table, equal_fingerprints_do_not_deceive)
{
	struct fan_group *bobs = (struct fan_group *)&table.groups[0];
	struct fan_group *alices = (struct fan_group *)&table.groups[1];
	struct fan_bucket *bucket = bucket_of(ALICE, 0);

	memcpy(bobs->handle, BOB, 16);
	memcpy(alices->handle, ALICE, 16);
	put(bucket, 0, 1, ALICE, 0); /* Alice's fingerprint, Bob's group */
	cr_expect_null(lookup(ALICE, 0));
	put(bucket, 1, 2, ALICE, 0);
	cr_expect_eq(lookup(ALICE, 0), alices);
}

Test(table, indices_out_of_range_are_not_followed)
{
	struct fan_bucket *bucket = bucket_of(ALICE, 0);

	put(bucket, 0, GROUPS + 1, ALICE, 0);
	cr_expect_null(lookup(ALICE, 0));
	bucket->group[0] = UINT32_MAX;
	cr_expect_null(lookup(ALICE, 0));
	bucket->chain = mark_of(ALICE, 0);
	cr_expect_null(lookup(ALICE, 0));
	bucket->chain = mark_of(ALICE, 0) | (OVERFLOW + 1);
	cr_expect_null(lookup(ALICE, 0));
	bucket->chain = UINT32_MAX;
	cr_expect_null(lookup(ALICE, 0));
}

Test(table, chain_in_a_circle_ends, .timeout = 10)
{
	struct fan_bucket *bucket = bucket_of(ALICE, 0);
	struct fan_bucket *overflow = (struct fan_bucket *)&table.buckets[BUCKETS];

	bucket->chain = mark_of(ALICE, 0) | 1;
	overflow->chain = mark_of(ALICE, 0) | 1;
	cr_expect_null(lookup(ALICE, 0));
}

static uint32_t endpoint_cnt_of(uint64_t first, uint64_t cnt)
{
	struct fan_group group = {.endpoints = first << FAN_ENDPOINT_CNT_BITS | cnt};
	const struct fan_endpoint *endpoints;
	uint32_t got;

	endpoints = fan_group_endpoints(&table, &group, &got);
	cr_expect_geq(endpoints, table.endpoints);
	cr_expect_leq(endpoints + got, table.endpoints + ENDPOINTS);
	return got;
}

Test(table, blocks_out_of_range_are_empty)
{
	cr_expect_eq(endpoint_cnt_of(0, 0), 0);
	cr_expect_eq(endpoint_cnt_of(0, ENDPOINTS), ENDPOINTS);
	cr_expect_eq(endpoint_cnt_of(ENDPOINTS - 1, 1), 1);
	cr_expect_eq(endpoint_cnt_of(0, ENDPOINTS + 1), 0);
	cr_expect_eq(endpoint_cnt_of(ENDPOINTS, 1), 0);
	cr_expect_eq(endpoint_cnt_of((UINT64_C(1) << 40) - 1, FAN_ENDPOINT_CNT_MAX), 0);
}

Test(table, sessions)
{
	struct fan_session *sessions = (struct fan_session *)table.sessions;

	sessions[1].id = 0xabcd0001;
	cr_expect_eq(fan_table_session(&table, 0xabcd0001), &sessions[1]);
	cr_expect_null(fan_table_session(&table, 0xabce0001), "an old id of the same slot");
	cr_expect_null(fan_table_session(&table, 0xabcd0000));
	cr_expect_null(fan_table_session(&table, 0), "0 is no session, though free slots hold it");
}

Test(table, fingerprint_is_never_zero)
{
	cr_expect_eq(fan_table_fp(0x0000ffffffffffff), 1);
	cr_expect_eq(fan_table_fp(0x0002000000000000), 2);
}
