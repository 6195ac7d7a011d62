/* SPDX-License-Identifier: BSD-3-Clause */
/* A batch from its bytes to durable rows: read, judged, written in one transaction. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouch_line.h"
#include "control/engine/vouched_private.h"

/* ---- reading --------------------------------------------------------------------------------- */

/*
 * An id that the same line always has: importing a file again changes nothing. Keyed, or a
 * subscriber could foresee it, take it first and have the batch refused.
 */
static uint64_t id_of(const struct vouched_rows *rows, const struct vouch *item)
{
	uint8_t named[FAN_HANDLE_LEN + 18], hash[crypto_shorthash_BYTES];
	uint64_t id;

	memcpy(named, item->handle, FAN_HANDLE_LEN);
	memcpy(named + FAN_HANDLE_LEN, item->address.bytes, 16);
	named[FAN_HANDLE_LEN + 16] = (uint8_t)(item->address.port >> 8);
	named[FAN_HANDLE_LEN + 17] = (uint8_t)item->address.port;
	crypto_shorthash(hash, named, sizeof(named), rows->id_key);
	memcpy(&id, hash, sizeof(id));
	id &= FAN_CONNECTION_ID_MASK;
	return id ? id : 1;
}

static bool read_line(struct judging *j, char *bytes, size_t len, struct vouch *item,
		      const struct vouch *before)
{
	struct vouch_line line;
	char why[256];

	j->item = item;
	if (vouch_line_read(bytes, len, &line, why))
		return vouched_refuse(j, 400, "bad_request", "%s", why);
	item->user = line.user;
	item->user_len = line.user_len;
	memcpy(item->address.bytes, line.address.bytes, sizeof(item->address.bytes));
	item->address.family = line.address.family;
	item->address.port = line.port;
	if (before && before->user_len == line.user_len &&
	    memcmp(before->user, line.user, line.user_len) == 0) { /* a user's stand together */
		memcpy(item->handle, before->handle, FAN_HANDLE_LEN);
		item->generation = before->generation;
	} else {
		fan_handle(item->handle, line.user, line.user_len);
		item->generation = users_generation(j->v->engine->users, item->handle);
	}
	item->id = line.id ? line.id : id_of(&j->v->rows, item);
	item->mark = places_mark(&j->v->places, item->address.bytes, item->address.port);
	places_prefetch(&j->v->places, item->mark);
	return true;
}

static uint32_t count_lines(const char *body, size_t len)
{
	const char *at = body, *end = body + len;
	uint32_t cnt = 0;

	while (at < end && cnt <= VOUCHED_LINES_MAX) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));

		cnt++;
		at = newline ? newline + 1 : end;
	}
	return cnt;
}

static bool is_blank(const char *at, size_t len)
{
	while (len && strchr(" \t\r", *at) && *at)
		at++, len--;
	return len == 0;
}

static bool read_lines(struct judging *j, char *body, size_t len)
{
	struct work *work = &j->v->work;
	char *at = body, *end = body + len;

	for (uint32_t line = 1; at < end; line++) {
		char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t line_len = (size_t)((newline ? newline : end) - at);
		struct vouch *item = &work->items[work->cnt];

		if (!is_blank(at, line_len)) {
			item->line = line;
			if (!read_line(j, at, line_len, item, work->cnt ? item - 1 : NULL))
				return false;
			work->cnt++;
		}
		at = newline ? newline + 1 : end;
	}
	j->item = NULL;
	return work->cnt ? true : vouched_refuse(j, 400, "bad_request", "the body has no line");
}

/* ---- writing --------------------------------------------------------------------------------- */

static int audit_batch(struct judging *j, const uint8_t digest[FAN_HANDLE_LEN])
{
	const struct work *work = &j->v->work;
	char detail[256], text[2 * FAN_HANDLE_LEN + 1];
	struct audit_record record = {.event = "vouch",
				      .cnt = work->cnt,
				      .connection = work->items[0].id,
				      .uid = j->uid,
				      .detail = detail};

	fan_hex(text, digest, FAN_HANDLE_LEN);
	snprintf(detail, sizeof(detail),
		 "batch %" PRIu64 ": %u added, %u replaced, %u unchanged, from %016" PRIx64
		 " to %016" PRIx64 ", blake2b %s",
		 work->answer.batch, work->answer.added, work->answer.replaced,
		 work->answer.unchanged, work->items[0].id, work->items[work->cnt - 1].id, text);
	return audit_add(j->v->engine->audit, &record);
}

