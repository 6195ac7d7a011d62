/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/users.h"

#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/store.h"

struct users {
	struct store *store;
	struct user **chains;
	uint32_t chain_mask;
	uint32_t cnt, plain_cnt; /* all; those that were never revoked */
	uint32_t max;
	uint8_t hash_key[crypto_shorthash_KEYBYTES]; /* handles can be ground by choosing names */
	sqlite3_stmt *insert, *revoke, *remove;
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

	if (users->cnt > users->chain_mask && grow(users))
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
	users->cnt++;
	users->plain_cnt += generation == 1;
	*out = user;
	return 0;
}

static void drop_cached(struct users *users, struct user **link)
{
	struct user *user = *link;

	*link = user->next;
	users->cnt--;
	users->plain_cnt--;
	free(user);
}

static int load_row(struct users *users, sqlite3_stmt *stmt)
{
	const uint8_t *handle = sqlite3_column_blob(stmt, 0);
	const char *name = (const char *)sqlite3_column_text(stmt, 1);
	int name_len = sqlite3_column_bytes(stmt, 1);
	int64_t generation = sqlite3_column_int64(stmt, 2);
	uint8_t expected[FAN_HANDLE_LEN];
	struct user *user;

	if (!name || sqlite3_column_bytes(stmt, 0) != FAN_HANDLE_LEN || generation < 1 ||
	    generation > UINT32_MAX || fan_handle(expected, name, (size_t)name_len) ||
	    memcmp(expected, handle, FAN_HANDLE_LEN) != 0)
		return -EPROTO;
	if (insert_cached(users, handle, name, (size_t)name_len, (uint32_t)generation, &user))
		return -ENOMEM;
	user->durable = true;
	return 0;
}

static int load(struct users *users, char why[1024])
{
	sqlite3_stmt *all =
		store_prepare(users->store, "SELECT handle, name, generation FROM users");
	int rc = SQLITE_ERROR, err = -EIO;

	while (all && (rc = sqlite3_step(all)) == SQLITE_ROW) {
		err = load_row(users, all);
		if (err)
			break;
	}
	if (rc == SQLITE_DONE)
		err = 0;
	if (all)
		sqlite3_reset(all);
	if (err)
		snprintf(why, 1024,
			 "the table users of the database cannot be read (%s): put back a copy of "
			 "the "
			 "database, or move it away and start anew",
			 strerror(-err));
	return err;
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
	/* there already where its deletion was rolled back after we had forgotten the user */
	users->insert = store_prepare(
		store, "INSERT INTO users (handle, name, generation) VALUES (?, ?, ?) "
		       "ON CONFLICT (handle) DO NOTHING");
	users->revoke = store_prepare(
		store, "INSERT INTO users (handle, name, generation) VALUES (?, ?, ?) "
		       "ON CONFLICT (handle) DO UPDATE SET generation = excluded.generation");
	users->remove = store_prepare(store, "DELETE FROM users WHERE handle = ?");
	if (users->chains && users->insert && users->revoke && users->remove)
		err = load(users, why);
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

struct user *users_find(const struct users *users, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct user *user = *chain_of(users, handle);

	while (user && memcmp(user->handle, handle, FAN_HANDLE_LEN) != 0)
		user = user->next;
	return user;
}

/* Forgets a sixteenth of the idle, never-revoked users, so that it is seldom done. */
static void evict(struct users *users)
{
	uint32_t wanted = users->max / 16 + 1, start = randombytes_uniform(users->chain_mask + 1);

	for (uint32_t i = 0; i <= users->chain_mask && wanted; i++) {
		struct user **link = &users->chains[(start + i) & users->chain_mask];

		while (*link && wanted) {
			struct user *user = *link;

			if (user->connections || user->pins || user->generation != 1) {
				link = &user->next;
				continue;
			}
			sqlite3_bind_blob(users->remove, 1, user->handle, FAN_HANDLE_LEN,
					  SQLITE_TRANSIENT);
			if (store_write(users->store, users->remove))
				return;
			drop_cached(users, link);
			wanted--;
		}
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
	user = users_find(users, handle);
	if (user && (user->name_len != name_len || memcmp(user->name, name, name_len) != 0))
		return -EEXIST;
	if (!user) {
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
				.generation = user->next_generation + 1};
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

uint32_t users_count(const struct users *users)
{
	return users->cnt;
}
