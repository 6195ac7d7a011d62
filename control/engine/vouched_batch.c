/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Judges what an administrator vouches for, before any of it is written: all lines or none. What
 * it has to be sure of: no address and port is two users', no id changes its user, and nothing of
 * this host's own is aimed at.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/nexthop.h"
#include "control/engine/registrations.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouch_line.h"
#include "control/engine/vouched_private.h"

#define SEEN_CNT (4 * VOUCHED_LINES_MAX) /* power of two */

/* What a batch has named so far. */
struct seen {
	uint64_t key; /* of well-mixed bits */
	uint32_t value;
};
/* A registration that names a place of its own. */
struct registered {
	uint64_t mark;
	const struct user *user;
};
struct judging {
	struct vouched *v;
	struct vouched_answer *answer;
	uint32_t uid;
	struct seen *ids, *marks, *users; /* line; line; connections added */
	struct registered *registered;	  /* places of registrations, in order of their marks */
	uint32_t registered_cnt;
	uint32_t new_users;
	const struct vouch *item; /* under judgement */
	struct registry_counts counts;
	uint32_t socket_cnt; /* registrations that come with a socket */
};

__attribute__((format(printf, 4, 5))) static bool refuse(struct judging *j, int status,
							 const char *error, const char *format, ...)
{
	struct vouched_answer *answer = j->answer;
	int len = j->item ? snprintf(answer->message, sizeof(answer->message),
				     "line %u: ", j->item->line)
			  : 0;
	va_list args;

	answer->status = status;
	answer->error = error;
	va_start(args, format);
	vsnprintf(answer->message + len, sizeof(answer->message) - (size_t)len, format, args);
	va_end(args);
	return false;
}

static struct seen *seen_get(struct seen *set, uint64_t key)
{
	uint32_t at = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (SEEN_CNT - 1);

	while (set[at].value && set[at].key != key)
		at = (at + 1) & (SEEN_CNT - 1);
	set[at].key = key;
	return &set[at];
}

/* ---- a place by itself -------------------------------------------------------------------------
 */

static bool is_own(const struct fan_config *config, const struct message_address *place)
{
	for (unsigned i = 0; i < config->engine_address_cnt; i++)
		if (memcmp(config->engine_address[i].bytes, place->bytes, 16) == 0)
			return true;
	return false;
}

bool vouched_place_is_scoped(const struct fan_config *config, const struct message_address *place)
{
	if (place->port < config->port_first || place->port > config->port_last)
		return false;
	for (unsigned i = 0; i < config->receiver_address_cnt; i++)
		if (memcmp(config->receiver_address[i].bytes, place->bytes, 16) == 0)
			return true;
	return false;
}

/* One host's: not everybody's, nobody's, or this machine's own loop. */
static bool is_one_host(const struct message_address *place)
{
	static const uint8_t low[16] = {[15] = 2};
	const uint8_t *b = place->bytes;

	if (place->family == 4)
		return b[12] != 0 && b[12] != 127 && b[12] < 224;
	return b[0] != 0xff && memcmp(b, low, 16) >= 0;
}

bool vouched_place_ok(const struct fan_config *config, const struct message_address *place,
		      char why[256])
{
	struct fan_address address = {.family = place->family};
	const char *wrong = NULL;
	char text[46];

	memcpy(address.bytes, place->bytes, sizeof(address.bytes));
	if (!fan_config_vouches(config, &address))
		wrong = "lies in no prefix of scope.vouched";
	else if (!is_one_host(place))
		wrong = "is not one host's address";
	else if (is_own(config, place))
		wrong = "is the engine's own address";
	else if (vouched_place_is_scoped(config, place))
		wrong = "lies in the range of this host's scoped sockets";
	if (!wrong)
		return true;
	fan_address_format(text, place->bytes, place->family);
	snprintf(why, 256, "%s port %u %s", text, place->port, wrong);
	return false;
}

