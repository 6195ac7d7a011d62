/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/users.h"

#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/engine/row_mac.h"
#include "control/engine/store.h"

#define CACHED_MAX    65536 /* idle ones, about: looked up again when they are asked for */
#define EVICT_LOOKS   4	    /* rows looked at for each that is to go */
#define EVICT_LOOKS_1 1024  /* and these at least */

#define COLUMNS "handle, name, generation, " ROW_HOLDS(ROW_MAC_USERS)
#define INSERT                                               \
	"INSERT INTO users (handle, name, generation, mac) " \
	"VALUES (?1, ?2, ?3, row_mac('users', ?1, ?2, ?3)) "

struct users {
	struct store *store;
	struct user **chains;
	uint32_t chain_mask;
	uint32_t cached;	     /* in the chains */
	uint32_t trim_at;	     /* so many cached: the idle ones go */
	uint32_t row_cnt, plain_cnt; /* in the database: all; those that were never revoked */
	uint32_t max;
	uint64_t failures;			     /* of the store when the rows were counted */
	uint8_t hash_key[crypto_shorthash_KEYBYTES]; /* handles can be ground by choosing names */
	sqlite3_stmt *insert, *revoke, *remove, *find, *from, *count, *revoked_count;
};

static struct user **chain_of(const struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t idx;

	crypto_shorthash(hash, handle, FAN_HANDLE_LEN, users->hash_key);
	memcpy(&idx, hash, sizeof(idx));
	return &users->chains[idx & users->chain_mask];
}

static int grow(struct users *users)
{
	uint32_t old_cnt = users->chain_mask + 1;
	struct user **old = users->chains;
	struct user **chains = calloc((size_t)old_cnt * 2, sizeof(*chains));

	if (!chains)
		return -ENOMEM;
	users->chains = chains;
	users->chain_mask = old_cnt * 2 - 1;
	for (uint32_t i = 0; i < old_cnt; i++) {
		for (struct user *user = old[i], *next; user; user = next) {
			struct user **chain = chain_of(users, user->handle);

			next = user->next;
			user->next = *chain;
			*chain = user;
		}
	}
	free(old);
	return 0;
}

static int insert_cached(struct users *users, const uint8_t handle[FAN_HANDLE_LEN],
			 const char *name, size_t name_len, uint32_t generation, struct user **out)
{
	struct user *user, **chain;

	if (users->cached > users->chain_mask && grow(users))
		return -ENOMEM;
	user = calloc(1, sizeof(*user));
	if (!user)
		return -ENOMEM;
	memcpy(user->handle, handle, FAN_HANDLE_LEN);
	memcpy(user->name, name, name_len);
	user->name_len = (uint8_t)name_len;
	user->generation = user->next_generation = generation;
	chain = chain_of(users, handle);
	user->next = *chain;
	*chain = user;
	users->cached++;
	*out = user;
	return 0;
}

/* One that nobody holds, and of whom the database says enough. */
static bool is_idle(const struct user *user)
{
	return !user->connections && !user->pins && user->generation == 1;
}

static void drop_cached(struct users *users, struct user **link)
{
	struct user *user = *link;

	*link = user->next;
	users->cached--;
	free(user);
}

/* Seldom, and then thoroughly: the cost of a look at each is shared by all that came since. */
static void trim_cache(struct users *users)
{
	if (users->cached < users->trim_at)
		return;
	for (uint32_t i = 0; i <= users->chain_mask; i++) {
		struct user **link = &users->chains[i];

		while (*link) {
			if (is_idle(*link))
				drop_cached(users, link);
			else
				link = &(*link)->next;
		}
	}
	users->trim_at = users->cached + CACHED_MAX;
}

/* Of COLUMNS. A row that is not as it was written is nobody's: its generation may be another one.
 */
