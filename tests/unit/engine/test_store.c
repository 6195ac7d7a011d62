/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/engine/store.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;
static char path[128], why[1024];
static const struct store_owner ours = {.id = {1}, .fresh = true};

static void setup(void)
{
	fixture_init(&f);
	snprintf(path, sizeof(path), "%s/fanwire.db", f.dir);
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(store, .init = setup, .fini = teardown);

struct outcome {
	unsigned calls;
	int status;
};

static void on_done(void *arg, int status)
{
	struct outcome *outcome = arg;

	outcome->calls++;
	outcome->status = status;
}

static sqlite3_stmt *prepare(struct store *store)
{
	return store_prepare(store, "INSERT INTO publishers (name, salt, secret_hash, created) "
				    "VALUES (?, ?, x'00', 1)");
}

static int insert(struct store *store, sqlite3_stmt *stmt, const char *name, int salt_len)
{
	sqlite3_bind_text(stmt, 1, name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_zeroblob(stmt, 2, salt_len);
	return store_write(store, stmt);
}

static int count_rows(void)
{
	sqlite3_stmt *stmt;
	sqlite3 *db;
	int cnt;

	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db, "SELECT count(*) FROM publishers", -1, &stmt, NULL), 0);
	cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
	cnt = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return cnt;
}

Test(store, writes_of_a_turn_share_a_commit)
{
	struct outcome outcomes[100] = {0};
	struct store_counts counts;
	struct store *store;
	sqlite3_stmt *stmt;
	char name[16];

	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	stmt = prepare(store);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		cr_assert_eq(insert(store, stmt, name, 1), 0);
		store_on_durable(store, on_done, &outcomes[i]);
	}
	cr_assert_eq(outcomes[0].calls, 0, "told before the commit");
	cr_assert_eq(count_rows(), 0);
	event_base_loop(f.base, EVLOOP_ONCE);
	store_counts(store, &counts);
	cr_assert_eq(counts.commits, 1);
	cr_assert_eq(count_rows(), 100);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(outcomes[i].calls == 1 && outcomes[i].status == 0);
	store_close(store);
}

Test(store, what_nobody_waits_for_is_committed_too)
{
	struct store *store;

	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	cr_assert_eq(insert(store, prepare(store), "p", 1), 0);
	event_base_loop(f.base, EVLOOP_ONCE); /* the lazy commit's timer */
	cr_assert_eq(count_rows(), 1);
	store_close(store);
}

Test(store, a_constraint_refuses_one_write_alone)
{
	struct outcome outcome = {0};
	struct store *store;
	sqlite3_stmt *stmt;

	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	stmt = prepare(store);
	cr_assert_eq(insert(store, stmt, "p", 1), 0);
	cr_assert_eq(insert(store, stmt, "p", 1), -EEXIST);
	store_on_durable(store, on_done, &outcome);
	store_flush(store);
	cr_assert(outcome.calls == 1 && outcome.status == 0);
	cr_assert_eq(count_rows(), 1);
	store_close(store);
}

static void tell_and_die(void *arg, int status)
{
	char said = status ? 'n' : 'y';

	if (write(*(int *)arg, &said, 1) == 1)
		kill(getpid(), SIGKILL);
	_exit(1);
}

Test(store, what_was_acknowledged_survives_a_kill)
{
	int pipes[2], status;
	char said = 0;
	pid_t child;

	cr_assert_eq(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		struct event_base *base = event_base_new();
		struct store *store;

		if (store_open(&store, base, path, &ours, why) ||
		    insert(store, prepare(store), "p", 1))
			_exit(2);
		store_on_durable(store, tell_and_die, &pipes[1]);
		event_base_dispatch(base);
		_exit(3);
	}
	close(pipes[1]);
	cr_assert_eq(read(pipes[0], &said, 1), 1);
	cr_assert_eq(said, 'y');
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cr_assert_eq(count_rows(), 1);
	close(pipes[0]);
}

static void make_database(void)
{
	struct store *store;
	sqlite3_stmt *stmt;
	char name[16];

	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	stmt = prepare(store);
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		cr_assert_eq(insert(store, stmt, name, 512), 0);
	}
	store_close(store);
}

static void overwrite(off_t at, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	cr_assert_eq(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

Test(store, a_file_that_is_no_database_is_refused)
{
	struct store *store;

	make_database();
	overwrite(0, "this is no database at all", 26);
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), -EPROTO);
	cr_assert_not_null(strstr(why, "Put back a copy"), "%s", why);
}

