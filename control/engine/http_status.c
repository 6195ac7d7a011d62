/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /v1/status: everything at a glance. */
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "control/engine/http.h"
#include "control/engine/log_watch.h"
#include "control/engine/registrations.h"
#include "control/engine/sessions.h"
#include "control/engine/vouched.h"
#include "control/registry/registry.h"

static json_t *json_addresses(const struct fan_address *addresses, unsigned cnt)
{
	json_t *list = json_array();
	char text[46];

	for (unsigned i = 0; i < cnt; i++) {
		fan_address_format(text, addresses[i].bytes, addresses[i].family);
		json_array_append_new(list, json_string(text));
	}
	return list;
}

static bool on_huge_pages(const struct fan_config *config)
{
	struct statfs fs;

	return statfs(config->region_dir, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC;
}

static json_t *json_control(const struct http_call *call)
{
	const struct engine *engine = call->engine;
	const struct fan_config *config = engine->config;
	char socket[FAN_PATH_MAX + 16];

	snprintf(socket, sizeof(socket), "%s/client.sock", config->run_dir);
	return json_pack(
		"{s:i, s:s, s:I, s:s, s:s, s:o, s:i, s:s, s:i, s:i, s:i, s:b}", "pid",
		(int)getpid(), "version", FAN_VERSION, "uptime_seconds",
		(json_int_t)((call->now.mono_ns - engine->started.mono_ns) / ENGINE_NS_PER_S),
		"instance", config->instance, "client_socket",
		config->client_socket[0] ? config->client_socket : socket, "engine_addresses",
		json_addresses(config->engine_address, config->engine_address_cnt), "engine_port",
		(int)config->engine_port, "receiver_netns", config->receiver_netns, "port_first",
		(int)config->port_first, "port_last", (int)config->port_last, "payload_limit",
		(int)config->payload_limit, "huge_pages", (int)on_huge_pages(config));
}

/* The oldest heartbeat's age, and the share of loops that found work since the run began. */
static void workers_look(const struct http_call *call, unsigned *cnt, double *age, double *busy)
{
	const struct fan_worker_state *worker;
	uint64_t loops = 0, busy_loops = 0;

	*age = 0;
	for (*cnt = 0; (worker = engine_worker(call->engine, *cnt)); (*cnt)++) {
		uint64_t beat = __atomic_load_n(&worker->heartbeat_ns, __ATOMIC_RELAXED);
		double seconds = beat && call->now.mono_ns > beat
					 ? (double)(call->now.mono_ns - beat) / 1e9
					 : 0;

		*age = seconds > *age ? seconds : *age;
		loops += __atomic_load_n(&worker->loops, __ATOMIC_RELAXED);
		busy_loops += __atomic_load_n(&worker->busy_loops, __ATOMIC_RELAXED);
	}
	*busy = loops ? (double)busy_loops / (double)loops : 0;
}

static json_t *json_dataplane(const struct http_call *call)
{
	const struct fan_state *state = registry_state(call->engine->registry);
	enum dataplane_state now = engine_dataplane_state(call->engine, call->now);
	char port[sizeof(state->port_name) + 1] = "";
	double age, busy;
	unsigned workers;

	if (!state)
		return json_pack("{s:s, s:n, s:n, s:n, s:i, s:n, s:f}", "state",
				 dataplane_state_name(now), "pid", "run", "port", "workers", 0,
				 "heartbeat_age_seconds", "busy", 0.0);
	memcpy(port, state->port_name, sizeof(state->port_name));
	workers_look(call, &workers, &age, &busy);
	return json_pack("{s:s, s:i, s:i, s:s, s:i, s:f, s:f}", "state", dataplane_state_name(now),
			 "pid", (int)state->pid, "run", (int)state->run, "port", port, "workers",
			 (int)workers, "heartbeat_age_seconds", age, "busy", busy);
}

static json_t *json_counters(const struct engine *engine)
{
	json_t *counters = json_object();

	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++)
		json_object_set_new(counters, fan_counter_name(i),
				    json_integer((json_int_t)engine_counter(engine, i)));
	return counters;
}

static json_t *json_filter(const struct agent_status *status)
{
	json_t *verdicts = json_object();

	for (unsigned i = 0; i < 16 && agent_verdict_name(i); i++)
		json_object_set_new(verdicts, agent_verdict_name(i),
				    json_integer((json_int_t)status->verdicts[i]));
	return verdicts;
}

