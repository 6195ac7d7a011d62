/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/vouched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/registrations.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouched_private.h"

#define PATIENCE_NS    (5 * ENGINE_NS_PER_S) /* a caller's, for the dataplane to let go */
#define KNOW_EACH      20000		     /* records a tick whose places are noted */
#define AHEAD	       16		     /* places noted while others' lines are under way */
#define REMOVE_AT_ONCE 8192

/* ---- places that rest --------------------------------------------------------------------------
 */

static struct leaving **leaving_of(struct vouched *v, uint64_t id)
{
	return &v->leaving[id * UINT64_C(0x9e3779b97f4a7c15) >> 52 & (LEAVING_CHAINS - 1)];
}

void vouched_rest(struct vouched *v, uint64_t id, uint64_t mark)
{
	struct leaving *leaving = calloc(1, sizeof(*leaving)), **chain = leaving_of(v, id);

	places_add(&v->places, mark, id); /* where it was not known yet */
	if (!leaving)
		return; /* the place is lost to all until the next start */
	*leaving = (struct leaving){*chain, id, mark};
	*chain = leaving;
}

bool vouched_has_place(struct vouched *v, const struct message_address *place)
{
	vouched_know_places(v, UINT32_MAX);
	return places_find(&v->places, places_mark(&v->places, place->bytes, place->port)) != 0;
}

void vouched_rest_place(struct vouched *v, const struct message_address *place, uint64_t id)
{
	if (v && place->family && !vouched_place_is_scoped(v->engine->config, place))
		vouched_rest(v, id, places_mark(&v->places, place->bytes, place->port));
}

bool vouched_on_free(struct vouched *v, uint64_t id)
{
	struct leaving **link = v ? leaving_of(v, id) : NULL, *leaving;

	while (link && *link && (*link)->id != id)
		link = &(*link)->next;
	if (!link || !*link)
		return false;
	leaving = *link;
	*link = leaving->next;
	places_del(&v->places, leaving->mark, id);
	free(leaving);
	return true;
}

/* ---- into the region, and out of it ------------------------------------------------------------
 */

static uint64_t mark_of(const struct vouched *v, const struct registry_connection *c)
{
	return places_mark(&v->places, c->address, c->port);
}

int vouched_end(struct vouched *v, const struct registry_connection *c)
{
	int err = registry_connection_del(v->engine->registry, c->id, c->generation);

	if (err)
		return err;
	vouched_rest(v, c->id, mark_of(v, c));
	v->cnt--;
	return 0;
}

static void keys_of(struct vouched *v, const struct vouch *item, struct registry_user_keys *keys)
{
	const struct fan_registry *root = registry_root(v->engine->registry);

	*keys = (struct registry_user_keys){.user_generation = item->generation,
					    .key_generation = (uint8_t)root->key_generation};
	fan_tag_key(keys->tag_key, v->engine->keys.master, keys->key_generation, item->generation,
		    item->handle);
}

/* No room, but something rests that will make some. */
static int judge_room(const struct vouched *v, int err)
{
	struct registry_counts counts;

	if (err != -ENOSPC)
		return err;
	registry_counts(v->engine->registry, &counts);
	return counts.retired ? -EAGAIN : err;
}

static int add(struct vouched *v, const struct vouch *item)
{
	struct registry_connection c = {.id = item->id,
					.token_expiry_s = item->row,
					.since_s = item->since_s,
					.user_generation = item->generation,
					.nexthop = item->hop,
					.port = item->address.port,
					.family = item->address.family};
	struct registry_user_keys keys;
	int err;

	err = places_add(&v->places, item->mark, item->id);
	if (err == -EEXIST) {
		struct registry_connection holder;
		uint64_t id = places_find(&v->places, item->mark);

		return registry_connection(v->engine->registry, id, &holder) &&
				       holder.state == FAN_CONNECTION_ENDING
			       ? -EAGAIN
			       : -EADDRINUSE;
	}
	if (err)
		return err;
	memcpy(c.handle, item->handle, FAN_HANDLE_LEN);
	memcpy(c.address, item->address.bytes, sizeof(c.address));
	keys_of(v, item, &keys);
	err = registry_connection_vouch(v->engine->registry, &c, &keys, NULL, 0, &c);
	if (err)
		places_del(&v->places, item->mark, item->id);
	else
		v->cnt++;
	return judge_room(v, err);
}

