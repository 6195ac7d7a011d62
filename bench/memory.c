/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a registered connection takes, and what it costs to register one and to take all of them
 * over: a registry for exactly so many connections, all of them registered through the registry's
 * own API in the order asked for. Each run closes the registry as a killed fanwired would leave it
 * and opens it again, and then ends and registers connections for as long as asked.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench/step.h"
#include "common/wire/wire.h"
#include "control/registry/registry.h"
#include "dataplane/regions.h"

#define SESSIONS       64
#define CHURN_A_LOOK   256 /* changes between two looks at the clock */
#define HOUSEKEEP_EACH 65536

struct bench {
	struct fan_config config;
	struct registry *registry;
	uint32_t connections, per_user, users;
	bool scattered;
	bool dir_made;
	uint32_t nexthop;
	uint64_t seed;
	double register_s;
	char why[1024];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* splitmix64 (Steele et al., 2014): distinct for distinct numbers. */
static uint64_t mix(uint64_t n)
{
	n += UINT64_C(0x9e3779b97f4a7c15);
	n = (n ^ n >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	n = (n ^ n >> 27) * UINT64_C(0x94d049bb133111eb);
	return n ^ n >> 31;
}

static uint64_t draw(struct bench *b)
{
	return mix(b->seed++);
}

/* ---- registering ---- */

/* As a BLAKE2b handle: all bits as good as random. */
static void user_handle(uint8_t handle[16], uint32_t user)
{
	const uint64_t words[2] = {mix(user), mix(UINT64_C(1) << 40 | user)};

	memcpy(handle, words, sizeof(words));
}

static uint64_t connection_id(uint32_t number)
{
	return (mix(UINT64_C(1) << 50 | number) & FAN_CONNECTION_ID_MASK) | 1;
}

/* Connection `number` is of user number / per_user. */
static int connection_register(struct bench *b, uint32_t number)
{
	uint32_t user = number / b->per_user;
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};
	struct registry_connection c = {
		.id = connection_id(number),
		.address = {0x20, 0x01, 0x0d, 0xb8},
		.cookie = number + 1,
		.lease_ns = now_ns() + UINT64_C(60000000000),
		.token_expiry_s = 2000000000,
		.since_s = 1700000000,
		.user_generation = 1,
		.nexthop = b->nexthop,
		.port = (uint16_t)(20000 + number % 20000),
		.family = 6,
	};
	int err;

	user_handle(c.handle, user);
	memcpy(c.address + 8, &user, sizeof(user));
	memcpy(keys.tag_key, c.handle, sizeof(keys.tag_key));
	err = registry_connection_add(b->registry, &c, &c);
	if (err == 0)
		err = registry_connection_activate(b->registry, c.id, &keys, NULL, 0);
	return err;
}

/* Grouped: a user's connections one after the other. Scattered: each user's first, in any order,
 * then each one's second. */
static uint32_t number_of(const struct bench *b, uint64_t i)
{
	/* a prime that is larger than any count: every user is met once a round */
	uint64_t user = (i % b->users * UINT64_C(2654435761)) % b->users;

	return b->scattered ? (uint32_t)(user * b->per_user + i / b->users) : (uint32_t)i;
}

static int register_all(struct bench *b)
{
	uint64_t start_ns = now_ns();
	int err = 0;

	for (uint64_t i = 0; i < (uint64_t)b->users * b->per_user && !err; i++) {
		uint32_t number = number_of(b, i);

		if (number < b->connections) /* the last user may have fewer */
			err = connection_register(b, number);
		if (i % HOUSEKEEP_EACH == 0)
			registry_housekeeping(b->registry, now_ns());
	}
	b->register_s = (double)(now_ns() - start_ns) / 1e9;
	return err;
}

/* ---- what each run measures ---- */

static int file_size(const struct bench *b, json_int_t *size)
{
	char path[2 * FAN_PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", b->config.region_dir, FAN_REGISTRY_FILE);
	if (stat(path, &st) < 0)
		return -errno;
	*size = (json_int_t)st.st_blocks * 512; /* what is taken, not what is named */
	return 0;
}

static int measure_bytes(struct bench *b, json_t *figures)
{
	const struct fan_registry *root = registry_root(b->registry);
	json_int_t registry = 0, state;
	double connections = b->connections;
	int err = file_size(b, &registry);

	state = (json_int_t)regions_state_size(root->group_cnt, root->session_cnt, 0);
	json_object_set_new(figures, "registry_bytes", json_integer(registry));
	json_object_set_new(figures, "state_bytes", json_integer(state));
	json_object_set_new(figures, "bytes_per_connection",
			    json_real((double)(registry + state) / connections));
	json_object_set_new(figures, "bytes_per_connection_registry",
			    json_real((double)registry / connections));
	json_object_set_new(figures, "bytes_per_connection_state",
			    json_real((double)state / connections));
	return err;
}

/* Every user that is asked for has all of his connections. */
static bool served(struct bench *b)
{
	const struct fan_table *t = registry_table(b->registry);
	struct registry_counts counts;

	registry_counts(b->registry, &counts);
	for (unsigned i = 0; i < 10000; i++) {
		uint32_t user = (uint32_t)(draw(b) % b->users), cnt = 0;
		uint32_t first = user * b->per_user, all = b->connections - first;
		const struct fan_group *group;
		uint8_t handle[16];

		user_handle(handle, user);
		group = fan_table_lookup(t, handle, FAN_CHANNEL_ALL,
					 fan_table_hash(t->seed, handle, FAN_CHANNEL_ALL));
		if (group)
			fan_group_endpoints(t, group, &cnt);
		if (cnt != (all < b->per_user ? all : b->per_user))
			return false;
	}
	return counts.connections_active == b->connections && counts.users == b->users;
}

/* Nothing is put in order before it is closed: each change is complete in the region by itself. */
static int measure_takeover(struct bench *b, json_t *figures)
{
	uint64_t start_ns;
	int err;

	registry_close(b->registry);
	b->registry = NULL;
	start_ns = now_ns();
	err = registry_open(&b->registry, &b->config, b->why);
	if (err)
		return err;
	json_object_set_new(figures, "takeover_s", json_real((double)(now_ns() - start_ns) / 1e9));
	start_ns = now_ns();
	registry_housekeeping(b->registry, start_ns);
	json_object_set_new(figures, "housekeeping_s",
			    json_real((double)(now_ns() - start_ns) / 1e9));
	if (served(b))
		return 0;
	snprintf(b->why, sizeof(b->why), "not everybody is served after the takeover");
	return -EPROTO;
}

static int replace_some(struct bench *b, uint64_t *changes)
{
	struct registry_connection c;
	int err;

	for (unsigned i = 0; i < CHURN_A_LOOK; i++) {
		uint32_t number = (uint32_t)(draw(b) % b->connections);

		if (!registry_connection(b->registry, connection_id(number), &c))
			return -ENOENT;
		err = registry_connection_del(b->registry, c.id, c.generation);
		if (!err) /* its id is free when it has rested */
			registry_housekeeping(b->registry, now_ns());
		if (!err)
			err = connection_register(b, number);
		if (err)
			return err;
		*changes += 2;
	}
	return 0;
}

static int measure_churn(struct bench *b, unsigned ms, json_t *figures)
{
	uint64_t start_ns = now_ns(), changes = 0;
	int err = 0;

	while (!err && now_ns() - start_ns < (uint64_t)ms * 1000000)
		err = replace_some(b, &changes);
	json_object_set_new(figures, "changes_per_s",
			    json_real((double)changes / ((double)(now_ns() - start_ns) / 1e9)));
	if (err)
		snprintf(b->why, sizeof(b->why), "%s", registry_why(b->registry));
	return err;
}

static int run(void *context, unsigned ms, json_t *figures, char *why, size_t why_size)
{
	struct bench *b = context;
	int err = measure_bytes(b, figures);

	if (!err)
		err = measure_takeover(b, figures);
	if (!err)
		err = measure_churn(b, ms, figures);
	if (err)
		snprintf(why, why_size, "the registry in %s: %s (%s)", b->config.region_dir, b->why,
			 strerror(-err));
	return err;
}

/* ---- options ---- */

static const char help[] =
	"usage: fanwire-bench-memory [OPTION]...\n"
	"  --connections N   1..16000000 (10000000)\n"
	"  --per-user N      connections of each user, 1..4096 (3)\n"
	"  --order ORDER     grouped: a user's one after the other; scattered (grouped)\n"
	"  --dir DIR         for the region: tmpfs or hugetlbfs (one of its own in /dev/shm)\n"
	"Then, on standard input: run MS, quit.\n";

static int number_parse(const char *text, unsigned long most, uint32_t *value)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end || number < 1 || number > most)
		return -EINVAL;
	*value = (uint32_t)number;
	return 0;
}

