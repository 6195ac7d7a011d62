/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections: list and end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/engine/registrations.h"
#include "control/registry/registry.h"

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX     10000
#define CHANNELS_MAX  (MESSAGE_THREADS_MAX + 2)

static const char *state_name(uint8_t state)
{
	return state == FAN_CONNECTION_PENDING	? "pending"
	       : state == FAN_CONNECTION_ACTIVE ? "active"
						: "ending";
}

/* A thread's name where it is known; otherwise its number. */
static json_t *json_channel(const struct registration *r, uint64_t channel)
{
	char text[18] = "@";

	if (channel == FAN_CHANNEL_ALL)
		return json_string("all");
	if ((channel & FAN_CHANNEL_KIND_MASK) == FAN_CHANNEL_SINGLE) {
		fan_id_format(text + 1, channel & FAN_CONNECTION_ID_MASK);
		return json_string(text);
	}
	for (unsigned i = 0; r && i < r->channel_cnt; i++)
		if (r->channels[i].channel == channel && r->channels[i].name)
			return json_string(r->channels[i].name);
	fan_id_format(text, channel);
	return json_string(text);
}

static json_t *json_channels(const struct engine *engine, const struct fan_connection *c)
{
	const struct registration *r = registrations_find(engine->registrations, c->id);
	uint64_t channels[CHANNELS_MAX];
	unsigned cnt = 0;
	json_t *list = json_array();

	if (c->state == FAN_CONNECTION_ACTIVE)
		cnt = registry_connection_channels(engine->registry, c->id, channels, CHANNELS_MAX);
	for (unsigned i = 0; i < cnt && i < CHANNELS_MAX; i++)
		json_array_append_new(list, json_channel(r, channels[i]));
	return list;
}

static json_t *json_connection(const struct http_call *call, const struct fan_connection *c)
{
	const struct user *user = users_find(call->engine->users, c->handle);
	char address[46];
	double lease = c->state == FAN_CONNECTION_ENDING || c->lease_ns < call->now.mono_ns
			       ? 0
			       : (double)((c->lease_ns - call->now.mono_ns) / 1000000) / 1e3;

	fan_address_format(address, c->address, c->family);
	return json_pack("{s:o, s:o, s:s, s:i, s:i, s:s, s:I, s:f, s:o}", "id", http_json_id(c->id),
			 "user", http_json_user(user), "address", address, "port", (int)c->port,
			 "family", (int)c->family, "state", state_name(c->state), "generation",
			 (json_int_t)c->generation, "lease_seconds", lease, "channels",
			 json_channels(call->engine, c));
}

static int by_id(const void *a, const void *b)
{
	const struct fan_connection *const *left = a, *const *right = b;

	return (*left)->id < (*right)->id ? -1 : (*left)->id > (*right)->id;
}

/* Those after an id, of one user or of all, in the order of their ids; *out is the caller's. */
static size_t collect(const struct engine *engine, const uint8_t *handle, uint64_t after,
		      const struct fan_connection ***out)
{
	const struct fan_connection **list =
		calloc(registry_root(engine->registry)->connection_cnt, sizeof(*list));
	const struct fan_connection *c;
	uint32_t cursor = 0;
	size_t cnt = 0;

	while (list && (c = registry_connection_next(engine->registry, &cursor)))
		if (c->id > after && (!handle || memcmp(c->handle, handle, FAN_HANDLE_LEN) == 0))
			list[cnt++] = c;
	if (cnt)
		qsort(list, cnt, sizeof(*list), by_id);
	*out = list;
	return cnt;
}

void http_connections_list(struct http_call *call)
{
	const char *user, *after_text = evhttp_find_header(&call->query, "after");
	const struct fan_connection **found;
	uint64_t after = 0, limit = LIMIT_DEFAULT;
	uint8_t handle[FAN_HANDLE_LEN];
	json_t *list, *next = json_null();
	size_t cnt;

	if (!http_query_string(call, "user", false, &user) ||
	    !http_query_number(call, "limit", 1, LIMIT_MAX, &limit))
		return;
	if (after_text && fan_id_parse(&after, after_text)) {
		http_refuse(call, 400, "bad_request", "after must be 16 lowercase hex digits");
		return;
	}
	if (user)
		fan_handle(handle, user, strlen(user));
	cnt = collect(call->engine, user ? handle : NULL, after, &found);
	list = json_array();
	for (size_t i = 0; i < cnt && i < limit; i++)
		json_array_append_new(list, json_connection(call, found[i]));
	if (cnt > limit)
		next = http_json_id(found[limit - 1]->id);
	free(found);
	http_reply(call, 200, json_pack("{s:o, s:o}", "connections", list, "next", next));
}

void http_connection_end(struct http_call *call)
{
	struct registration *r = NULL;
	uint64_t id;

	if (fan_id_parse(&id, call->param) == 0)
		r = registrations_find(call->engine->registrations, id);
	if (!r) {
		http_refuse(call, 404, "not_found",
			    "there is no such connection; fanwirectl connections lists them");
		return;
	}
	http_audit(call, "disconnect", r->user->name, id, NULL);
	registrations_end(call->engine->registrations, r, MESSAGE_END_DISCONNECTED, call->uid,
			  "disconnected by an administrator");
	http_reply_durable(call, 200, json_pack("{s:b}", "ended", 1));
}
