/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table under a writer that changes it without rest and readers that look up without rest, as
 * fanwired and the workers do: the real registry code with reclamation, the real lookup, real
 * quiescence words. Also built with ThreadSanitizer, which is why it is a plain program: Criterion
 * aborts under it.
 *
 * Readers insist that an endpoint repeats its group's user, that a connection's id names that user
 * (never another one's endpoint), that a connection stands in a block once, and that a user who
 * never leaves is found at every lookup, with at least the connection that never ends.
 *
 * Usage: stress_table [SECONDS [READERS [SEED]]]; exit status 0: all of it held.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/shm/lookup.h"
#include "common/wire/wire.h"
#include "control/registry/registry.h"

#define SECOND_NS      UINT64_C(1000000000)
#define USERS	       96u
#define RESIDENTS      16u /* users 0..15 have one connection that never ends */
#define CONNECTIONS    512u
#define THREADS	       3u
#define READERS_MAX    8u
#define LOOKUPS_A_LOOP 64u

struct reader {
	pthread_t thread;
	const struct fan_table *table;
	uint64_t *word; /* its quiescence */
	uint64_t seed;
	uint64_t lookups, found, endpoints;
};

static uint32_t stop;	  /* __atomic */
static uint64_t failures; /* __atomic */

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13; /* xorshift64, Marsaglia 2003 */
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void fail(const char *what, uint64_t user)
{
	if (__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED) < 10)
		fprintf(stderr, "stress_table: user %llu: %s\n", (unsigned long long)user, what);
}

static void user_handle(uint8_t handle[16], uint64_t user)
{
	uint64_t words[2] = {user * UINT64_C(0x9e3779b97f4a7c15), user};

	memcpy(handle, words, 16);
}

/* 0: ALL. */
static uint64_t channel_of(unsigned thread)
{
	return thread ? FAN_CHANNEL_THREAD | thread : FAN_CHANNEL_ALL;
}

/* ---- readers ---- */

static void check_block(struct reader *reader, uint64_t user, const struct fan_group *group,
			uint32_t *cnt)
{
	const struct fan_endpoint *e = fan_group_endpoints(reader->table, group, cnt);

	for (uint32_t i = 0; i < *cnt; i++) {
		if (memcmp(e[i].handle, group->handle, 16) != 0)
			fail("endpoint of another user than its group", user);
		if ((e[i].connection & 0xffff) != user)
			fail("endpoint of another user's connection", user);
		if (i > 0 && e[i].connection == e[i - 1].connection)
			fail("one connection twice in a block", user);
		if (e[i].port != (uint16_t)(e[i].connection >> 16))
			fail("endpoint with another connection's port", user);
	}
	reader->endpoints += *cnt;
}

struct wanted {
	uint8_t handle[16];
	uint64_t channel;
};
_Static_assert(sizeof(struct wanted) == FAN_TABLE_KEY_LEN, "a key as a bulk lookup reads it");

static void check_group(struct reader *reader, const struct wanted *wanted,
			const struct fan_group *group)
{
	uint64_t user;
	uint32_t cnt = 0;

	memcpy(&user, wanted->handle + 8, sizeof(user));
	if (group) {
		reader->found++;
		if (memcmp(group->handle, wanted->handle, 16) != 0 ||
		    group->channel != wanted->channel)
			fail("another group than the one asked for", user);
		if (group->tag_key[0] != (uint8_t)user)
			fail("a group with another user's key", user);
		check_block(reader, user, group, &cnt);
	}
	if (user < RESIDENTS && wanted->channel == FAN_CHANNEL_ALL && cnt == 0)
		fail("resident user not found", user);
}

/* One by one, or all at once. */
static void look_up(struct reader *reader, bool bulk)
{
	struct wanted wanted[LOOKUPS_A_LOOP];
	const struct fan_group *groups[LOOKUPS_A_LOOP];
	const void *keys[LOOKUPS_A_LOOP];
	const struct fan_table *t = reader->table;

	for (unsigned i = 0; i < LOOKUPS_A_LOOP; i++) {
		uint64_t draw = next_random(&reader->seed);

		user_handle(wanted[i].handle, draw % USERS);
		wanted[i].channel = channel_of(draw / USERS % (THREADS + 1));
		keys[i] = &wanted[i];
	}
	if (bulk)
		fan_table_find_bulk(t, keys, LOOKUPS_A_LOOP, groups);
	for (unsigned i = 0; i < LOOKUPS_A_LOOP; i++) {
		const uint8_t *handle = wanted[i].handle;
		uint64_t channel = wanted[i].channel;

		if (!bulk)
			groups[i] = fan_table_lookup(t, handle, channel,
						     fan_table_hash(t->seed, handle, channel));
		check_group(reader, &wanted[i], groups[i]);
	}
	reader->lookups += LOOKUPS_A_LOOP;
}