Test(store, a_damaged_database_is_refused)
{
	char noise[4096];
	struct store *store;
	struct stat st;

	make_database();
	memset(noise, 0xa5, sizeof(noise));
	stat(path, &st);
	for (off_t at = 4096; at < st.st_size; at += 8192)
		overwrite(at, noise, sizeof(noise));
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), -EPROTO);
	cr_assert_not_null(strstr(why, "damaged"), "%s", why);
}

Test(store, another_schema_is_refused)
{
	struct store *store;
	sqlite3 *db;

	make_database();
	sqlite3_open(path, &db);
	sqlite3_exec(db, "PRAGMA user_version = 6", NULL, NULL, NULL);
	sqlite3_close(db);
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), -EPROTO);
	cr_assert_not_null(strstr(why, "schema 6"), "%s", why);
}

Test(store, a_full_disk_refuses_the_turn_and_hurts_nothing_else)
{
	struct outcome first = {0}, second = {0}, third = {0};
	struct store_counts counts;
	struct store *store;
	sqlite3_stmt *stmt;
	int err = 0;

	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("none", f.dir, "tmpfs", 0, "size=512k"), 0);
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	stmt = prepare(store);
	cr_assert_eq(insert(store, stmt, "small", 1), 0);
	store_on_durable(store, on_done, &first);
	store_flush(store);
	cr_assert_eq(first.status, 0);

	err = insert(store, stmt, "big", 1 << 20);
	store_on_durable(store, on_done, &second);
	store_flush(store);
	cr_assert(err == -ENOSPC || second.status == -ENOSPC, "%d, %d", err, second.status);
	store_counts(store, &counts);
	cr_assert_eq(counts.failures, 1);
	cr_assert_gt(strlen(store_why(store)), 0);

	cr_assert_eq(insert(store, stmt, "small again", 1), 0);
	store_on_durable(store, on_done, &third);
	store_flush(store);
	cr_assert(third.calls == 1 && third.status == 0);
	cr_assert_eq(count_rows(), 2);
	store_close(store);
	cr_assert_eq(umount(f.dir), 0);
}

static void remove_side_files(void)
{
	char side[160];

	snprintf(side, sizeof(side), "%s-wal", path);
	unlink(side);
	snprintf(side, sizeof(side), "%s-shm", path);
	unlink(side);
}

Test(store, one_that_was_lost_is_refused_while_the_keys_are_there)
{
	struct store_owner later = {.id = {1}};
	struct store *store;
	struct stat st;

	cr_assert_eq(store_open(&store, f.base, path, &later, why), -ENOTRECOVERABLE);
	cr_assert_not_null(strstr(why, "keys"), "%s", why);
	cr_assert_eq(stat(path, &st), -1, "what was lost looks like a first start");
	make_database();
	cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%s", why);
	store_close(store);
	cr_assert_eq(truncate(path, 0), 0);
	remove_side_files();
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(store_open(&store, f.base, path, &later, why), -ENOTRECOVERABLE);
		cr_assert_not_null(strstr(why, "empty"), "%s", why);
	}
}

Test(store, anothers_is_refused_and_taken_over_by_fresh_keys_alone)
{
	struct store_owner other = {.id = {2}};
	struct store *store;

	make_database();
	cr_assert_eq(store_open(&store, f.base, path, &other, why), -ENOTRECOVERABLE);
	cr_assert_not_null(strstr(why, "other keys"), "%s", why);
	other.fresh = true;
	cr_assert_eq(store_open(&store, f.base, path, &other, why), 0, "%s", why);
	store_close(store);
	other.fresh = false;
	cr_assert_eq(store_open(&store, f.base, path, &other, why), 0, "%s", why);
	store_close(store);
	cr_assert_eq(count_rows(), 200);
}

/* ---- older schemas, word for word ------------------------------------------------------------ */

