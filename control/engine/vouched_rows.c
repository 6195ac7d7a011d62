/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of vouched connections. Rows come in order of their number, at the table's end. */
#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "control/engine/row_mac.h"
#include "control/engine/store.h"
#include "control/engine/vouched_private.h"

#define COLUMNS "row, id, user, generation, address, port, since"
#define READ	"SELECT " COLUMNS ", " ROW_HOLDS(ROW_MAC_VOUCHED) " FROM vouched "
#define MAC	"row_mac('vouched', ?1, ?2, ?3, ?4, ?5, ?6, ?7)"

bool rows_prepare(struct vouched_rows *r, struct store *store)
{
	struct {
		sqlite3_stmt **stmt;
		const char *sql;
	} all[] = {
		{&r->insert, "INSERT INTO vouched (" COLUMNS ", mac) "
			     "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, " MAC ")"},
		{&r->move, "UPDATE vouched SET id = ?2, user = ?3, generation = ?4, "
			   "address = ?5, port = ?6, since = ?7, mac = " MAC " WHERE row = ?1"},
		{&r->remove, "DELETE FROM vouched WHERE row = ?"},
		{&r->remove_run, "DELETE FROM vouched WHERE row BETWEEN ? AND ?"},
		{&r->read, READ "WHERE row = ?"},
		{&r->run, READ "WHERE row > ? AND row <= ? ORDER BY row LIMIT ?"},
		{&r->max, "SELECT max(row) FROM vouched"},
		{&r->count, "SELECT count(*) FROM vouched"},
		{&r->batch_add, "INSERT INTO vouched_batch (first, last) VALUES (?, ?)"},
		{&r->batch_sign, "UPDATE vouched_batch SET mac = " ROW_MAC_BATCH
				 " WHERE batch = last_insert_rowid()"},
		{&r->batch_find, "SELECT first, last, " ROW_HOLDS(
					 ROW_MAC_BATCH) " FROM vouched_batch WHERE batch = ?"},
		{&r->batch_remove, "DELETE FROM vouched_batch WHERE batch = ?"},
		{&r->open_add, "INSERT INTO vouched_open (first, last, id) VALUES (?, ?, ?)"},
		{&r->open_sign,
		 "UPDATE vouched_open SET mac = " ROW_MAC_OPEN " WHERE work = last_insert_rowid()"},
		{&r->open_list, "SELECT first, last, id, " ROW_HOLDS(
					ROW_MAC_OPEN) " FROM vouched_open ORDER BY work"},
		{&r->open_clear, "DELETE FROM vouched_open"},
		{&r->state_read, "SELECT region, rules FROM vouched_state "
				 "WHERE " ROW_HOLDS(ROW_MAC_STATE)},
		{&r->state_clear, "DELETE FROM vouched_state"},
		{&r->state_write, "INSERT INTO vouched_state (region, rules, mac) "
				  "VALUES (?1, ?2, row_mac('vouched_state', ?1, ?2))"},
	};

	r->store = store;
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		*all[i].stmt = store_prepare(store, all[i].sql);
		if (!*all[i].stmt)
			return false;
	}
	return true;
}

/* First column of the first row; 0 where there is none. */
static uint64_t number(sqlite3_stmt *stmt)
{
	int64_t value = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;

	sqlite3_reset(stmt);
	return (uint64_t)value;
}

uint64_t rows_max(struct vouched_rows *r)
{
	return number(r->max);
}

uint64_t rows_count(struct vouched_rows *r)
{
	return number(r->count);
}

/* ---- one row --------------------------------------------------------------------------------- */

/* The family's own bytes. */
static void bind_address(sqlite3_stmt *stmt, int column, const struct message_address *address)
{
	if (address->family == 4)
		sqlite3_bind_blob(stmt, column, address->bytes + 12, 4, SQLITE_STATIC);
	else
		sqlite3_bind_blob(stmt, column, address->bytes, 16, SQLITE_STATIC);
}

