/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/registry/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->state.fd = -1;
	strcpy(f->config.region_dir, "/dev/shm/fanwire-registry-XXXXXX");
	cr_assert_not_null(mkdtemp(f->config.region_dir));
	f->config.max_users = 64;
	f->config.max_connections = 64;
	f->config.max_connections_per_user = 8;
	f->config.max_threads_per_connection = 4;
	f->config.max_groups = 256;
	f->config.max_publishers = 4;
	f->config.max_sessions = 8;
	f->config.linger_s = 2;
	f->config.max_unattended_s = 3600;
}

static void remove_file(const struct fixture *f, const char *name)
{
	char path[2 * FAN_PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", f->config.region_dir, name);
	unlink(path);
}

void fixture_fini(struct fixture *f)
{
	fixture_close(f);
	if (f->state.base)
		dataplane_kill(f);
	remove_file(f, FAN_STATE_FILE);
	remove_file(f, FAN_REGISTRY_FILE);
	remove_file(f, FAN_REGISTRY_FILE ".new");
	remove_file(f, "copy");
	cr_expect_eq(rmdir(f->config.region_dir), 0, "%s is not empty", f->config.region_dir);
}

void fixture_open(struct fixture *f)
{
	const uint8_t address[16] = {[15] = 1};

	cr_assert_eq(registry_open(&f->r, &f->config, f->why), 0, "%s", f->why);
	f->now_ns = f->r->now_ns; /* the test's clock goes on from the real one */
	cr_assert_eq(registry_nexthop_get(f->r, 6, address, 1, address, 1500, &f->nexthop), 0);
}

void fixture_close(struct fixture *f)
{
	registry_close(f->r);
	f->r = NULL;
}

/* ---- dataplane ---- */

void dataplane_start(struct fixture *f)
{
	char path[2 * FAN_PATH_MAX], why[256];
	struct fan_state *state;
	size_t size = sizeof(*state) + FAN_WORKERS_MAX * sizeof(struct fan_worker_state);

	snprintf(path, sizeof(path), "%s/%s", f->config.region_dir, FAN_STATE_FILE);
	cr_assert_eq(fan_region_create(&f->state, path, FAN_REGION_MAGIC_STATE,
				       sizeof(struct fan_state), size, why),
		     0, "%s", why);
	state = f->state.base;
	state->registry_epoch = registry_root(f->r)->header.creation_epoch;
	state->workers_off = sizeof(*state);
	state->worker_cnt = 2;
	state->request_tail = registry_root(f->r)->request_head;
	for (unsigned w = 0; w < FAN_WORKERS_MAX; w++)
		worker(f, w)->report_head = registry_root(f->r)->report_tail[w];
	fan_region_set_ready(&f->state);
}

void dataplane_kill(struct fixture *f)
{
	fan_region_close(&f->state);
}

void dataplane_remove_file(struct fixture *f)
{
	remove_file(f, FAN_STATE_FILE);
}

struct fan_worker_state *worker(struct fixture *f, unsigned idx)
{
	struct fan_state *state = f->state.base;

	return (struct fan_worker_state *)((char *)state + state->workers_off) + idx;
}

void worker_enter(struct fixture *f, unsigned idx)
{
	__atomic_fetch_add(&worker(f, idx)->quiescent, 1, __ATOMIC_SEQ_CST);
}

void worker_pass(struct fixture *f, unsigned idx)
{
	__atomic_fetch_add(&worker(f, idx)->quiescent, 2, __ATOMIC_SEQ_CST);
}

void keep(struct fixture *f, uint64_t after_ns)
{
	f->now_ns += after_ns;
	registry_housekeeping(f->r, f->now_ns);
}

/* ---- users ---- */

void user_handle(uint8_t handle[16], unsigned user)
{
	uint64_t lo = (user + 1) * UINT64_C(0x9e3779b97f4a7c15), hi = user;

	memcpy(handle, &lo, 8);
	memcpy(handle + 8, &hi, 8);
}

void thread_channels(uint64_t *channels, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++)
		channels[i] = FAN_CHANNEL_THREAD | (i + 1) * UINT64_C(0x123456789);
}

