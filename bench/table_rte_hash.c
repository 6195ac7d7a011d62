/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rte_hash in its lock-free mode, CRC32 by the processor's instruction, keys of the same 24 bytes.
 * What is removed is reclaimed as its manual says for readers without locks: by DPDK's quiescent
 * states, a queue that the table keeps, and here one reader that passes often.
 */
#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/table_kinds.h"

#define BURST_MAX     RTE_HASH_LOOKUP_BULK_MAX /* it takes no more at once */
#define READER	      0
#define READER_PASSES 32 /* changes between two of the reader's quiescent states */

struct table {
	struct rte_hash *hash;
	struct table_options options;
	size_t bytes;
	struct rte_rcu_qsbr *readers;
	unsigned since_pass;
};

static size_t allocated(void)
{
	struct rte_malloc_socket_stats stats = {0};

	rte_malloc_get_socket_stats((int)rte_socket_id(), &stats);
	return stats.heap_allocsz_bytes;
}

/* Bytes of huge pages: two buckets' worth and a key's, rounded up, and the ring of free keys. */
static uint64_t memory_mb(uint32_t capacity)
{
	return (uint64_t)capacity * 72 / (1u << 20) + 128;
}

static int eal_open(uint32_t capacity)
{
	char memory[32], prefix[32];
	char *args[] = {"fanwire-bench-table", "--in-memory", "--no-pci", "--no-telemetry",
			"--log-level=4",       prefix,	      "-m",	  memory};

	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)memory_mb(capacity));
	snprintf(prefix, sizeof(prefix), "--file-prefix=bench-%d", getpid());
	return rte_eal_init(sizeof(args) / sizeof(args[0]), args) < 0 ? -rte_errno : 0;
}

static int reclamation_add(struct table *t)
{
	struct rte_hash_rcu_config config = {.mode = RTE_HASH_QSBR_MODE_DQ};

	t->readers =
		rte_zmalloc("readers", rte_rcu_qsbr_get_memsize(READER + 1), RTE_CACHE_LINE_SIZE);
	if (!t->readers || rte_rcu_qsbr_init(t->readers, READER + 1) ||
	    rte_rcu_qsbr_thread_register(t->readers, READER))
		return -ENOMEM;
	rte_rcu_qsbr_thread_online(t->readers, READER);
	config.v = t->readers;
	return rte_hash_rcu_qsbr_add(t->hash, &config);
}

static void *open_(const struct table_options *options, char *why, size_t why_size)
{
	struct rte_hash_parameters parameters = {
		.name = "table",
		.entries = options->capacity,
		.key_len = sizeof(struct table_key),
		.hash_func = rte_hash_crc,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF,
	};
	struct table *t = calloc(1, sizeof(*t));
	size_t before;

	if (eal_open(options->capacity) < 0) {
		snprintf(why, why_size,
			 "DPDK could not be set up: %llu MiB of free huge pages are needed",
			 (unsigned long long)memory_mb(options->capacity));
		return NULL;
	}
	before = allocated();
	if (t) {
		t->options = *options;
		t->hash = rte_hash_create(&parameters);
		t->bytes = allocated() - before;
	}
	if (!t || !t->hash || reclamation_add(t) != 0) {
		snprintf(why, why_size, "rte_hash_create: %s", rte_strerror(rte_errno));
		return NULL;
	}
	return t;
}

static void close_(void *table)
{
	struct table *t = table;

	rte_hash_free(t->hash);
	rte_free(t->readers);
	free(t);
	rte_eal_cleanup();
}

static uint64_t hash(void *table, const struct table_key *key)
{
	return rte_hash_hash(((struct table *)table)->hash, key);
}

static unsigned burst_look_up(const struct table *t, const struct table_key *keys,
			      const uint64_t *hashes, unsigned cnt)
{
	hash_sig_t signatures[BURST_MAX];
	const void *pointers[BURST_MAX];
	void *found[BURST_MAX];
	uint64_t hits = 0;

	for (unsigned i = 0; i < cnt; i++)
		pointers[i] = &keys[i];
	if (!hashes) {
		rte_hash_lookup_bulk_data(t->hash, pointers, cnt, &hits, found);
		return (unsigned)__builtin_popcountll(hits);
	}
	for (unsigned i = 0; i < cnt; i++)
		signatures[i] = (hash_sig_t)hashes[i];
	rte_hash_lookup_with_hash_bulk_data(t->hash, pointers, signatures, cnt, &hits, found);
	return (unsigned)__builtin_popcountll(hits);
}

static uint64_t look_up(void *table, const struct table_key *keys, const uint64_t *hashes,
			unsigned cnt)
{
	const struct table *t = table;
	unsigned burst = RTE_MIN(t->options.burst, (unsigned)BURST_MAX);
	uint64_t found = 0;

	for (unsigned i = 0; i < cnt; i += burst)
		found += burst_look_up(t, keys + i, hashes ? hashes + i : NULL,
				       RTE_MIN(burst, cnt - i));
	return found;
}

static void changed(struct table *t)
{
	if (++t->since_pass % READER_PASSES == 0)
		rte_rcu_qsbr_quiescent(t->readers, READER);
}

static int add(void *table, struct table_change *changes, unsigned cnt)
{
	struct table *t = table;
	int err = 0;

	for (unsigned i = 0; i < cnt && !err; i++) {
		err = rte_hash_add_key_data(t->hash, &changes[i].key,
					    (void *)(uintptr_t)changes[i].id);
		changed(t);
	}
	return err;
}

static int remove_(void *table, struct table_change *changes, unsigned cnt)
{
	struct table *t = table;
	int position = 0;

	for (unsigned i = 0; i < cnt && position >= 0; i++) {
		position = rte_hash_del_key(t->hash, &changes[i].key);
		changed(t);
	}
	return position < 0 ? position : 0;
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

static double bytes_beyond_key(void *table)
{
	const struct table *t = table;

	return (double)t->bytes / t->options.capacity - (double)sizeof(struct table_key);
}

static void versions(json_t *all)
{
	json_object_set_new(all, "dpdk", json_string(rte_version()));
}

const struct table_kind table_rte_hash = {
	.name = "rte_hash",
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