static int write_row(struct vouched_rows *r, sqlite3_stmt *stmt, const struct vouch *item)
{
	sqlite3_bind_int64(stmt, 1, (int64_t)item->row);
	sqlite3_bind_int64(stmt, 2, (int64_t)item->id);
	sqlite3_bind_text(stmt, 3, item->user, item->user_len, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 4, item->generation);
	bind_address(stmt, 5, &item->address);
	sqlite3_bind_int(stmt, 6, item->address.port);
	sqlite3_bind_int64(stmt, 7, (int64_t)item->since_s);
	return store_write(r->store, stmt);
}

int rows_insert(struct vouched_rows *r, const struct vouch *item)
{
	return write_row(r, r->insert, item);
}

int rows_move(struct vouched_rows *r, const struct vouch *item)
{
	return write_row(r, r->move, item);
}

int rows_remove(struct vouched_rows *r, uint64_t row)
{
	sqlite3_bind_int64(r->remove, 1, (int64_t)row);
	return store_write(r->store, r->remove);
}

int rows_remove_run(struct vouched_rows *r, uint64_t first, uint64_t last)
{
	sqlite3_bind_int64(r->remove_run, 1, (int64_t)first);
	sqlite3_bind_int64(r->remove_run, 2, (int64_t)last);
	return store_write(r->store, r->remove_run);
}

static bool take_address(sqlite3_stmt *stmt, int column, struct message_address *address)
{
	const void *bytes = sqlite3_column_blob(stmt, column);
	int len = sqlite3_column_bytes(stmt, column);

	if (!bytes || (len != 4 && len != 16))
		return false;
	address->family = len == 4 ? 4 : 6;
	memset(address->bytes, 0, sizeof(address->bytes));
	if (len == 4)
		memset(address->bytes + 10, 0xff, 2);
	memcpy(address->bytes + 16 - len, bytes, (size_t)len);
	return true;
}

/* The file is ours, but a disk may have hurt it: of a row that is not as it was written its number
 * alone counts, which is where it stands. */
static int take_row(sqlite3_stmt *stmt, struct vouch *item, char name[FAN_NAME_MAX + 1])
{
	int64_t row = sqlite3_column_int64(stmt, 0), id = sqlite3_column_int64(stmt, 1);
	const char *user = (const char *)sqlite3_column_text(stmt, 2);
	int user_len = sqlite3_column_bytes(stmt, 2), port = sqlite3_column_int(stmt, 5);
	int64_t generation = sqlite3_column_int64(stmt, 3);

	*item = (struct vouch){.row = (uint64_t)row,
			       .id = (uint64_t)id,
			       .generation = (uint32_t)generation,
			       .since_s = (uint64_t)sqlite3_column_int64(stmt, 6)};
	if (!sqlite3_column_int(stmt, 7) || row < 1 || row > ROW_MAX || id < 1 ||
	    item->id & ~FAN_CONNECTION_ID_MASK || !user || user_len < 1 ||
	    user_len > FAN_NAME_MAX || generation < 1 || generation > UINT32_MAX || port < 1 ||
	    port > UINT16_MAX || !take_address(stmt, 4, &item->address))
		return -EPROTO;
	item->address.port = (uint16_t)port;
	memcpy(name, user, (size_t)user_len);
	name[user_len] = '\0';
	item->user = name;
	item->user_len = (uint8_t)user_len;
	return 1;
}

int rows_read(struct vouched_rows *r, uint64_t row, struct vouch *item, char name[FAN_NAME_MAX + 1])
{
	int rc, found = 0;

	sqlite3_bind_int64(r->read, 1, (int64_t)row);
	rc = sqlite3_step(r->read);
	if (rc == SQLITE_ROW)
		found = take_row(r->read, item, name);
	else if (rc != SQLITE_DONE)
		found = -EIO;
	sqlite3_reset(r->read);
	return found;
}

int rows_run(struct vouched_rows *r, uint64_t after, uint64_t last, struct vouch *items,
	     char (*names)[FAN_NAME_MAX + 1], unsigned max)
{
	unsigned cnt = 0;
	int rc;

	sqlite3_bind_int64(r->run, 1, (int64_t)after);
	sqlite3_bind_int64(r->run, 2, (int64_t)last);
	sqlite3_bind_int64(r->run, 3, max);
	while ((rc = sqlite3_step(r->run)) == SQLITE_ROW && cnt < max) {
		if (take_row(r->run, &items[cnt], names[cnt]) < 0)
			items[cnt].user = NULL;
		if (items[cnt].row <= after || items[cnt].row > last)
			break; /* the pages are not in order: it would never end */
		after = items[cnt++].row;
	}
	sqlite3_reset(r->run);
	return rc == SQLITE_DONE || (rc == SQLITE_ROW && cnt == max) ? (int)cnt : -EIO;
}

