/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every bit of a row's bytes, and of what stands around them in its page, is flipped in the file:
 * what is read then is as it was written, or refused.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/engine/publishers.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouched_private.h"
#include "tests/unit/engine/fixture.h"

#define AROUND 48 /* bytes: header of the record before, checksum behind */

static struct fixture f;
static char path[128], why[1024], secret[PUBLISHER_SECRET_LEN + 1];
static const struct store_owner first = {.id = {1}, .row_key = {5}, .fresh = true};
static const struct store_owner ours = {.id = {1}, .row_key = {5}};
static uint8_t *image;
static size_t image_len;
static unsigned flipped, refused;

static void setup(void)
{
	fixture_init(&f);
	snprintf(path, sizeof(path), "%s/fanwire.db", f.dir);
}

static void teardown(void)
{
	free(image);
	fixture_fini(&f);
}

TestSuite(row_mac, .init = setup, .fini = teardown);

static struct store *open_store(const struct store_owner *owner)
{
	struct store *store = NULL;

	return store_open(&store, f.base, path, owner, why) ? NULL : store;
}

static void write_file(const uint8_t *bytes, size_t len)
{
	char side[160];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
	snprintf(side, sizeof(side), "%s-wal", path);
	unlink(side);
	snprintf(side, sizeof(side), "%s-shm", path);
	unlink(side);
}

static void take_image(void)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	cr_assert_eq(fstat(fd, &st), 0);
	image_len = (size_t)st.st_size;
	image = malloc(image_len);
	cr_assert_eq(read(fd, image, image_len), (ssize_t)image_len);
	close(fd);
}

