/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/audit.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/wire/handle.h"
#include "control/engine/store.h"

#define TRIM_EACH 1024 /* so many above a share before it is trimmed */
#define OFTEN_S	  10
#define OFTEN_MAX 16 /* keys that are told apart in that time */

/* What nobody can bring about at will is not washed away by what anybody can. */
#define ROUTINE "'register', 'end', 'token', 'grant'"
enum share { SHARE_ROUTINE, SHARE_DROP, SHARE_ID, SHARE_ADMINISTRATION, SHARE_CNT };
static const struct {
	const char *count, *trim;
	unsigned max;
} shares[SHARE_CNT] = {
#define SHARE(which, rows)                                                                         \
	{                                                                                          \
		"SELECT count(*) FROM audit WHERE event " which,                                   \
			"DELETE FROM audit WHERE row IN (SELECT row FROM audit WHERE event " which \
			" ORDER BY row LIMIT ?)",                                                  \
			rows                                                                       \
	}
	[SHARE_ROUTINE] = SHARE("IN (" ROUTINE ")", AUDIT_ROUTINE_MAX),
	[SHARE_DROP] = SHARE("= 'foreign_drop'", AUDIT_OTHER_MAX),
	[SHARE_ID] = SHARE("= 'connection_foreign'", AUDIT_OTHER_MAX),
	[SHARE_ADMINISTRATION] = SHARE("NOT IN (" ROUTINE ", 'foreign_drop', 'connection_foreign')",
				       AUDIT_OTHER_MAX),
};

/* What one asks for again and again: its first record is written at once, the rest is counted. */
struct often {
	uint8_t victim[FAN_HANDLE_LEN], foreign[FAN_HANDLE_LEN];
	uint32_t uid;
	uint64_t connection, cnt; /* since the first */
	char user[FAN_NAME_MAX + 1];
};

struct audit {
	struct store *store;
	sqlite3_stmt *insert, *newest, *after;
	sqlite3_stmt *count[SHARE_CNT], *trim[SHARE_CNT];
	int64_t rows[SHARE_CNT];
	uint64_t failures;     /* of the store when the rows were counted */
	uint64_t often_from_s; /* CLOCK_MONOTONIC */
	unsigned often_cnt;
	struct often often[OFTEN_MAX];
	uint64_t others; /* of further keys */
};

#define COLUMNS \
	"row, time_ms, event, victim, foreigner, source, count, user, connection, uid, detail"

static void count_rows(struct audit *audit)
{
	struct store_counts counts;

	store_counts(audit->store, &counts);
	audit->failures = counts.failures;
	for (unsigned i = 0; i < SHARE_CNT; i++) {
		if (sqlite3_step(audit->count[i]) == SQLITE_ROW)
			audit->rows[i] = sqlite3_column_int64(audit->count[i], 0);
		sqlite3_reset(audit->count[i]);
	}
}