void crowded_channels(const struct fixture *f, unsigned user, uint64_t *channels, unsigned cnt)
{
	const struct fan_table *t = registry_table(f->r);
	uint8_t handle[16];

	user_handle(handle, user);
	for (uint64_t i = 1, n = 0; n < cnt; i++) {
		uint64_t hash = fan_table_hash(t->seed, handle, FAN_CHANNEL_THREAD | i);

		if (fan_table_bucket_idx(t, hash) == 0)
			channels[n++] = FAN_CHANNEL_THREAD | i;
	}
}

void roots_give(struct fixture *f, uint8_t generation)
{
	uint8_t tag_root[FAN_KEY_LEN], seal_root[FAN_KEY_LEN];

	memset(tag_root, generation, sizeof(tag_root));
	memset(seal_root, ~generation, sizeof(seal_root));
	cr_assert_eq(registry_roots_set(f->r, generation, tag_root, seal_root), 0);
}

void tag_keys_check(const struct fixture *f)
{
	const struct fan_registry *root = registry_root(f->r);
	uint8_t tag_root[FAN_KEY_LEN], key[FAN_TAG_KEY_LEN];

	memset(tag_root, (int)root->key_generation, sizeof(tag_root));
	for (uint32_t i = 0; i < root->group_cnt; i++) {
		const struct fan_group *group = &f->r->groups[i];

		if (!group->incarnation)
			continue;
		cr_assert_eq(group->key_generation, root->key_generation);
		fan_tag_key(key, tag_root, group->user_generation, group->handle);
		cr_assert_eq(memcmp(group->tag_key, key, sizeof(key)), 0);
	}
}

struct registry_user_keys user_keys(unsigned user)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};

	memset(keys.tag_key, (int)user & 0xff, sizeof(keys.tag_key));
	return keys;
}

struct registry_connection connection_spec(const struct fixture *f, unsigned user)
{
	struct registry_connection spec = {.nexthop = f->nexthop, .family = 6, .port = 20000};

	user_handle(spec.handle, user);
	spec.address[15] = 2;
	spec.cookie = user + 1;
	return spec;
}

int try_connect(struct fixture *f, unsigned user, const uint64_t *channels, unsigned cnt,
		uint64_t *id)
{
	struct registry_connection spec = connection_spec(f, user);
	struct registry_user_keys keys = user_keys(user);
	struct registry_connection c;
	int rc = registry_connection_add(f->r, &spec, &c);

	if (rc < 0)
		return rc;
	*id = c.id;
	rc = registry_connection_activate(f->r, c.id, &keys, channels, cnt);
	if (rc < 0)
		cr_assert_eq(registry_connection_del(f->r, c.id, c.generation), 0);
	return rc;
}

uint64_t connect_user(struct fixture *f, unsigned user, const uint64_t *channels, unsigned cnt,
		      uint32_t *generation)
{
	uint64_t id = 0;

	cr_assert_eq(try_connect(f, user, channels, cnt, &id), 0, "%s", registry_why(f->r));
	if (generation)
		*generation = connection_of(f, id).generation;
	return id;
}

void disconnect(struct fixture *f, uint64_t id)
{
	struct registry_connection c = connection_of(f, id);

	cr_assert_eq(registry_connection_del(f->r, id, c.generation), 0, "%s", registry_why(f->r));
}

int endpoint_cnt(const struct fixture *f, unsigned user, uint64_t channel)
{
	const struct fan_table *t = registry_table(f->r);
	const struct fan_group *group;
	uint8_t handle[16];
	uint32_t cnt;

	user_handle(handle, user);
	group = fan_table_lookup(t, handle, channel, fan_table_hash(t->seed, handle, channel));
	if (!group)
		return -1;
	fan_group_endpoints(t, group, &cnt);
	return (int)cnt;
}

struct registry_connection connection_of(const struct fixture *f, uint64_t id)
{
	struct registry_connection c = {0};

	cr_assert(registry_connection(f->r, id, &c), "there is no such connection");
	return c;
}