static int write_items(struct judging *j, struct moment now)
{
	struct vouched *v = j->v;
	struct work *work = &v->work;
	int err = 0;

	for (uint32_t i = 0; i < work->cnt && !err; i++) {
		struct vouch *item = &work->items[i];

		if (item->fate == FATE_KEEP)
			continue;
		item->since_s = now.unix_s;
		if (item->fate == FATE_ADD) {
			item->row = v->next_row++;
			err = rows_insert(&v->rows, item);
		} else {
			err = rows_move(&v->rows, item);
			if (!err)
				err = rows_open_add(&v->rows, item->row, item->row, item->id);
		}
	}
	return err;
}

static void on_written(void *arg, int status)
{
	*(int *)arg = status;
}

/* One transaction: the rows, the batch, the audit, and what is to be made up for after a crash. */
static bool write_all(struct judging *j, const uint8_t digest[FAN_HANDLE_LEN], struct moment now)
{
	struct vouched *v = j->v;
	struct work *work = &v->work;
	uint64_t first = v->next_row;
	int status = -EIO, err = rows_open_clear(&v->rows);

	if (!err)
		err = write_items(j, now);
	if (!err && work->answer.added) {
		work->first = first;
		work->last = v->next_row - 1;
		err = rows_batch_add(&v->rows, work->first, work->last, &work->answer.batch);
		if (!err)
			err = rows_open_add(&v->rows, work->first, work->last, 0);
	}
	if (!err)
		err = audit_batch(j, digest);
	if (err)
		store_undo(v->engine->store);
	store_on_durable(v->engine->store, on_written, &status);
	store_flush(v->engine->store);
	if (!err && !status)
		return true;
	v->next_row = first;
	return vouched_refuse(j, err == -ENOSPC || status == -ENOSPC ? 507 : 500,
			      err == -ENOSPC || status == -ENOSPC ? "disk_full" : "internal",
			      "the database did not take the batch: %s",
			      store_why(v->engine->store));
}

static bool take(struct judging *j, char *body, size_t len, struct moment now)
{
	struct work *work = &j->v->work;
	uint32_t lines = count_lines(body, len);
	uint8_t digest[FAN_HANDLE_LEN];

	if (lines > VOUCHED_LINES_MAX)
		return vouched_refuse(j, 413, "too_large",
				      "more than %u lines; send them in batches",
				      VOUCHED_LINES_MAX);
	work->items = calloc(lines ? lines : 1, sizeof(*work->items));
	if (!work->items || !j->ids || !j->marks || !j->users)
		return vouched_refuse(j, 500, "internal", "out of memory");
	crypto_generichash(digest, sizeof(digest), (const uint8_t *)body, len, NULL, 0);
	if (!read_lines(j, body, len) || !vouched_judge_all(j))
		return false;
	work->left = work->cnt - work->answer.unchanged;
	work->uid = j->uid;
	work->undo = true;
	return write_all(j, digest, now);
}

bool vouched_batch_take(struct vouched *v, char *body, size_t len, uint32_t uid, struct moment now,
			struct vouched_answer *answer)
{
	struct judging j = {
		.v = v,
		.answer = answer,
		.uid = uid,
		.ids = calloc(VOUCHED_SEEN_CNT, sizeof(*j.ids)),
		.marks = calloc(VOUCHED_SEEN_CNT, sizeof(*j.marks)),
		.users = calloc(VOUCHED_SEEN_CNT, sizeof(*j.users)),
	};
	char none[1] = "";
	bool taken;

	v->work = (struct work){.answer = {.status = 200}};
	taken = take(&j, len ? body : none, len, now); /* of an empty request there is no body */
	if (!taken) {
		free(v->work.items);
		v->work = (struct work){.cnt = 0};
	}
	free(j.registered);
	free(j.ids);
	free(j.marks);
	free(j.users);
	return taken;
}