static bool is_as(const struct registry_connection *c, const struct vouch *item)
{
	return c->state == FAN_CONNECTION_ACTIVE && vouched_row(c) == item->row &&
	       c->user_generation == item->generation && c->port == item->address.port &&
	       memcmp(c->address, item->address.bytes, sizeof(c->address)) == 0;
}

int vouched_apply(struct vouched *v, struct vouch *item)
{
	struct registry_connection c;

	if (users_generation(v->engine->users, item->handle) != item->generation)
		return 0; /* revoked meanwhile, and its row is gone */
	if (!registry_connection(v->engine->registry, item->id, &c))
		return add(v, item);
	if (c.state == FAN_CONNECTION_ENDING)
		return -EAGAIN;
	if (!c.vouched || memcmp(c.handle, item->handle, FAN_HANDLE_LEN) != 0)
		return -EEXIST;
	if (is_as(&c, item))
		return 0;
	vouched_end(v, &c);
	return -EAGAIN;
}

/* ---- the work under way ------------------------------------------------------------------------
 */

static void next_of_queue(struct vouched *v);

/* The region is as the rows say; unless a revocation is between its commit and the region. */
static void close_open_rows(struct vouched *v)
{
	if (!v->working && !v->revoking)
		rows_open_clear(&v->rows);
}

static void answer(struct vouched *v, const struct vouched_answer *answer)
{
	vouched_done done = v->work.done;

	v->work.done = NULL;
	if (done)
		done(v->work.arg, answer);
}

static void work_end(struct vouched *v)
{
	struct vouched_answer said = v->work.answer;
	vouched_done done = v->work.done;
	void *arg = v->work.arg;

	free(v->work.items);
	v->work = (struct work){.cnt = 0};
	v->working = false;
	close_open_rows(v);
	if (done)
		done(arg, &said);
	next_of_queue(v);
}

static void audit_failure(struct vouched *v, const char *why)
{
	char detail[512];
	struct audit_record record = {
		.event = "vouch_failed", .cnt = v->work.cnt, .uid = v->work.uid, .detail = detail};

	snprintf(detail, sizeof(detail), "batch %" PRIu64 " was taken back: %.300s",
		 v->work.answer.batch, why);
	audit_add(v->engine->audit, &record);
}

/*
 * One found no room for good, after the batch was durable: all that the batch added goes again,
 * rows first. Those that were only moved stay under way: what they had makes room for what they
 * want.
 */
static void work_undo(struct vouched *v, const char *why)
{
	struct work *work = &v->work;
	struct registry_connection c;

	fan_log(FAN_LOG_ERROR, "vouched", "batch %" PRIu64 " is taken back: %s", work->answer.batch,
		why);
	if (work->first) {
		rows_remove_run(&v->rows, work->first, work->last);
		rows_batch_remove(&v->rows, work->answer.batch);
	}
	audit_failure(v, why);
	store_flush(v->engine->store);
	for (uint32_t i = 0; i < work->cnt; i++) {
		struct vouch *item = &work->items[i];

		if (item->fate != FATE_ADD)
			continue;
		if (item->done && registry_connection(v->engine->registry, item->id, &c) &&
		    vouched_row(&c) == item->row)
			vouched_end(v, &c);
		work->left -= !item->done;
		item->done = true;
	}
	work->answer = (struct vouched_answer){.status = 507, .error = "no_room"};
	snprintf(work->answer.message, sizeof(work->answer.message),
		 "the batch was taken back: %.300s", why);
}

static void item_fail(struct vouched *v, struct vouch *item, int err)
{
	const char *why = err == -EADDRINUSE ? "its address and port is another connection's"
			  : err == -EEXIST   ? "its id is another user's"
					     : registry_why(v->engine->registry);

	if (v->work.undo && item->fate == FATE_ADD) {
		work_undo(v, why);
		return;
	}
	fan_log(FAN_LOG_ERROR, "vouched", "connection %016" PRIx64 " cannot be served: %s",
		item->id, why);
	item->done = true;
	v->work.left--;
}