static json_t *json_guard(const struct agent_status *status)
{
	json_t *guards = json_object();

	for (unsigned i = 0; i < 8 && agent_guard_name(i); i++)
		json_object_set_new(guards, agent_guard_name(i),
				    json_integer((json_int_t)status->guards[i]));
	return guards;
}

static json_t *json_limits(const struct fan_config *config)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "max_users",
			 (json_int_t)config->max_users, "max_connections",
			 (json_int_t)config->max_connections, "max_connections_per_user",
			 (json_int_t)config->max_connections_per_user, "max_threads_per_connection",
			 (json_int_t)config->max_threads_per_connection, "max_groups",
			 (json_int_t)config->max_groups, "max_publishers",
			 (json_int_t)config->max_publishers, "max_sessions",
			 (json_int_t)config->max_sessions, "max_sessions_per_publisher",
			 (json_int_t)config->max_sessions_per_publisher,
			 "publisher_bytes_per_second",
			 (json_int_t)config->publisher_bytes_per_second);
}

/* "loading" with how far it is, while a new table is filled from the database. */
static json_t *json_vouched(const struct engine *engine)
{
	struct vouched_status status;

	vouched_status(engine->vouched, &status);
	return json_pack("{s:I, s:I, s:s, s:I, s:I}", "total", (json_int_t)status.total, "waiting",
			 (json_int_t)status.waiting, "state",
			 status.failed[0] ? "failed"
			 : status.loading ? "loading"
					  : "served",
			 "loaded", (json_int_t)status.loaded, "to_load",
			 (json_int_t)status.to_load);
}

static json_t *json_log(const struct engine *engine)
{
	struct log_status status;

	log_watch_status(engine, &status);
	return json_pack("{s:I, s:I, s:f, s:o}", "capacity_bytes", (json_int_t)status.capacity,
			 "logged_bytes", (json_int_t)status.logged, "bytes_per_second",
			 status.bytes_per_s, "retention_seconds",
			 status.retention_seconds > 0 ? json_real(status.retention_seconds)
						      : json_null());
}

static void add_walls(const struct engine *engine, json_t *answer)
{
	json_t *states = json_object(), *reasons = json_object();

	for (unsigned i = 0; i < WALL_CNT; i++) {
		json_object_set_new(states, wall_name(i),
				    json_string(wall_state_name(engine->walls.state[i])));
		if (engine->walls.state[i] != WALL_ON)
			json_object_set_new(reasons, wall_name(i),
					    json_string(engine->walls.why[i]));
	}
	json_object_set_new(answer, "walls", states);
	json_object_set_new(answer, "wall_reasons", reasons);
}

void http_status(struct http_call *call)
{
	struct engine *engine = call->engine;
	const struct agent_status *agent = &engine->agent_status;
	struct registry_counts counts;
	json_t *answer;

	engine_walls_refresh(engine, call->now);
	registry_counts(engine->registry, &counts);
	answer = json_pack(
		"{s:o, s:o, s:i, s:{s:i, s:i, s:i}, s:{s:i, s:i}, s:i, s:o, s:o, s:o, s:o,"
		" s:{s:i, s:i, s:i, s:i}}",
		"control", json_control(call), "dataplane", json_dataplane(call), "users",
		(int)counts.users, "connections", "pending", (int)counts.connections_pending,
		"active", (int)counts.connections_active, "ending", (int)counts.connections_ending,
		"groups", "total", (int)counts.groups, "lingering", (int)counts.groups_lingering,
		"sessions", (int)sessions_count(engine->sessions, 0), "limits",
		json_limits(engine->config), "counters", json_counters(engine), "filter",
		json_filter(agent), "guard", json_guard(agent), "ports", "used",
		(int)agent->ports_used, "resting", (int)agent->ports_resting, "held",
		(int)agent->ports_held, "free", (int)agent->ports_free);
	json_object_set_new(answer, "vouched", json_vouched(engine));
	json_object_set_new(answer, "log", json_log(engine));
	json_object_set_new(answer, "keys", http_json_keys(call));
	add_walls(engine, answer);
	http_reply(call, 200, answer);
}
