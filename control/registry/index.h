/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private hash map from a key to a 32-bit value (a slot number), of fixed capacity: it never
 * allocates after init, so a change that was planned cannot fail in it. The keys live with the
 * values' owner; the map keeps a hash and a value, and asks `same` whether a value has the key.
 * Linear probing with backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm R): no tombstones.
 *
 * Owner: control/registry. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define INDEX_NONE UINT32_MAX

struct index_cell {
	uint32_t hash;
	uint32_t value; /* + 1; 0: empty */
};

typedef bool (*index_same)(const void *owner, uint32_t value, const void *key);

struct index {
	struct index_cell *cells;
	uint32_t cell_cnt;
	uint32_t cnt;
	const void *owner;
	index_same same;
};

/* Room for `max` values at a load of at most four fifths; likely ones make it one half. -ENOMEM. */
int index_init(struct index *index, uint32_t max, uint32_t likely, const void *owner,
	       index_same same);
void index_fini(struct index *index);
/* INDEX_NONE where there is no such key. */
uint32_t index_get(const struct index *index, uint64_t hash, const void *key);
/* Asks for the memory that index_add() of this hash touches first. */
static inline void index_prefetch(const struct index *index, uint64_t hash)
{
	__builtin_prefetch(&index->cells[(uint64_t)(uint32_t)hash * index->cell_cnt >> 32], 1);
}
/* False, and nothing is added, where there is a value with this key. */
bool index_add_new(struct index *index, uint64_t hash, uint32_t value, const void *key);
/* The key must not be there, and no more than `max` values may be. */
void index_add(struct index *index, uint64_t hash, uint32_t value);
/* The value must be there under this hash. */
void index_del(struct index *index, uint64_t hash, uint32_t value);
