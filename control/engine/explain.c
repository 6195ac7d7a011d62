/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /v1/explain: who would receive an event, who would not, and why. Sends nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/engine/nexthop.h"
#include "control/engine/registrations.h"
#include "control/engine/vouched.h"
#include "control/registry/registry.h"

#define ENDING_MAX 1024 /* of one user that are told */

struct question {
	struct http_call *call;
	const char *user, *channel_name; /* "" : all */
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t channel;
	const struct fan_group *group;
	json_t *would, *would_not, *notes;
};

static bool channel_parse(const char *text, uint64_t *channel)
{
	uint64_t id;

	if (!text || strcmp(text, "all") == 0) {
		*channel = FAN_CHANNEL_ALL;
		return true;
	}
	if (text[0] != '@')
		return fan_thread_channel(channel, text, strlen(text)) == 0;
	if (fan_id_parse(&id, text + 1) || (id & FAN_CHANNEL_KIND_MASK))
		return false;
	*channel = FAN_CHANNEL_SINGLE | id;
	return true;
}

static void note(struct question *q, const char *text)
{
	json_array_append_new(q->notes, json_string(text));
}

static bool in_group(const struct question *q, uint64_t connection)
{
	const struct fan_endpoint *endpoints;
	uint32_t cnt = 0;

	if (!q->group)
		return false;
	endpoints = fan_group_endpoints(registry_table(q->call->engine->registry), q->group, &cnt);
	for (uint32_t i = 0; i < cnt; i++)
		if (endpoints[i].connection == connection &&
		    memcmp(endpoints[i].handle, q->handle, FAN_HANDLE_LEN) == 0)
			return true;
	return false;
}

/* What stands in any connection's way. */
static const char *common_obstacle(const struct question *q, uint64_t id, uint32_t nexthop)
{
	const struct engine *engine = q->call->engine;

	if (!in_group(q, id))
		return (q->channel & FAN_CHANNEL_KIND_MASK) == FAN_CHANNEL_SINGLE
			       ? "it is another connection, or did not ask for a channel of its own"
			       : "it has not joined this channel";
	if (!nexthops_resolved(engine->nexthops, nexthop))
		return "its next hop has no MAC address; the neighbour does not answer";
	if (engine_dataplane_state(engine, q->call->now) != DATAPLANE_RUNNING)
		return "the dataplane is not running";
	return NULL;
}

/* Why it would not receive, or NULL where it would. */
static const char *obstacle(const struct question *q, const struct registration *r)
{
	const char *why;

	if (r->phase != REGISTRATION_ACTIVE)
		return registration_phase_reason(r);
	if (r->end_ns <= q->call->now.mono_ns)
		return "its lease is over; it is about to be ended";
	why = common_obstacle(q, r->id, r->nexthop);
	if (!why && q->call->engine->walls.state[WALL_KERNEL] == WALL_FAILED)
		return "the kernel wall of this host has failed";
	return why;
}

static void add_would_not(struct question *q, uint64_t id, const char *why)
{
	json_array_append_new(q->would_not,
			      json_pack("{s:o, s:s}", "id", http_json_id(id), "reason", why));
}

static void add_would(struct question *q, uint64_t id, const uint8_t bytes[16], uint8_t family,
		      uint16_t port, const char *why)
{
	char address[46];

	fan_address_format(address, bytes, family);
	json_array_append_new(q->would,
			      json_pack("{s:o, s:s, s:i, s:s}", "id", http_json_id(id), "address",
					address, "port", (int)port, "reason", why));
}

static void judge(struct question *q, const struct registration *r)
{
	const char *why = obstacle(q, r);

	if (why)
		add_would_not(q, r->id, why);
	else
		add_would(q, r->id, r->address.bytes, r->address.family, r->address.port,
			  registration_phase_reason(r));
}

/* Those that an administrator vouches for have no registration. */
static unsigned judge_vouched(struct question *q)
{
	const struct engine *engine = q->call->engine;
	unsigned cnt = registry_user_connections(engine->registry, q->handle, NULL, 0), judged = 0;
	uint64_t *ids = calloc(cnt + 1, sizeof(*ids));
	struct registry_connection c;

	if (ids)
		registry_user_connections(engine->registry, q->handle, ids, cnt);
	for (unsigned i = 0; ids && i < cnt; i++) {
		const char *why;

		if (!registry_connection(engine->registry, ids[i], &c) || !c.vouched)
			continue;
		judged++;
		why = common_obstacle(q, c.id, c.nexthop);
		if (why)
			add_would_not(q, c.id, why);
		else
			add_would(q, c.id, c.address, c.family, c.port,
				  "active; an administrator vouches for it");
	}
	free(ids);
	return judged;
}