static int order_parse(struct bench *b, const char *text)
{
	b->scattered = strcmp(text, "scattered") == 0;
	return b->scattered || strcmp(text, "grouped") == 0 ? 0 : -EINVAL;
}

static int options_parse(struct bench *b, int argc, char **argv)
{
	static const struct option table[] = {
		{"connections", required_argument, NULL, 'c'},
		{"per-user", required_argument, NULL, 'p'},
		{"order", required_argument, NULL, 'o'},
		{"dir", required_argument, NULL, 'd'},
		{NULL, 0, NULL, 0},
	};
	int option, err = 0;

	while (!err && (option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (option == 'c')
			err = number_parse(optarg, 16000000, &b->connections);
		else if (option == 'p')
			err = number_parse(optarg, 4096, &b->per_user);
		else if (option == 'o')
			err = order_parse(b, optarg);
		else if (option == 'd' && strlen(optarg) < sizeof(b->config.region_dir))
			strcpy(b->config.region_dir, optarg);
		else
			err = -EINVAL;
	}
	b->users = (b->connections + b->per_user - 1) / b->per_user;
	return optind == argc ? err : -EINVAL;
}

/* Limits as an operator would set them for exactly this: no thread, no group of a connection's. */
static int setup(struct bench *b)
{
	const uint8_t address[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
	int err;

	if (!b->config.region_dir[0]) {
		strcpy(b->config.region_dir, "/dev/shm/fanwire-bench-XXXXXX");
		b->dir_made = mkdtemp(b->config.region_dir) != NULL;
		if (!b->dir_made)
			return -errno;
	}
	b->config.max_users = b->config.max_groups = b->users;
	b->config.max_connections = b->connections;
	b->config.max_connections_per_user = b->per_user;
	b->config.max_sessions = SESSIONS;
	b->config.linger_s = 120;
	err = registry_open(&b->registry, &b->config, b->why);
	if (err)
		return err;
	err = registry_nexthop_get(b->registry, 6, address, 1, address, 1500, &b->nexthop);
	if (!err)
		err = register_all(b);
	if (err)
		snprintf(b->why, sizeof(b->why), "%s", registry_why(b->registry));
	return err;
}

static void cleanup(struct bench *b)
{
	char path[2 * FAN_PATH_MAX];

	registry_close(b->registry);
	snprintf(path, sizeof(path), "%s/%s", b->config.region_dir, FAN_REGISTRY_FILE);
	unlink(path);
	if (b->dir_made)
		rmdir(b->config.region_dir);
}

static json_t *settings(const struct bench *b)
{
	const struct fan_registry *root = registry_root(b->registry);

	return json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "connections",
			 (json_int_t)b->connections, "connections_a_user", (json_int_t)b->per_user,
			 "order", b->scattered ? "scattered" : "grouped", "room_connections",
			 (json_int_t)root->connection_cnt, "room_endpoints",
			 (json_int_t)root->endpoint_cnt, "room_groups", (json_int_t)root->group_cnt,
			 "buckets", (json_int_t)root->bucket_cnt, "overflow_buckets",
			 (json_int_t)root->overflow_cnt, "register_s", b->register_s,
			 "registrations_per_s", b->connections / b->register_s);
}

int main(int argc, char **argv)
{
	struct bench b = {.connections = 10000000, .per_user = 3, .seed = 1};
	int err, status;

	if (options_parse(&b, argc, argv)) {
		fputs(help, stderr);
		return step_fail("fanwire-bench-memory: options that it does not know; see above");
	}
	err = setup(&b);
	if (err)
		status = step_fail("%u connections could not be registered in %s: %s (%s)",
				   b.connections, b.config.region_dir, b.why, strerror(-err));
	else
		status = step_serve(settings(&b), json_object(), run, &b);
	cleanup(&b);
	return status;
}