static bool adds_wait(const struct work *work)
{
	for (uint32_t i = 0; i < work->cnt; i++)
		if (!work->items[i].done && work->items[i].fate == FATE_ADD)
			return true;
	return false;
}

static void refuse_busy(vouched_done done, void *arg)
{
	struct vouched_answer busy = {.status = 503, .error = "busy"};

	snprintf(busy.message, sizeof(busy.message),
		 "an earlier change waits for the dataplane to let go of connections; try again, "
		 "and look at fanwirectl status if it stays so");
	done(arg, &busy);
}

static void queue_refuse(struct vouched *v)
{
	while (v->queue) {
		struct queued *call = v->queue;

		v->queue = call->next;
		refuse_busy(call->done, call->arg);
		free(call);
	}
	v->queue_end = &v->queue;
}

/* Its caller has waited long enough: what is durable is said, what finds no room is taken back. */
static void work_is_late(struct vouched *v)
{
	if (v->work.undo && adds_wait(&v->work))
		work_undo(v, "what has left the table was not let go of in time; look at the "
			     "dataplane with fanwirectl status");
	v->work.answer.waiting = v->work.left;
	answer(v, &v->work.answer);
	queue_refuse(v);
}

void vouched_work(struct vouched *v, struct moment now)
{
	struct work *work = &v->work;

	for (uint32_t i = 0; i < work->cnt && work->left; i++) {
		struct vouch *item = &work->items[i];
		int err;

		if (item->done || item->fate == FATE_KEEP)
			continue;
		err = vouched_apply(v, item);
		if (err && err != -EAGAIN) {
			item_fail(v, item, err);
		} else if (!err) {
			item->done = true;
			work->left--;
		}
	}
	if (!work->left)
		work_end(v);
	else if (work->done && now.mono_ns >= work->answer_by_ns)
		work_is_late(v);
}

/* ---- imports -----------------------------------------------------------------------------------
 */

static bool refuse_loading(struct vouched *v, vouched_done done, void *arg)
{
	struct vouched_answer answer = {.status = 503, .error = "loading"};

	if (!v->loading)
		return false;
	snprintf(answer.message, sizeof(answer.message),
		 "the vouched connections are being loaded from the database, %" PRIu64
		 " of %" PRIu64 " so far; try again later",
		 v->loaded, v->to_load);
	done(arg, &answer);
	return true;
}

static void import_now(struct vouched *v, char *body, size_t len, uint32_t uid, vouched_done done,
		       void *arg)
{
	struct vouched_answer refusal = {.status = 500, .error = "internal"};
	struct moment now = moment_now();

	store_flush(v->engine->store); /* a revocation of this turn comes first */
	vouched_know_places(v, UINT32_MAX);
	if (!vouched_batch_take(v, body, len, uid, now, &refusal)) {
		done(arg, &refusal);
		return;
	}
	v->working = true;
	v->work.done = done;
	v->work.arg = arg;
	v->work.answer_by_ns = now.mono_ns + PATIENCE_NS;
	vouched_work(v, now);
}

static struct queued *queue_up(struct vouched *v, uint32_t uid, vouched_done done, void *arg)
{
	struct queued *call = v->work.done ? calloc(1, sizeof(*call)) : NULL;

	if (!call) { /* or nobody waits for the work any more: it is late */
		refuse_busy(done, arg);
		return NULL;
	}
	call->uid = uid;
	call->done = done;
	call->arg = arg;
	*v->queue_end = call;
	v->queue_end = &call->next;
	return call;
}

void vouched_import(struct vouched *v, char *body, size_t len, uint32_t uid, vouched_done done,
		    void *arg)
{
	struct queued *call;

	if (refuse_loading(v, done, arg))
		return;
	if (!v->working) {
		import_now(v, body, len, uid, done, arg);
		return;
	}
	call = queue_up(v, uid, done, arg);
	if (call) {
		call->import = true;
		call->lines = body;
		call->len = len;
	}
}

/* ---- removals ----------------------------------------------------------------------------------
 */

struct removal {
	struct registry_connection *connections; /* in the region */
	uint64_t *rows; /* each one's, also of those that are not in the region */
	unsigned cnt, region_cnt;
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
	int cnt = -ENOMEM;