/* Records of this user that have left the table and wait for their grace period. */
static void judge_ending(struct question *q)
{
	uint64_t ids[ENDING_MAX];
	unsigned cnt = registry_user_ending(q->call->engine->registry, q->handle, ids, ENDING_MAX);

	for (unsigned i = 0; i < cnt && i < ENDING_MAX; i++)
		json_array_append_new(
			q->would_not,
			json_pack("{s:o, s:s}", "id", http_json_id(ids[i]), "reason", "ended"));
}

static const struct fan_group_state *group_state(const struct question *q)
{
	const struct registry *registry = q->call->engine->registry;
	const struct fan_group_state *record =
		registry_group_state(registry, fan_group_idx(registry_table(registry), q->group));

	return record && record->incarnation == q->group->incarnation ? record : NULL;
}

static bool group_is_empty(const struct question *q)
{
	uint32_t cnt = 0;

	fan_group_endpoints(registry_table(q->call->engine->registry), q->group, &cnt);
	return cnt == 0;
}

/* As fanwirectl tail --since takes it: whatever came after this event. */
static json_t *json_cursor(const struct fan_group_state *record)
{
	char epoch[17], text[48];

	if (!record || !record->sequence)
		return json_null();
	fan_id_format(epoch, record->epoch);
	snprintf(text, sizeof(text), "%s:%llu", epoch, (unsigned long long)record->sequence);
	return json_string(text);
}

static json_t *json_group(const struct question *q)
{
	const struct fan_group_state *record;

	if (!q->group)
		return json_null();
	record = group_state(q);
	return json_pack("{s:o, s:o, s:I, s:I, s:o}", "cursor", json_cursor(record), "epoch",
			 record ? http_json_id(record->epoch) : json_null(), "sequence",
			 (json_int_t)(record ? record->sequence : 0), "user_generation",
			 (json_int_t)q->group->user_generation, "lingering_seconds",
			 group_is_empty(q) ? json_integer(q->call->engine->config->linger_s)
					   : json_null());
}

static void add_notes(struct question *q, const struct user *user, unsigned vouched)
{
	const struct engine *engine = q->call->engine;

	if (vouched_is_loading(engine->vouched))
		note(q, "vouched connections are being loaded: there may be more");
	if (!user && !vouched)
		note(q, "the user has never connected to this instance");
	else if (!vouched && !user->connections)
		note(q, "the user is offline");
	if (!q->group)
		note(q,
		     "there is no such group: a publish is answered with sent 0 and no sequence");
	else if (group_is_empty(q))
		note(q, "the group lingers: events are counted and sent to nobody");
	if (engine_dataplane_state(engine, q->call->now) != DATAPLANE_RUNNING)
		note(q, "the dataplane is not running: nothing is delivered");
	if (engine_wall_failed(engine))
		note(q, engine_wall_failed(engine));
}

void http_explain(struct http_call *call)
{
	struct question q = {.call = call};
	const struct registration *r;
	const struct fan_table *table = registry_table(call->engine->registry);
	char handle[2 * FAN_HANDLE_LEN + 1];
	const struct user *user;
	uint32_t cursor = 0;
	unsigned vouched;

	if (!http_query_string(call, "user", true, &q.user) ||
	    !http_query_string(call, "channel", false, &q.channel_name))
		return;
	if (!channel_parse(q.channel_name, &q.channel)) {
		http_refuse(call, 400, "bad_request",
			    "channel is a thread's name, or @ and a connection's 16 hex digits");
		return;
	}
	fan_handle(q.handle, q.user, strlen(q.user));
	fan_hex(handle, q.handle, FAN_HANDLE_LEN);
	user = users_find(call->engine->users, q.handle);
	q.group = fan_table_lookup(table, q.handle, q.channel,
				   fan_table_hash(table->seed, q.handle, q.channel));
	q.would = json_array();
	q.would_not = json_array();
	q.notes = json_array();
	while (user && (r = registrations_next(call->engine->registrations, &cursor)))
		if (r->user == user)
			judge(&q, r);
	vouched = judge_vouched(&q);
	judge_ending(&q);
	add_notes(&q, user, vouched);
	http_reply(call, 200,
		   json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "user", q.user, "handle",
			     handle, "channel", q.channel_name ? q.channel_name : "all", "group",
			     json_group(&q), "would_receive", q.would, "would_not", q.would_not,
			     "notes", q.notes));
}