static int load_row(struct users *users, sqlite3_stmt *stmt, struct user **user)
{
	const uint8_t *handle = sqlite3_column_blob(stmt, 0);
	const char *name = (const char *)sqlite3_column_text(stmt, 1);
	int name_len = sqlite3_column_bytes(stmt, 1);
	int64_t generation = sqlite3_column_int64(stmt, 2);
	uint8_t expected[FAN_HANDLE_LEN];

	if (!sqlite3_column_int(stmt, 3) || !name ||
	    sqlite3_column_bytes(stmt, 0) != FAN_HANDLE_LEN || generation < 1 ||
	    generation > UINT32_MAX || fan_handle(expected, name, (size_t)name_len) ||
	    memcmp(expected, handle, FAN_HANDLE_LEN) != 0)
		return -EPROTO;
	if (insert_cached(users, handle, name, (size_t)name_len, (uint32_t)generation, user))
		return -ENOMEM;
	(*user)->durable = true;
	return 0;
}

static uint32_t count(sqlite3_stmt *stmt)
{
	int64_t cnt = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;

	sqlite3_reset(stmt);
	return (uint32_t)cnt;
}

static void count_rows(struct users *users)
{
	struct store_counts counts;

	store_counts(users->store, &counts);
	users->failures = counts.failures;
	users->row_cnt = count(users->count);
	users->plain_cnt = users->row_cnt - count(users->revoked_count);
}

/* Some that were counted never came to be, or never went, where a turn was undone. */
static void count_again(struct users *users)
{
	struct store_counts counts;

	store_counts(users->store, &counts);
	if (counts.failures != users->failures)
		count_rows(users);
}

/* Names a row as far as it can be read. */
static void name_row(sqlite3_stmt *stmt, char text[96])
{
	const uint8_t *handle = sqlite3_column_blob(stmt, 0);
	const char *name = (const char *)sqlite3_column_text(stmt, 1);
	char hex[2 * FAN_HANDLE_LEN + 1] = "?";

	if (handle && sqlite3_column_bytes(stmt, 0) == FAN_HANDLE_LEN)
		fan_hex(hex, handle, FAN_HANDLE_LEN);
	snprintf(text, 96, "%.48s, handle %s", name ? name : "?", hex);
}

/*
 * Those who were revoked stay in memory: nobody has to ask the database whose token still holds.
 * All rows are looked at, and not the index of the revoked: one that a flipped bit took out of it
 * would have a token that holds again.
 */
static int load_revoked(struct users *users, char why[1024])
{
	sqlite3_stmt *revoked =
		store_prepare(users->store, "SELECT " COLUMNS " FROM users NOT INDEXED WHERE "
					    "generation > 1 OR NOT " ROW_HOLDS(ROW_MAC_USERS));
	int rc = SQLITE_ERROR, err = -EIO;
	struct user *user;
	char which[96] = "";

	while (revoked && (rc = sqlite3_step(revoked)) == SQLITE_ROW) {
		err = load_row(users, revoked, &user);
		if (err == -EPROTO)
			name_row(revoked, which);
		if (err)
			break;
	}
	if (rc == SQLITE_DONE)
		err = 0;
	if (revoked)
		sqlite3_reset(revoked);
	if (err)
		snprintf(why, 1024,
			 "the table users of the database cannot be read: %s%s. It says who was "
			 "revoked: put back a copy of the database; or stop both daemons, move it "
			 "and the file keys beside it away, delete the two files in region_dir "
			 "and start anew: then every token is void",
			 which[0] ? "a row is not as it was written: user " : strerror(-err),
			 which);
	users->trim_at = users->cached + CACHED_MAX;
	return err;
}

static bool prepare(struct users *users)
{
	struct store *store = users->store;

	/* there already where its deletion was rolled back after we had forgotten the user */
	users->insert = store_prepare(store, INSERT "ON CONFLICT (handle) DO NOTHING");
	users->revoke = store_prepare(store, INSERT
				      "ON CONFLICT (handle) DO UPDATE SET name = excluded.name, "
				      "generation = excluded.generation, mac = excluded.mac");
	users->remove = store_prepare(store, "DELETE FROM users WHERE handle = ?");
	users->find = store_prepare(store, "SELECT " COLUMNS " FROM users WHERE handle = ?");
	users->from = store_prepare(store, "SELECT handle FROM users WHERE handle >= ? "
					   "AND generation = 1 ORDER BY handle LIMIT ?");
	users->count = store_prepare(store, "SELECT count(*) FROM users");
	users->revoked_count =
		store_prepare(store, "SELECT count(*) FROM users WHERE generation > 1");
	return users->insert && users->revoke && users->remove && users->find && users->from &&
	       users->count && users->revoked_count;
}

