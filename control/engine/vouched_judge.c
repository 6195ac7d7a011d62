/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Judges what an administrator vouches for, before any of it is written: all lines or none. What
 * it has to be sure of: no address and port is two users', no id changes its user, and nothing of
 * this host's own is aimed at.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/nexthop.h"
#include "control/engine/registrations.h"
#include "control/engine/vouched_private.h"

bool vouched_refuse(struct judging *j, int status, const char *error, const char *format, ...)
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
	uint32_t at = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (VOUCHED_SEEN_CNT - 1);

	while (set[at].value && set[at].key != key)
		at = (at + 1) & (VOUCHED_SEEN_CNT - 1);
	set[at].key = key;
	return &set[at];
}

/* ---- a place by itself ----------------------------------------------------------------------- */

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

/* ---- judging --------------------------------------------------------------------------------- */

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
	vouched_refuse(j, 409, error, "%s", message);
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
		return vouched_refuse(
			j, 409, "connection_taken",
			"a subscriber of this user has this connection id with a socket; "
			"disconnect it first, or vouch under another id");
	if (!registry_connection(v->engine->registry, item->id, &c))
		return true;
	if (c.state == FAN_CONNECTION_ENDING || !c.vouched)
		return vouched_refuse(j, 503, "busy",
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
	return j->registered ? true : vouched_refuse(j, 500, "internal", "out of memory");
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
		return vouched_refuse(j, 503, "busy",
				      "who had this address and port is just leaving the "
				      "table; try again in a moment");
	if (memcmp(owner.handle, item->handle, FAN_HANDLE_LEN) != 0)
		return refuse_foreign(j, owner.handle, "address_taken",
				      "this address and port is another user's; remove that "
				      "connection first");
	return vouched_refuse(j, 409, "address_taken",
			      "connection %016" PRIx64
			      " of this user has this address and port; remove it "
			      "first, or import it under that id",
			      id);
}

/* Neither an id nor a place stands twice within the batch. */
static bool judge_twice(struct judging *j, const struct vouch *item)
{
	struct seen *id = seen_get(j->ids, item->id);
	struct seen *mark = seen_get(j->marks, item->mark);

	if (id->value)
		return vouched_refuse(j, 409, "connection_taken",
				      "the id %016" PRIx64 " of line %u again", item->id,
				      id->value);
	if (mark->value) {
		vouched_refuse(j, 409, "address_taken", "the address and port of line %u again",
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
		return vouched_refuse(j, 409, "limit_user",
				      "the user would have %u connections, the limit is %u "
				      "(max_connections_per_user)",
				      own + user->value, config->max_connections_per_user);
	if ((uint64_t)j->v->cnt + j->socket_cnt + j->counts.connections_ending +
		    ++work->answer.added >
	    config->max_connections)
		return vouched_refuse(
			j, 409, "limit_overall",
			"%u connections stand or are just leaving and %u more are asked for, "
			"the limit is %u (max_connections)",
			j->v->cnt + j->socket_cnt + j->counts.connections_ending,
			work->answer.added, config->max_connections);
	if (j->counts.users + j->new_users > config->max_users ||
	    j->counts.groups - j->counts.groups_lingering + j->new_users > config->max_groups)
		return vouched_refuse(
			j, 409, "limit_overall",
			"%u users are connected and %u more are asked for, the limits are %u "
			"(max_users) and %u (max_groups)",
			j->counts.users, j->new_users, config->max_users, config->max_groups);
	if (j->v->next_row + work->answer.added - 1 > ROW_MAX)
		return vouched_refuse(
			j, 409, "limit_overall",
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
		vouched_refuse(j, 409, "not_vouched", "%s", why);
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
		return vouched_refuse(j, 409, "no_route", "%s", no_way);
	return true;
}

bool vouched_judge_all(struct judging *j)
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
