/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "control/registry/index.h"

#define KEYS 512

/* Value i has key i; the hashes below make it collide. */
static bool same(const void *owner, uint32_t value, const void *key)
{
	return value == *(const uint32_t *)key;
}

static uint32_t get(const struct index *index, uint64_t hash, uint32_t key)
{
	return index_get(index, hash, &key);
}

Test(index, finds_what_was_added_and_nothing_else)
{
	struct index index;

	cr_assert_eq(index_init(&index, KEYS, KEYS, NULL, same), 0);
	cr_assert_eq(get(&index, 7, 7), INDEX_NONE);
	index_add(&index, 7, 7);
	index_add(&index, 7, 8);
	cr_assert_eq(get(&index, 7, 7), 7);
	cr_assert_eq(get(&index, 7, 8), 8);
	cr_assert_eq(get(&index, 7, 9), INDEX_NONE);
	index_del(&index, 7, 7);
	cr_assert_eq(get(&index, 7, 7), INDEX_NONE);
	cr_assert_eq(get(&index, 7, 8), 8, "deletion cut a probe sequence");
	index_del(&index, 7, 7);
	cr_assert_eq(index.cnt, 1, "deleting what is not there changes nothing");
	index_fini(&index);
}

/* A seeded walk against an array; hashes crowd at the end of the table, so runs wrap around. */
Test(index, agrees_with_an_array)
{
	struct index index;
	bool there[KEYS] = {0};
	uint32_t hashes[KEYS], cnt = 0;

	srandom(1);
	cr_assert_eq(index_init(&index, KEYS, KEYS, NULL, same), 0);
	for (uint32_t i = 0; i < KEYS; i++)
		hashes[i] = UINT32_MAX - (uint32_t)random() % (48 * (UINT32_MAX / index.cell_cnt));
	for (unsigned n = 0; n < 200000; n++) {
		uint32_t key = (uint32_t)random() % KEYS;

		if (there[key])
			index_del(&index, hashes[key], key);
		else
			index_add(&index, hashes[key], key);
		there[key] = !there[key];
		cnt = there[key] ? cnt + 1 : cnt - 1;
		key = (uint32_t)random() % KEYS;
		cr_assert_eq(get(&index, hashes[key], key), there[key] ? key : INDEX_NONE);
		cr_assert_eq(index.cnt, cnt);
	}
	index_fini(&index);
}
