/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/store.h"

#include <errno.h>
#include <event2/event.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/wire/handle.h"

#define STORE_SCHEMA	     4
#define STORE_STATEMENTS_MAX 64
#define STORE_LAZY_MS	     100
#define STORE_PATIENCE_MS    2000 /* somebody may read it with sqlite3(1) */

/*
 * What came with the third schema. Rows of `vouched` are numbered by us in the order they came, so
 * that a batch is a run of rows at the table's end: an index by id or address would make each row
 * of an import a write at a place of its own (control/engine/places.h has that index in memory).
 * `vouched_open` names what the registry region may not have yet: looked at again after a crash.
 */
#define VOUCHED_SQL                                                                                \
	"CREATE TABLE vouched (row INTEGER PRIMARY KEY, id INTEGER NOT NULL, user TEXT NOT NULL, " \
	"  generation INTEGER NOT NULL, address BLOB NOT NULL, port INTEGER NOT NULL, "            \
	"  since INTEGER NOT NULL);"                                                               \
	"CREATE TABLE vouched_batch (batch INTEGER PRIMARY KEY AUTOINCREMENT, "                    \
	"  first INTEGER NOT NULL, last INTEGER NOT NULL);"                                        \
	"CREATE TABLE vouched_open (work INTEGER PRIMARY KEY, first INTEGER NOT NULL, "            \
	"  last INTEGER NOT NULL, id INTEGER NOT NULL);"                                           \
	"CREATE TABLE vouched_state (region INTEGER NOT NULL, rules BLOB NOT NULL);"               \
	"CREATE INDEX users_revoked ON users (generation) WHERE generation > 1;"

/* What came with the fourth schema. next: of a rotation under way, or 0; since: Unix time. */
#define KEYS_SQL                                                                            \
	"CREATE TABLE key_generation (generation INTEGER NOT NULL, next INTEGER NOT NULL, " \
	"  since INTEGER NOT NULL);"                                                        \
	"INSERT INTO key_generation VALUES (1, 0, 0);"

