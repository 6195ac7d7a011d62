/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/engine/fixture.h"

static struct fixture f;
static char path[128];

static void setup(void)
{
	fixture_init(&f);
	snprintf(path, sizeof(path), "%s/keys", f.dir);
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(keys, .init = setup, .fini = teardown);

Test(keys, are_made_once_and_kept)
{
	static const uint8_t zero[FAN_KEY_LEN];
	uint8_t one[KEYS_ID_LEN], two[KEYS_ID_LEN];
	struct keys made, loaded;
	struct stat st;
	char why[512];

	cr_assert_eq(keys_load(&made, path, why), 0, "%s", why);
	cr_assert(made.fresh);
	cr_assert_eq(stat(path, &st), -1, "keys without their database");
	cr_assert_eq(keys_save(&made, path, why), 0, "%s", why);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(keys_load(&loaded, path, why), 0, "%s", why);
	cr_assert_not(loaded.fresh);
	cr_assert_eq(memcmp(made.master, loaded.master, sizeof(zero)), 0);
	cr_assert_eq(memcmp(made.token, loaded.token, sizeof(zero)), 0);
	keys_id(&made, one);
	keys_id(&loaded, two);
	cr_assert_eq(memcmp(one, two, sizeof(one)), 0);
	loaded.master[0] ^= 1;
	keys_id(&loaded, two);
	cr_assert_neq(memcmp(one, two, sizeof(one)), 0);
	cr_assert_neq(memcmp(made.master, zero, sizeof(zero)), 0);
	cr_assert_neq(memcmp(made.master, made.token, sizeof(zero)), 0);
}

Test(keys, that_others_can_read_are_refused)
{
	struct keys keys;
	char why[512];

	cr_assert_eq(keys_load(&keys, path, why), 0);
	cr_assert_eq(keys_save(&keys, path, why), 0, "%s", why);
	cr_assert_eq(chmod(path, 0640), 0);
	cr_assert_eq(keys_load(&keys, path, why), -EPERM);
	cr_assert_not_null(strstr(why, "chmod 600"), "%s", why);
	cr_assert_eq(chmod(path, 0600), 0);
	cr_assert_eq(chown(path, 12345, 0), 0);
	cr_assert_eq(keys_load(&keys, path, why), -EPERM);
}

Test(keys, damaged_are_refused_and_left_as_they_are)
{
	struct keys keys, again;
	char why[512];
	FILE *file;

	cr_assert_eq(keys_load(&keys, path, why), 0);
	cr_assert_eq(keys_save(&keys, path, why), 0, "%s", why);
	file = fopen(path, "r+");
	fseek(file, 20, SEEK_SET);
	fputc('x', file);
	fclose(file);
	cr_assert_eq(keys_load(&again, path, why), -EPROTO);
	cr_assert_not_null(strstr(why, "restore"), "%s", why);
	cr_assert_eq(truncate(path, 10), 0);
	cr_assert_eq(keys_load(&again, path, why), -EPROTO);
	cr_assert_eq(truncate(path, 0), 0);
	cr_assert_eq(keys_load(&again, path, why), -EPROTO);
}

Test(keys, an_interrupted_first_start_does_not_stand_in_the_way)
{
	char left[160], why[512];
	struct keys keys;

	snprintf(left, sizeof(left), "%s.new", path);
	fclose(fopen(left, "w"));
	cr_assert_eq(keys_load(&keys, path, why), 0, "%s", why);
	cr_assert_eq(keys_save(&keys, path, why), 0, "%s", why);
	cr_assert_eq(access(left, F_OK), -1);
}
