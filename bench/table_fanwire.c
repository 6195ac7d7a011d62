/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fanwire's own table: the registry region as fanwired writes it, through control/registry, on huge
 * pages; looked up as the dataplane does. An entry is a connection of a user of its own, in group
 * ALL: its record, its user, its group, its endpoint, its intents. There is a dataplane's state
 * region, whose workers hold nothing, so that reclamation does all that it has to do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/region.h"
#include "bench/table_dir.h"
#include "bench/table_kinds.h"
#include "common/wire/wire.h"
#include "control/registry/registry.h"

#define BURST_MAX    256
#define HOUSEKEEPING 1024 /* changes between two; fanwired does it each 10 ms or more often */

struct table {
	struct table_options options;
	struct table_dir dir;
	struct fan_config config;
	struct registry *registry;
	struct fan_region state;
	uint32_t nexthop;
	unsigned since_housekeeping;
};

static uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- opening ---- */

static void configure(struct table *t)
{
	struct fan_config *config = &t->config;

	snprintf(config->region_dir, sizeof(config->region_dir), "%s", t->dir.path);
	config->max_users = t->options.capacity;
	config->max_connections = t->options.capacity;
	config->max_connections_per_user = 8;
	config->max_groups = t->options.capacity;
	config->max_sessions = 16;
	config->linger_s = 0; /* a group ends with its last connection: as much work as can be */
}

static int state_make(struct table *t, char *why)
{
	char path[sizeof(t->dir.path) + 16];
	struct fan_state *state;
	int err;

	snprintf(path, sizeof(path), "%s/%s", t->dir.path, FAN_STATE_FILE);
	err = fan_region_create(&t->state, path, FAN_REGION_MAGIC_STATE, sizeof(struct fan_state),
				sizeof(*state) + FAN_WORKERS_MAX * sizeof(struct fan_worker_state),
				why);
	if (err)
		return err;
	state = t->state.base;
	state->registry_epoch = registry_root(t->registry)->header.creation_epoch;
	state->workers_off = sizeof(*state);
	state->worker_cnt = 1;
	fan_region_set_ready(&t->state);
	return 0;
}

static int registry_make(struct table *t, char why[1024])
{
	const struct fan_registry *root;
	int err = registry_open(&t->registry, &t->config, why);

	if (err)
		return err;
	root = registry_root(t->registry);
	(void)madvise((void *)(uintptr_t)root, root->header.size, MADV_POPULATE_WRITE);
	err = registry_nexthop_get(t->registry, 4, bench_peer, 1, bench_engine, 1500, &t->nexthop);
	if (err)
		snprintf(why, 1024, "%s", registry_why(t->registry));
	return err ? err : state_make(t, why);
}

static void close_(void *table)
{
	struct table *t = table;

	registry_close(t->registry);
	fan_region_close(&t->state);
	table_dir_remove(&t->dir);
	free(t);
}

static void *open_(const struct table_options *options, char *why, size_t why_size)
{
	struct table *t = calloc(1, sizeof(*t));
	char reason[1024] = "no memory";

	if (!t || table_dir_make(&t->dir, reason) != 0) {
		snprintf(why, why_size, "%s", reason);
		free(t);
		return NULL;
	}
	t->options = *options;
	configure(t);
	if (registry_make(t, reason) != 0) {
		snprintf(why, why_size, "the registry cannot be made: %.600s", reason);
		close_(t);
		return NULL;
	}
	registry_housekeeping(t->registry, clock_now_ns());
	return t;
}

/* ---- lookup ---- */

static uint64_t hash(void *table, const struct table_key *key)
{
	const struct fan_table *t = registry_table(((struct table *)table)->registry);

	return fan_table_hash(t->seed, key->handle, key->channel);
}

static unsigned burst_look_up(const struct fan_table *t, const struct table_key *keys,
			      const uint64_t *hashes, unsigned cnt)
{
	const struct fan_group *groups[BURST_MAX];
	const void *pointers[BURST_MAX];
	unsigned found = 0;

	if (cnt == 0)
		return 0;
	for (unsigned i = 0; i < cnt; i++)
		pointers[i] = &keys[i];
	if (hashes)
		fan_table_lookup_bulk(t, pointers, hashes, cnt, groups);
	else
		fan_table_find_bulk(t, pointers, cnt, groups);
	for (unsigned i = 0; i < cnt; i++)
		found += groups[i] != NULL;
	return found;
}