static const char schema_sql[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE users (handle BLOB PRIMARY KEY CHECK (length(handle) = 16), "
	"  name TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL) WITHOUT ROWID;"
	/* AUTOINCREMENT: a number is never given twice, sessions remember it across restarts */
	"CREATE TABLE publishers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, "
	"  user TEXT, salt BLOB NOT NULL, secret_hash BLOB NOT NULL, created INTEGER NOT NULL);"
	"CREATE TABLE audit (row INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, "
	"  event TEXT NOT NULL, victim BLOB, foreigner BLOB, source TEXT, count INTEGER, "
	"  user TEXT, connection TEXT, uid INTEGER, detail TEXT);"
	"CREATE TABLE owner (id BLOB NOT NULL);" VOUCHED_SQL KEYS_SQL "PRAGMA user_version = 4;"
	"COMMIT;";

/* The first schema did not say whose it was. With its owner in one transaction: half way, it would
 * be taken for another's. */
static const char upgrade_1_sql[] =
	"CREATE TABLE owner (id BLOB NOT NULL);" VOUCHED_SQL KEYS_SQL "PRAGMA user_version = 4;";
static const char upgrade_2_sql[] =
	"BEGIN IMMEDIATE;" VOUCHED_SQL KEYS_SQL "PRAGMA user_version = 4; COMMIT;";
static const char upgrade_3_sql[] = "BEGIN IMMEDIATE;" KEYS_SQL "PRAGMA user_version = 4; COMMIT;";

struct waiter {
	STAILQ_ENTRY(waiter) entry;
	store_done done;
	void *arg;
	int status;
};
STAILQ_HEAD(waiters, waiter);

struct store {
	sqlite3 *db;
	sqlite3_stmt *stmts[STORE_STATEMENTS_MAX];
	unsigned stmt_cnt;
	struct event *commit;
	bool open;   /* a transaction is */
	bool urgent; /* somebody waits */
	bool settle; /* into the main file, at this turn's commit */
	struct waiters waiters;
	struct store_counts counts;
	char why[256];
};

static int sqlite_errno(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static void schedule(struct store *store)
{
	struct timeval delay = {.tv_usec = store->urgent ? 0 : STORE_LAZY_MS * 1000};

	if (store->urgent || !evtimer_pending(store->commit, NULL))
		evtimer_add(store->commit, &delay);
}

/* Undoes the turn; those who wait are told from the event loop, never from within a write. */
static void fail_all(struct store *store, int rc, const char *doing)
{
	struct waiter *waiter;
	int err = sqlite_errno(rc);

	snprintf(store->why, sizeof(store->why), "%s: %s", doing, sqlite3_errmsg(store->db));
	fan_log(FAN_LOG_ERROR, "database", "%s; the change was refused%s", store->why,
		err == -ENOSPC ? "; make room on the disk of state_dir" : "");
	store->counts.failures++;
	if (!sqlite3_get_autocommit(store->db))
		sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
	store->open = false;
	STAILQ_FOREACH(waiter, &store->waiters, entry)
	if (!waiter->status)
		waiter->status = err;
	if (!STAILQ_EMPTY(&store->waiters))
		schedule(store);
}

void store_undo(struct store *store)
{
	if (store->open)
		fail_all(store, SQLITE_ABORT, "given up");
}

static void call_waiters(struct store *store)
{
	struct waiters due = STAILQ_HEAD_INITIALIZER(due);
	struct waiter *waiter;

	/* a callback may write and wait anew: that is the next turn's */
	STAILQ_CONCAT(&due, &store->waiters);
	store->urgent = false;
	while ((waiter = STAILQ_FIRST(&due))) {
		STAILQ_REMOVE_HEAD(&due, entry);
		waiter->done(waiter->arg, waiter->status);
		free(waiter);
	}
}

/* Without patience: a reader that is in the way is left alone, and the WAL has it all. */
static void checkpoint(struct store *store)
{
	int rc;

	sqlite3_busy_timeout(store->db, 0);
	rc = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	sqlite3_busy_timeout(store->db, STORE_PATIENCE_MS);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY)
		fan_log(FAN_LOG_WARNING, "database",
			"the -wal file could not be moved into the main file: %s; it is tried "
			"again "
			"later",
			sqlite3_errmsg(store->db));
	store->settle = rc != SQLITE_OK;
}

void store_settle(struct store *store)
{
	store->settle = true;
}

void store_flush(struct store *store)
{
	evtimer_del(store->commit);
	if (store->open) {
		int rc = sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);

		if (rc == SQLITE_OK)
			store->counts.commits++;
		else
			fail_all(store, rc, "cannot commit");
		store->open = false;
		if (rc == SQLITE_OK && store->settle)
			checkpoint(store);
	}
	call_waiters(store);
	if (store->open || !STAILQ_EMPTY(&store->waiters))
		schedule(store);
	else
		evtimer_del(store->commit);
}

static void on_commit(evutil_socket_t fd, short what, void *arg)
{
	store_flush(arg);
}

int store_write(struct store *store, struct sqlite3_stmt *stmt)
{
	int rc = SQLITE_OK;

	if (!store->open)
		rc = sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc == SQLITE_OK) {
		store->open = true;
		rc = sqlite3_step(stmt);
	}
	if (rc == SQLITE_DONE || rc == SQLITE_ROW) {
		sqlite3_reset(stmt);
		store->counts.writes++;
		schedule(store);
		return 0;
	}
	if ((rc & 0xff) == SQLITE_CONSTRAINT) {
		sqlite3_reset(stmt);
		schedule(store);
		return -EEXIST;
	}
	fail_all(store, rc, "cannot write");
	sqlite3_reset(stmt);
	return sqlite_errno(rc);
}

void store_on_durable(struct store *store, store_done done, void *arg)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter) {
		done(arg, -ENOMEM);
		return;
	}
	waiter->done = done;
	waiter->arg = arg;
	STAILQ_INSERT_TAIL(&store->waiters, waiter, entry);
	store->urgent = true;
	schedule(store);
}

struct sqlite3_stmt *store_prepare(struct store *store, const char *sql)
{
	sqlite3_stmt *stmt = NULL;

