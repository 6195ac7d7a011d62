/* SPDX-License-Identifier: BSD-3-Clause */
/* Vouched connections end: an administrator removes them, or their user is revoked. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/store.h"
#include "control/engine/vouched_private.h"

#define REMOVE_AT_ONCE 8192

/* ---- removals -------------------------------------------------------------------------------- */

struct removal {
	struct registry_connection *connections; /* in the region */
	uint64_t *rows; /* each one's, also of those that are not in the region */
	unsigned cnt, region_cnt;
	unsigned damaged; /* of the rows: not as they were written */
};

static void remove_add(struct vouched *v, struct removal *removal, uint64_t id, uint64_t row)
{
	struct registry_connection *c = &removal->connections[removal->region_cnt];

	if (registry_connection(v->engine->registry, id, c) && c->vouched &&
	    c->state == FAN_CONNECTION_ACTIVE && (!row || vouched_row(c) == row)) {
		removal->region_cnt++;
		row = vouched_row(c);
	}
	if (row)
		removal->rows[removal->cnt++] = row;
}

/* Nothing but its number is to be believed: who is in the region from it is found by that. */
static void remove_damaged(struct vouched *v, struct removal *removal, uint64_t row)
{
	struct registry_connection c;
	uint32_t cursor = 0;

	removal->damaged++;
	while (registry_vouched_next(v->engine->registry, &cursor, &c))
		if (c.state == FAN_CONNECTION_ACTIVE && vouched_row(&c) == row) {
			remove_add(v, removal, c.id, row);
			return;
		}
	removal->rows[removal->cnt++] = row;
}

static void select_row(struct vouched *v, struct removal *removal, uint64_t row)
{
	char name[FAN_NAME_MAX + 1];
	struct vouch item;
	int found = rows_read(&v->rows, row, &item, name);

	if (found > 0)
		remove_add(v, removal, item.id, row);
	else if (found == -EPROTO)
		remove_damaged(v, removal, row);
}

static void select_user(struct vouched *v, struct removal *removal, const char *user, bool *more)
{
	uint64_t *ids = calloc(REMOVE_AT_ONCE, sizeof(*ids));
	uint8_t handle[FAN_HANDLE_LEN];
	unsigned cnt = 0;

	fan_handle(handle, user, strlen(user));
	if (ids)
		cnt = registry_user_connections(v->engine->registry, handle, ids, REMOVE_AT_ONCE);
	for (unsigned i = 0; i < cnt && i < REMOVE_AT_ONCE; i++)
		remove_add(v, removal, ids[i], 0);
	*more = cnt > REMOVE_AT_ONCE && removal->cnt;
	free(ids);
}

static int select_batch(struct vouched *v, struct removal *removal, uint64_t batch, bool *more)
{
	struct vouch *items = calloc(REMOVE_AT_ONCE, sizeof(*items));
	char(*names)[FAN_NAME_MAX + 1] = calloc(REMOVE_AT_ONCE, sizeof(*names));
	uint64_t first, last;
	int cnt = items && names ? rows_batch_find(&v->rows, batch, &first, &last) : -ENOMEM;

	if (cnt > 0)
		cnt = rows_run(&v->rows, first - 1, last, items, names, REMOVE_AT_ONCE);
	for (int i = 0; i < cnt; i++) {
		if (items[i].user)
			remove_add(v, removal, items[i].id, items[i].row);
		else
			remove_damaged(v, removal, items[i].row);
	}
	*more = cnt == REMOVE_AT_ONCE;
	free(items);
	free(names);
	return cnt < 0 ? cnt : 0;
}

static void on_status(void *arg, int status)
{
	*(int *)arg = status;
}

static int write_removal(struct vouched *v, const struct removal *removal,
			 const struct vouched_selection *selection, uint32_t uid, bool more)
{
	char detail[64] = "by id";
	struct audit_record record = {.event = "unvouch",
				      .cnt = removal->cnt,
				      .user = selection->user,
				      .connection = selection->id,
				      .uid = uid,
				      .detail = detail};
	int status = -EIO, err = 0;

	if (selection->user)
		snprintf(detail, sizeof(detail), "of a user");
	else if (selection->batch)
		snprintf(detail, sizeof(detail), "of batch %" PRIu64, selection->batch);
	else if (selection->row)
		snprintf(detail, sizeof(detail), "row %" PRIu64, selection->row);
	for (unsigned i = 0; i < removal->cnt && !err; i++)
		err = rows_remove(&v->rows, removal->rows[i]);
	for (unsigned i = 0; i < removal->region_cnt && !err; i++) {
		uint64_t row = vouched_row(&removal->connections[i]);

		err = rows_open_add(&v->rows, row, row, removal->connections[i].id);
	}
	if (!err && selection->batch && !more)
		err = rows_batch_remove(&v->rows, selection->batch);
	if (!err)
		err = audit_add(v->engine->audit, &record);
	if (err)
		store_undo(v->engine->store);
	store_settle(v->engine->store); /* who was removed does not come back with a lost -wal */
	store_on_durable(v->engine->store, on_status, &status);
	store_flush(v->engine->store);
	return err ? err : status;
}