int users_open(struct users **out, struct store *store, uint32_t max, char why[1024])
{
	struct users *users = calloc(1, sizeof(*users));
	int err = -ENOMEM;

	if (!users)
		return err;
	users->store = store;
	users->max = max;
	users->chain_mask = 1023;
	users->chains = calloc(users->chain_mask + 1, sizeof(*users->chains));
	randombytes_buf(users->hash_key, sizeof(users->hash_key));
	if (users->chains && prepare(users))
		err = load_revoked(users, why);
	if (!err)
		count_rows(users);
	if (err) {
		users_close(users);
		return err;
	}
	*out = users;
	return 0;
}

void users_close(struct users *users)
{
	if (!users)
		return;
	for (uint32_t i = 0; users->chains && i <= users->chain_mask; i++) {
		for (struct user *user = users->chains[i], *next; user; user = next) {
			next = user->next;
			free(user);
		}
	}
	free(users->chains);
	free(users);
}

static struct user *find_cached(const struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct user *user = *chain_of(users, handle);

	while (user && memcmp(user->handle, handle, FAN_HANDLE_LEN) != 0)
		user = user->next;
	return user;
}

/* From the database into the cache. -ENOENT: not there either. */
static int look_up(struct users *users, const uint8_t handle[FAN_HANDLE_LEN], struct user **user)
{
	char which[96] = "";
	int rc, err = -EIO;

	trim_cache(users);
	sqlite3_bind_blob(users->find, 1, handle, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	rc = sqlite3_step(users->find);
	if (rc == SQLITE_ROW)
		err = load_row(users, users->find, user);
	else if (rc == SQLITE_DONE)
		err = -ENOENT;
	if (err == -EPROTO)
		name_row(users->find, which);
	sqlite3_reset(users->find);
	if (err && err != -ENOENT)
		fan_log(FAN_LOG_ERROR, "database",
			"a row of the table users is refused (%s%s), and with it its user: put "
			"back a copy of the database",
			which[0] ? "not as it was written: " : strerror(-err), which);
	return err;
}

struct user *users_find(struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct user *user = find_cached(users, handle);

	if (!user && look_up(users, handle, &user))
		return NULL;
	return user;
}

uint32_t users_generation(const struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	const struct user *user = find_cached(users, handle);

	return user ? user->generation : 1;
}

/* Whether it went, from the database and the cache. */
static bool evict_one(struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct user **link = chain_of(users, handle);

	while (*link && memcmp((*link)->handle, handle, FAN_HANDLE_LEN) != 0)
		link = &(*link)->next;
	if (*link && !is_idle(*link))
		return false;
	sqlite3_bind_blob(users->remove, 1, handle, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	if (store_write(users->store, users->remove))
		return false;
	if (*link)
		drop_cached(users, link);
	users->row_cnt--;
	users->plain_cnt--;
	return true;
}

/* Up to `max` never-revoked users in the order of their handles; *out is the caller's. */
static uint32_t list_from(struct users *users, const uint8_t from[FAN_HANDLE_LEN], uint32_t max,
			  uint8_t (**out)[FAN_HANDLE_LEN])
{
	uint32_t cnt = 0;

	*out = calloc(max, sizeof(**out));
	sqlite3_bind_blob(users->from, 1, from, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	sqlite3_bind_int64(users->from, 2, max);
	while (*out && cnt < max && sqlite3_step(users->from) == SQLITE_ROW)
		memcpy((*out)[cnt++], sqlite3_column_blob(users->from, 0), FAN_HANDLE_LEN);
	sqlite3_reset(users->from);
	return cnt;
}

/*
 * Forgets a sixteenth of the idle, never-revoked users, so that it is seldom done. Looks at so many
 * and no more, from anywhere: who is refused for it must not keep us busy.
 */
static void evict(struct users *users)
{
	uint32_t wanted = users->max / 16 + 1;
	uint32_t looks = EVICT_LOOKS * wanted + EVICT_LOOKS_1;
	uint8_t start[FAN_HANDLE_LEN];

	randombytes_buf(start, sizeof(start));
	for (unsigned round = 0; round < 2 && wanted; round++) { /* on from the start of all */
		uint8_t(*handles)[FAN_HANDLE_LEN];
		uint32_t cnt = list_from(users, start, looks, &handles);

		for (uint32_t i = 0; i < cnt && wanted; i++)
			wanted -= evict_one(users, handles[i]);
		free(handles);
		looks -= cnt;
		memset(start, 0, sizeof(start));
		if (!looks)
			break;
	}
}

struct write {
	struct users *users;
	struct user *user;
	users_on_revoked done; /* of a revocation */
	void *arg;
	uint32_t generation;
};

static void on_added(void *arg, int status)
{
	struct write *write = arg;

	write->user->pins--;
	if (!status)
		write->user->durable = true; /* else the next users_get() writes it again */
	free(write);
}

static int bind_and_write(struct users *users, sqlite3_stmt *stmt, const struct user *user,
			  uint32_t generation)
{
	sqlite3_bind_blob(stmt, 1, user->handle, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	sqlite3_bind_text(stmt, 2, user->name, user->name_len, SQLITE_TRANSIENT);
	sqlite3_bind_int64(stmt, 3, generation);
	return store_write(users->store, stmt);
}

static int write_added(struct users *users, struct user *user)
{
	struct write *write = calloc(1, sizeof(*write));
	int err;

	if (!write)
		return -ENOMEM;
	*write = (struct write){.users = users, .user = user};
	err = bind_and_write(users, users->insert, user, user->generation);
	if (err) {
		free(write);
		return err == -EEXIST ? -EIO : err;
	}
	user->pins++;
	users->row_cnt++;
	users->plain_cnt++;
	store_on_durable(users->store, on_added, write);
	return 0;
}

int users_get(struct users *users, const char *name, size_t name_len, struct user **out)
{
	uint8_t handle[FAN_HANDLE_LEN];
	struct user *user;
	int err;

	if (fan_handle(handle, name, name_len))
		return -EINVAL;
	user = find_cached(users, handle);
	if (!user) {
		err = look_up(users, handle, &user);
		if (err && err != -ENOENT)
			return err;
	}
	if (user && (user->name_len != name_len || memcmp(user->name, name, name_len) != 0))
		return -EEXIST;
	if (!user) {
		count_again(users);
		if (users->plain_cnt >= users->max)
			evict(users);
		if (users->plain_cnt >= users->max)
			return -EDQUOT;
		err = insert_cached(users, handle, name, name_len, 1, &user);
		if (err)
			return err;
	}
	if (!user->durable && !user->pins) {
		err = write_added(users, user);
		if (err)
			return err;
	}
	*out = user;
	return 0;
}

static void on_revoked(void *arg, int status)
{
	struct write *write = arg;
	struct user *user = write->user;

	user->pins--;
	if (!status) {
		write->users->plain_cnt -= user->generation == 1;
		write->users->row_cnt += !user->durable;
		write->users->plain_cnt += !user->durable && user->generation == 1;
		user->generation = write->generation;
		user->durable = true;
	} else if (!user->pins) {
		user->next_generation = user->generation;
	}
	write->done(write->arg, user, status);
	free(write);
}

int users_revoke(struct users *users, struct user *user, users_on_revoked done, void *arg)
{
	struct write *write;
	int err;

	if (user->next_generation == UINT32_MAX)
		return -EOVERFLOW;
	write = calloc(1, sizeof(*write));
	if (!write)
		return -ENOMEM;
	*write = (struct write){.users = users,
				.user = user,
				.done = done,
				.arg = arg,
				.generation = user->next_generation +
					      !fan_planted(PLANT_USER_GENERATION_KEPT)};
	err = bind_and_write(users, users->revoke, user, write->generation);
	if (err) {
		free(write);
		return err;
	}
	user->next_generation++;
	user->pins++;
	store_settle(users->store);
	store_on_durable(users->store, on_revoked, write);
	return 0;
}

uint32_t users_count(struct users *users)
{
	count_again(users);
	return users->row_cnt;
}