static void *reader_main(void *arg)
{
	struct reader *reader = arg;

	__atomic_fetch_add(reader->word, 1, __ATOMIC_SEQ_CST); /* odd: it runs */
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		look_up(reader, next_random(&reader->seed) % 2);
		/* A worker that sleeps says that it holds nothing, and wakes up odd. */
		if (next_random(&reader->seed) % 4096 == 0) {
			__atomic_fetch_add(reader->word, 1, __ATOMIC_SEQ_CST);
			usleep(100);
			__atomic_fetch_add(reader->word, 1, __ATOMIC_SEQ_CST);
		} else {
			__atomic_fetch_add(reader->word, 2, __ATOMIC_SEQ_CST);
		}
	}
	__atomic_fetch_add(reader->word, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* ---- the writer ---- */

struct writer {
	struct registry *registry;
	struct fan_config config;
	struct fan_region state;
	uint64_t seed;
	uint64_t live[CONNECTIONS]; /* 0: none */
	uint32_t next_port;	    /* part of the id: tells connections of one user apart */
	uint32_t nexthop;
	uint64_t changes, refused, revocations;
};

static struct registry_user_keys keys_of(uint64_t user)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};

	memset(keys.tag_key, (int)user, sizeof(keys.tag_key));
	return keys;
}

static uint64_t connection_make(struct writer *w, uint64_t user, unsigned thread_cnt)
{
	struct registry_connection spec = {.family = 6, .nexthop = w->nexthop};
	struct registry_user_keys keys = keys_of(user);
	struct registry_connection c;
	uint64_t channels[THREADS];

	for (unsigned i = 0; i < thread_cnt; i++)
		channels[i] = channel_of(i + 1);
	w->next_port++;
	spec.port = (uint16_t)w->next_port;
	spec.id = (uint64_t)w->next_port << 16 | user;
	user_handle(spec.handle, user);
	if (registry_connection_add(w->registry, &spec, &c) < 0)
		return 0;
	if (registry_connection_activate(w->registry, c.id, &keys, channels, thread_cnt) == 0)
		return c.id;
	registry_connection_del(w->registry, c.id, c.generation);
	return 0;
}

static void change_one(struct writer *w)
{
	uint64_t draw = next_random(&w->seed);
	unsigned slot = (unsigned)(draw % CONNECTIONS);
	uint64_t user = draw / CONNECTIONS % USERS;
	struct registry_connection c = {0};
	uint8_t handle[16];

	w->changes++;
	if (draw >> 54 == 0 && user >= RESIDENTS) {
		user_handle(handle, user);
		if (registry_user_revoke(w->registry, handle) == 0)
			w->revocations++;
		return;
	}
	if (w->live[slot] && registry_connection(w->registry, w->live[slot], &c) &&
	    c.state == FAN_CONNECTION_ACTIVE) {
		if (registry_connection_del(w->registry, c.id, c.generation) < 0)
			w->refused++;
		else
			w->live[slot] = 0;
		return;
	}
	w->live[slot] = connection_make(w, user, (unsigned)(draw >> 40) % (THREADS + 1));
	w->refused += w->live[slot] == 0;
}

static void churn(struct writer *w, uint64_t until_ns)
{
	uint64_t now_ns = clock_now_ns();
	/* Time runs faster for lingering, so that groups come and go too. */
	uint64_t linger_ns = now_ns;

	while ((now_ns = clock_now_ns()) < until_ns) {
		uint64_t refused = w->refused;

		for (unsigned i = 0; i < 64; i++)
			change_one(w);
		linger_ns += SECOND_NS / 20;
		registry_housekeeping(w->registry, linger_ns);
		if (w->refused != refused)
			usleep(100); /* a reader is not on a core: let it pass */
	}
}

/* ---- the scene ---- */

/*
 * Readers write their words where the registry reads them, at the same address: ThreadSanitizer
 * knows memory by address, and would not see that two mappings of one file are the same word.
 */
static int words_share_address(struct writer *w)
{
	void *address = (void *)(uintptr_t)registry_state(w->registry);

	return address && mmap(address, w->state.size, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_FIXED, w->state.fd, 0) == address
		       ? 0
		       : -1;
}

static void file_path(const struct writer *w, const char *name, char *path, size_t len)
{
	snprintf(path, len, "%s/%s", w->config.region_dir, name);
}