static bool prepare(struct audit *audit)
{
	struct store *store = audit->store;

	audit->insert = store_prepare(
		store, "INSERT INTO audit (time_ms, event, victim, foreigner, source, count, user, "
		       "connection, uid, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	audit->newest = store_prepare(store, "SELECT * FROM (SELECT " COLUMNS
					     " FROM audit WHERE ?1 IS NULL OR event = ?1"
					     " ORDER BY row DESC LIMIT ?2) ORDER BY row");
	audit->after =
		store_prepare(store, "SELECT " COLUMNS " FROM audit WHERE row > ?3"
				     " AND (?1 IS NULL OR event = ?1) ORDER BY row LIMIT ?2");
	if (!audit->insert || !audit->newest || !audit->after)
		return false;
	for (unsigned i = 0; i < SHARE_CNT; i++) {
		audit->count[i] = store_prepare(store, shares[i].count);
		audit->trim[i] = store_prepare(store, shares[i].trim);
		if (!audit->count[i] || !audit->trim[i])
			return false;
	}
	return true;
}

int audit_open(struct store *store, struct audit **out, char why[1024])
{
	struct audit *audit = calloc(1, sizeof(*audit));

	if (!audit)
		return -ENOMEM;
	audit->store = store;
	if (!prepare(audit)) {
		snprintf(why, 1024,
			 "the table audit of the database cannot be used (the line above says "
			 "why): put back a copy of the database");
		free(audit);
		return -EIO;
	}
	count_rows(audit);
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

static enum share share_of(const char *event)
{
	static const char *const routine[] = {"register", "end", "token", "grant"};

	for (unsigned i = 0; i < sizeof(routine) / sizeof(routine[0]); i++)
		if (strcmp(event, routine[i]) == 0)
			return SHARE_ROUTINE;
	if (strcmp(event, "foreign_drop") == 0)
		return SHARE_DROP;
	return strcmp(event, "connection_foreign") == 0 ? SHARE_ID : SHARE_ADMINISTRATION;
}

static void trim(struct audit *audit, enum share share)
{
	struct store_counts counts;

	if (++audit->rows[share] <= shares[share].max + TRIM_EACH)
		return;
	store_counts(audit->store, &counts);
	if (counts.failures != audit->failures) /* some that were counted never came to be */
		count_rows(audit);
	if (audit->rows[share] <= shares[share].max)
		return;
	sqlite3_bind_int64(audit->trim[share], 1, audit->rows[share] - shares[share].max);
	if (store_write(audit->store, audit->trim[share]) == 0)
		audit->rows[share] = shares[share].max;
}

static int write_record(struct audit *audit, const struct audit_record *record)
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
		trim(audit, share_of(record->event));
	return err;
}

static uint64_t monotonic_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* Writes what was counted, and begins anew. */
static void flush_often(struct audit *audit)
{
	for (unsigned i = 0; i < audit->often_cnt; i++) {
		const struct often *often = &audit->often[i];
		struct audit_record record = {.event = "connection_foreign",
					      .victim = often->victim,
					      .foreign = often->foreign,
					      .user = often->user,
					      .connection = often->connection,
					      .uid = often->uid,
					      .cnt = often->cnt,
					      .detail = "asked so often more"};

		if (often->cnt)
			write_record(audit, &record);
	}
	if (audit->others) {
		struct audit_record record = {.event = "connection_foreign",
					      .uid = AUDIT_NO_UID,
					      .cnt = audit->others,
					      .detail = "further users, or for further ones"};

		write_record(audit, &record);
	}
	audit->often_cnt = 0;
	audit->others = 0;
}

static bool is_often(const struct often *often, const struct audit_record *record)
{
	return often->uid == record->uid &&
	       memcmp(often->victim, record->victim, FAN_HANDLE_LEN) == 0 &&
	       memcmp(often->foreign, record->foreign, FAN_HANDLE_LEN) == 0;
}

/* Anybody with a token can bring this about thousands of times a second. */
static int add_often(struct audit *audit, const struct audit_record *record)
{
	uint64_t now = monotonic_s();
	struct often *often;

	if (now - audit->often_from_s >= OFTEN_S) {
		flush_often(audit);
		audit->often_from_s = now;
	}
	for (unsigned i = 0; i < audit->often_cnt; i++) {
		if (is_often(&audit->often[i], record)) {
			audit->often[i].cnt++;
			return 0;
		}
	}
	if (audit->often_cnt == OFTEN_MAX) {
		audit->others++;
		return 0;
	}
	often = &audit->often[audit->often_cnt++];
	memcpy(often->victim, record->victim, FAN_HANDLE_LEN);
	memcpy(often->foreign, record->foreign, FAN_HANDLE_LEN);
	often->uid = record->uid;
	often->connection = record->connection;
	often->cnt = 0;
	snprintf(often->user, sizeof(often->user), "%s", record->user);
	return write_record(audit, record);
}

int audit_add(struct audit *audit, const struct audit_record *record)
{
	switch (share_of(record->event)) {
	case SHARE_ID:
		return add_often(audit, record);
	case SHARE_ADMINISTRATION: /* the last one of all is among these: nothing stays behind */
		flush_often(audit);
		break;
	default:
		break;
	}
	return write_record(audit, record);
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
	time_t seconds = ms / 1000 - (ms % 1000 < 0);
	char text[64], date[32];
	struct tm tm;

	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
	snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(ms - seconds * 1000));
	return json_string(text);
}

json_t *audit_list(struct audit *audit, const char *event, uint64_t after, unsigned limit)
{
	sqlite3_stmt *stmt = after ? audit->after : audit->newest;
	json_t *records = json_array();

	flush_often(audit);
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
