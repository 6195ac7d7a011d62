/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lookup of many keys at once. One lookup waits for two lines of memory, the bucket and the group,
 * one after the other; here the lines of many keys are under way at a time, so that the wait is
 * shared among them.
 *
 * Who: as common/shm/table.h, which says what a lookup returns and for how long it may be used.
 * Concurrent with the one writer exactly as fan_table_lookup() is: each key is looked up as if by
 * itself, at some moment of the call. AVX-512 is used where the processor has it.
 * Source: group prefetching, as in Chen, Ailamaki, Gibbons, Mowry, "Improving Hash Join Performance
 * through Prefetching", ICDE 2004.
 */
#pragma once

#include "common/shm/state.h"
#include "common/shm/table.h"

#define FAN_TABLE_KEY_LEN 24 /* handle[16], then the channel in the machine's order */

/*
 * keys[i] points to the FAN_TABLE_KEY_LEN bytes of key i, wherever they lie, and hashes[i] is its
 * fan_table_hash(). groups[i] becomes its group, or NULL where there is none. Any cnt.
 */
void fan_table_lookup_bulk(const struct fan_table *t, const void *const *keys,
			   const uint64_t *hashes, unsigned cnt, const struct fan_group **groups);

/* The same for a caller that has no hashes yet. */
void fan_table_find_bulk(const struct fan_table *t, const void *const *keys, unsigned cnt,
			 const struct fan_group **groups);

/*
 * As fan_table_lookup_bulk(), and asks for what the caller needs next of the groups that were
 * found: the first endpoints, to be read, and the group's record in `states` (t->group_cnt of
 * them), to be written.
 */
void fan_table_lookup_bulk_ahead(const struct fan_table *t, const void *const *keys,
				 const uint64_t *hashes, unsigned cnt,
				 const struct fan_group **groups,
				 const struct fan_group_state *states);

/* Asks for the bucket of a key that will be looked up soon, a stage ahead of the lookup. */
static inline void fan_table_prefetch(const struct fan_table *t, uint64_t hash)
{
	__builtin_prefetch(&t->buckets[fan_table_bucket_idx(t, hash)]);
}