static uint64_t look_up(void *table, const struct table_key *keys, const uint64_t *hashes,
			unsigned cnt)
{
	const struct table *t = table;
	const struct fan_table *readable = registry_table(t->registry);
	unsigned burst = t->options.burst < BURST_MAX ? t->options.burst : BURST_MAX;
	uint64_t found = 0;

	for (unsigned i = 0; i < cnt; i += burst)
		found += burst_look_up(readable, keys + i, hashes ? hashes + i : NULL,
				       cnt - i < burst ? cnt - i : burst);
	return found;
}

/* ---- changes ---- */

static void changed(struct table *t)
{
	if (++t->since_housekeeping < HOUSEKEEPING)
		return;
	t->since_housekeeping = 0;
	registry_housekeeping(t->registry, clock_now_ns());
}

static int add_one(struct table *t, struct table_change *change)
{
	static const struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};
	struct registry_connection spec = {
		.id = change->id,
		.nexthop = t->nexthop,
		.port = (uint16_t)(20000 + change->id % 4000),
		.family = 4,
	};
	int err;

	memcpy(spec.handle, change->key.handle, sizeof(spec.handle));
	memcpy(spec.address, bench_peer, sizeof(spec.address));
	err = registry_connection_vouch(t->registry, &spec, &keys, NULL, 0, &spec);
	change->token = spec.generation;
	changed(t);
	return err;
}

/* Who has several changes at hand says so. */
static void ahead_add(const struct table *t, const struct table_change *changes, unsigned cnt)
{
	const uint8_t *handles[REGISTRY_AHEAD_MAX];
	uint64_t ids[REGISTRY_AHEAD_MAX];

	for (unsigned i = 0; i < cnt; i++) {
		ids[i] = changes[i].id;
		handles[i] = changes[i].key.handle;
	}
	if (cnt)
		registry_ahead_add(t->registry, ids, handles, cnt);
}

static void ahead_del(const struct table *t, const struct table_change *changes, unsigned cnt)
{
	uint64_t ids[REGISTRY_AHEAD_MAX];

	for (unsigned i = 0; i < cnt; i++)
		ids[i] = changes[i].id;
	if (cnt)
		registry_ahead_del(t->registry, ids, cnt);
}

static unsigned at_hand(unsigned left)
{
	return left < REGISTRY_AHEAD_MAX ? left : REGISTRY_AHEAD_MAX;
}

static int add(void *table, struct table_change *changes, unsigned cnt)
{
	int err = 0;

	for (unsigned i = 0; i < cnt && !err; i++) {
		if (i % REGISTRY_AHEAD_MAX == 0)
			ahead_add(table, changes + i, at_hand(cnt - i));
		err = add_one(table, &changes[i]);
	}
	return err;
}

static int remove_one(struct table *t, const struct table_change *change)
{
	int err = registry_connection_del(t->registry, change->id, change->token);

	changed(t);
	return err;
}

static int remove_(void *table, struct table_change *changes, unsigned cnt)
{
	int err = 0;

	for (unsigned i = 0; i < cnt && !err; i++) {
		if (i % REGISTRY_AHEAD_MAX == 0)
			ahead_del(table, changes + i, at_hand(cnt - i));
		err = remove_one(table, &changes[i]);
	}
	return err;
}

static int replace(void *table, struct table_change *old, struct table_change *new, unsigned cnt)
{
	int err = 0;

	for (unsigned i = 0; i < cnt && !err; i++) {
		if (i % REGISTRY_AHEAD_MAX == 0) {
			ahead_del(table, old + i, at_hand(cnt - i));
			ahead_add(table, new + i, at_hand(cnt - i));
		}
		err = remove_one(table, &old[i]);
		if (!err)
			err = add_one(table, &new[i]);
	}
	return err;
}

/* ---- memory ---- */

/* Buckets, the reserve of overflow buckets included. What they lead to is the groups. */
static double bytes_beyond_key(void *table)
{
	const struct table *t = table;
	const struct fan_registry *root = registry_root(t->registry);

	return ((double)root->bucket_cnt + root->overflow_cnt) * sizeof(struct fan_bucket) /
	       t->options.capacity;
}

static void versions(json_t *all)
{
	json_object_set_new(all, "fanwire", json_string(FAN_VERSION));
}

const struct table_kind table_fanwire = {
	.name = "fanwire",
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
