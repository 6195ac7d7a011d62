/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections: list and end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/engine/registrations.h"
#include "control/engine/vouched.h"
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

static json_t *json_channels(const struct engine *engine, const struct registry_connection *c)
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

static json_t *json_connection(const struct http_call *call, const struct registry_connection *c)
{
	char address[46];
	json_t *user = c->vouched ? vouched_user(call->engine->vouched, c)
				  : http_json_user(users_find(call->engine->users, c->handle));
	double lease = c->state == FAN_CONNECTION_ENDING || c->lease_ns < call->now.mono_ns
			       ? 0
			       : (double)((c->lease_ns - call->now.mono_ns) / 1000000) / 1e3;

	fan_address_format(address, c->address, c->family);
	return json_pack("{s:o, s:o, s:s, s:i, s:i, s:s, s:b, s:I, s:f, s:o}", "id",
			 http_json_id(c->id), "user", user, "address", address, "port",
			 (int)c->port, "family", (int)c->family, "state", state_name(c->state),
			 "vouched", (int)c->vouched, "generation", (json_int_t)c->generation,
			 "lease_seconds", lease, "channels", json_channels(call->engine, c));
}

/* The `max` least ids that were met, as a heap: the largest of them stands first. */
struct page {
	uint64_t *ids;
	size_t cnt, max;
};

static void page_sink(struct page *page, uint64_t id)
{
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < page->cnt && page->ids[child + 1] > page->ids[child])
			child++;
		if (child >= page->cnt || page->ids[child] <= id)
			break;
		page->ids[at] = page->ids[child];
		at = child;
	}
	page->ids[at] = id;
}

static void page_add(struct page *page, uint64_t id)
{
	size_t at = page->cnt;

	if (page->cnt == page->max) {
		if (id < page->ids[0])
			page_sink(page, id);
		return;
	}
	page->cnt++;
	for (; at && page->ids[(at - 1) / 2] < id; at = (at - 1) / 2)
		page->ids[at] = page->ids[(at - 1) / 2];
	page->ids[at] = id;
}

static int ascending(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

/* Those of one user: his own lists say it, however many others there are. */
static void collect_user(const struct engine *engine, const uint8_t handle[FAN_HANDLE_LEN],
			 uint64_t after, struct page *page)
{
	unsigned live = registry_user_connections(engine->registry, handle, NULL, 0);
	unsigned ending = registry_user_ending(engine->registry, handle, NULL, 0);
	uint64_t *ids = calloc(live + ending + 1, sizeof(*ids));

	if (!ids)
		return;
	registry_user_connections(engine->registry, handle, ids, live);
	registry_user_ending(engine->registry, handle, ids + live, ending);
	for (unsigned i = 0; i < live + ending; i++)
		if (ids[i] > after)
			page_add(page, ids[i]);
	free(ids);
}

/* The first ids after `after`, of one user (handle) or of all, in their order. */
static void collect(const struct engine *engine, const uint8_t *handle, uint64_t after,
		    struct page *page)
{
	struct registry_connection c;
	uint32_t cursor = 0;

	if (handle)
		collect_user(engine, handle, after, page);
	else
		while (registry_socket_next(engine->registry, &cursor, &c))
			if (c.id > after)
				page_add(page, c.id);
	if (page->cnt)
		qsort(page->ids, page->cnt, sizeof(*page->ids), ascending);
}

static json_t *json_page(const struct http_call *call, const struct page *page, size_t cnt)
{
	struct registry_connection c;
	json_t *list = json_array();

	for (size_t i = 0; i < page->cnt && i < cnt; i++)
		if (registry_connection(call->engine->registry, page->ids[i], &c))
			json_array_append_new(list, json_connection(call, &c));
	return list;
}

void http_connections_list(struct http_call *call)
{
	const char *user, *after_text = evhttp_find_header(&call->query, "after");
	struct page page = {0};
	uint64_t after = 0, limit = LIMIT_DEFAULT;
	uint8_t handle[FAN_HANDLE_LEN];
	json_t *next = json_null();

	if (!http_query_string(call, "user", false, &user) ||
	    !http_query_number(call, "limit", 1, LIMIT_MAX, &limit))
		return;
	if (after_text && fan_id_parse(&after, after_text)) {
		http_refuse(call, 400, "bad_request", "after must be 16 lowercase hex digits");
		return;
	}
	if (user)
		fan_handle(handle, user, strlen(user));
	page.max = limit + 1; /* one more tells whether there are more */
	page.ids = calloc(page.max, sizeof(*page.ids));
	if (page.ids)
		collect(call->engine, user ? handle : NULL, after, &page);
	if (page.cnt > limit)
		next = http_json_id(page.ids[limit - 1]);
	http_reply(call, 200,
		   json_pack("{s:o, s:o}", "connections", json_page(call, &page, limit), "next",
			     next));
	free(page.ids);
}

static void on_vouched_removed(void *arg, const struct vouched_answer *answer)
{
	struct http_call *call = arg;

	if (answer->error)
		http_refuse(call, answer->status, answer->error, "%s", answer->message);
	else
		http_reply(call, 200, json_pack("{s:b}", "ended", 1));
}

static bool is_vouched(const struct engine *engine, uint64_t id)
{
	struct registry_connection c;

	return registry_connection(engine->registry, id, &c) && c.vouched &&
	       c.state == FAN_CONNECTION_ACTIVE;
}

void http_connection_end(struct http_call *call)
{
	struct registration *r = NULL;
	uint64_t id = 0;

	if (fan_id_parse(&id, call->param) == 0)
		r = registrations_find(call->engine->registrations, id);
	if (!r && is_vouched(call->engine, id)) {
		struct vouched_selection selection = {.id = id};

		vouched_remove(call->engine->vouched, &selection, call->uid, on_vouched_removed,
			       call);
		return;
	}
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