	if (store->stmt_cnt == STORE_STATEMENTS_MAX ||
	    sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL)) {
		fan_log(FAN_LOG_ERROR, "database", "cannot prepare '%s': %s", sql,
			sqlite3_errmsg(store->db));
		return NULL;
	}
	store->stmts[store->stmt_cnt++] = stmt;
	return stmt;
}

int64_t store_last_row(const struct store *store)
{
	return sqlite3_last_insert_rowid(store->db);
}

void store_counts(const struct store *store, struct store_counts *counts)
{
	*counts = store->counts;
}

const char *store_why(const struct store *store)
{
	return store->why;
}

/* First column of the first row as text into `text`. */
static int query_text(sqlite3 *db, const char *sql, char *text, size_t len)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		snprintf(text, len, "%s", (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int refuse_damaged(const char *path, const char *found, char why[1024])
{
	snprintf(
		why, 1024,
		"the database %s is damaged (%s). It holds the users' generations, the publishers "
		"and the audit. Put back a copy of it, or move it, its -wal and -shm files and the "
		"file keys beside it away and start anew: then every token is void, and publishers "
		"must be added again",
		path, found);
	return -EPROTO;
}

static int refuse_lost(const char *path, const char *found, char why[1024])
{
	snprintf(
		why, 1024,
		"the database %s %s. It knew who was revoked: without it revoked tokens would hold "
		"again. Put back a copy of it; or stop both daemons, move the file keys beside it "
		"away too, delete the two files in region_dir and start anew: then every token is "
		"void, and publishers must be added again",
		path, found);
	return -ENOTRECOVERABLE;
}

static int run_sql(sqlite3 *db, const char *sql, const char *path, char why[1024])
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	snprintf(why, 1024, "cannot write the database %s: %s; check room and rights", path,
		 sqlite3_errmsg(db));
	if (!sqlite3_get_autocommit(db))
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return -EIO;
}

/* And whatever comes before it, at once with it. */
static int write_owner(struct store *store, const char *before, const struct store_owner *owner,
		       const char *path, char why[1024])
{
	char sql[2048], id[2 * STORE_ID_LEN + 1];
	int err;

	fan_hex(id, owner->id, STORE_ID_LEN);
	snprintf(sql, sizeof(sql),
		 "BEGIN IMMEDIATE; %s DELETE FROM owner; INSERT INTO owner VALUES (x'%s'); COMMIT;",
		 before, id);
	err = run_sql(store->db, sql, path, why);
	if (!err)
		checkpoint(store);
	return err;
}

static int check_owner(struct store *store, const struct store_owner *owner, const char *path,
		       char why[1024])
{
	char found[2 * STORE_ID_LEN + 2] = "", id[2 * STORE_ID_LEN + 1];

	fan_hex(id, owner->id, STORE_ID_LEN);
	query_text(store->db, "SELECT lower(hex(id)) FROM owner", found, sizeof(found));
	if (strcmp(found, id) == 0)
		return 0;
	if (owner->fresh) /* of keys that are gone: no token of theirs holds any more */
		return write_owner(store, "", owner, path, why);
	return refuse_lost(path, "belongs to other keys than those beside it", why);
}

static int check_schema(struct store *store, const struct store_owner *owner, const char *path,
			char why[1024])
{
	char version[16] = "", tables[16] = "";
	sqlite3 *db = store->db;
	int err = 0;

	if (query_text(db, "PRAGMA user_version", version, sizeof(version)) ||
	    query_text(db, "SELECT count(*) FROM sqlite_schema", tables, sizeof(tables)))
		return refuse_damaged(path, sqlite3_errmsg(db), why);
	if (atoi(version) == STORE_SCHEMA)
		return check_owner(store, owner, path, why);
	if (atoi(version) == 0 && atoi(tables) == 0) {
		if (!owner->fresh)
			return refuse_lost(path, "is empty, though the keys beside it are there",
					   why);
		err = run_sql(db, schema_sql, path, why);
		return err ? err : write_owner(store, "", owner, path, why);
	}
	if (atoi(version) == 1)
		return write_owner(store, upgrade_1_sql, owner, path, why);
	if (atoi(version) == 2 || atoi(version) == 3) {
		err = check_owner(store, owner, path, why);
		return err ? err
			   : run_sql(db, atoi(version) == 2 ? upgrade_2_sql : upgrade_3_sql, path,
				     why);
	}
	snprintf(why, 1024,
		 "the database %s has schema %s, this fanwired reads schema %d: run the version "
		 "that wrote it, or put back a copy of an older one",
		 path, version, STORE_SCHEMA);
	return -EPROTO;
}

/*
 * Each table but one: a look at each of millions of vouched rows would be most of a restart. They
 * are read and judged one by one when they are loaded.
 */
static const char *const checks[] = {
	"PRAGMA quick_check(users)",
	"PRAGMA quick_check(publishers)",
	"PRAGMA quick_check(audit)",
	"PRAGMA quick_check(owner)",
	"PRAGMA quick_check(vouched_batch)",
	"PRAGMA quick_check(vouched_open)",
	"PRAGMA quick_check(vouched_state)",
	"PRAGMA quick_check(key_generation)",
	NULL,
};
/* A database of an older schema, or of nothing yet. */
static const char *const check_all[] = {"PRAGMA quick_check(1)", NULL};

static int check_tables(sqlite3 *db, const char *path, char why[1024])
{
	char found[256] = "", version[16] = "";
	const char *const *check;

	if (query_text(db, "PRAGMA user_version", version, sizeof(version)))
		return refuse_damaged(path, sqlite3_errmsg(db), why);
	check = atoi(version) == STORE_SCHEMA ? checks : check_all;
	for (; *check; check++) {
		if (query_text(db, *check, found, sizeof(found)))
			return refuse_damaged(path, sqlite3_errmsg(db), why);
		if (strcmp(found, "ok") != 0)
			return refuse_damaged(path, found, why);
	}
	return 0;
}

static int open_database(struct store *store, const char *path, char why[1024])
{
	int rc = sqlite3_open_v2(path, &store->db,
				 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
					 SQLITE_OPEN_NOFOLLOW,
				 NULL);

	if (rc == SQLITE_OK)
		sqlite3_busy_timeout(store->db, STORE_PATIENCE_MS);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db,
				  "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
				  "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;",
				  NULL, NULL, NULL);
	if ((rc & 0xff) == SQLITE_NOTADB || (rc & 0xff) == SQLITE_CORRUPT)
		return refuse_damaged(path, sqlite3_errmsg(store->db), why);
	if (rc != SQLITE_OK) {
		snprintf(why, 1024, "cannot open the database %s: %s; check room and rights", path,
			 store->db ? sqlite3_errmsg(store->db) : "out of memory");
		return -EIO;
	}
	return 0;
}