static const char *const old_sql[] = {
	"PRAGMA journal_mode = WAL;"
	"CREATE TABLE users (handle BLOB PRIMARY KEY CHECK (length(handle) = 16), "
	"  name TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE publishers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, "
	"  user TEXT, salt BLOB NOT NULL, secret_hash BLOB NOT NULL, created INTEGER NOT NULL);"
	"CREATE TABLE audit (row INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, "
	"  event TEXT NOT NULL, victim BLOB, foreigner BLOB, source TEXT, count INTEGER, "
	"  user TEXT, connection TEXT, uid INTEGER, detail TEXT);"
	"INSERT INTO publishers VALUES (3, 'p', 'alice', zeroblob(16), zeroblob(32), 1);"
	"INSERT INTO users VALUES (x'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'alice', 3);"
	"INSERT INTO users VALUES (x'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'bob', 1);",
	"CREATE TABLE owner (id BLOB NOT NULL);"
	"INSERT INTO owner VALUES (x'01000000000000000000000000000000');",
	"CREATE TABLE vouched (row INTEGER PRIMARY KEY, id INTEGER NOT NULL, user TEXT NOT NULL, "
	"  generation INTEGER NOT NULL, address BLOB NOT NULL, port INTEGER NOT NULL, "
	"  since INTEGER NOT NULL);"
	"CREATE TABLE vouched_batch (batch INTEGER PRIMARY KEY AUTOINCREMENT, "
	"  first INTEGER NOT NULL, last INTEGER NOT NULL);"
	"CREATE TABLE vouched_open (work INTEGER PRIMARY KEY, first INTEGER NOT NULL, "
	"  last INTEGER NOT NULL, id INTEGER NOT NULL);"
	"CREATE TABLE vouched_state (region INTEGER NOT NULL, rules BLOB NOT NULL);"
	"CREATE INDEX users_revoked ON users (generation) WHERE generation > 1;"
	"INSERT INTO vouched VALUES (1, 161, 'alice', 3, x'c6120101', 5000, 1700000000);"
	"INSERT INTO vouched VALUES (2, 177, 'bob', 1, x'c6120102', 5000, 1700000000);"
	"INSERT INTO vouched_batch VALUES (9, 1, 2);"
	"INSERT INTO vouched_open VALUES (1, 1, 2, 0);"
	"INSERT INTO vouched_state VALUES (5, zeroblob(16));",
	"CREATE TABLE key_generation (generation INTEGER NOT NULL, next INTEGER NOT NULL, "
	"  since INTEGER NOT NULL);"
	"INSERT INTO key_generation VALUES (7, 8, 1700000000);",
};

