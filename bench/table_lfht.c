/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * liburcu's lock-free resizable hash table, with quiescent-state reclamation, at its final size
 * from the start. Its buckets come from malloc: GLIBC_TUNABLES=glibc.malloc.hugetlb=2 in the
 * environment puts them on huge pages, where the entries lie too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <urcu-qsbr.h>
#include <urcu/rculfhash.h>

#include "bench/table_kinds.h"

struct entry {
	struct cds_lfht_node node;
	struct table_key key;
	uint64_t id;
};

struct table {
	struct cds_lfht *hash;
	struct entry *entries; /* `capacity` of them */
	uint32_t *free;
	uint32_t free_cnt, capacity, bucket_cnt;
	size_t bytes;
};

static const uint64_t seed[2] = {UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344)};

static uint64_t hash(void *table, const struct table_key *key)
{
	(void)table;
	return fan_table_hash(seed, key->handle, key->channel);
}

static uint32_t power_of_two(uint32_t least)
{
	uint32_t n = 1;

	while (n < least)
		n *= 2;
	return n;
}

static void close_(void *table)
{
	struct table *t = table;

	if (t->hash) { /* it wants to be empty, and its own thread may be the one that frees it */
		for (uint32_t i = 0; i < t->capacity; i++)
			if (t->entries[i].id)
				cds_lfht_del(t->hash, &t->entries[i].node);
		cds_lfht_destroy(t->hash, NULL);
	}
	rcu_unregister_thread();
	munmap(t->entries, t->bytes);
	free(t->free);
	free(t);
}

static void *open_(const struct table_options *options, char *why, size_t why_size)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->capacity = options->capacity;
	t->bucket_cnt = power_of_two(t->capacity);
	t->bytes = ((size_t)t->capacity * sizeof(*t->entries) + (2u << 20) - 1) &
		   ~(size_t)((2u << 20) - 1);
	t->free = malloc(t->capacity * sizeof(*t->free));
	t->entries = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (t->entries == MAP_FAILED) {
		snprintf(why, why_size, "%zu MiB of free huge pages are needed", t->bytes >> 20);
		return NULL;
	}
	rcu_register_thread();
	t->hash = cds_lfht_new(t->bucket_cnt, t->bucket_cnt, t->bucket_cnt, 0, NULL);
	if (!t->hash || !t->free) {
		snprintf(why, why_size, "liburcu's hash table cannot be made: no memory");
		return NULL;
	}
	for (uint32_t i = t->capacity; i-- > 0;)
		t->free[t->free_cnt++] = i;
	return t;
}

static int same(struct cds_lfht_node *node, const void *key)
{
	const struct entry *entry = caa_container_of(node, struct entry, node);

	return memcmp(&entry->key, key, sizeof(entry->key)) == 0;
}

static struct cds_lfht_node *find(struct table *t, const struct table_key *key, uint64_t value)
{
	struct cds_lfht_iter at;

	cds_lfht_lookup(t->hash, value, same, key, &at);
	return cds_lfht_iter_get_node(&at);
}

/* One by one: it has no lookup of many at once. Read-side sections cost nothing with QSBR. */
static uint64_t look_up(void *table, const struct table_key *keys, const uint64_t *hashes,
			unsigned cnt)
{
	struct table *t = table;
	uint64_t found = 0;

	for (unsigned i = 0; i < cnt; i++)
		found += find(t, &keys[i], hashes ? hashes[i] : hash(t, &keys[i])) != NULL;
	rcu_quiescent_state();
	return found;
}

static int add(void *table, struct table_change *changes, unsigned cnt)
{
	struct table *t = table;

	for (unsigned i = 0; i < cnt; i++) {
		struct entry *entry;

		if (!t->free_cnt)
			return -ENOSPC;
		entry = &t->entries[t->free[--t->free_cnt]];
		entry->key = changes[i].key;
		entry->id = changes[i].id;
		cds_lfht_node_init(&entry->node);
		cds_lfht_add_unique(t->hash, hash(t, &entry->key), same, &entry->key, &entry->node);
	}
	rcu_quiescent_state();
	return 0;
}

/* No reader runs meanwhile, so what is removed may be used again at once. */
static int remove_(void *table, struct table_change *changes, unsigned cnt)
{
	struct table *t = table;

	for (unsigned i = 0; i < cnt; i++) {
		const struct table_key *key = &changes[i].key;
		struct cds_lfht_node *node = find(t, key, hash(t, key));
		struct entry *entry;

		if (!node || cds_lfht_del(t->hash, node))
			return -ENOENT;
		entry = caa_container_of(node, struct entry, node);
		entry->id = 0;
		t->free[t->free_cnt++] = (uint32_t)(entry - t->entries);
	}
	rcu_quiescent_state();
	return 0;
}

static int replace(void *table, struct table_change *old, struct table_change *new, unsigned cnt)
{
	int err = 0;

	for (unsigned i = 0; i < cnt && !err; i++) {
		err = remove_(table, &old[i], 1);
		if (!err)
			err = add(table, &new[i], 1);
	}
	return err;
}

/* A node for each entry, and one for each bucket. */
static double bytes_beyond_key(void *table)
{
	const struct table *t = table;

	return (double)sizeof(struct cds_lfht_node) *
	       ((double)t->capacity + (double)t->bucket_cnt) / (double)t->capacity;
}

static void versions(json_t *all)
{
	(void)all; /* its headers do not say */
}

const struct table_kind table_lfht = {
	.name = "lfht",
	.open = open_,
	.close = close_,
	.hash = hash,
	.look_up = look_up,
	.add = add,
	.remove = remove_,
	.replace = replace,
	.bytes_beyond_key = bytes_beyond_key,
	.versions = versions,
};
