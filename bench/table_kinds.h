/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tables that fanwire-bench-table compares, each behind the same few functions, so that the
 * timed loops, the keys and their order are the same for all. One thread.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm/lookup.h"

/* As fan_table_lookup_bulk() takes it: a user's handle and a channel. */
struct table_key {
	uint8_t handle[16];
	uint64_t channel;
};
_Static_assert(sizeof(struct table_key) == FAN_TABLE_KEY_LEN, "a key has no padding");

struct table_options {
	uint32_t entries;  /* in the table while lookups are timed */
	uint32_t capacity; /* that it is made for; at least as many */
	unsigned burst;	   /* keys that are looked up at once */
	bool hashed;	   /* hashes are made outside the timed part, for both sides */
};

/* One entry to be added or removed. */
struct table_change {
	struct table_key key;
	uint64_t id;	/* not 0, never used twice */
	uint32_t token; /* the table's own: kept from its addition to its removal */
};

struct table_kind {
	const char *name;
	/* NULL with a sentence in why. */
	void *(*open)(const struct table_options *options, char *why, size_t why_size);
	void (*close)(void *table);
	/* The 64 bits that `look_up` wants of a key where options.hashed. */
	uint64_t (*hash)(void *table, const struct table_key *key);
	/* Looks all of them up, burst by burst; how many were found. hashes: NULL unless hashed. */
	uint64_t (*look_up)(void *table, const struct table_key *keys, const uint64_t *hashes,
			    unsigned cnt);
	/* All of them, in this order. 0 or -errno. */
	int (*add)(void *table, struct table_change *changes, unsigned cnt);
	int (*remove)(void *table, struct table_change *changes, unsigned cnt);
	/* old[i] goes and new[i] comes, one after the other. */
	int (*replace)(void *table, struct table_change *old, struct table_change *new,
		       unsigned cnt);
	/* Memory of the table but for the keys themselves and what they lead to, an entry that it
	 * was made for. */
	double (*bytes_beyond_key)(void *table);
	void (*versions)(json_t *versions);
};

extern const struct table_kind table_fanwire, table_rte_hash, table_lfht;

/* The key of an index: any two differ, in no order. An index over 2^40 is in no table. */
struct table_key table_key_at(uint64_t idx);
#define TABLE_ABSENT (UINT64_C(1) << 40)

/* splitmix64, Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014 */
static inline uint64_t table_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}
