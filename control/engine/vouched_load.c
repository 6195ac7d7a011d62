/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * At start: a region that has all of the rows is believed, but for what a crash may have cut off;
 * any other is filled from the database while everything else is served already.
 */
#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/nexthop.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouched_private.h"

#define SLICE_ROWS   1024 /* between two looks at everything else: some milliseconds */
#define WAIT_MS	     5	  /* for the dataplane to let go of something */
#define DAMAGED_TOLD 100  /* rows; of more there is no use to read */

static uint64_t region_epoch(const struct vouched *v)
{
	/* SQLite's integers are signed */
	return registry_root(v->engine->registry)->header.creation_epoch & INT64_MAX;
}

/* Handle, mark and next hop: what a row does not say. -ESTALE: its user was revoked since. */
static int complete(struct vouched *v, struct vouch *item, char why[MESSAGE_REASON_MAX])
{
	int err;

	err = fan_handle(item->handle, item->user, item->user_len);
	if (err)
		return err;
	if (users_generation(v->engine->users, item->handle) != item->generation)
		return -ESTALE;
	item->mark = places_mark(&v->places, item->address.bytes, item->address.port);
	return nexthops_get_bulk(v->engine->nexthops, &item->address, &item->hop, why);
}

/* ---- loading --------------------------------------------------------------------------------- */

static void load_fail(struct vouched *v, int err)
{
	snprintf(v->load_failed, sizeof(v->load_failed),
		 "the table vouched cannot be read behind row %" PRIu64
		 " (%s): put back a copy of the database; what was loaded is served",
		 v->load_row, strerror(-err));
	fan_log(FAN_LOG_ERROR, "vouched", "%s", v->load_failed);
}

/* The others are served; and each start tells of them, until it is put right. */
static void tell_damaged(struct vouched *v, uint64_t row)
{
	if (!v->damaged++)
		v->first_damaged = row;
	if (v->damaged <= DAMAGED_TOLD)
		fan_log(FAN_LOG_ERROR, "vouched",
			"row %" PRIu64
			" of the table vouched is not as it was written, and not served",
			row);
	snprintf(v->load_failed, sizeof(v->load_failed),
		 "%" PRIu64
		 " of the rows of the table vouched are not as they were written, and not "
		 "served; the first is row %" PRIu64
		 ", the log names more: put back a copy of the database, or remove "
		 "each: fanwirectl vouched remove --row %" PRIu64 "; all others are served",
		 v->damaged, v->first_damaged, v->first_damaged);
}

void vouched_damaged_removed(struct vouched *v, unsigned cnt)
{
	uint8_t rules[FAN_HANDLE_LEN];

	if (!cnt || !v->damaged)
		return;
	v->damaged -= cnt < v->damaged ? cnt : v->damaged;
	if (v->damaged || v->loading)
		return;
	v->load_failed[0] = '\0';
	vouched_rules(v->engine->config, rules);
	rows_state_write(&v->rows, region_epoch(v), rules);
}

static void load_end(struct vouched *v)
{
	uint8_t rules[FAN_HANDLE_LEN];
	char detail[128];
	struct audit_record record = {
		.event = "vouched_loaded", .uid = AUDIT_NO_UID, .cnt = v->loaded, .detail = detail};

	vouched_rules(v->engine->config, rules);
	if (!v->working && !v->revoking)
		rows_open_clear(&v->rows);
	if (!v->load_failed[0]) /* else it is tried again at each start */
		rows_state_write(&v->rows, region_epoch(v), rules);
	v->loading = false;
	if (!v->loaded)
		return;
	snprintf(detail, sizeof(detail), "from the database into a new table; %" PRIu64 " were not",
		 v->to_load > v->loaded ? v->to_load - v->loaded : 0);
	audit_add(v->engine->audit, &record);
	fan_log(FAN_LOG_INFO, "vouched", "%" PRIu64 " connections loaded", v->loaded);
}

/* The row goes, and whom the region may have of it: what it stands for holds no more. */
static void drop_row(struct vouched *v, const struct vouch *item, const char *why)
{
	struct registry_connection c;

	fan_log(FAN_LOG_WARNING, "vouched",
		"connection %016" PRIx64 " of row %" PRIu64 " is removed: %s", item->id, item->row,
		why);
	rows_remove(&v->rows, item->row);
	if (registry_connection(v->engine->registry, item->id, &c) && c.vouched &&
	    c.state != FAN_CONNECTION_ENDING && vouched_row(&c) == item->row)
		vouched_end(v, &c);
}