bool connection_there(const struct fixture *f, uint64_t id)
{
	struct registry_connection c;

	return registry_connection(f->r, id, &c);
}

struct registry_counts counts_of(const struct fixture *f)
{
	struct registry_counts counts;

	registry_counts(f->r, &counts);
	return counts;
}

/* ---- what must hold ---- */

struct walk {
	uint8_t *endpoints, *groups;
	uint32_t used, group_cnt, lingering;
};

static void check_endpoint(const struct fixture *f, const struct fan_group *g,
			   const struct fan_endpoint *e)
{
	struct registry_connection c = connection_of(f, e->connection);
	uint64_t channels[MEMBERSHIPS_MAX];
	unsigned cnt, found = 0;

	cr_assert(c.state == FAN_CONNECTION_ACTIVE ||
		  (c.state == FAN_CONNECTION_ENDING && f->r->leaving.cnt > 0));
	cr_assert_eq(memcmp(e->handle, g->handle, 16), 0);
	cr_assert_eq(memcmp(c.handle, g->handle, 16), 0);
	cr_assert_eq(f->r->connections[e->record].id, c.id);
	cr_assert_eq(e->port, c.port);
	cr_assert_eq(fan_endpoint_nexthop(e), c.nexthop);
	cr_assert_eq(fan_endpoint_family(e), c.family);
	cr_assert_eq(memcmp(e->address, c.address, 16), 0);
	cnt = registry_connection_channels(f->r, c.id, channels, MEMBERSHIPS_MAX);
	for (unsigned i = 0; i < cnt; i++)
		found += channels[i] == g->channel;
	cr_assert_eq(found, 1, "a connection's books lack a group, or have it twice");
}

static void check_group(const struct fixture *f, uint32_t group, struct walk *walk)
{
	const struct fan_table *t = registry_table(f->r);
	const struct fan_group *g = &t->groups[group];
	const struct fan_endpoint *e;
	uint32_t cnt;

	cr_assert_eq(walk->groups[group]++, 0, "a group stands in the table twice");
	cr_assert_eq(fan_table_lookup(t, g->handle, g->channel,
				      fan_table_hash(t->seed, g->handle, g->channel)),
		     g);
	cr_assert(g->incarnation > 0 && g->incarnation < t->registry->next_incarnation);
	e = fan_group_endpoints(t, g, &cnt);
	for (uint32_t i = 0; i < cnt; i++) {
		cr_assert_eq(walk->endpoints[e + i - t->endpoints]++, 0, "blocks overlap");
		for (uint32_t j = 0; j < i; j++)
			cr_assert_neq(e[j].connection, e[i].connection);
		check_endpoint(f, g, &e[i]);
	}
	walk->used += cnt;
	walk->group_cnt++;
	walk->lingering += cnt == 0;
}

static void check_bucket(const struct fixture *f, uint32_t bucket, struct walk *walk)
{
	const struct fan_bucket *b = &registry_table(f->r)->buckets[bucket];
	unsigned filled = 0;

	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
		if (!b->group[i])
			continue;
		filled++;
		check_group(f, b->group[i] - 1, walk);
	}
	if (bucket >= registry_table(f->r)->bucket_cnt)
		cr_assert(filled > 0, "an empty overflow bucket is linked");
}

/* A chain marks what stands behind each of its buckets, and nothing else. */
static uint32_t check_marks(const struct fixture *f, uint32_t bucket)
{
	const struct fan_table *t = registry_table(f->r);
	const struct fan_bucket *b = &t->buckets[bucket];
	uint32_t next = fan_chain_next(t, b->chain);
	uint32_t marks = next == NONE ? 0 : check_marks(f, next);

	cr_assert_eq(b->chain & ~FAN_CHAIN_NEXT, marks, "bucket %u: marks", bucket);
	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
		if (b->group[i])
			marks |= fan_chain_mark(group_hash(f->r, b->group[i] - 1));
	}
	return marks;
}

