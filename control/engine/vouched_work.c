/* SPDX-License-Identifier: BSD-3-Clause */
/* One batch at a time: what is durable goes into the region, and its caller is answered. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/store.h"
#include "control/engine/vouched_private.h"

#define PATIENCE_NS (5 * ENGINE_NS_PER_S) /* a caller's, for the dataplane to let go */

/* ---- the work under way ---------------------------------------------------------------------- */

static void next_of_queue(struct vouched *v);

/* The region is as the rows say; unless a revocation is between its commit and the region. */
void vouched_close_open_rows(struct vouched *v)
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
	vouched_close_open_rows(v);
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

/* ---- imports --------------------------------------------------------------------------------- */

bool vouched_refuse_loading(struct vouched *v, vouched_done done, void *arg)
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

struct queued *vouched_queue_up(struct vouched *v, uint32_t uid, vouched_done done, void *arg)
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

	if (vouched_refuse_loading(v, done, arg))
		return;
	if (!v->working) {
		import_now(v, body, len, uid, done, arg);
		return;
	}
	call = vouched_queue_up(v, uid, done, arg);
	if (call) {
		call->import = true;
		call->lines = body;
		call->len = len;
	}
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
			vouched_remove_now(v, &call->selection, call->uid, call->done, call->arg);
		}
		free(call);
	}
}

void vouched_work_close(struct vouched *v)
{
	answer(v, &(struct vouched_answer){
			  .status = 503, .error = "busy", .message = "fanwired stops"});
	queue_refuse(v);
	free(v->work.items);
}
