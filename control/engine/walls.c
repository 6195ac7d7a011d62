/* SPDX-License-Identifier: BSD-3-Clause */
/* The five walls as they stand, and whether the dataplane runs. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/engine.h"
#include "control/registry/registry.h"

static const char *const wall_names[WALL_CNT] = {"registration", "table", "kernel", "liveness",
						 "cryptography"};
static const char *const wall_states[] = {"on", "off", "failed"};
static const char *const dataplane_states[] = {"stopped", "stalled", "running"};

const char *wall_name(enum wall wall)
{
	return wall_names[wall];
}

const char *wall_state_name(enum wall_state state)
{
	return wall_states[state];
}

const char *dataplane_state_name(enum dataplane_state state)
{
	return dataplane_states[state];
}

static void wall_set(struct engine *engine, enum wall wall, enum wall_state state, const char *why)
{
	struct walls *walls = &engine->walls;
	struct audit_record record = {
		.event = "wall_failed", .uid = AUDIT_NO_UID, .detail = walls->why[wall]};
	bool fails = state == WALL_FAILED && walls->state[wall] != WALL_FAILED;

	walls->state[wall] = state;
	snprintf(walls->why[wall], sizeof(walls->why[wall]), "%s", why);
	if (!fails)
		return;
	fan_log(FAN_LOG_ERROR, "wall",
		"the wall '%s' has failed: %s; no socket is granted until it "
		"stands again",
		wall_name(wall), why);
	audit_add(engine->audit, &record);
}

void engine_walls_refresh(struct engine *engine, struct moment now)
{
	const struct agent_status *status = &engine->agent_status;
	enum wall_state kernel;
	char why[640] = "";

	agent_status(engine->agent, &engine->agent_status);
	engine->agent_status_ns = now.mono_ns;
	kernel = status->filter == WALL_FAILED || status->guard == WALL_FAILED ? WALL_FAILED
		 : status->filter == WALL_OFF || status->guard == WALL_OFF     ? WALL_OFF
									       : WALL_ON;
	if (kernel != WALL_ON)
		snprintf(why, sizeof(why), "%s%s%s",
			 status->filter != WALL_ON ? status->filter_why : "",
			 status->filter != WALL_ON && status->guard != WALL_ON ? "; " : "",
			 status->guard != WALL_ON ? status->guard_why : "");
	wall_set(engine, WALL_REGISTRATION, WALL_ON, "");
	wall_set(engine, WALL_TABLE, WALL_ON, "");
	wall_set(engine, WALL_KERNEL, kernel, why);
	wall_set(engine, WALL_LIVENESS, WALL_ON, "");
	if (registry_root(engine->registry)->seal)
		wall_set(engine, WALL_CRYPTOGRAPHY, WALL_ON, "");
	else
		wall_set(engine, WALL_CRYPTOGRAPHY, WALL_OFF,
			 "scope.seal is false: deliveries travel in the clear; publishes are "
			 "sealed");
}

const char *engine_wall_failed(const struct engine *engine)
{
	for (unsigned i = 0; i < WALL_CNT; i++)
		if (engine->walls.state[i] == WALL_FAILED)
			return engine->walls.why[i];
	return NULL;
}

const struct fan_worker_state *engine_worker(const struct engine *engine, unsigned idx)
{
	return registry_worker(engine->registry, idx);
}

uint64_t engine_counter(const struct engine *engine, unsigned counter)
{
	const struct fan_worker_state *worker;
	uint64_t sum = 0;

	for (unsigned i = 0; (worker = engine_worker(engine, i)); i++)
		sum += __atomic_load_n(&worker->counters[counter], __ATOMIC_RELAXED);
	return sum;
}

/*
 * Running: every worker is in its loop, and has been there within ENGINE_STALLED_NS. A dataplane
 * that is still starting, or leaving, holds its region's lock, and its workers' words are even, or
 * a dead one's until it has cleared them.
 */
enum dataplane_state engine_dataplane_state(const struct engine *engine, struct moment now)
{
	const struct fan_worker_state *worker;
	uint64_t dead_ns;
	unsigned i;

	if (!registry_state(engine->registry) ||
	    !registry_dataplane_look(engine->registry, &dead_ns))
		return DATAPLANE_STOPPED;
	for (i = 0; (worker = engine_worker(engine, i)); i++) {
		uint64_t word = __atomic_load_n(&worker->quiescent, __ATOMIC_RELAXED);
		uint64_t beat = __atomic_load_n(&worker->heartbeat_ns, __ATOMIC_RELAXED);

		if (!(word & 1) || beat <= dead_ns)
			return DATAPLANE_STOPPED;
		if (now.mono_ns > beat && now.mono_ns - beat > ENGINE_STALLED_NS)
			return DATAPLANE_STALLED;
	}
	return i ? DATAPLANE_RUNNING : DATAPLANE_STOPPED;
}