/* Around each place where `needle` stands. `judge` says whether it was refused. */
static void flip_around(const char *needle, size_t len, bool (*judge)(struct store *store))
{
	const uint8_t *end = image + image_len, *at = image;
	unsigned before = flipped;

	while ((at = memmem(at, (size_t)(end - at), needle, len))) {
		size_t from = (size_t)(at - image) - AROUND, to = from + len + 2 * AROUND;

		for (size_t bit = from * 8; bit < to * 8 && bit < image_len * 8; bit++) {
			struct store *store;

			image[bit / 8] ^= (uint8_t)(1 << bit % 8);
			write_file(image, image_len);
			store = open_store(&ours);
			refused += !store || judge(store);
			flipped++;
			store_close(store);
			image[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		at += len;
	}
	cr_assert_gt(flipped, before, "nothing was flipped");
}

/* ---- vouched --------------------------------------------------------------------------------- */

#define ROWS 3
static const char *const names[ROWS] = {"alice-and-co", "bob-and-co", "carol-and-co"};

static struct vouch vouch_of(unsigned idx)
{
	struct vouch item = {.row = idx + 1,
			     .id = 0xa1 + idx,
			     .generation = idx + 1,
			     .since_s = 1700000000,
			     .user = names[idx],
			     .user_len = (uint8_t)strlen(names[idx])};
	struct fan_address address;
	char text[32];

	snprintf(text, sizeof(text), "198.18.1.%u", idx + 1);
	fan_address_parse(&address, text);
	memcpy(item.address.bytes, address.bytes, 16);
	item.address.family = 4;
	item.address.port = (uint16_t)(5000 + idx);
	return item;
}

static bool is_as_written(const struct vouch *item)
{
	struct vouch was;

	if (item->row < 1 || item->row > ROWS)
		return false;
	was = vouch_of((unsigned)item->row - 1);
	return item->id == was.id && item->generation == was.generation &&
	       item->since_s == was.since_s && item->user_len == was.user_len &&
	       memcmp(item->user, was.user, was.user_len) == 0 &&
	       memcmp(&item->address, &was.address, sizeof(was.address)) == 0;
}

static bool judge_vouched(struct store *store)
{
	static char read_names[8][FAN_NAME_MAX + 1];
	struct vouched_rows rows = {0};
	struct vouch items[8];
	int cnt, held = 0;

	if (!rows_prepare(&rows, store))
		return true;
	cnt = rows_run(&rows, 0, ROW_MAX, items, read_names, 8);
	for (int i = 0; i < cnt; i++) {
		if (!items[i].user)
			continue;
		held++;
		cr_assert(is_as_written(&items[i]), "row %lu was loaded as user %s, port %u",
			  (unsigned long)items[i].row, items[i].user, items[i].address.port);
	}
	return held < ROWS;
}

Test(row_mac, no_flipped_bit_loads_another_registration)
{
	struct store *store = open_store(&first);
	struct vouched_rows rows = {0};

	cr_assert(rows_prepare(&rows, store));
	for (unsigned i = 0; i < ROWS; i++) {
		struct vouch item = vouch_of(i);

		cr_assert_eq(rows_insert(&rows, &item), 0);
	}
	cr_assert_not(judge_vouched(store));
	store_close(store);
	take_image();
	flip_around(names[1], strlen(names[1]), judge_vouched);
	/* its own bytes, its neighbours' checksum and header: next to none is without effect */
	cr_assert_gt(refused * 10, flipped * 9, "%u of %u", refused, flipped);
}

/* ---- users ----------------------------------------------------------------------------------- */

static void on_revoked(void *arg, struct user *user, int status)
{
	cr_assert_eq(status, 0);
}

/* Who was revoked twice is, or nobody is let in; who never was, as well. */
static bool judge_users(struct store *store)
{
	struct users *users = NULL;
	struct user *user;
	uint8_t handle[FAN_HANDLE_LEN];

	if (users_open(&users, store, 64, why))
		return true;
	fan_handle(handle, "revoked-twice", 13);
	cr_assert_eq(users_generation(users, handle), 3);
	if (users_get(users, "never-revoked", 13, &user) == 0)
		cr_assert_eq(user->generation, 1);
	users_close(users);
	return false;
}

Test(row_mac, no_flipped_bit_brings_back_who_was_revoked)
{
	struct store *store = open_store(&first);
	struct users *users;
	struct user *user;
	uint8_t handle[FAN_HANDLE_LEN];

	cr_assert_eq(users_open(&users, store, 64, why), 0);
	cr_assert_eq(users_get(users, "never-revoked", 13, &user), 0);
	cr_assert_eq(users_get(users, "revoked-twice", 13, &user), 0);
	cr_assert_eq(users_revoke(users, user, on_revoked, NULL), 0);
	cr_assert_eq(users_revoke(users, user, on_revoked, NULL), 0);
	store_flush(store);
	users_close(users);
	cr_assert_not(judge_users(store));
	store_close(store);
	take_image();
	/* the table, the index of the names, that of the revoked */
	flip_around("revoked-twice", 13, judge_users);
	fan_handle(handle, "revoked-twice", 13);
	flip_around((const char *)handle, sizeof(handle), judge_users);
	cr_assert_gt(refused, 300, "%u of %u", refused, flipped);
}

/* ---- publishers ------------------------------------------------------------------------------ */

static bool judge_publishers(struct store *store)
{
	struct publishers *all = NULL;
	const struct publisher *p;
	bool found = false;

	if (publishers_open(&all, store, 64, why))
		return true;
	for (p = publishers_first(all); p; p = p->next) {
		cr_assert_str_eq(p->name, "orders-and-more");
		cr_assert_str_eq(p->user, "alice-and-co", "publishes to others");
		cr_assert_eq(p->id, 1);
		cr_assert_eq(publishers_check(all, p->name, secret), p);
		found = true;
	}
	publishers_close(all);
	return !found;
}

Test(row_mac, no_flipped_bit_gives_a_publisher_another_scope)
{
	struct store *store = open_store(&first);
	struct publishers *all;

	cr_assert_eq(publishers_open(&all, store, 64, why), 0);
	cr_assert_eq(publishers_add(all, "orders-and-more", "alice-and-co", 1700000000, secret), 0);
	store_flush(store);
	publishers_close(all);
	cr_assert_not(judge_publishers(store));
	store_close(store);
	take_image();
	flip_around("orders-and-more", 15, judge_publishers);
	cr_assert_gt(refused, 300, "%u of %u", refused, flipped);
}

/* ---- the generation of keys ------------------------------------------------------------------ */

static bool judge_keys(struct store *store)
{
	sqlite3_stmt *stmt = store_prepare(store, "SELECT generation, next, since FROM "
						  "key_generation WHERE " ROW_HOLDS(ROW_MAC_KEYS));
	bool held = stmt && sqlite3_step(stmt) == SQLITE_ROW;

	if (held) {
		cr_assert_eq(sqlite3_column_int(stmt, 0), 200);
		cr_assert_eq(sqlite3_column_int(stmt, 1), 201);
		cr_assert_eq(sqlite3_column_int(stmt, 2), 0x41424344);
	}
	sqlite3_reset(stmt);
	return !held;
}

Test(row_mac, no_flipped_bit_leads_back_to_other_keys)
{
	struct store *store = open_store(&first);

	cr_assert_eq(store_write(store, store_prepare(store, "UPDATE key_generation SET generation "
							     "= 200, next = 201, since = "
							     "0x41424344, mac = row_mac("
							     "'key_generation', 200, 201, "
							     "0x41424344)")),
		     0);
	store_flush(store);
	cr_assert_not(judge_keys(store));
	store_close(store);
	take_image();
	flip_around("ABCD", 4, judge_keys);
	cr_assert_gt(refused, 100, "%u of %u", refused, flipped);
}

/* ---- the function ---------------------------------------------------------------------------- */

static int64_t mac_of(struct store *store, const char *values)
{
	char sql[256];
	sqlite3_stmt *stmt;
	int64_t mac;

	snprintf(sql, sizeof(sql), "SELECT row_mac(%s)", values);
	stmt = store_prepare(store, sql);
	cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
	cr_assert_eq(sqlite3_column_type(stmt, 0), SQLITE_INTEGER);
	mac = sqlite3_column_int64(stmt, 0);
	sqlite3_reset(stmt);
	return mac;
}

Test(row_mac, tells_values_apart_by_type_length_place_and_table)
{
	static const char *const values[] = {
		"'t', 1, 'a'",
		"'u', 1, 'a'",
		"'t', 'a', 1",
		"'t', 1, x'61'",
		"'t', '1', 'a'",
		"'t', 1.0, 'a'",
		"'t', 1, NULL",
		"'t', 1, ''",
		"'t', 1, 'a', NULL",
		"'t', 1",
		"'t1', 'a'",
		"'t', 1, 'a '",
		"'t', zeroblob(256)",
		"'t', zeroblob(257)",
		"'t', zeroblob(100000)",
		"'t', x'00' || zeroblob(100000)",
	};
	struct store *store = open_store(&first);
	int64_t macs[sizeof(values) / sizeof(values[0])];

	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		macs[i] = mac_of(store, values[i]);
		cr_assert_eq(macs[i], mac_of(store, values[i]));
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(macs[i], macs[j], "%s and %s", values[i], values[j]);
	}
	store_close(store);
}
