/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/publishers.h"

#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/row_mac.h"
#include "control/engine/store.h"

struct publishers {
	struct store *store;
	struct publisher *first;
	uint32_t cnt, max;
	sqlite3_stmt *insert, *sign, *clear, *remove;
};

struct change {
	struct publishers *publishers;
	struct publisher *publisher;
	publishers_on_removed done;
	void *arg;
};

/* The secret has 256 random bits: a keyed hash is enough, nothing is gained by a slow one. */
static void secret_hash(uint8_t hash[32], const uint8_t salt[16], const char *secret)
{
	crypto_generichash(hash, 32, (const uint8_t *)secret, strlen(secret), salt, 16);
}

static int load_row(struct publishers *publishers, sqlite3_stmt *stmt)
{
	struct publisher *p;

	if (!sqlite3_column_int(stmt, 6)) { /* it may be of another scope than it was given */
		fan_log(FAN_LOG_ERROR, "publishers",
			"row %lld of the table publishers (%.48s) is not as it was written, and "
			"its "
			"publisher is refused: put back a copy of the database, or add the "
			"publisher again: fanwirectl publisher add",
			(long long)sqlite3_column_int64(stmt, 0),
			(const char *)sqlite3_column_text(stmt, 1));
		return 0;
	}
	if (sqlite3_column_bytes(stmt, 3) != 16 || sqlite3_column_bytes(stmt, 4) != 32 ||
	    sqlite3_column_bytes(stmt, 1) > FAN_NAME_MAX ||
	    sqlite3_column_bytes(stmt, 2) > FAN_NAME_MAX)
		return -EPROTO;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->id = (uint64_t)sqlite3_column_int64(stmt, 0);
	strcpy(p->name, (const char *)sqlite3_column_text(stmt, 1));
	if (sqlite3_column_text(stmt, 2))
		strcpy(p->user, (const char *)sqlite3_column_text(stmt, 2));
	memcpy(p->salt, sqlite3_column_blob(stmt, 3), 16);
	memcpy(p->hash, sqlite3_column_blob(stmt, 4), 32);
	p->created_s = (uint64_t)sqlite3_column_int64(stmt, 5);
	p->durable = true;
	p->next = publishers->first;
	publishers->first = p;
	publishers->cnt++;
	return 0;
}

static int load(struct publishers *publishers, char why[1024])
{
	sqlite3_stmt *all = store_prepare(
		publishers->store,
		"SELECT id, name, user, salt, secret_hash, created, " ROW_HOLDS(
			ROW_MAC_PUBLISHERS) " FROM publishers NOT INDEXED ORDER BY name DESC");
	int rc = SQLITE_ERROR, err = -EIO;

	while (all && (rc = sqlite3_step(all)) == SQLITE_ROW) {
		err = load_row(publishers, all);
		if (err)
			break;
	}
	if (rc == SQLITE_DONE)
		err = 0;
	if (all)
		sqlite3_reset(all);
	if (err)
		snprintf(
			why, 1024,
			"the table publishers of the database cannot be read (%s): put back a copy "
			"of the database, or move it away and start anew",
			strerror(-err));
	return err;
}

int publishers_open(struct publishers **out, struct store *store, uint32_t max, char why[1024])
{
	struct publishers *publishers = calloc(1, sizeof(*publishers));
	int err = -ENOMEM;

	if (!publishers)
		return err;
	publishers->store = store;
	publishers->max = max;
	publishers->insert = store_prepare(
		store, "INSERT INTO publishers (name, user, salt, secret_hash, created) "
		       "VALUES (?, ?, ?, ?, ?)");
	publishers->sign = store_prepare(store, "UPDATE publishers SET mac = " ROW_MAC_PUBLISHERS
						" WHERE id = last_insert_rowid()");
	/* one that was refused when it was loaded is in nobody's way */
	publishers->clear = store_prepare(
		store,
		"DELETE FROM publishers WHERE name = ? AND NOT " ROW_HOLDS(ROW_MAC_PUBLISHERS));
	publishers->remove = store_prepare(store, "DELETE FROM publishers WHERE id = ?");
	if (publishers->insert && publishers->sign && publishers->clear && publishers->remove)
		err = load(publishers, why);
	if (err) {
		publishers_close(publishers);
		return err;
	}
	*out = publishers;
	return 0;
}

