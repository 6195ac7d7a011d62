/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/audit.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/wire/handle.h"
#include "control/engine/store.h"

#define AUDIT_TRIM_EACH 1024 /* records between two trims */

struct audit {
	struct store *store;
	sqlite3_stmt *insert, *trim, *newest, *after;
	unsigned since_trim;
};

#define COLUMNS \
	"row, time_ms, event, victim, foreigner, source, count, user, connection, uid, detail"

int audit_open(struct store *store, struct audit **out)
{
	struct audit *audit = calloc(1, sizeof(*audit));

	if (!audit)
		return -ENOMEM;
	audit->store = store;
	audit->since_trim = AUDIT_TRIM_EACH;
	audit->insert = store_prepare(
		store, "INSERT INTO audit (time_ms, event, victim, foreigner, source, count, user, "
		       "connection, uid, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	audit->trim = store_prepare(
		store, "DELETE FROM audit WHERE row <= (SELECT max(row) FROM audit) - ?");
	audit->newest = store_prepare(store, "SELECT * FROM (SELECT " COLUMNS
					     " FROM audit WHERE ?1 IS NULL OR event = ?1"
					     " ORDER BY row DESC LIMIT ?2) ORDER BY row");
	audit->after =
		store_prepare(store, "SELECT " COLUMNS " FROM audit WHERE row > ?3"
				     " AND (?1 IS NULL OR event = ?1) ORDER BY row LIMIT ?2");
	if (!audit->insert || !audit->trim || !audit->newest || !audit->after) {
		free(audit);
		return -EIO;
	}
	*out = audit;
	return 0;
}

void audit_close(struct audit *audit)
{
	free(audit);
}

static void bind_handle(sqlite3_stmt *stmt, int column, const uint8_t *handle)
{
	if (handle)
		sqlite3_bind_blob(stmt, column, handle, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	else
		sqlite3_bind_null(stmt, column);
}

static void bind_text(sqlite3_stmt *stmt, int column, const char *text)
{
	sqlite3_bind_text(stmt, column, text, -1, SQLITE_TRANSIENT); /* NULL binds null */
}

static void trim(struct audit *audit)
{
	if (++audit->since_trim < AUDIT_TRIM_EACH)
		return;
	audit->since_trim = 0;
	sqlite3_bind_int(audit->trim, 1, AUDIT_ROWS_MAX);
	store_write(audit->store, audit->trim);
}

int audit_add(struct audit *audit, const struct audit_record *record)
{
	sqlite3_stmt *stmt = audit->insert;
	struct timespec now;
	char id[17];
	int err;

	clock_gettime(CLOCK_REALTIME, &now);
	sqlite3_bind_int64(stmt, 1, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	bind_text(stmt, 2, record->event);
	bind_handle(stmt, 3, record->victim);
	bind_handle(stmt, 4, record->foreign);
	bind_text(stmt, 5, record->source);
	if (record->cnt)
		sqlite3_bind_int64(stmt, 6, (int64_t)record->cnt);
	else
		sqlite3_bind_null(stmt, 6);
	bind_text(stmt, 7, record->user);
	fan_id_format(id, record->connection);
	bind_text(stmt, 8, record->connection ? id : NULL);
	if (record->uid != AUDIT_NO_UID)
		sqlite3_bind_int64(stmt, 9, record->uid);
	else
		sqlite3_bind_null(stmt, 9);
	bind_text(stmt, 10, record->detail);
	err = store_write(audit->store, stmt);
	if (!err)
		trim(audit);
	return err;
}

static json_t *column_handle(sqlite3_stmt *stmt, int column)
{
	char text[2 * FAN_HANDLE_LEN + 1];

	if (sqlite3_column_bytes(stmt, column) != FAN_HANDLE_LEN)
		return json_null();
	fan_hex(text, sqlite3_column_blob(stmt, column), FAN_HANDLE_LEN);
	return json_string(text);
}

static json_t *column_text(sqlite3_stmt *stmt, int column)
{
	const char *text = (const char *)sqlite3_column_text(stmt, column);
	json_t *value = text ? json_string(text) : NULL;

	return value ? value : json_null();
}

static json_t *column_number(sqlite3_stmt *stmt, int column)
{
	return sqlite3_column_type(stmt, column) == SQLITE_NULL
		       ? json_null()
		       : json_integer(sqlite3_column_int64(stmt, column));
}

static json_t *column_time(sqlite3_stmt *stmt, int column)
{
	int64_t ms = sqlite3_column_int64(stmt, column);
	time_t seconds = ms / 1000;
	char text[64], date[32];
	struct tm tm;

	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
	snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(ms % 1000));
	return json_string(text);
}

json_t *audit_list(struct audit *audit, const char *event, uint64_t after, unsigned limit)
{
	sqlite3_stmt *stmt = after ? audit->after : audit->newest;
	json_t *records = json_array();

	bind_text(stmt, 1, event);
	sqlite3_bind_int64(stmt, 2, limit);
	if (after)
		sqlite3_bind_int64(stmt, 3, (int64_t)after);
	while (sqlite3_step(stmt) == SQLITE_ROW)
		json_array_append_new(
			records,
			json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "row",
				  column_number(stmt, 0), "time", column_time(stmt, 1), "event",
				  column_text(stmt, 2), "victim", column_handle(stmt, 3), "foreign",
				  column_handle(stmt, 4), "source", column_text(stmt, 5), "count",
				  column_number(stmt, 6), "user", column_text(stmt, 7),
				  "connection", column_text(stmt, 8), "uid", column_number(stmt, 9),
				  "detail", column_text(stmt, 10)));
	sqlite3_reset(stmt);
	return records;
}
