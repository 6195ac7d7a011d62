/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/region.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/shm/table.h"
#include "common/wire/handle.h"

#define GROUPS_PER_BUCKET 7 /* as control/registry lays it out */
#define MTU		  9000
#define KEY_GENERATION	  1
#define MAC		  UINT64_C(0x010000000002) /* 02:00:00:00:00:01, first byte lowest */

const uint8_t bench_engine[16] = {[10] = 0xff, 0xff, 198, 18, 0, 1};
const uint8_t bench_peer[16] = {[10] = 0xff, 0xff, 198, 18, 0, 2};

static uint32_t power_of_two(uint64_t least)
{
	uint32_t n = 1;

	while (n < least)
		n *= 2;
	return n;
}

static uint64_t place(uint64_t *end, uint64_t cnt, uint64_t len)
{
	uint64_t off = *end;

	*end = (off + cnt * len + FAN_CACHE_LINE - 1) & ~(uint64_t)(FAN_CACHE_LINE - 1);
	return off;
}

static uint64_t geometry(struct fan_registry *root, uint32_t users, uint32_t fanout, uint32_t large,
			 uint32_t sessions)
{
	uint64_t end = sizeof(*root);

	users += large != 0;

	root->bucket_cnt = (users + GROUPS_PER_BUCKET - 1) / GROUPS_PER_BUCKET;
	root->overflow_cnt = root->bucket_cnt / 3 + 64;
	root->group_cnt = users;
	root->endpoint_cnt = users * fanout + large;
	root->connection_cnt = 1;
	root->session_cnt = power_of_two(sessions);
	root->nexthop_cnt = 1;
	root->request_cnt = FAN_REQUEST_CNT;
	root->buckets_off = place(&end, (uint64_t)root->bucket_cnt + root->overflow_cnt,
				  sizeof(struct fan_bucket));
	root->groups_off = place(&end, root->group_cnt, sizeof(struct fan_group));
	root->endpoints_off = place(&end, root->endpoint_cnt, sizeof(struct fan_endpoint));
	root->connections_off = place(&end, root->connection_cnt, sizeof(struct fan_connection));
	root->sessions_off = place(&end, root->session_cnt, sizeof(struct fan_session));
	root->nexthops_off = place(&end, root->nexthop_cnt, sizeof(struct fan_nexthop));
	root->requests_off = place(&end, root->request_cnt, sizeof(struct fan_request));
	return end;
}

uint64_t bench_region_size(uint32_t users, uint32_t fanout, uint32_t sessions)
{
	struct fan_registry root;

	return geometry(&root, users, fanout, 0, sessions);
}

void bench_user_handle(uint8_t handle[16], uint32_t idx)
{
	char name[32];
	int len = snprintf(name, sizeof(name), "user-%u", idx);

	fan_handle(handle, name, (size_t)len);
}

static void *at(struct bench_region *r, uint64_t off)
{
	return (char *)r->region.base + off;
}

/* The group's slot: in its bucket, or in a chain of overflow buckets. */
static int bucket_add(struct bench_region *r, uint32_t *overflow_used, uint64_t hash,
		      uint32_t group)
{
	struct fan_bucket *buckets = at(r, r->root->buckets_off);
	struct fan_bucket *bucket = &buckets[fan_bucket_idx(r->root->bucket_cnt, hash)];
	unsigned slot = 0;

	for (;;) {
		for (slot = 0; slot < FAN_BUCKET_SLOTS && bucket->group[slot]; slot++)
			;
		if (slot < FAN_BUCKET_SLOTS)
			break;
		if (!(bucket->chain & FAN_CHAIN_NEXT)) {
			if (*overflow_used == r->root->overflow_cnt)
				return -ENOSPC;
			bucket->chain |= ++*overflow_used;
		}
		bucket->chain |= fan_chain_mark(hash);
		bucket = &buckets[r->root->bucket_cnt + (bucket->chain & FAN_CHAIN_NEXT) - 1];
	}
	bucket->fp[slot] = fan_table_fp(hash);
	bucket->group[slot] = group + 1;
	return 0;
}