void publishers_close(struct publishers *publishers)
{
	if (!publishers)
		return;
	for (struct publisher *p = publishers->first, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	free(publishers);
}

const struct publisher *publishers_first(const struct publishers *publishers)
{
	return publishers->first;
}

static struct publisher *find(const struct publishers *publishers, const char *name)
{
	struct publisher *p = publishers->first;

	while (p && strcmp(p->name, name) != 0)
		p = p->next;
	return p;
}

const struct publisher *publishers_find(const struct publishers *publishers, const char *name)
{
	return find(publishers, name);
}

const struct publisher *publishers_check(const struct publishers *publishers, const char *name,
					 const char *secret)
{
	static const struct publisher nobody;
	const struct publisher *p = find(publishers, name);
	const struct publisher *against = p ? p : &nobody;
	uint8_t hash[32];
	bool equal;

	secret_hash(hash, against->salt, secret);
	equal = sodium_memcmp(hash, against->hash, sizeof(hash)) == 0;
	return p && p->durable && !p->removing && equal ? p : NULL;
}

static void forget(struct publishers *publishers, struct publisher *publisher)
{
	struct publisher **link = &publishers->first;

	while (*link != publisher)
		link = &(*link)->next;
	*link = publisher->next;
	publishers->cnt--;
	free(publisher);
}

static void on_added(void *arg, int status)
{
	struct change *change = arg;

	if (status)
		forget(change->publishers, change->publisher);
	else
		change->publisher->durable = true;
	free(change);
}

static int insert_row(struct publishers *publishers, struct publisher *p)
{
	sqlite3_stmt *stmt = publishers->insert;
	int err;

	sqlite3_bind_text(publishers->clear, 1, p->name, -1, SQLITE_TRANSIENT);
	err = store_write(publishers->store, publishers->clear);
	if (err)
		return err;
	sqlite3_bind_text(stmt, 1, p->name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(stmt, 2, p->user[0] ? p->user : NULL, -1, SQLITE_TRANSIENT);
	sqlite3_bind_blob(stmt, 3, p->salt, sizeof(p->salt), SQLITE_TRANSIENT);
	sqlite3_bind_blob(stmt, 4, p->hash, sizeof(p->hash), SQLITE_TRANSIENT);
	sqlite3_bind_int64(stmt, 5, (int64_t)p->created_s);
	err = store_write(publishers->store, stmt);
	if (err)
		return err;
	p->id = (uint64_t)store_last_row(publishers->store);
	err = store_write(publishers->store, publishers->sign);
	if (err)
		store_undo(publishers->store);
	return err;
}

int publishers_add(struct publishers *publishers, const char *name, const char *user,
		   uint64_t now_s, char secret[PUBLISHER_SECRET_LEN + 1])
{
	uint8_t bytes[PUBLISHER_SECRET_LEN / 2];
	struct change *change;
	struct publisher *p;
	int err;

	if (find(publishers, name))
		return -EEXIST;
	if (publishers->cnt >= publishers->max)
		return -EDQUOT;
	p = calloc(1, sizeof(*p));
	change = calloc(1, sizeof(*change));
	err = -ENOMEM;
	if (!p || !change)
		goto out_free;
	randombytes_buf(bytes, sizeof(bytes));
	fan_hex(secret, bytes, sizeof(bytes));
	sodium_memzero(bytes, sizeof(bytes));
	randombytes_buf(p->salt, sizeof(p->salt));
	secret_hash(p->hash, p->salt, secret);
	snprintf(p->name, sizeof(p->name), "%s", name);
	snprintf(p->user, sizeof(p->user), "%s", user ? user : "");
	p->created_s = now_s;
	err = insert_row(publishers, p);
	if (err)
		goto out_free;
	p->next = publishers->first;
	publishers->first = p;
	publishers->cnt++;
	*change = (struct change){.publishers = publishers, .publisher = p};
	store_settle(publishers->store);
	store_on_durable(publishers->store, on_added, change);
	return 0;
out_free:
	free(p);
	free(change);
	return err;
}

static void on_removed(void *arg, int status)
{
	struct change *change = arg;

	change->publisher->removing = false;
	change->done(change->arg, change->publisher, status);
	if (!status)
		forget(change->publishers, change->publisher);
	free(change);
}

int publishers_remove(struct publishers *publishers, const char *name, publishers_on_removed done,
		      void *arg)
{
	struct publisher *p = find(publishers, name);
	struct change *change;
	int err;

	if (!p || !p->durable || p->removing)
		return -ENOENT;
	change = calloc(1, sizeof(*change));
	if (!change)
		return -ENOMEM;
	sqlite3_bind_int64(publishers->remove, 1, (int64_t)p->id);
	err = store_write(publishers->store, publishers->remove);
	if (err) {
		free(change);
		return err;
	}
	p->removing = true;
	*change = (struct change){publishers, p, done, arg};
	store_settle(publishers->store);
	store_on_durable(publishers->store, on_removed, change);
	return 0;
}