static int registry_make(struct writer *w)
{
	const uint8_t address[16] = {[15] = 1};
	char why[1024];

	w->config.max_users = USERS;
	w->config.max_connections = CONNECTIONS + RESIDENTS;
	w->config.max_connections_per_user = 64;
	w->config.max_threads_per_connection = THREADS;
	w->config.max_groups = USERS * (THREADS + 1);
	w->config.max_sessions = 2;
	w->config.linger_s = 1;
	if (registry_open(&w->registry, &w->config, why) < 0) {
		fprintf(stderr, "stress_table: %s\n", why);
		return -1;
	}
	return registry_nexthop_get(w->registry, 6, address, 1, address, 1500, &w->nexthop);
}

static struct fan_worker_state *workers_of(struct writer *w)
{
	return (struct fan_worker_state *)((char *)(uintptr_t)registry_state(w->registry) +
					   sizeof(struct fan_state));
}

static int dataplane_make(struct writer *w)
{
	char path[2 * FAN_PATH_MAX], why[256];
	struct fan_state *state;

	file_path(w, FAN_STATE_FILE, path, sizeof(path));
	if (fan_region_create(&w->state, path, FAN_REGION_MAGIC_STATE, sizeof(struct fan_state),
			      sizeof(*state) + FAN_WORKERS_MAX * sizeof(struct fan_worker_state),
			      why) < 0) {
		fprintf(stderr, "stress_table: %s\n", why);
		return -1;
	}
	state = w->state.base;
	state->registry_epoch = registry_root(w->registry)->header.creation_epoch;
	state->workers_off = sizeof(*state);
	fan_region_set_ready(&w->state);
	return 0;
}

static void scene_remove(struct writer *w)
{
	char path[2 * FAN_PATH_MAX];

	registry_close(w->registry);
	fan_region_close(&w->state);
	file_path(w, FAN_STATE_FILE, path, sizeof(path));
	unlink(path);
	file_path(w, FAN_REGISTRY_FILE, path, sizeof(path));
	unlink(path);
	rmdir(w->config.region_dir);
}

static int run(struct writer *w, double seconds, unsigned reader_cnt)
{
	struct reader readers[READERS_MAX] = {0};
	uint64_t lookups = 0, endpoints = 0;
	unsigned started = 0;

	for (uint64_t user = 0; user < RESIDENTS; user++) {
		if (!connection_make(w, user, THREADS))
			return -1;
	}
	for (; started < reader_cnt; started++) {
		struct reader *reader = &readers[started];

		reader->table = registry_table(w->registry);
		reader->word = &workers_of(w)[started].quiescent;
		reader->seed = w->seed + started + 1;
		if (pthread_create(&reader->thread, NULL, reader_main, reader) != 0)
			break;
	}
	churn(w, clock_now_ns() + (uint64_t)(seconds * 1e9));
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(readers[i].thread, NULL);
		lookups += readers[i].lookups;
		endpoints += readers[i].endpoints;
	}
	printf("stress_table: %llu changes (%llu refused, %llu revocations), %llu lookups, "
	       "%llu endpoints read\n",
	       (unsigned long long)w->changes, (unsigned long long)w->refused,
	       (unsigned long long)w->revocations, (unsigned long long)lookups,
	       (unsigned long long)endpoints);
	/* A run in which little happened proves little. */
	if (started < reader_cnt || w->changes < 1000 || w->changes / 2 < w->refused ||
	    w->revocations == 0 || endpoints == 0) {
		fprintf(stderr, "stress_table: too little was done to judge by\n");
		return -1;
	}
	return failures ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct writer w = {.config.region_dir = "/dev/shm/fanwire-stress-XXXXXX"};
	double seconds = argc > 1 ? atof(argv[1]) : 3;
	int reader_cnt = argc > 2 ? atoi(argv[2]) : 2;
	int rc = -1;

	w.seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	if (seconds <= 0 || reader_cnt < 1 || reader_cnt > (int)READERS_MAX || w.seed == 0) {
		fprintf(stderr, "usage: stress_table [SECONDS [READERS 1..%u [SEED]]]\n",
			READERS_MAX);
		return 1;
	}
	if (!mkdtemp(w.config.region_dir)) {
		perror("stress_table: /dev/shm");
		return 1;
	}
	if (registry_make(&w) == 0 && dataplane_make(&w) == 0) {
		registry_housekeeping(w.registry, clock_now_ns() + SECOND_NS);
		rc = words_share_address(&w);
		if (rc == 0)
			rc = run(&w, seconds, (unsigned)reader_cnt);
	}
	scene_remove(&w);
	return rc ? 1 : 0;
}