static void endpoints_fill(struct fan_endpoint *endpoints, const struct fan_group *group,
			   uint32_t fanout, uint64_t first)
{
	for (uint32_t i = 0; i < fanout; i++) {
		struct fan_endpoint *endpoint = &endpoints[i];

		memcpy(endpoint->handle, group->handle, sizeof(endpoint->handle));
		memcpy(endpoint->address, bench_peer, sizeof(endpoint->address));
		endpoint->connection = first + i + 1;
		endpoint->port = (uint16_t)(20000 + (first + i) % 4000);
		endpoint->hop = fan_hop(0, 4);
	}
}

static int user_fill(struct bench_region *r, uint32_t *overflow_used, uint32_t idx, uint64_t first,
		     uint32_t fanout)
{
	struct fan_endpoint *endpoints = at(r, r->root->endpoints_off);
	struct fan_group *group = (struct fan_group *)at(r, r->root->groups_off) + idx;

	bench_user_handle(group->handle, idx);
	group->incarnation = idx + 1;
	group->key_generation = KEY_GENERATION;
	group->endpoints = first << FAN_ENDPOINT_CNT_BITS | fanout;
	memset(group->tag_key, (int)(idx & 0xff), sizeof(group->tag_key));
	endpoints_fill(&endpoints[first], group, fanout, first);
	return bucket_add(r, overflow_used,
			  fan_table_hash(r->root->hash_seed, group->handle, FAN_CHANNEL_ALL), idx);
}

static int users_fill(struct bench_region *r, uint32_t users, uint32_t fanout, uint32_t large)
{
	uint32_t overflow_used = 0;
	int err = 0;

	for (uint32_t i = 0; i < users && !err; i++)
		err = user_fill(r, &overflow_used, i, (uint64_t)i * fanout, fanout);
	if (large && !err)
		err = user_fill(r, &overflow_used, users, (uint64_t)users * fanout, large);
	return err;
}

int bench_region_create(struct bench_region *r, const char *dir, uint32_t users, uint32_t fanout,
			uint32_t sessions, char why[256])
{
	return bench_region_create_uneven(r, dir, users, fanout, 0, sessions, why);
}

int bench_region_create_uneven(struct bench_region *r, const char *dir, uint32_t users,
			       uint32_t fanout, uint32_t large, uint32_t sessions, char why[256])
{
	struct fan_registry sizes;
	struct fan_nexthop *hop;
	int err;

	snprintf(r->path, sizeof(r->path), "%s/%s", dir, FAN_REGISTRY_FILE);
	err = fan_region_create(&r->region, r->path, FAN_REGION_MAGIC_REGISTRY,
				sizeof(struct fan_registry),
				geometry(&sizes, users, fanout, large, sessions), why);
	if (err)
		return err;
	r->root = r->region.base;
	geometry(r->root, users, fanout, large, sessions);
	r->root->hash_seed[0] = UINT64_C(0x243f6a8885a308d3); /* fixed: runs can be compared */
	r->root->hash_seed[1] = UINT64_C(0x13198a2e03707344);
	r->root->key_roots[0].generation = KEY_GENERATION;
	r->root->key_generation = KEY_GENERATION;
	hop = at(r, r->root->nexthops_off);
	memcpy(hop->source, bench_engine, sizeof(hop->source));
	hop->mtu = MTU;
	hop->family = 4;
	hop->mac = FAN_NEXTHOP_RESOLVED | MAC;
	err = users_fill(r, users, fanout, large);
	if (err) {
		snprintf(why, 256, "the table's overflow buckets are full");
		bench_region_destroy(r);
		return err;
	}
	fan_region_set_ready(&r->region);
	return 0;
}

void bench_region_destroy(struct bench_region *r)
{
	unlink(r->path);
	fan_region_close(&r->region);
}

uint64_t bench_region_session(struct bench_region *r, uint32_t slot, uint64_t state_epoch)
{
	struct fan_session *session = (struct fan_session *)at(r, r->root->sessions_off) + slot;
	uint64_t id = UINT64_C(0xbe) << 32 | slot;

	session->state_epoch = state_epoch;
	memset(session->key, (int)slot + 1, sizeof(session->key));
	memcpy(session->address, bench_peer, sizeof(session->address));
	session->port = (uint16_t)(BENCH_PUBLISHER_PORT + slot);
	session->family = 4;
	session->meter = id; /* it is charged, as in service, and has more than it can spend */
	session->budget = BENCH_PUBLISHER_BUDGET;
	__atomic_store_n(&session->id, id, __ATOMIC_RELEASE); /* pairs with fan_table_session() */
	return id;
}
