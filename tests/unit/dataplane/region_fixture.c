/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/dataplane/region_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/wire/handle.h"

#define BUCKETS	     256
#define OVERFLOW     16
#define GROUPS	     512
#define ENDPOINTS    4096
#define SESSIONS     64
#define NEXTHOPS     64
#define TAG_KEY_BYTE 0x5a

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "region fixture: %s\n", what);
	abort();
}

static uint64_t place(uint64_t *at, uint64_t cnt, uint64_t len)
{
	uint64_t off = *at;

	*at += (cnt * len + 63) / 64 * 64;
	return off;
}

static void geometry(struct fan_registry *root)
{
	uint64_t at = sizeof(*root);

	root->bucket_cnt = BUCKETS;
	root->overflow_cnt = OVERFLOW;
	root->group_cnt = GROUPS;
	root->endpoint_cnt = ENDPOINTS;
	root->connection_cnt = ENDPOINTS;
	root->session_cnt = SESSIONS;
	root->nexthop_cnt = NEXTHOPS;
	root->request_cnt = FAN_REQUEST_CNT;
	root->buckets_off = place(&at, BUCKETS + OVERFLOW, sizeof(struct fan_bucket));
	root->groups_off = place(&at, GROUPS, sizeof(struct fan_group));
	root->endpoints_off = place(&at, ENDPOINTS, sizeof(struct fan_endpoint));
	root->connections_off = place(&at, ENDPOINTS, sizeof(struct fan_connection));
	root->sessions_off = place(&at, SESSIONS, sizeof(struct fan_session));
	root->nexthops_off = place(&at, NEXTHOPS, sizeof(struct fan_nexthop));
	root->requests_off = place(&at, FAN_REQUEST_CNT, sizeof(struct fan_request));
}

void region_fixture_init(struct region_fixture *f, const char *dir)
{
	char why[256] = "", *base;
	struct timespec now;

	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s/%s", dir, FAN_REGISTRY_FILE);
	check(fan_region_create(&f->region, f->path, FAN_REGION_MAGIC_REGISTRY,
				sizeof(struct fan_registry), 4 << 20, why) == 0,
	      why);
	base = f->region.base;
	f->root = f->region.base;
	geometry(f->root);
	f->root->hash_seed[0] = 0x1234567890abcdef;
	f->root->hash_seed[1] = 0xfedcba0987654321;
	memset(f->root->challenge_key, 0x77, sizeof(f->root->challenge_key));
	region_set_roots(f, 0, TEST_KEY_GENERATION);
	f->root->key_generation = TEST_KEY_GENERATION;
	clock_gettime(CLOCK_MONOTONIC, &now);
	f->root->heartbeat_ns = (uint64_t)now.tv_sec * 1000000000u;
	f->buckets = (void *)(base + f->root->buckets_off);
	f->groups = (void *)(base + f->root->groups_off);
	f->endpoints = (void *)(base + f->root->endpoints_off);
	f->connections = (void *)(base + f->root->connections_off);
	f->sessions = (void *)(base + f->root->sessions_off);
	f->nexthops = (void *)(base + f->root->nexthops_off);
	f->requests = (void *)(base + f->root->requests_off);
	fan_region_set_ready(&f->region);
}

void region_set_roots(struct region_fixture *f, unsigned slot, uint8_t generation)
{
	struct fan_key_roots *roots = &f->root->key_roots[slot];

	__atomic_store_n(&roots->generation, 0, __ATOMIC_RELEASE);
	memset(roots->tag_root, 0x40 + generation, sizeof(roots->tag_root));
	memset(roots->seal_root, 0x80 + generation, sizeof(roots->seal_root));
	__atomic_store_n(&roots->generation, generation, __ATOMIC_RELEASE);
}

void region_fixture_fini(struct region_fixture *f)
{
	unlink(f->path);
	fan_region_close(&f->region);
}

void region_add_nexthop(struct region_fixture *f, uint32_t idx, uint8_t family,
			const uint8_t source[16], uint16_t mtu)
{
	struct fan_nexthop *hop = &f->nexthops[idx];

	memcpy(hop->source, source, 16);
	hop->mtu = mtu;
	hop->family = family;
	hop->mac = FAN_NEXTHOP_RESOLVED | 0x02 | (uint64_t)(idx + 1) << 40;
}

static void bucket_add(struct region_fixture *f, const struct fan_group *group, uint32_t idx)
{
	uint64_t hash = fan_table_hash(f->root->hash_seed, group->handle, group->channel);
	struct fan_bucket *bucket = &f->buckets[fan_bucket_idx(BUCKETS, hash)];
	unsigned slot = 0;

	while (slot < FAN_BUCKET_SLOTS && bucket->group[slot])
		slot++;
	check(slot < FAN_BUCKET_SLOTS, "bucket full");
	bucket->fp[slot] = fan_table_fp(hash);
	bucket->group[slot] = idx + 1;
}

struct fan_group *region_add_group(struct region_fixture *f, const char *user, uint64_t channel,
				   unsigned cnt, uint8_t family, uint32_t nexthop, uint16_t port)
{
	static const uint8_t receiver4[16] = {[10] = 0xff, 0xff, 198, 18, 0, 2};
	static const uint8_t receiver6[16] = {0xfd, 0, 0, 0xf1, [15] = 2};
	uint32_t idx = f->group_next++;
	struct fan_group *group = &f->groups[idx];

	check(idx < GROUPS && f->endpoint_next + cnt <= ENDPOINTS, "fixture full");
	fan_handle(group->handle, user, strlen(user));
	group->channel = channel;
	group->incarnation = idx + 1;
	group->user_generation = 3;
	group->key_generation = TEST_KEY_GENERATION;
	memset(group->tag_key, TAG_KEY_BYTE, sizeof(group->tag_key));
	for (unsigned i = 0; i < cnt; i++) {
		struct fan_endpoint *endpoint = &f->endpoints[f->endpoint_next + i];

		memcpy(endpoint->handle, group->handle, sizeof(endpoint->handle));
		memcpy(endpoint->address, family == 4 ? receiver4 : receiver6, 16);
		endpoint->connection = 1000 * (idx + 1u) + i;
		endpoint->record = f->endpoint_next + i;
		f->connections[endpoint->record].id = endpoint->connection;
		f->connections[endpoint->record].generation = endpoint->record + 1;
		endpoint->port = (uint16_t)(port + i);
		endpoint->hop = fan_hop(nexthop, family);
	}
	group->endpoints = (uint64_t)f->endpoint_next << FAN_ENDPOINT_CNT_BITS | cnt;
	f->endpoint_next += cnt;
	bucket_add(f, group, idx);
	return group;
}

uint64_t region_add_session(struct region_fixture *f, uint32_t slot, uint64_t state_epoch,
			    const uint8_t address[16], uint16_t port, uint8_t family,
			    uint32_t nexthop)
{
	struct fan_session *session = &f->sessions[slot];
	uint64_t id = (UINT64_C(0xabcdef) << 32) | slot;

	memset(session, 0, sizeof(*session));
	session->state_epoch = state_epoch;
	memset(session->key, (int)slot + 1, sizeof(session->key));
	memcpy(session->address, address, 16);
	session->port = port;
	session->family = family;
	session->nexthop = nexthop;
	__atomic_store_n(&session->id, id, __ATOMIC_RELEASE);
	return id;
}
