/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/store_schema.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/wire/handle.h"

#define STORE_SCHEMA 5

#define SCHEMA_1                                                                                     \
	"CREATE TABLE users (handle BLOB PRIMARY KEY CHECK (length(handle) = 16), "                  \
	"  name TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL) WITHOUT ROWID;" /* AUTOINCREMENT: \
										      a number is    \
										      never given    \
										      twice,         \
										      sessions       \
										      remember it    \
										      across         \
										      restarts */    \
	"CREATE TABLE publishers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL "         \
	"  UNIQUE, user TEXT, salt BLOB NOT NULL, secret_hash BLOB NOT NULL, "                       \
	"  created INTEGER NOT NULL);"                                                               \
	"CREATE TABLE audit (row INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, "      \
	"  event TEXT NOT NULL, victim BLOB, foreigner BLOB, source TEXT, count INTEGER, "           \
	"  user TEXT, connection TEXT, uid INTEGER, detail TEXT);"

/* The first schema did not say whose it was. */
#define SCHEMA_2 "CREATE TABLE owner (id BLOB NOT NULL);"

/*
 * Rows of `vouched` are numbered by us in the order they came, so that a batch is a run of rows at
 * the table's end: an index by id or address would make each row of an import a write at a place of
 * its own (control/engine/places.h has that index in memory). `vouched_open` names what the
 * registry region may not have yet: looked at again after a crash.
 */
#define SCHEMA_3                                                                                   \
	"CREATE TABLE vouched (row INTEGER PRIMARY KEY, id INTEGER NOT NULL, user TEXT NOT NULL, " \
	"  generation INTEGER NOT NULL, address BLOB NOT NULL, port INTEGER NOT NULL, "            \
	"  since INTEGER NOT NULL);"                                                               \
	"CREATE TABLE vouched_batch (batch INTEGER PRIMARY KEY AUTOINCREMENT, "                    \
	"  first INTEGER NOT NULL, last INTEGER NOT NULL);"                                        \
	"CREATE TABLE vouched_open (work INTEGER PRIMARY KEY, first INTEGER NOT NULL, "            \
	"  last INTEGER NOT NULL, id INTEGER NOT NULL);"                                           \
	"CREATE TABLE vouched_state (region INTEGER NOT NULL, rules BLOB NOT NULL);"               \
	"CREATE INDEX users_revoked ON users (generation) WHERE generation > 1;"

/* next: of a rotation under way, or 0; since: Unix time. */
#define SCHEMA_4                                                                            \
	"CREATE TABLE key_generation (generation INTEGER NOT NULL, next INTEGER NOT NULL, " \
	"  since INTEGER NOT NULL);"                                                        \
	"INSERT INTO key_generation VALUES (1, 0, 0);"

/* Of all rows, by the present keys: what they say cannot be checked any more, or not yet. */
#define SIGN_ALL                                              \
	"UPDATE users SET mac = " ROW_MAC_USERS ";"           \
	"UPDATE publishers SET mac = " ROW_MAC_PUBLISHERS ";" \
	"UPDATE vouched SET mac = " ROW_MAC_VOUCHED ";"       \
	"UPDATE vouched_batch SET mac = " ROW_MAC_BATCH ";"   \
	"UPDATE vouched_open SET mac = " ROW_MAC_OPEN ";"     \
	"UPDATE vouched_state SET mac = " ROW_MAC_STATE ";"   \
	"UPDATE key_generation SET mac = " ROW_MAC_KEYS ";"

/* Each row carries its checksum (row_mac.h): those from which a scope follows. */
#define SCHEMA_5                                            \
	"ALTER TABLE users ADD COLUMN mac INTEGER;"         \
	"ALTER TABLE publishers ADD COLUMN mac INTEGER;"    \
	"ALTER TABLE vouched ADD COLUMN mac INTEGER;"       \
	"ALTER TABLE vouched_batch ADD COLUMN mac INTEGER;" \
	"ALTER TABLE vouched_open ADD COLUMN mac INTEGER;"  \
	"ALTER TABLE vouched_state ADD COLUMN mac INTEGER;" \
	"ALTER TABLE key_generation ADD COLUMN mac INTEGER;" SIGN_ALL "PRAGMA user_version = 5;"