/* False: to be tried again, when something was let go of. */
static bool load_row(struct vouched *v, struct vouch *item)
{
	char why[256], no_way[MESSAGE_REASON_MAX] = "";
	int err;

	if (!item->user) {
		tell_damaged(v, item->row);
		return true;
	}
	if (!vouched_place_ok(v->engine->config, &item->address, why)) {
		drop_row(v, item, why);
		return true;
	}
	err = complete(v, item, no_way);
	if (err == -ESTALE) {
		drop_row(v, item, "its user was revoked");
		return true;
	}
	if (!err)
		err = vouched_apply(v, item);
	if (err == -EAGAIN)
		return false;
	if (err)
		fan_log(FAN_LOG_ERROR, "vouched",
			"connection %016" PRIx64 " of row %" PRIu64 " is not served: %s", item->id,
			item->row, no_way[0] ? no_way : strerror(-err));
	v->loaded += !err;
	return true;
}

static void load_slice(struct vouched *v)
{
	static const struct timeval at_once, later = {.tv_usec = WAIT_MS * 1000};
	struct vouch *items = calloc(SLICE_ROWS, sizeof(*items));
	char(*names)[FAN_NAME_MAX + 1] = malloc(SLICE_ROWS * sizeof(*names));
	int cnt = items && names
			  ? rows_run(&v->rows, v->load_row, ROW_MAX, items, names, SLICE_ROWS)
			  : -ENOMEM;
	int done = 0;

	for (int i = 0; i < cnt; i++) {
		items[i].mark =
			places_mark(&v->places, items[i].address.bytes, items[i].address.port);
		places_prefetch(&v->places, items[i].mark);
	}
	while (done < cnt && load_row(v, &items[done]))
		v->load_row = items[done++].row;
	free(items);
	free(names);
	if (cnt < 0)
		load_fail(v, cnt);
	else if (cnt == 0)
		load_end(v);
	else
		evtimer_add(v->on_load, done < cnt ? &later : &at_once);
}

static void on_load(evutil_socket_t fd, short what, void *arg)
{
	load_slice(arg);
}

static int load_begin(struct vouched *v)
{
	struct timeval at_once = {0};

	v->loading = true;
	v->damaged = 0; /* looked for anew */
	v->load_failed[0] = '\0';
	v->to_load = rows_count(&v->rows);
	if (!v->to_load) {
		load_end(v);
		return 0;
	}
	fan_log(FAN_LOG_INFO, "vouched", "loading %" PRIu64 " connections from the database",
		v->to_load);
	v->on_load = evtimer_new(v->engine->base, on_load, v);
	return v->on_load && evtimer_add(v->on_load, &at_once) == 0 ? 0 : -ENOMEM;
}

/* ---- after a crash --------------------------------------------------------------------------- */

struct mending {
	struct vouched *v;
	uint32_t room;
};

