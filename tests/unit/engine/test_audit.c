/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/store.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;
static struct store *store;
static struct audit *audit;
static char path[128], why[1024];
static const struct store_owner ours = {.id = {1}, .fresh = true};

static void setup(void)
{
	fixture_init(&f);
	snprintf(path, sizeof(path), "%s/fanwire.db", f.dir);
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	cr_assert_eq(audit_open(store, &audit, why), 0, "%s", why);
}

static void teardown(void)
{
	store_close(store);
	audit_close(audit);
	fixture_fini(&f);
}

TestSuite(audit, .init = setup, .fini = teardown);

static void add(const char *event, unsigned cnt)
{
	struct audit_record record = {.event = event, .user = "alice", .uid = 1};

	for (unsigned i = 0; i < cnt; i++)
		cr_assert_eq(audit_add(audit, &record), 0);
}

static size_t kept(const char *event)
{
	json_t *records = audit_list(audit, event, 0, 1000000);
	size_t cnt = json_array_size(records);

	json_decref(records);
	return cnt;
}

static void expect_share(const char *event, size_t max)
{
	cr_assert(kept(event) >= max && kept(event) <= max + 1024, "%s: %zu", event, kept(event));
}

Test(audit, what_anybody_brings_about_washes_out_nothing_else, .timeout = 60)
{
	add("start", 1);
	add("publisher_add", 3);
	add("foreign_drop", 5);
	add("register", AUDIT_ROUTINE_MAX + 5000);
	cr_assert_eq(kept("start"), 1);
	cr_assert_eq(kept("publisher_add"), 3);
	cr_assert_eq(kept("foreign_drop"), 5);
	expect_share("register", AUDIT_ROUTINE_MAX);
	add("foreign_drop", AUDIT_OTHER_MAX + 5000);
	expect_share("foreign_drop", AUDIT_OTHER_MAX);
	cr_assert_eq(kept("start"), 1);
	add("disconnect", AUDIT_OTHER_MAX + 5000);
	expect_share("disconnect", AUDIT_OTHER_MAX);
	expect_share("register", AUDIT_ROUTINE_MAX);
	cr_assert_eq(kept("start"), 0, "administration has a share of its own");
}

static void ask_foreign(unsigned user, unsigned cnt)
{
	uint8_t victim[FAN_HANDLE_LEN] = {1}, asker[FAN_HANDLE_LEN] = {(uint8_t)user};
	struct audit_record record = {.event = "connection_foreign",
				      .victim = victim,
				      .foreign = asker,
				      .user = "mallory",
				      .connection = 7,
				      .uid = 1};

	for (unsigned i = 0; i < cnt; i++)
		cr_assert_eq(audit_add(audit, &record), 0);
}

/* Records of it, and how many requests they stand for. */
static size_t foreign(json_int_t *requests)
{
	json_t *records = audit_list(audit, "connection_foreign", 0, 1000), *record;
	size_t i, cnt = json_array_size(records);

	*requests = 0;
	json_array_foreach (records, i, record) {
		const json_t *number = json_object_get(record, "count");

		*requests += json_is_integer(number) ? json_integer_value(number) : 1;
	}
	json_decref(records);
	return cnt;
}

Test(audit, requests_for_anothers_connection_are_counted)
{
	json_int_t requests;

	ask_foreign(2, 5000);
	cr_assert_eq(foreign(&requests), 2);
	cr_assert_eq(requests, 5000);
	for (unsigned user = 10; user < 110; user++)
		ask_foreign(user, 10);
	cr_assert_eq(foreign(&requests), 2 + 2 * 16 + 1);
	cr_assert_eq(requests, 6000, "some were lost: %lld", (long long)requests);
}

Test(audit, what_was_counted_is_written_before_the_stop)
{
	sqlite3_stmt *stmt;
	sqlite3 *db;

	ask_foreign(2, 10);
	add("stop", 1);
	store_flush(store);
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db,
					"SELECT sum(coalesce(count, 1)) FROM audit "
					"WHERE event = 'connection_foreign'",
					-1, &stmt, NULL),
		     SQLITE_OK);
	cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
	cr_assert_eq(sqlite3_column_int(stmt, 0), 10);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
}

/* Changes the closed database as somebody with a tool of their own would. */
static void change_database(const char *sql)
{
	sqlite3 *db;

	store_close(store);
	audit_close(audit);
	store = NULL;
	audit = NULL;
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

Test(audit, a_table_that_is_not_there_is_said)
{
	change_database("DROP TABLE audit");
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), -EPROTO);
	cr_assert_not_null(strstr(why, "no such table: audit"), "%s", why);
	cr_assert_not_null(strstr(why, "copy"), "%s", why);
}

Test(audit, a_table_of_other_columns_is_said)
{
	change_database("ALTER TABLE audit RENAME COLUMN source TO origin");
	cr_assert_eq(store_open(&store, f.base, path, &ours, why), 0, "%s", why);
	cr_assert_eq(audit_open(store, &audit, why), -EIO);
	cr_assert_not_null(strstr(why, "table audit"), "%s", why);
	cr_assert_not_null(strstr(why, "copy"), "%s", why);
}
