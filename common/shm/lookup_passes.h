/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the passes of a bulk lookup hand to each other, and the one that there are two of. For
 * common/shm/lookup*.c and their tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/shm/table.h"

/*
 * Measured with 4 and 10 million groups: 256 need two thirds of the time a key that 64 do, since
 * the wait for the last line of a pass is shared by more. A bucket each stays in the first-level
 * cache.
 */
#define LOOKUP_IN_FLIGHT 256

/* Of a key's mask: bits 0-9 the slots whose fingerprint fits; this one: the chain may hold it. */
#define LOOKUP_CHAIN (1u << (offsetof(struct fan_bucket, chain) / 2 + 1))

struct lookup_work {
	uint32_t bucket[LOOKUP_IN_FLIGHT]; /* by key */
	uint16_t mask[LOOKUP_IN_FLIGHT];   /* by key */
	uint16_t noted[LOOKUP_IN_FLIGHT];  /* keys whose mask is not 0, in their order */
	const struct fan_group *group[LOOKUP_IN_FLIGHT]; /* by place in noted */
};

/* Reads the buckets of cnt keys (at most LOOKUP_IN_FLIGHT): their masks, and how many are noted. */
typedef unsigned lookup_buckets_fn(const struct fan_table *t, const uint64_t *hashes, unsigned cnt,
				   struct lookup_work *work);

lookup_buckets_fn lookup_buckets_scalar;
lookup_buckets_fn lookup_buckets_avx512; /* only where lookup_has_avx512() */
bool lookup_has_avx512(void);

/* fan_table_lookup_bulk() by that pass; hashes NULL: they are made. */
void lookup_by(lookup_buckets_fn *buckets, const struct fan_table *t, const void *const *keys,
	       const uint64_t *hashes, unsigned cnt, const struct fan_group **groups);