/* Whatever vouched_place_ok() asks: where it changed, all that stand are judged anew. */
void vouched_rules(const struct fan_config *config, uint8_t rules[FAN_HANDLE_LEN])
{
	crypto_generichash_state state;
	uint16_t ports[2] = {config->port_first, config->port_last};

	crypto_generichash_init(&state, NULL, 0, FAN_HANDLE_LEN);
	for (unsigned i = 0; i < config->vouched_cnt; i++) {
		const struct fan_address *prefix = &config->vouched[i].address;

		crypto_generichash_update(&state, prefix->bytes, sizeof(prefix->bytes));
		crypto_generichash_update(&state, &prefix->family, 1);
		crypto_generichash_update(&state, &config->vouched[i].prefix_len, 1);
	}
	crypto_generichash_update(&state, (const uint8_t *)ports, sizeof(ports));
	for (unsigned i = 0; i < config->receiver_address_cnt; i++)
		crypto_generichash_update(&state, config->receiver_address[i].bytes, 16);
	crypto_generichash_update(&state, (const uint8_t *)"engine", 6);
	for (unsigned i = 0; i < config->engine_address_cnt; i++)
		crypto_generichash_update(&state, config->engine_address[i].bytes, 16);
	crypto_generichash_final(&state, rules, FAN_HANDLE_LEN);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* An id that the same line always has: importing a file again changes nothing. */
static uint64_t id_of(const struct vouch *item)
{
	static const uint8_t key[crypto_shorthash_KEYBYTES] = "fanwire vouched";
	uint8_t named[FAN_HANDLE_LEN + 18], hash[crypto_shorthash_BYTES];
	uint64_t id;

	memcpy(named, item->handle, FAN_HANDLE_LEN);
	memcpy(named + FAN_HANDLE_LEN, item->address.bytes, 16);
	named[FAN_HANDLE_LEN + 16] = (uint8_t)(item->address.port >> 8);
	named[FAN_HANDLE_LEN + 17] = (uint8_t)item->address.port;
	crypto_shorthash(hash, named, sizeof(named), key);
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
		return refuse(j, 400, "bad_request", "%s", why);
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
	item->id = line.id ? line.id : id_of(item);
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
	return work->cnt ? true : refuse(j, 400, "bad_request", "the body has no line");
}

/* ---- judging -----------------------------------------------------------------------------------
 */

static void audit_refusal(struct judging *j, const uint8_t *owner)
{
	const struct vouch *item = j->item;
	char name[FAN_NAME_MAX + 1], source[64], address[46];
	struct audit_record record = {.event = "vouch_refused",
				      .victim = owner,
				      .foreign = owner ? item->handle : NULL,
				      .user = name,
				      .source = source,
				      .connection = item->id,
				      .uid = j->uid,
				      .detail = j->answer->message};

	snprintf(name, sizeof(name), "%.*s", item->user_len, item->user);
	fan_address_format(address, item->address.bytes, item->address.family);
	snprintf(source, sizeof(source), item->address.family == 6 ? "[%s]:%u" : "%s:%u", address,
		 item->address.port);
	audit_add(j->v->engine->audit, &record);
}

static bool refuse_foreign(struct judging *j, const uint8_t *owner, const char *error,
			   const char *message)
{
	refuse(j, 409, error, "%s", message);
	audit_refusal(j, owner);
	return false;
}

static bool same_place(const struct registry_connection *c, const struct vouch *item)
{
	return c->port == item->address.port && c->family == item->address.family &&
	       memcmp(c->address, item->address.bytes, 16) == 0;
}

/* The id: nobody's yet, or a vouched connection of the same user. */
static bool judge_id(struct judging *j, struct vouch *item)
{
	struct vouched *v = j->v;
	const struct registration *r = registrations_find(v->engine->registrations, item->id);
	struct registry_connection c;

	if (r && memcmp(r->user->handle, item->handle, FAN_HANDLE_LEN) != 0)
		return refuse_foreign(j, r->user->handle, "connection_foreign",
				      "this connection id belongs to another user");
	if (r)
		return refuse(j, 409, "connection_taken",
			      "a subscriber of this user has this connection id with a socket; "
			      "disconnect it first, or vouch under another id");
	if (!registry_connection(v->engine->registry, item->id, &c))
		return true;
	if (c.state == FAN_CONNECTION_ENDING || !c.vouched)
		return refuse(j, 503, "busy",
			      "the last connection of this id is just leaving the "
			      "table; try again in a moment");
	if (memcmp(c.handle, item->handle, FAN_HANDLE_LEN) != 0)
		return refuse_foreign(j, c.handle, "connection_foreign",
				      "this connection id belongs to another user");
	item->row = vouched_row(&c);
	item->fate = same_place(&c, item) && c.user_generation == item->generation ? FATE_KEEP
										   : FATE_REPLACE;
	return true;
}

static int by_mark(const void *a, const void *b)
{
	uint64_t left = ((const struct registered *)a)->mark;
	uint64_t right = ((const struct registered *)b)->mark;

	return left < right ? -1 : left > right;
}

/* Receivers that bypass the kernel stand at places that could be vouched for, too. */
static bool collect_registered(struct judging *j)
{
	const struct registrations *all = j->v->engine->registrations;
	const struct registration *r;
	uint32_t cursor = 0;

	j->registered = calloc(registrations_count(all) + 1, sizeof(*j->registered));
	while (j->registered && (r = registrations_next(all, &cursor)))
		if (r->address.family &&
		    !vouched_place_is_scoped(j->v->engine->config, &r->address))
			j->registered[j->registered_cnt++] = (struct registered){
				places_mark(&j->v->places, r->address.bytes, r->address.port),
				r->user};
	if (j->registered_cnt)
		qsort(j->registered, j->registered_cnt, sizeof(*j->registered), by_mark);
	return j->registered ? true : refuse(j, 500, "internal", "out of memory");
}

static bool judge_registered(struct judging *j, const struct vouch *item)
{
	const struct registered wanted = {.mark = item->mark}, *found;

	if (!j->registered_cnt)
		return true;
	found = bsearch(&wanted, j->registered, j->registered_cnt, sizeof(wanted), by_mark);
	return !found || refuse_foreign(j, found->user->handle, "address_taken",
					"a subscriber has this address and port");
}

/* The place: nobody's, and not on its way out of the table; or this connection's own. */
static bool judge_place(struct judging *j, struct vouch *item)
{
	uint64_t id = places_find(&j->v->places, item->mark);
	struct registry_connection owner;

	if (!id || (id == item->id && item->fate == FATE_KEEP))
		return true;
	if (!registry_connection(j->v->engine->registry, id, &owner) ||
	    owner.state == FAN_CONNECTION_ENDING || id == item->id)
		return refuse(j, 503, "busy",
			      "who had this address and port is just leaving the "
			      "table; try again in a moment");
	if (memcmp(owner.handle, item->handle, FAN_HANDLE_LEN) != 0)
		return refuse_foreign(j, owner.handle, "address_taken",
				      "this address and port is another user's; remove that "
				      "connection first");
	return refuse(j, 409, "address_taken",
		      "connection %016" PRIx64 " of this user has this address and port; remove it "
		      "first, or import it under that id",
		      id);
}

/* Neither an id nor a place stands twice within the batch. */
static bool judge_twice(struct judging *j, const struct vouch *item)
{
	struct seen *id = seen_get(j->ids, item->id);
	struct seen *mark = seen_get(j->marks, item->mark);

	if (id->value)
		return refuse(j, 409, "connection_taken", "the id %016" PRIx64 " of line %u again",
			      item->id, id->value);
	if (mark->value) {
		refuse(j, 409, "address_taken", "the address and port of line %u again",
		       mark->value);
		audit_refusal(j, NULL);
		return false;
	}
	id->value = mark->value = item->line;
	return true;
}

static bool judge_limits(struct judging *j, const struct vouch *item)
{
	const struct fan_config *config = j->v->engine->config;
	struct work *work = &j->v->work;
	struct seen *user;
	uint64_t key;
	uint32_t own = registry_user_connections(j->v->engine->registry, item->handle, NULL, 0);

	memcpy(&key, item->handle, sizeof(key));
	user = seen_get(j->users, key);
	j->new_users += !user->value && !own;
	user->value++;
	if (own + user->value > config->max_connections_per_user)
		return refuse(j, 409, "limit_user",
			      "the user would have %u connections, the limit is %u "
			      "(max_connections_per_user)",
			      own + user->value, config->max_connections_per_user);
	if ((uint64_t)j->v->cnt + j->socket_cnt + j->counts.connections_ending +
		    ++work->answer.added >
	    config->max_connections)
		return refuse(j, 409, "limit_overall",
			      "%u connections stand or are just leaving and %u more are asked for, "
			      "the limit is %u (max_connections)",
			      j->v->cnt + j->socket_cnt + j->counts.connections_ending,
			      work->answer.added, config->max_connections);
	if (j->counts.users + j->new_users > config->max_users ||
	    j->counts.groups - j->counts.groups_lingering + j->new_users > config->max_groups)
		return refuse(j, 409, "limit_overall",
			      "%u users are connected and %u more are asked for, the limits are %u "
			      "(max_users) and %u (max_groups)",
			      j->counts.users, j->new_users, config->max_users, config->max_groups);
	if (j->v->next_row + work->answer.added - 1 > ROW_MAX)
		return refuse(j, 409, "limit_overall",
			      "the numbers of the table vouched are used up: docs/operations.md "
			      "tells how to begin anew");
	return true;
}

static bool judge(struct judging *j, struct vouch *item)
{
	struct engine *engine = j->v->engine;
	char why[256], no_way[MESSAGE_REASON_MAX];

	j->item = item;
	if (!vouched_place_ok(engine->config, &item->address, why)) {
		refuse(j, 409, "not_vouched", "%s", why);
		audit_refusal(j, NULL);
		return false;
	}
	if (!judge_twice(j, item) || !judge_id(j, item) || !judge_place(j, item) ||
	    !judge_registered(j, item))
		return false;
	if (item->fate == FATE_KEEP) {
		j->v->work.answer.unchanged++;
		return true;
	}
	if (item->fate == FATE_REPLACE)
		j->v->work.answer.replaced++;
	else if (!judge_limits(j, item))
		return false;
	if (nexthops_get_bulk(engine->nexthops, &item->address, &item->hop, no_way))
		return refuse(j, 409, "no_route", "%s", no_way);
	return true;
}

static bool judge_all(struct judging *j)
{
	struct vouched *v = j->v;
	struct work *work = &v->work;

	registry_counts(v->engine->registry, &j->counts);
	j->socket_cnt = registrations_count(v->engine->registrations);
	nexthops_bulk_begin(v->engine->nexthops);
	if (!collect_registered(j))
		return false;
	for (uint32_t i = 0; i < work->cnt; i++)
		if (!judge(j, &work->items[i]))
			return false;
	j->item = NULL;
	return true;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

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
	store_on_durable(v->engine->store, on_written, &status);
	store_flush(v->engine->store);
	if (!err && !status)
		return true;
	v->next_row = first;
	return refuse(j, err == -ENOSPC || status == -ENOSPC ? 507 : 500,
		      err == -ENOSPC || status == -ENOSPC ? "disk_full" : "internal",
		      "the database did not take the batch: %s", store_why(v->engine->store));
}

static bool take(struct judging *j, char *body, size_t len, struct moment now)
{
	struct work *work = &j->v->work;
	uint32_t lines = count_lines(body, len);
	uint8_t digest[FAN_HANDLE_LEN];

	if (lines > VOUCHED_LINES_MAX)
		return refuse(j, 413, "too_large", "more than %u lines; send them in batches",
			      VOUCHED_LINES_MAX);
	work->items = calloc(lines ? lines : 1, sizeof(*work->items));
	if (!work->items || !j->ids || !j->marks || !j->users)
		return refuse(j, 500, "internal", "out of memory");
	crypto_generichash(digest, sizeof(digest), (const uint8_t *)body, len, NULL, 0);
	if (!read_lines(j, body, len) || !judge_all(j))
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
		.ids = calloc(SEEN_CNT, sizeof(*j.ids)),
		.marks = calloc(SEEN_CNT, sizeof(*j.marks)),
		.users = calloc(SEEN_CNT, sizeof(*j.users)),
	};
	bool taken;

	v->work = (struct work){.answer = {.status = 200}};
	taken = take(&j, body, len, now);
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