static void old_database(unsigned version)
{
	char pragma[32];
	sqlite3 *db;

	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	for (unsigned i = 0; i < version; i++)
		cr_assert_eq(sqlite3_exec(db, old_sql[i], NULL, NULL, NULL), SQLITE_OK, "%s",
			     sqlite3_errmsg(db));
	snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %u", version);
	cr_assert_eq(sqlite3_exec(db, pragma, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static int64_t number(struct store *store, const char *sql)
{
	sqlite3_stmt *stmt = store_prepare(store, sql);
	int64_t value;

	cr_assert_not_null(stmt, "%s", sql);
	cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW, "%s", sql);
	value = sqlite3_column_int64(stmt, 0);
	sqlite3_reset(stmt);
	return value;
}

#define HOLD(table, mac) "SELECT count(*) FROM " table " WHERE " ROW_HOLDS(mac)

/* All that was there still is, and each row holds. */
static void check_upgraded(struct store *store, unsigned version)
{
	cr_assert_eq(number(store, "PRAGMA user_version"), 5);
	cr_assert_eq(number(store, HOLD("users", ROW_MAC_USERS)), 2);
	cr_assert_eq(number(store, "SELECT generation FROM users WHERE name = 'alice'"), 3);
	cr_assert_eq(number(store, HOLD("publishers", ROW_MAC_PUBLISHERS)), 1);
	cr_assert_eq(number(store, "SELECT id FROM publishers WHERE user = 'alice'"), 3);
	cr_assert_eq(number(store, HOLD("vouched", ROW_MAC_VOUCHED)), version >= 3 ? 2 : 0);
	cr_assert_eq(number(store, HOLD("vouched_batch", ROW_MAC_BATCH)), version >= 3);
	cr_assert_eq(number(store, HOLD("vouched_open", ROW_MAC_OPEN)), version >= 3);
	cr_assert_eq(number(store, HOLD("vouched_state", ROW_MAC_STATE)), version >= 3);
	cr_assert_eq(number(store, HOLD("key_generation", ROW_MAC_KEYS)), 1);
	cr_assert_eq(number(store, "SELECT generation FROM key_generation"), version == 4 ? 7 : 1);
	if (version >= 3)
		cr_assert_eq(number(store, "SELECT port FROM vouched WHERE user = 'bob'"), 5000);
}

Test(store, every_older_schema_is_upgraded_by_its_owner)
{
	struct store_owner later = {.id = {1}, .row_key = {5}}, other = {.id = {2}};

	for (unsigned version = 1; version <= 4; version++) {
		struct store *store;

		old_database(version);
		if (version > 1)
			cr_assert_eq(store_open(&store, f.base, path, &other, why),
				     -ENOTRECOVERABLE);
		for (unsigned i = 0; i < 2; i++) {
			cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%u: %s",
				     version, why);
			check_upgraded(store, version);
			store_close(store);
		}
		cr_assert_eq(store_open(&store, f.base, path, &other, why), -ENOTRECOVERABLE);
		remove_side_files();
		cr_assert_eq(unlink(path), 0);
	}
}

/* Its rows were signed by a key that is gone. */
Test(store, fresh_keys_sign_the_rows_that_they_take_over)
{
	struct store_owner later = {.id = {1}, .row_key = {5}};
	struct store_owner fresh = {.id = {2}, .row_key = {6}, .fresh = true};
	struct store *store;

	old_database(4);
	cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%s", why);
	store_close(store);
	later.row_key[0] = 6;
	cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%s", why);
	cr_assert_eq(number(store, HOLD("users", ROW_MAC_USERS)), 0, "the key does not matter");
	store_close(store);
	cr_assert_eq(store_open(&store, f.base, path, &fresh, why), 0, "%s", why);
	check_upgraded(store, 4);
	store_close(store);
}

/* A flipped bit of the version does not have what is there signed as it is. */
Test(store, a_version_that_lies_signs_nothing)
{
	struct store_owner later = {.id = {1}, .row_key = {5}};

	for (unsigned lie = 0; lie <= 4; lie++) {
		char sql[160];
		struct store *store;
		sqlite3 *db;

		old_database(4);
		cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%s", why);
		store_close(store);
		sqlite3_open(path, &db);
		snprintf(sql, sizeof(sql),
			 "UPDATE users SET generation = 1; PRAGMA user_version = %u", lie);
		cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
		sqlite3_close(db);
		cr_assert_lt(store_open(&store, f.base, path, &later, why), 0);
		remove_side_files();
		cr_assert_eq(unlink(path), 0);
	}
}

/* Commits in the -wal file: a frame that ends one tells the size of the database. */
static unsigned commits_in_wal(void)
{
	unsigned char page[4], frame[24];
	unsigned cnt = 0;
	char wal[160];
	off_t at = 32, size;
	int fd;

	snprintf(wal, sizeof(wal), "%s-wal", path);
	fd = open(wal, O_RDONLY);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pread(fd, page, sizeof(page), 8), (ssize_t)sizeof(page));
	size = page[0] << 24 | page[1] << 16 | page[2] << 8 | page[3];
	for (; pread(fd, frame, sizeof(frame), at) == (ssize_t)sizeof(frame);
	     at += (off_t)sizeof(frame) + size)
		cnt += (frame[4] | frame[5] | frame[6] | frame[7]) != 0;
	close(fd);
	return cnt;
}

/* Killed between two, it would be a database of nobody's, and refused. */
Test(store, the_first_schema_is_taken_over_at_once)
{
	struct store_owner later = {.id = {1}};
	struct store *store;
	sqlite3 *reader;

	old_database(1);
	sqlite3_open(path, &reader); /* keeps what is written in the -wal file */
	cr_assert_eq(
		sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM publishers", NULL, NULL, NULL),
		SQLITE_OK);
	cr_assert_eq(store_open(&store, f.base, path, &later, why), 0, "%s", why);
	cr_assert_eq(commits_in_wal(), 1);
	store_close(store);
	sqlite3_close(reader);
}

static void write_settled_and_die(int said)
{
	struct event_base *base = event_base_new();
	struct store *store;

	if (store_open(&store, base, path, &ours, why) || insert(store, prepare(store), "p", 1))
		_exit(2);
	store_settle(store);
	store_on_durable(store, tell_and_die, &said);
	event_base_dispatch(base);
	_exit(3);
}

Test(store, what_is_settled_does_not_depend_on_the_wal)
{
	int pipes[2], status;
	char said = 0;
	pid_t child;

	cr_assert_eq(pipe(pipes), 0);
	child = fork();
	if (child == 0)
		write_settled_and_die(pipes[1]);
	close(pipes[1]);
	cr_assert_eq(read(pipes[0], &said, 1), 1);
	cr_assert_eq(said, 'y');
	cr_assert_eq(waitpid(child, &status, 0), child);
	remove_side_files();
	cr_assert_eq(count_rows(), 1);
	close(pipes[0]);
}