	if (items && names && rows_batch_find(&v->rows, batch, &first, &last))
		cnt = rows_run(&v->rows, first - 1, last, items, names, REMOVE_AT_ONCE);
	else if (items && names)
		cnt = 0;
	for (int i = 0; i < cnt; i++)
		remove_add(v, removal, items[i].id, items[i].row);
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
	store_on_durable(v->engine->store, on_status, &status);
	store_flush(v->engine->store);
	return err ? err : status;
}

/* Rows first, then the region; a crash between is made up for by what is noted beside the rows. */
static void remove_now(struct vouched *v, const struct vouched_selection *selection, uint32_t uid,
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
	else if (!err)
		remove_add(v, &removal, selection->id, 0);
	if (!err && removal.cnt)
		err = write_removal(v, &removal, selection, uid, answer.more);
	for (unsigned i = 0; i < removal.region_cnt && !err; i++)
		vouched_end(v, &removal.connections[i]);
	if (!err)
		close_open_rows(v);
	answer.removed = removal.cnt;
	if (err) {
		answer =
			(struct vouched_answer){.status = err == -ENOSPC ? 507 : 500,
						.error = err == -ENOSPC ? "disk_full" : "internal"};
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

	if (refuse_loading(v, done, arg))
		return;
	if (!v->working) {
		remove_now(v, selection, uid, done, arg);
		return;
	}
	call = queue_up(v, uid, done, arg);
	if (!call)
		return;
	call->selection = *selection;
	if (selection->user)
		snprintf(call->user, sizeof(call->user), "%s", selection->user);
}

static void next_of_queue(struct vouched *v)
{
	while (v->queue && !v->working) {
		struct queued *call = v->queue;

		v->queue = call->next;
		if (!v->queue)
			v->queue_end = &v->queue;
		if (call->import) {
			import_now(v, call->lines, call->len, call->uid, call->done, call->arg);
		} else {
			if (call->selection.user)
				call->selection.user = call->user;
			remove_now(v, &call->selection, call->uid, call->done, call->arg);
		}
		free(call);
	}
}

/* ---- revocations -------------------------------------------------------------------------------
 */

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
	vouched_rest(v, c->id, mark_of(v, c));
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
	close_open_rows(v);
}

/* ---- questions ---------------------------------------------------------------------------------
 */

static json_t *json_row(const struct vouch *item)
{
	char id[17], address[46];
	json_t *user = json_stringn(item->user, item->user_len);

	fan_id_format(id, item->id);
	fan_address_format(address, item->address.bytes, item->address.family);
	return json_pack("{s:I, s:s, s:o, s:s, s:i, s:I}", "row", (json_int_t)item->row, "id", id,
			 "user", user ? user : json_null(), "address", address, "port",
			 (int)item->address.port, "since", (json_int_t)item->since_s);
}

static void list_user(struct vouched *v, const char *user, uint64_t after, unsigned limit,
		      json_t *list, uint64_t *next)
{
	unsigned cnt, max = v->engine->config->max_connections_per_user;
	uint64_t *ids = calloc(max + 1, sizeof(*ids));
	char name[FAN_NAME_MAX + 1];
	uint8_t handle[FAN_HANDLE_LEN];
	struct registry_connection c;
	struct vouch item;

	fan_handle(handle, user, strlen(user));
	cnt = ids ? registry_user_connections(v->engine->registry, handle, ids, max) : 0;
	for (unsigned i = (unsigned)after; i < cnt && i < max; i++) {
		if (json_array_size(list) == limit) {
			*next = i;
			break;
		}
		if (registry_connection(v->engine->registry, ids[i], &c) && c.vouched &&
		    rows_read(&v->rows, vouched_row(&c), &item, name) > 0)
			json_array_append_new(list, json_row(&item));
	}
	free(ids);
}

json_t *vouched_list(struct vouched *v, const char *user, uint64_t after, unsigned limit,
		     uint64_t *next)
{
	struct vouch *items = calloc(limit + 1, sizeof(*items));
	char(*names)[FAN_NAME_MAX + 1] = calloc(limit + 1, sizeof(*names));
	json_t *list = json_array();
	int cnt = 0;

	*next = 0;
	if (items && names && user)
		list_user(v, user, after, limit, list, next);
	else if (items && names)
		cnt = rows_run(&v->rows, after, ROW_MAX, items, names, limit + 1);
	for (int i = 0; i < cnt && i < (int)limit; i++)
		if (items[i].user)
			json_array_append_new(list, json_row(&items[i]));
	if (cnt > (int)limit)
		*next = items[limit - 1].row;
	free(items);
	free(names);
	return list;
}