/* Rows first, then the region; a crash between is made up for by what is noted beside the rows. */
void vouched_remove_now(struct vouched *v, const struct vouched_selection *selection, uint32_t uid,
			vouched_done done, void *arg)
{
	struct vouched_answer answer = {.status = 200};
	struct removal removal = {
		.connections = calloc(REMOVE_AT_ONCE, sizeof(*removal.connections)),
		.rows = calloc(REMOVE_AT_ONCE, sizeof(*removal.rows)),
	};
	int err = removal.connections && removal.rows ? 0 : -ENOMEM;

	store_flush(v->engine->store);
	if (!err && selection->batch)
		err = select_batch(v, &removal, selection->batch, &answer.more);
	else if (!err && selection->user)
		select_user(v, &removal, selection->user, &answer.more);
	else if (!err && selection->row)
		select_row(v, &removal, selection->row);
	else if (!err)
		remove_add(v, &removal, selection->id, 0);
	if (!err && removal.cnt)
		err = write_removal(v, &removal, selection, uid, answer.more);
	for (unsigned i = 0; i < removal.region_cnt && !err; i++)
		vouched_end(v, &removal.connections[i]);
	if (!err) {
		vouched_close_open_rows(v);
		vouched_damaged_removed(v, removal.damaged);
	}
	answer.removed = removal.cnt;
	if (err) {
		answer =
			(struct vouched_answer){.status = err == -ENOSPC ? 507 : 500,
						.error = err == -ENOSPC ? "disk_full" : "internal"};
		if (err == -EPROTO)
			snprintf(answer.message, sizeof(answer.message),
				 "batch %" PRIu64
				 " is not as it was written to the database: put back "
				 "a copy of it, or remove its connections by user or id",
				 selection->batch);
		else
			snprintf(answer.message, sizeof(answer.message),
				 "the database did not take the change: %.300s",
				 store_why(v->engine->store));
	}
	free(removal.connections);
	free(removal.rows);
	done(arg, &answer);
}

void vouched_remove(struct vouched *v, const struct vouched_selection *selection, uint32_t uid,
		    vouched_done done, void *arg)
{
	struct queued *call;

	if (vouched_refuse_loading(v, done, arg))
		return;
	if (!v->working) {
		vouched_remove_now(v, selection, uid, done, arg);
		return;
	}
	call = vouched_queue_up(v, uid, done, arg);
	if (!call)
		return;
	call->selection = *selection;
	if (selection->user)
		snprintf(call->user, sizeof(call->user), "%s", selection->user);
}

/* ---- revocations ----------------------------------------------------------------------------- */

/* Calls `each` for every vouched connection of a user that stands. */
typedef int (*on_each)(struct vouched *v, const struct registry_connection *c);
static int each_of_user(struct vouched *v, const uint8_t handle[FAN_HANDLE_LEN], on_each each)
{
	unsigned cnt = registry_user_connections(v->engine->registry, handle, NULL, 0);
	uint64_t *ids = calloc(cnt + 1, sizeof(*ids));
	struct registry_connection c;
	int err = ids ? 0 : -ENOMEM, called = 0;

	if (ids)
		registry_user_connections(v->engine->registry, handle, ids, cnt);
	for (unsigned i = 0; i < cnt && !err; i++)
		if (registry_connection(v->engine->registry, ids[i], &c) && c.vouched) {
			err = each(v, &c);
			called++;
		}
	free(ids);
	return err ? err : called;
}

static int remove_row(struct vouched *v, const struct registry_connection *c)
{
	int err = rows_remove(&v->rows, vouched_row(c));

	return err ? err : rows_open_add(&v->rows, vouched_row(c), vouched_row(c), c->id);
}

static int let_rest(struct vouched *v, const struct registry_connection *c)
{
	vouched_rest(v, c->id, vouched_mark(v, c));
	v->cnt--;
	return 0;
}

int vouched_revoke_rows(struct vouched *v, const uint8_t handle[FAN_HANDLE_LEN])
{
	int rc = each_of_user(v, handle, remove_row);

	for (uint32_t i = 0; i < v->work.cnt && rc >= 0; i++) {
		const struct vouch *item = &v->work.items[i];

		if (!item->done && memcmp(item->handle, handle, FAN_HANDLE_LEN) == 0)
			rc = rows_remove(&v->rows, item->row);
	}
	v->revoking++;
	return rc < 0 ? rc : 0;
}

unsigned vouched_on_revoked(struct vouched *v, const uint8_t handle[FAN_HANDLE_LEN], int status)
{
	int rested = 0;

	if (!status)
		rested = each_of_user(v, handle, let_rest);
	v->revoking--;
	return rested < 0 ? 0 : (unsigned)rested;
}

void vouched_revoke_done(struct vouched *v)
{
	vouched_close_open_rows(v);
}
