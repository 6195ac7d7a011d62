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
#include "control/engine/store_schema.h"

#define STORE_STATEMENTS_MAX 96
#define STORE_LAZY_MS	     100
#define STORE_PATIENCE_MS    2000 /* somebody may read it with sqlite3(1) */

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
	int now = 0, highest = 0;

	sqlite3_db_status(store->db, SQLITE_DBSTATUS_CACHE_USED, &now, &highest, 0);
	*counts = store->counts;
	counts->cache_bytes = (uint64_t)now;
}

const char *store_why(const struct store *store)
{
	return store->why;
}

static int open_database(struct store *store, const char *path, const struct store_owner *owner,
			 char why[1024])
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
	if (rc == SQLITE_OK)
		rc = row_mac_register(store->db, owner->row_key);
	if ((rc & 0xff) == SQLITE_NOTADB || (rc & 0xff) == SQLITE_CORRUPT)
		return schema_refuse_damaged(path, sqlite3_errmsg(store->db), why);
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
		return schema_refuse_lost(path, "is not there, though the keys beside it are", why);
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
		err = open_database(store, path, owner, why);
	if (!err)
		err = schema_check_tables(store->db, path, why);
	if (!err)
		err = schema_take(store->db, owner, path, why);
	if (err > 0) { /* it was written */
		checkpoint(store);
		err = 0;
	}
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