/* ---- batches --------------------------------------------------------------------------------- */

int rows_batch_add(struct vouched_rows *r, uint64_t first, uint64_t last, uint64_t *batch)
{
	int err;

	sqlite3_bind_int64(r->batch_add, 1, (int64_t)first);
	sqlite3_bind_int64(r->batch_add, 2, (int64_t)last);
	err = store_write(r->store, r->batch_add);
	*batch = err ? 0 : (uint64_t)store_last_row(r->store);
	return err ? err : store_write(r->store, r->batch_sign);
}

int rows_batch_find(struct vouched_rows *r, uint64_t batch, uint64_t *first, uint64_t *last)
{
	int found = 0;

	sqlite3_bind_int64(r->batch_find, 1, (int64_t)batch);
	if (sqlite3_step(r->batch_find) == SQLITE_ROW) {
		*first = (uint64_t)sqlite3_column_int64(r->batch_find, 0);
		*last = (uint64_t)sqlite3_column_int64(r->batch_find, 1);
		found = sqlite3_column_int(r->batch_find, 2) ? 1 : -EPROTO;
	}
	sqlite3_reset(r->batch_find);
	return found;
}

int rows_batch_remove(struct vouched_rows *r, uint64_t batch)
{
	sqlite3_bind_int64(r->batch_remove, 1, (int64_t)batch);
	return store_write(r->store, r->batch_remove);
}

/* ---- what the region may not have yet -------------------------------------------------------- */

int rows_open_add(struct vouched_rows *r, uint64_t first, uint64_t last, uint64_t id)
{
	int err;

	sqlite3_bind_int64(r->open_add, 1, (int64_t)first);
	sqlite3_bind_int64(r->open_add, 2, (int64_t)last);
	sqlite3_bind_int64(r->open_add, 3, (int64_t)id);
	err = store_write(r->store, r->open_add);
	return err ? err : store_write(r->store, r->open_sign);
}

int rows_open_each(struct vouched_rows *r, rows_on_open each, void *arg)
{
	int rc, err = 0;

	while (!err && (rc = sqlite3_step(r->open_list)) == SQLITE_ROW)
		err = !sqlite3_column_int(r->open_list, 3)
			      ? -EPROTO
			      : each(arg, (uint64_t)sqlite3_column_int64(r->open_list, 0),
				     (uint64_t)sqlite3_column_int64(r->open_list, 1),
				     (uint64_t)sqlite3_column_int64(r->open_list, 2));
	sqlite3_reset(r->open_list);
	return err ? err : rc == SQLITE_DONE ? 0 : -EIO;
}

int rows_open_clear(struct vouched_rows *r)
{
	return store_write(r->store, r->open_clear);
}

bool rows_state(struct vouched_rows *r, uint64_t *region, uint8_t rules[FAN_HANDLE_LEN])
{
	bool found = sqlite3_step(r->state_read) == SQLITE_ROW &&
		     sqlite3_column_bytes(r->state_read, 1) == FAN_HANDLE_LEN;

	*region = found ? (uint64_t)sqlite3_column_int64(r->state_read, 0) : 0;
	if (found)
		memcpy(rules, sqlite3_column_blob(r->state_read, 1), FAN_HANDLE_LEN);
	else
		memset(rules, 0, FAN_HANDLE_LEN);
	sqlite3_reset(r->state_read);
	return found;
}

int rows_state_write(struct vouched_rows *r, uint64_t region, const uint8_t rules[FAN_HANDLE_LEN])
{
	int err = store_write(r->store, r->state_clear);

	sqlite3_bind_int64(r->state_write, 1, (int64_t)region);
	sqlite3_bind_blob(r->state_write, 2, rules, FAN_HANDLE_LEN, SQLITE_TRANSIENT);
	return err ? err : store_write(r->store, r->state_write);
}
