/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /v1/doctor: what the daemon itself can see, and what to do about it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/privilege/privilege.h"
#include "control/engine/http.h"
#include "control/engine/nexthop.h"
#include "control/engine/store.h"
#include "control/engine/vouched.h"
#include "control/registry/registry.h"

enum health { HEALTH_OK, HEALTH_WARNING, HEALTH_FAILED };
static const char *const health_names[] = {"ok", "warning", "failed"};

__attribute__((format(printf, 5, 6))) static void finding(json_t *findings, const char *check,
							  enum health health, const char *advice,
							  const char *format, ...)
{
	char found[700];
	va_list args;
	json_t *text;

	va_start(args, format);
	vsnprintf(found, sizeof(found), format, args);
	va_end(args);
	text = json_string(found);
	json_array_append_new(findings, json_pack("{s:s, s:s, s:o, s:s}", "check", check, "state",
						  health_names[health], "found",
						  text ? text : json_string("?"), "advice",
						  health == HEALTH_OK ? "" : advice));
}

static void check_walls(const struct engine *engine, json_t *findings)
{
	char check[64];

	for (unsigned i = 0; i < WALL_CNT; i++) {
		enum wall_state state = engine->walls.state[i];

		snprintf(check, sizeof(check), "wall %s", wall_name(i));
		finding(findings, check,
			state == WALL_FAILED			      ? HEALTH_FAILED
			: state == WALL_OFF && i != WALL_CRYPTOGRAPHY ? HEALTH_WARNING
								      : HEALTH_OK,
			state == WALL_FAILED
				? "no socket is granted until it stands; restart fanwired"
				: "switch it on in the configuration (scope)",
			"%s%s%s", wall_state_name(state), engine->walls.why[i][0] ? ": " : "",
			engine->walls.why[i]);
	}
}

static void check_dataplane(const struct http_call *call, json_t *findings)
{
	enum dataplane_state state = engine_dataplane_state(call->engine, call->now);

	finding(findings, "dataplane", state == DATAPLANE_RUNNING ? HEALTH_OK : HEALTH_FAILED,
		state == DATAPLANE_STALLED ? "a worker has not moved for 10 s: look whether it was "
					     "stopped (SIGSTOP), or "
					     "its core taken away; else restart fanwire-dataplane"
					   : "start fanwire-dataplane and look at its log",
		"%s", dataplane_state_name(state));
}

static void check_privileges(json_t *findings, const char *check, pid_t pid)
{
	struct privilege_seen seen;
	char caps[128];

	if (privilege_see(&seen, pid))
		return; /* not there: the dataplane's own finding says so */
	privilege_caps_format(caps, sizeof(caps), seen.bounding);
	finding(findings, check, seen.uid && seen.no_new_privs ? HEALTH_OK : HEALTH_WARNING,
		"make the system users (useradd --system --no-create-home fanwire, and "
		"fanwire-dp), or name others (control.user, dataplane.user); then restart it",
		"user %u, at most %s%s", seen.uid, caps,
		seen.filtered ? ", system calls limited" : "");
}

static void check_nexthops(const struct engine *engine, json_t *findings)
{
	unsigned total, unresolved;

	nexthops_counts(engine->nexthops, &total, &unresolved);
	finding(findings, "next hops", unresolved ? HEALTH_WARNING : HEALTH_OK,
		"look at ip neigh on the dataplane's interface; the receivers must answer ARP and "
		"neighbour solicitation",
		"%u known, %u without a MAC address", total, unresolved);
}

static void check_ports(const struct engine *engine, json_t *findings)
{
	const struct agent_status *agent = &engine->agent_status;

	finding(findings, "ports", agent->ports_free ? HEALTH_OK : HEALTH_WARNING,
		"widen port_first..port_last, or give more receiver_addresses",
		"%u used, %u resting, %u held open by users whose connections ended, %u free",
		agent->ports_used, agent->ports_resting, agent->ports_held, agent->ports_free);
}

static void check_capacity(const struct engine *engine, json_t *findings)
{
	const struct fan_config *config = engine->config;
	struct registry_counts counts;
	uint64_t connections;

	registry_counts(engine->registry, &counts);
	connections = (uint64_t)counts.connections_active + counts.connections_pending;
	finding(findings, "connections",
		connections * 10 >= (uint64_t)config->max_connections * 9 ? HEALTH_WARNING
									  : HEALTH_OK,
		"raise max_connections", "%llu of %u", (unsigned long long)connections,
		config->max_connections);
	finding(findings, "groups",
		(uint64_t)counts.groups * 10 >= (uint64_t)config->max_groups * 9 ? HEALTH_WARNING
										 : HEALTH_OK,
		"raise max_groups", "%u of %u", counts.groups, config->max_groups);
}

static void check_database(const struct engine *engine, json_t *findings)
{
	struct store_counts counts;
	struct statvfs fs;
	unsigned long long free_mb = 0;

	store_counts(engine->store, &counts);
	finding(findings, "database", counts.failures ? HEALTH_WARNING : HEALTH_OK,
		"look at fanwired's log; make room on the disk of state_dir",
		"%llu commits, %llu failures%s%s", (unsigned long long)counts.commits,
		(unsigned long long)counts.failures, counts.failures ? ", last: " : "",
		store_why(engine->store));
	if (statvfs(engine->config->state_dir, &fs) == 0)
		free_mb = (unsigned long long)fs.f_bavail * fs.f_frsize >> 20;
	finding(findings, "disk of state_dir", free_mb < 64 ? HEALTH_WARNING : HEALTH_OK,
		"make room: a full disk refuses every change", "%llu MiB free", free_mb);
}

static void check_vouched(const struct engine *engine, json_t *findings)
{
	struct vouched_status status;

	vouched_status(engine->vouched, &status);
	finding(findings, "vouched connections",
		status.failed[0] ? HEALTH_FAILED
		: status.loading ? HEALTH_WARNING
				 : HEALTH_OK,
		status.failed[0]
			? "put back a copy of the database, and restart fanwired; or do what is "
			  "said"
			: "wait: they are loaded from the database, and served as they come",
		"%llu%s%s", (unsigned long long)status.total,
		status.failed[0] ? ": "
		: status.loading ? ", being loaded"
				 : "",
		status.failed);
}

void http_doctor(struct http_call *call)
{
	json_t *findings = json_array();

	engine_walls_refresh(call->engine, call->now);
	check_dataplane(call, findings);
	check_walls(call->engine, findings);
	check_privileges(findings, "privileges of fanwired", getpid());
	if (registry_dataplane_alive(call->engine->registry))
		check_privileges(findings, "privileges of the dataplane",
				 (pid_t)registry_state(call->engine->registry)->pid);
	check_nexthops(call->engine, findings);
	check_ports(call->engine, findings);
	check_capacity(call->engine, findings);
	check_vouched(call->engine, findings);
	check_database(call->engine, findings);
	http_reply(call, 200, json_pack("{s:o}", "findings", findings));
}