static int mend_add(struct mending *m, struct vouch *item)
{
	struct work *work = &m->v->work;
	char why[MESSAGE_REASON_MAX] = "";
	int err = complete(m->v, item, why);

	if (err == -ESTALE) {
		drop_row(m->v, item, "its user was revoked");
		return 0;
	}
	if (err) { /* it is served again when a region is filled anew */
		fan_log(FAN_LOG_ERROR, "vouched", "connection %016" PRIx64 " is not served: %s",
			item->id, why[0] ? why : strerror(-err));
		return 0;
	}
	if (work->cnt == m->room) {
		uint32_t room = m->room ? 2 * m->room : 1024;
		struct vouch *items = realloc(work->items, room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		work->items = items;
		m->room = room;
	}
	item->user = NULL;
	work->items[work->cnt++] = *item;
	work->left++;
	return 0;
}

/* The region must not have it any more. */
static void mend_end(struct vouched *v, const struct registry_connection *c)
{
	fan_log(FAN_LOG_INFO, "vouched", "connection %016" PRIx64 ": its end is made up for",
		c->id);
	vouched_end(v, c);
}

/* Rows of a run that are gone: whoever the region has of them goes, too. */
static void mend_gone(struct vouched *v, uint64_t first, uint64_t last)
{
	struct registry_connection c;
	char name[FAN_NAME_MAX + 1];
	struct vouch item;
	uint32_t cursor = 0;

	while (registry_vouched_next(v->engine->registry, &cursor, &c))
		if (c.state != FAN_CONNECTION_ENDING && vouched_row(&c) >= first &&
		    vouched_row(&c) <= last &&
		    rows_read(&v->rows, vouched_row(&c), &item, name) == 0)
			mend_end(v, &c);
}

static int mend_run(struct mending *m, uint64_t first, uint64_t last)
{
	struct vouch *items = calloc(SLICE_ROWS, sizeof(*items));
	char(*names)[FAN_NAME_MAX + 1] = malloc(SLICE_ROWS * sizeof(*names));
	uint64_t after = first - 1, found = 0;
	int cnt = items && names ? 1 : -ENOMEM, err = 0;

	while (cnt > 0 && !err) {
		cnt = rows_run(&m->v->rows, after, last, items, names, SLICE_ROWS);
		for (int i = 0; i < cnt && !err; i++) {
			if (items[i].user)
				err = mend_add(m, &items[i]);
			else
				tell_damaged(m->v, items[i].row);
		}
		found += cnt > 0 ? (uint64_t)cnt : 0;
		after = cnt > 0 ? items[cnt - 1].row : after;
	}
	free(items);
	free(names);
	if (!err && cnt == 0 && found != last - first + 1)
		mend_gone(m->v, first, last);
	return err ? err : cnt;
}

static int mend_one(struct mending *m, uint64_t row, uint64_t id)
{
	struct registry_connection c;
	char name[FAN_NAME_MAX + 1];
	struct vouch item;
	int found = rows_read(&m->v->rows, row, &item, name);

	if (found == -EPROTO) {
		tell_damaged(m->v, row);
		return 0;
	}
	if (found < 0)
		return found;
	if (found)
		return mend_add(m, &item);
	if (registry_connection(m->v->engine->registry, id, &c) && c.vouched &&
	    c.state != FAN_CONNECTION_ENDING && vouched_row(&c) == row)
		mend_end(m->v, &c);
	return 0;
}

static int on_open_row(void *arg, uint64_t first, uint64_t last, uint64_t id)
{
	return id ? mend_one(arg, first, id) : mend_run(arg, first, last);
}

/* What was durable and may not be in the region; or is gone and may be in it yet. */
static int mend(struct vouched *v)
{
	struct mending m = {.v = v};
	int err = rows_open_each(&v->rows, on_open_row, &m);
	struct registry_connection c;
	uint32_t cursor = 0;

	if (err == -EPROTO && !registry_vouched_next(v->engine->registry, &cursor, &c))
		err = 0; /* a new region: nothing in it is to be made up for */
	if (err)
		return err;
	if (!v->work.left) {
		rows_open_clear(&v->rows);
		return 0;
	}
	fan_log(FAN_LOG_INFO, "vouched", "%u connections of the last run are looked at again",
		v->work.left);
	vouched_know_places(v, UINT32_MAX);
	v->work.uid = AUDIT_NO_UID;
	v->working = true;
	vouched_work(v, v->engine->started);
	return 0;
}

/* The configuration vouches for other places than it did: those that are none any more end. */
static void judge_anew(struct vouched *v)
{
	struct audit_record record = {
		.event = "unvouch", .uid = AUDIT_NO_UID, .detail = "the configuration has changed"};
	struct registry_connection c;
	struct message_address place;
	uint32_t cursor = 0;
	char why[256];

	while (registry_vouched_next(v->engine->registry, &cursor, &c)) {
		place.family = c.family;
		place.port = c.port;
		memcpy(place.bytes, c.address, sizeof(place.bytes));
		if (c.state == FAN_CONNECTION_ENDING ||
		    vouched_place_ok(v->engine->config, &place, why))
			continue;
		if (!record.cnt++)
			fan_log(FAN_LOG_WARNING, "vouched",
				"the configuration has changed, and connections end: %s", why);
		rows_remove(&v->rows, vouched_row(&c));
		rows_open_add(&v->rows, vouched_row(&c), vouched_row(&c), c.id);
		vouched_end(v, &c);
	}
	if (record.cnt)
		audit_add(v->engine->audit, &record);
}

int vouched_load_open(struct vouched *v, char why[1024])
{
	uint8_t rules[FAN_HANDLE_LEN], known[FAN_HANDLE_LEN];
	uint64_t region;
	int err = 0;

	v->next_row = rows_max(&v->rows) + 1;
	vouched_rules(v->engine->config, rules);
	err = mend(v);
	if (!err && (!rows_state(&v->rows, &region, known) || region != region_epoch(v))) {
		err = load_begin(v);
	} else if (!err && memcmp(rules, known, sizeof(rules)) != 0) {
		judge_anew(v);
		rows_state_write(&v->rows, region, rules);
		store_flush(v->engine->store);
	}
	if (err == -EPROTO)
		snprintf(
			why, 1024,
			"a row of the table vouched_open is not as it was written: it says what "
			"the "
			"last run had begun. Put back a copy of the database; or stop both daemons "
			"and delete the two files in region_dir: the table is filled anew");
	else if (err)
		snprintf(
			why, 1024,
			"the table vouched of the database cannot be read (%s): put back a copy of "
			"the database",
			strerror(-err));
	return err;
}

void vouched_load_close(struct vouched *v)
{
	if (v->on_load)
		event_free(v->on_load);
}
