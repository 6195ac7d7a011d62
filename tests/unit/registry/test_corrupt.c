/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A region that was damaged: refused with a sentence, or taken over with a table that holds. Never
 * a crash, never an endless walk. The damage is seeded; the child that opens it would be killed by
 * an alarm.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/registry/fixture.h"

static struct fixture f;
static char path[2 * FAN_PATH_MAX];
static uint8_t *image; /* of a region with something in it */
static size_t image_len;

static void image_read(void)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	image_len = (size_t)st.st_size;
	image = malloc(image_len);
	cr_assert_not_null(image);
	cr_assert_eq(read(fd, image, image_len), (ssize_t)image_len);
	close(fd);
}

static void setup(void)
{
	uint64_t channels[30], thread = FAN_CHANNEL_THREAD | 1;

	fixture_init(&f);
	f.config.max_connections = 16;
	f.config.max_groups = 64;
	fixture_open(&f);
	for (unsigned i = 0; i < 12; i++)
		connect_user(&f, i / 3, &thread, i % 2, NULL);
	crowded_channels(&f, 9, channels, 20);
	connect_user(&f, 9, channels, 20, NULL);
	disconnect(&f, connect_user(&f, 8, NULL, 0, NULL));
	fixture_close(&f);
	snprintf(path, sizeof(path), "%s/%s", f.config.region_dir, FAN_REGISTRY_FILE);
	image_read();
}

static void teardown(void)
{
	free(image);
	fixture_fini(&f);
}

TestSuite(corrupt, .init = setup, .fini = teardown);

static void image_write(const uint8_t *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static void expect_refused(const char *word)
{
	int rc = registry_open(&f.r, &f.config, f.why);

	cr_assert_lt(rc, 0);
	f.r = NULL;
	cr_assert_not_null(strstr(f.why, word), "%s", f.why);
}

static struct fan_registry *root(void)
{
	return (struct fan_registry *)image;
}

Test(corrupt, the_image_itself_is_whole)
{
	image_write(image, image_len);
	fixture_open(&f);
	table_check(&f);
	drain_and_check(&f);
}

Test(corrupt, bad_magic_abi_and_length)
{
	root()->header.magic ^= 1;
	image_write(image, image_len);
	expect_refused(path);
	root()->header.magic ^= 1;
	root()->header.abi++;
	image_write(image, image_len);
	expect_refused("ABI");
	root()->header.abi--;
	image_write(image, image_len / 2);
	expect_refused("truncated");
	image_write(image, 10);
	expect_refused("truncated");
	image_write(image, 0);
	expect_refused("truncated");
}

Test(corrupt, references_that_lead_outside)
{
	struct fan_bucket *bucket = (void *)(image + root()->buckets_off);
	struct fan_group *group = (void *)(image + root()->groups_off);

	bucket->chain = root()->overflow_cnt + 1;
	image_write(image, image_len);
	expect_refused("corrupt");
	bucket->chain = 1; /* a ring */
	((struct fan_bucket *)bucket)[root()->bucket_cnt].chain = 1;
	image_write(image, image_len);
	expect_refused("corrupt");
	bucket->chain = bucket[root()->bucket_cnt].chain = 0;
	group->endpoints = (uint64_t)root()->endpoint_cnt << FAN_ENDPOINT_CNT_BITS | 1;
	image_write(image, image_len);
	expect_refused("corrupt");
}

Test(corrupt, an_endpoint_of_another_user)
{
	struct fan_endpoint *endpoint = (void *)(image + root()->endpoints_off);

	for (uint32_t i = 0; i < root()->endpoint_cnt; i++)
		endpoint[i].handle[0] ^= endpoint[i].connection ? 1 : 0;
	image_write(image, image_len);
	expect_refused("another user");
}

Test(corrupt, an_intent_of_no_known_kind)
{
	root()->intent.op = 77;
	image_write(image, image_len);
	expect_refused("change in progress");
	root()->intent.op = INTENT_DEL;
	memset(root()->intent.args, 0xff, sizeof(root()->intent.args));
	image_write(image, image_len);
	expect_refused("change in progress");
	root()->intent.op = INTENT_ACTIVATE;
	image_write(image, image_len);
	expect_refused("change in progress");
}

/* ---- random damage ---- */

/* 0: refused with a sentence; 1: taken over, and the table holds and goes on. */
static void open_damaged(void)
{
	uint64_t id;

	alarm(20);
	if (registry_open(&f.r, &f.config, f.why) < 0)
		_exit(strlen(f.why) > 20 ? 0 : 3);
	table_check(&f);
	if (try_connect(&f, 2, NULL, 0, &id) == 0)
		disconnect(&f, id);
	registry_housekeeping(f.r, f.r->now_ns + 10 * SECOND_NS);
	table_check(&f);
	_exit(1);
}

static int try_damaged(void)
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0)
		open_damaged();
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "status %x: %s", status,
		  "killed, or failed a check");
	return WEXITSTATUS(status);
}

/* Most of the file is empty arrays: half of the damage goes where something is. */
static size_t damage_place(void)
{
	for (;;) {
		size_t at = (size_t)random() % image_len;

		if (random() % 2 || image[at])
			return at;
	}
}

Test(corrupt, random_bytes, .timeout = 100)
{
	unsigned outcomes[2] = {0};

	srandom(7);
	for (unsigned n = 0; n < 400; n++) {
		uint8_t *damaged = malloc(image_len);

		cr_assert_not_null(damaged);
		memcpy(damaged, image, image_len);
		for (unsigned i = 0; i < 1 + n % 24; i++)
			damaged[damage_place()] ^= (uint8_t)(1 << random() % 8);
		image_write(damaged, image_len);
		outcomes[try_damaged()]++;
		free(damaged);
	}
	cr_assert(outcomes[0] > 50 && outcomes[1] > 50, "%u refused, %u taken over", outcomes[0],
		  outcomes[1]);
}

/* Whole words of garbage in the root, the buckets and the groups. */
Test(corrupt, random_words_where_it_hurts, .timeout = 100)
{
	unsigned refused = 0;

	srandom(8);
	for (unsigned n = 0; n < 300; n++) {
		uint8_t *damaged = malloc(image_len);
		size_t span = n % 3 ? root()->endpoints_off : sizeof(struct fan_registry);
		size_t at = (size_t)random() % (span / 4) * 4;
		uint32_t garbage = n % 2 ? (uint32_t)random() : (uint32_t)random() % 64;

		cr_assert_not_null(damaged);
		memcpy(damaged, image, image_len);
		memcpy(damaged + at, &garbage, sizeof(garbage));
		image_write(damaged, image_len);
		refused += try_damaged() == 0;
		free(damaged);
	}
	cr_assert_gt(refused, 30);
}