static void check_connections(const struct fixture *f)
{
	struct registry_counts counts = counts_of(f);
	uint32_t cursor = 0, pending = 0, active = 0, ending = 0, leaving = 0;
	struct registry_connection c;

	while (registry_connection_next(f->r, &cursor, &c)) {
		unsigned channels = registry_connection_channels(f->r, c.id, NULL, 0);

		pending += c.state == FAN_CONNECTION_PENDING;
		active += c.state == FAN_CONNECTION_ACTIVE;
		ending += c.state == FAN_CONNECTION_ENDING;
		cr_assert_eq(connection_of(f, c.id).generation, c.generation);
		leaving += channels > 0 && c.state == FAN_CONNECTION_ENDING;
		if (c.state != FAN_CONNECTION_ENDING)
			cr_assert_eq(channels > 0, c.state == FAN_CONNECTION_ACTIVE);
	}
	cr_assert_eq(pending, counts.connections_pending);
	cr_assert_eq(active, counts.connections_active);
	cr_assert_eq(ending, counts.connections_ending);
	cr_assert_leq(leaving, f->r->leaving.cnt);
}

void table_check(const struct fixture *f)
{
	const struct fan_table *t = registry_table(f->r);
	struct registry_counts counts = counts_of(f);
	struct walk walk = {.endpoints = calloc(t->endpoint_cnt, 1),
			    .groups = calloc(t->group_cnt, 1)};

	cr_assert(walk.endpoints && walk.groups);
	for (uint32_t first = 0; first < t->bucket_cnt; first++) {
		uint32_t hops = 0;

		check_bucket(f, first, &walk);
		for (uint32_t b = fan_chain_next(t, t->buckets[first].chain); b != NONE;
		     b = fan_chain_next(t, t->buckets[b].chain)) {
			cr_assert(hops++ < t->bucket_total, "a chain is a ring");
			check_bucket(f, b, &walk);
		}
		check_marks(f, first);
	}
	cr_assert_eq(walk.used, counts.endpoints_used);
	cr_assert_eq(walk.group_cnt, counts.groups);
	cr_assert_eq(walk.lingering, counts.groups_lingering);
	cr_assert_eq(registry_root(f->r)->intent.op, 0);
	check_connections(f);
	free(walk.endpoints);
	free(walk.groups);
}

static uint32_t free_cnt(const struct stack *stack)
{
	return stack->cnt + stack->fresh_end - stack->fresh;
}

void drain_and_check(struct fixture *f)
{
	const struct fan_registry *root = registry_root(f->r);
	struct registry_connection c;
	struct registry_counts counts;
	uint32_t cursor = 0;

	while (registry_connection_next(f->r, &cursor, &c)) {
		if (c.state != FAN_CONNECTION_ENDING)
			disconnect(f, c.id);
	}
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned w = 0; f->state.base && w < FAN_WORKERS_MAX; w++)
			worker_pass(f, w);
		keep(f, f->config.linger_s * SECOND_NS + 1);
	}
	for (unsigned w = 0; f->state.base && w < FAN_WORKERS_MAX; w++)
		worker_pass(f, w);
	keep(f, 1);
	table_check(f);
	counts = counts_of(f);
	cr_assert_eq(counts.users, 0);
	cr_assert_eq(counts.groups, 0);
	cr_assert_eq(counts.connections_ending, 0);
	cr_assert_eq(counts.endpoints_used, 0);
	cr_assert_eq(counts.retired, 0);
	cr_assert_eq(counts.endpoints_free, root->endpoint_cnt);
	cr_assert_eq(f->r->free_groups.cnt, root->group_cnt);
	cr_assert_eq(f->r->free_overflow.cnt, root->overflow_cnt);
	cr_assert_eq(f->r->free_connections.cnt, root->connection_cnt);
	cr_assert_eq(free_cnt(&f->r->free_memberships), root->endpoint_cnt);
	cr_assert_eq(free_cnt(&f->r->free_users), root->connection_cnt + root->group_cnt);
	cr_assert_eq(f->r->ids.cnt, 0);
	cr_assert_eq(f->r->sockets, 0);
	cr_assert_eq(f->r->handles.cnt, 0);
}