json_t *vouched_user(struct vouched *v, const struct registry_connection *c)
{
	char name[FAN_NAME_MAX + 1];
	struct vouch item;
	json_t *text = NULL;

	if (rows_read(&v->rows, vouched_row(c), &item, name) > 0)
		text = json_stringn(item.user, item.user_len);
	return text ? text : json_null();
}

void vouched_status(const struct vouched *v, struct vouched_status *status)
{
	*status = (struct vouched_status){.total = v->cnt,
					  .loading = v->loading,
					  .loaded = v->loaded,
					  .to_load = v->to_load,
					  .failed = v->load_failed};
}

bool vouched_is_loading(const struct vouched *v)
{
	return v && v->loading;
}

uint32_t vouched_count(const struct vouched *v)
{
	if (!v)
		return 0;
	return v->loading && v->to_load > v->cnt ? (uint32_t)v->to_load : v->cnt;
}

/* ---- start and time ----------------------------------------------------------------------------
 */

static void know(struct vouched *v, const struct registry_connection *c, uint64_t mark)
{
	if (c->state == FAN_CONNECTION_ENDING)
		vouched_rest(v, c->id, mark);
	else if (places_add(&v->places, mark, c->id))
		fan_log(FAN_LOG_ERROR, "vouched",
			"connection %016" PRIx64 " has an address and port that another one has",
			c->id);
}

void vouched_know_places(struct vouched *v, uint32_t records_max)
{
	struct registry_connection c[AHEAD];
	uint64_t marks[AHEAD];

	while (!v->places_whole && records_max) {
		unsigned cnt = 0;

		for (; cnt < AHEAD &&
		       registry_vouched_next(v->engine->registry, &v->places_cursor, &c[cnt]);
		     cnt++) {
			marks[cnt] = mark_of(v, &c[cnt]);
			places_prefetch(&v->places, marks[cnt]);
		}
		for (unsigned i = 0; i < cnt; i++)
			know(v, &c[i], marks[i]);
		v->places_whole = cnt < AHEAD;
		records_max -= cnt < records_max ? cnt : records_max;
	}
}

void vouched_tick(struct vouched *v, struct moment now)
{
	vouched_know_places(v, KNOW_EACH);
	if (v->working && v->work.left)
		vouched_work(v, now);
}

int vouched_open(struct vouched **out, struct engine *engine, char why[1024])
{
	struct vouched *v = calloc(1, sizeof(*v));
	struct registry_counts counts;
	int err = -ENOMEM;

	if (!v)
		return err;
	v->engine = engine;
	v->queue_end = &v->queue;
	registry_counts(engine->registry, &counts);
	v->cnt = counts.connections_active + counts.connections_pending -
		 registrations_count(engine->registrations);
	engine->vouched = v;
	/* what is leaving has its place too; so has what a lowered limit still holds */
	if (places_init(&v->places, registry_root(engine->registry)->connection_cnt) == 0 &&
	    rows_prepare(&v->rows, engine->store))
		err = vouched_load_open(v, why);
	else
		snprintf(why, 1024,
			 "the table vouched of the database cannot be used: put back a "
			 "copy of the database");
	if (err) {
		engine->vouched = NULL;
		vouched_close(v);
		return err;
	}
	*out = v;
	return 0;
}

void vouched_close(struct vouched *v)
{
	if (!v)
		return;
	answer(v, &(struct vouched_answer){
			  .status = 503, .error = "busy", .message = "fanwired stops"});
	queue_refuse(v);
	vouched_load_close(v);
	free(v->work.items);
	for (unsigned i = 0; i < LEAVING_CHAINS; i++)
		for (struct leaving *leaving = v->leaving[i], *next; leaving; leaving = next) {
			next = leaving->next;
			free(leaving);
		}
	places_fini(&v->places);
	free(v);
}
