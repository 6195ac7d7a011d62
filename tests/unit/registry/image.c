/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/registry/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm/region.h"
#include "common/shm/state.h"
#include "control/registry/registry.h"

#define THREADS 3

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "the image cannot be made: %s\n", what);
	abort();
}

void image_handle(uint8_t handle[FAN_HANDLE_LEN], unsigned user)
{
	memset(handle, (int)(0x10 + user), FAN_HANDLE_LEN);
}

static uint64_t thread_channel(unsigned n)
{
	return FAN_CHANNEL_THREAD | (n + 1) * UINT64_C(0x123456789);
}

static void add_connection(struct registry *r, unsigned user, uint32_t nexthop, unsigned threads)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};
	struct registry_connection spec = {.nexthop = nexthop, .family = 6, .port = 20000}, made;
	uint64_t channels[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		channels[i] = thread_channel(i);
	image_handle(spec.handle, user);
	spec.address[15] = 2;
	spec.cookie = user + 1;
	require(registry_connection_add(r, &spec, &made) == 0, "add");
	require(registry_connection_activate(r, made.id, &keys, channels, threads) == 0,
		"activate");
	if (user == IMAGE_USERS - 1) /* one that ends */
		require(registry_connection_del(r, made.id, made.generation) == 0, "del");
}

static void make_state(const struct image *image, const struct registry *r)
{
	uint32_t group_cnt = registry_root(r)->group_cnt;
	size_t groups_off =
		sizeof(struct fan_state) + FAN_WORKERS_MAX * sizeof(struct fan_worker_state);
	size_t size = groups_off + group_cnt * sizeof(struct fan_group_state);
	struct fan_region region;
	struct fan_state *state;
	char why[256];

	require(fan_region_create(&region, image->path[1], FAN_REGION_MAGIC_STATE,
				  sizeof(struct fan_state), size, why) == 0,
		why);
	state = region.base;
	state->registry_epoch = registry_root(r)->header.creation_epoch;
	state->workers_off = sizeof(*state);
	state->worker_cnt = 2;
	state->groups_off = groups_off;
	state->group_cnt = group_cnt;
	fan_region_set_ready(&region);
	fan_region_close(&region);
}

static void read_file(struct image *image, unsigned which)
{
	struct stat st;
	int fd = open(image->path[which], O_RDONLY | O_CLOEXEC);

	require(fd >= 0 && fstat(fd, &st) == 0, image->path[which]);
	image->len[which] = (size_t)st.st_size;
	image->bytes[which] = malloc(image->len[which]);
	image->work[which] = malloc(image->len[which]);
	require(image->bytes[which] && image->work[which], "memory");
	require(read(fd, image->bytes[which], image->len[which]) == st.st_size, "read");
	close(fd);
}

void image_make(struct image *image)
{
	struct fan_config *config = &image->config;
	const uint8_t neighbour[16] = {[15] = 1};
	struct registry *r;
	uint32_t nexthop;
	char why[1024];

	memset(image, 0, sizeof(*image));
	strcpy(config->region_dir, "/dev/shm/fanwire-image-XXXXXX");
	require(mkdtemp(config->region_dir) != NULL, "/dev/shm");
	config->max_users = IMAGE_USERS;
	config->max_connections = 24;
	config->max_connections_per_user = 4;
	config->max_threads_per_connection = THREADS;
	config->max_groups = 64;
	config->max_publishers = config->max_sessions = 2;
	config->linger_s = 2;
	config->max_unattended_s = 3600;
	for (unsigned i = 0; i < 2; i++)
		snprintf(image->path[i], sizeof(image->path[i]), "%s/%s", config->region_dir,
			 i ? FAN_STATE_FILE : FAN_REGISTRY_FILE);
	require(registry_open(&r, config, why) == 0, why);
	require(registry_nexthop_get(r, 6, neighbour, 1, neighbour, 1500, &nexthop) == 0, "hop");
	for (unsigned i = 0; i < 2 * IMAGE_USERS; i++)
		add_connection(r, i / 2, nexthop, i % (THREADS + 1));
	make_state(image, r);
	registry_close(r);
	read_file(image, 0);
	read_file(image, 1);
	image_reset(image);
}

void image_remove(struct image *image)
{
	char unfinished[2 * FAN_PATH_MAX + 8];

	snprintf(unfinished, sizeof(unfinished), "%s.new", image->path[0]);
	unlink(unfinished);
	for (unsigned i = 0; i < 2; i++) {
		unlink(image->path[i]);
		free(image->bytes[i]);
		free(image->work[i]);
	}
	rmdir(image->config.region_dir);
}

void image_reset(struct image *image)
{
	for (unsigned i = 0; i < 2; i++)
		memcpy(image->work[i], image->bytes[i], image->len[i]);
}

void image_write(const struct image *image, unsigned which, size_t len)
{
	int fd = open(image->path[which], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	require(fd >= 0 && write(fd, image->work[which], len) == (ssize_t)len, "write");
	close(fd);
}

static unsigned foreign_of(const struct fan_table *table, const struct fan_group *group)
{
	const struct fan_endpoint *endpoints;
	unsigned foreign = 0;
	uint32_t cnt;

	endpoints = fan_group_endpoints(table, group, &cnt);
	for (uint32_t i = 0; i < cnt; i++)
		foreign += memcmp(endpoints[i].handle, group->handle, FAN_HANDLE_LEN) != 0;
	return foreign;
}

unsigned image_foreign(const struct fan_table *table)
{
	unsigned foreign = 0;

	for (unsigned i = 0; i < IMAGE_USERS * (1 + THREADS); i++) {
		unsigned n = i % (1 + THREADS);
		uint64_t channel = n ? thread_channel(n - 1) : FAN_CHANNEL_ALL;
		uint8_t handle[FAN_HANDLE_LEN];
		const struct fan_group *group;

		image_handle(handle, i / (1 + THREADS));
		group = fan_table_lookup(table, handle, channel,
					 fan_table_hash(table->seed, handle, channel));
		if (!group)
			continue;
		require(memcmp(group->handle, handle, FAN_HANDLE_LEN) == 0 &&
				group->channel == channel,
			"a lookup found another group");
		foreign += foreign_of(table, group);
	}
	return foreign;
}

unsigned image_foreign_anywhere(const struct fan_table *table)
{
	unsigned foreign = 0;

	for (uint32_t b = 0; b < table->bucket_total; b++) {
		for (unsigned slot = 0; slot < FAN_BUCKET_SLOTS; slot++) {
			uint32_t group = table->buckets[b].group[slot];

			if (group && group <= table->group_cnt)
				foreign += foreign_of(table, &table->groups[group - 1]);
		}
	}
	return foreign;
}