/* From each version on: what is still to come. */
static const char *const upgrades[STORE_SCHEMA] = {
	SCHEMA_1 SCHEMA_2 SCHEMA_3 SCHEMA_4 SCHEMA_5,
	SCHEMA_2 SCHEMA_3 SCHEMA_4 SCHEMA_5,
	SCHEMA_3 SCHEMA_4 SCHEMA_5,
	SCHEMA_4 SCHEMA_5,
	SCHEMA_5,
};

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

int schema_refuse_damaged(const char *path, const char *found, char why[1024])
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

int schema_refuse_lost(const char *path, const char *found, char why[1024])
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

/* With the owner, at once: half way, it would be taken for another's. */
static int write_owner(sqlite3 *db, const char *before, const char *after,
		       const struct store_owner *owner, const char *path, char why[1024])
{
	char id[2 * STORE_ID_LEN + 1];
	char *sql;
	int err;

	fan_hex(id, owner->id, STORE_ID_LEN);
	sql = sqlite3_mprintf("BEGIN IMMEDIATE; %s DELETE FROM owner; INSERT INTO owner VALUES "
			      "(x'%s'); %s COMMIT;",
			      before, id, after);
	if (!sql)
		return -ENOMEM;
	err = run_sql(db, sql, path, why);
	sqlite3_free(sql);
	return err ? err : 1;
}

static bool is_owned_by(sqlite3 *db, const struct store_owner *owner)
{
	char found[2 * STORE_ID_LEN + 2] = "", id[2 * STORE_ID_LEN + 1];

	fan_hex(id, owner->id, STORE_ID_LEN);
	query_text(db, "SELECT lower(hex(id)) FROM owner", found, sizeof(found));
	return strcmp(found, id) == 0;
}

static int take_version(sqlite3 *db, int version, const struct store_owner *owner, const char *path,
			char why[1024])
{
	bool ours = version >= 2 && is_owned_by(db, owner);

	/* of keys that are gone no token holds any more: fresh ones may take it over */
	if (version >= 2 && !ours && !owner->fresh)
		return schema_refuse_lost(path, "belongs to other keys than those beside it", why);
	if (version == STORE_SCHEMA)
		return ours ? 0 : write_owner(db, "", SIGN_ALL, owner, path, why);
	if (version)
		fan_log(FAN_LOG_INFO, "database",
			"is upgraded from schema %d to %d; with millions of vouched connections "
			"that takes a while",
			version, STORE_SCHEMA);
	return write_owner(db, upgrades[version], "", owner, path, why);
}

int schema_take(sqlite3 *db, const struct store_owner *owner, const char *path, char why[1024])
{
	char version[16] = "", tables[16] = "";

	if (query_text(db, "PRAGMA user_version", version, sizeof(version)) ||
	    query_text(db, "SELECT count(*) FROM sqlite_schema", tables, sizeof(tables)))
		return schema_refuse_damaged(path, sqlite3_errmsg(db), why);
	if (atoi(version) == 0 && atoi(tables) == 0 && !owner->fresh)
		return schema_refuse_lost(path, "is empty, though the keys beside it are there",
					  why);
	if (atoi(version) >= (atoi(tables) != 0) && atoi(version) <= STORE_SCHEMA)
		return take_version(db, atoi(version), owner, path, why);
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

int schema_check_tables(sqlite3 *db, const char *path, char why[1024])
{
	char found[256] = "", version[16] = "";
	const char *const *check;

	if (query_text(db, "PRAGMA user_version", version, sizeof(version)))
		return schema_refuse_damaged(path, sqlite3_errmsg(db), why);
	check = atoi(version) == STORE_SCHEMA ? checks : check_all;
	for (; *check; check++) {
		if (query_text(db, *check, found, sizeof(found)))
			return schema_refuse_damaged(path, sqlite3_errmsg(db), why);
		if (strcmp(found, "ok") != 0)
			return schema_refuse_damaged(path, found, why);
	}
	return 0;
}