/* Before SQLite makes one: what is lost must not look like a first start the next time. */
static int check_there(const struct store_owner *owner, const char *path, char why[1024])
{
	struct stat st;

	if (owner->fresh)
		return 0;
	if (stat(path, &st) && errno == ENOENT)
		return refuse_lost(path, "is not there, though the keys beside it are", why);
	return 0;
}

int store_open(struct store **out, struct event_base *base, const char *path,
	       const struct store_owner *owner, char why[1024])
{
	struct store *store = calloc(1, sizeof(*store));
	int err = -ENOMEM;

	if (!store)
		return err;
	STAILQ_INIT(&store->waiters);
	store->commit = evtimer_new(base, on_commit, store);
	if (store->commit)
		err = check_there(owner, path, why);
	if (!err)
		err = open_database(store, path, why);
	if (!err)
		err = check_tables(store->db, path, why);
	if (!err)
		err = check_schema(store, owner, path, why);
	if (!err && chmod(path, 0600)) {
		err = -errno;
		snprintf(why, 1024, "cannot set the mode of %s: %s", path, strerror(-err));
	}
	if (err) {
		store_close(store);
		return err;
	}
	*out = store;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	if (store->commit && store->db)
		store_flush(store);
	for (unsigned i = 0; i < store->stmt_cnt; i++)
		sqlite3_finalize(store->stmts[i]);
	sqlite3_close(store->db);
	if (store->commit)
		event_free(store->commit);
	free(store);
}
