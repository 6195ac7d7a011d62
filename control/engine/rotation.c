/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/rotation.h"

#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/engine/audit.h"
#include "control/engine/marks.h"
#include "control/engine/registrations.h"
#include "control/engine/row_mac.h"
#include "control/engine/store.h"
#include "control/registry/registry.h"

#define TOLD_AT_ONCE 256 /* registrations a tick */
#define SETTLE_NS    ENGINE_NS_PER_S
#define AGAIN_NS     ENGINE_NS_PER_S /* after the database or the registry refused */

struct rotation {
	struct engine *engine;
	sqlite3_stmt *write;
	enum rotation_stage stage;
	uint8_t from, to; /* 0: none is under way */
	uint64_t since_s;
	uint64_t due_ns;
	uint32_t chain; /* telling: registrations in front of it were told */
	bool waiting;	/* for the database or the agent to call back */
};

static const char *const stage_names[] = {
	[ROTATION_NONE] = "none",	  [ROTATION_RECORDING] = "recording",
	[ROTATION_TELLING] = "telling",	  [ROTATION_CONFIRMING] = "confirming",
	[ROTATION_SETTLING] = "settling", [ROTATION_OVERLAP] = "overlap",
	[ROTATION_RETIRING] = "retiring", [ROTATION_RETIRING_CONFIRMING] = "retiring",
	[ROTATION_ENDING] = "ending",
};

const char *rotation_stage_name(enum rotation_stage stage)
{
	return stage_names[stage];
}

static uint8_t in_force(const struct rotation *rotation)
{
	return (uint8_t)registry_root(rotation->engine->registry)->key_generation;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int give_roots(const struct rotation *rotation, uint8_t generation)
{
	struct engine *engine = rotation->engine;
	uint64_t epoch = registry_root(engine->registry)->header.creation_epoch;
	uint8_t tag_root[FAN_KEY_LEN], seal_root[FAN_KEY_LEN];
	int err;

	fan_tag_root(tag_root, engine->keys.master, generation, epoch);
	fan_seal_root(seal_root, engine->keys.master, generation, epoch);
	err = registry_roots_set(engine->registry, generation, tag_root, seal_root);
	sodium_memzero(tag_root, sizeof(tag_root));
	sodium_memzero(seal_root, sizeof(seal_root));
	return err;
}

static void enter(struct rotation *rotation, enum rotation_stage stage, uint64_t due_ns)
{
	rotation->stage = stage;
	rotation->due_ns = due_ns;
	rotation->chain = 0;
	rotation->waiting = false;
}

/* What the database knows: the generation, and the one that a rotation under way leads to. */
static int record(const struct rotation *rotation, uint8_t generation, uint8_t next)
{
	sqlite3_bind_int(rotation->write, 1, generation);
	sqlite3_bind_int(rotation->write, 2, next);
	sqlite3_bind_int64(rotation->write, 3, (sqlite3_int64)rotation->since_s);
	return store_write(rotation->engine->store, rotation->write);
}

static void audit(const struct rotation *rotation, const char *event)
{
	char detail[64];
	struct audit_record record = {.event = event, .uid = AUDIT_NO_UID, .detail = detail};

	snprintf(detail, sizeof(detail), "key generation %u to %u", rotation->from, rotation->to);
	audit_add(rotation->engine->audit, &record);
	fan_log(FAN_LOG_INFO, "keys", "%s: %s", event, detail);
}

static void on_recorded(void *arg, int status)
{
	struct rotation *rotation = arg;

	if (rotation->stage == ROTATION_RECORDING) {
		if (status)
			rotation->from = rotation->to = 0; /* as if nobody had asked */
		enter(rotation, status ? ROTATION_NONE : ROTATION_TELLING, 0);
	} else if (rotation->stage == ROTATION_ENDING) {
		rotation->waiting = false;
		if (status)
			return; /* tried again */
		rotation->from = rotation->to = 0;
		enter(rotation, ROTATION_NONE, 0);
	}
}

int rotation_begin(struct rotation *rotation)
{
	int err;

	if (rotation->stage != ROTATION_NONE)
		return -EBUSY;
	rotation->from = in_force(rotation);
	rotation->to = rotation->from % 255 + 1; /* 0 is none */
	err = record(rotation, rotation->from, rotation->to);
	if (err) {
		rotation->from = rotation->to = 0;
		return err;
	}
	enter(rotation, ROTATION_RECORDING, 0);
	store_on_durable(rotation->engine->store, on_recorded, rotation);
	return 0;
}

static void on_confirmed(void *arg, int status)
{
	struct rotation *rotation = arg;

	if (rotation->stage == ROTATION_CONFIRMING && !status)
		enter(rotation, ROTATION_SETTLING, moment_now().mono_ns + SETTLE_NS);
	else if (rotation->stage == ROTATION_RETIRING_CONFIRMING && !status)
		enter(rotation, ROTATION_ENDING, 0);
	rotation->waiting = false;
}

/* Filters and subscribers, some each tick; then until the agent says that all have been reached. */
static void tell(struct rotation *rotation, enum rotation_stage then)
{
	if (!registrations_tell_keys(rotation->engine->registrations, &rotation->chain,
				     TOLD_AT_ONCE))
		return;
	enter(rotation, then, 0);
}

static void confirm(struct rotation *rotation)
{
	if (rotation->waiting)
		return;
	rotation->waiting = true;
	marks_when_done(rotation->engine->marks, on_confirmed, rotation);
}

static void begin_telling(struct rotation *rotation, struct moment now)
{
	if (now.mono_ns < rotation->due_ns)
		return;
	if (rotation->chain == 0 && give_roots(rotation, rotation->to)) {
		rotation->due_ns = now.mono_ns + AGAIN_NS;
		fan_log(FAN_LOG_ERROR, "keys", "%s", registry_why(rotation->engine->registry));
		return;
	}
	if (fan_planted(PLANT_SWITCH_BEFORE_FILTERS))
		enter(rotation, ROTATION_SETTLING, 0);
	else
		tell(rotation, ROTATION_CONFIRMING);
}

static void switch_over(struct rotation *rotation, struct moment now)
{
	if (now.mono_ns < rotation->due_ns ||
	    registry_generation_switch(rotation->engine->registry, rotation->to))
		return;
	rotation->since_s = now.unix_s;
	audit(rotation, "keys_switched");
	enter(rotation, ROTATION_OVERLAP,
	      now.mono_ns + rotation->engine->config->key_overlap_s * ENGINE_NS_PER_S);
}

static void begin_retiring(struct rotation *rotation)
{
	if (!fan_planted(PLANT_OLD_KEYS_STAY))
		registry_roots_retire(rotation->engine->registry);
	enter(rotation, ROTATION_RETIRING, 0);
}

static void end(struct rotation *rotation, struct moment now)
{
	if (rotation->waiting || now.mono_ns < rotation->due_ns)
		return;
	rotation->due_ns = now.mono_ns + AGAIN_NS;
	if (record(rotation, in_force(rotation), 0))
		return;
	rotation->waiting = true;
	audit(rotation, "keys_retired");
	store_on_durable(rotation->engine->store, on_recorded, rotation);
}

void rotation_tick(struct rotation *rotation, struct moment now)
{
	switch (rotation->stage) {
	case ROTATION_NONE:
	case ROTATION_RECORDING:
		return;
	case ROTATION_TELLING:
		begin_telling(rotation, now);
		return;
	case ROTATION_CONFIRMING:
	case ROTATION_RETIRING_CONFIRMING:
		confirm(rotation);
		return;
	case ROTATION_SETTLING:
		switch_over(rotation, now);
		return;
	case ROTATION_OVERLAP:
		if (now.mono_ns >= rotation->due_ns &&
		    registry_keys_rewritten(rotation->engine->registry))
			begin_retiring(rotation);
		return;
	case ROTATION_RETIRING:
		tell(rotation, ROTATION_RETIRING_CONFIRMING);
		return;
	case ROTATION_ENDING:
		end(rotation, now);
		return;
	}
}

/* ---- start ----------------------------------------------------------------------------------- */

struct recorded {
	uint8_t generation, next;
};

static int read_recorded(struct rotation *rotation, struct recorded *recorded, char why[1024])
{
	sqlite3_stmt *read = store_prepare(rotation->engine->store,
					   "SELECT generation, next, since FROM key_generation "
					   "WHERE " ROW_HOLDS(ROW_MAC_KEYS));
	int generation = 0, next = 0;

	rotation->write =
		store_prepare(rotation->engine->store,
			      "UPDATE key_generation SET generation = ?1, next = ?2, since = ?3, "
			      "mac = row_mac('key_generation', ?1, ?2, ?3)");
	if (read && sqlite3_step(read) == SQLITE_ROW) {
		generation = sqlite3_column_int(read, 0);
		next = sqlite3_column_int(read, 1);
		rotation->since_s = (uint64_t)sqlite3_column_int64(read, 2);
	}
	sqlite3_reset(read);
	if (!rotation->write || generation < 1 || generation > 255 || next < 0 || next > 255) {
		snprintf(why, 1024,
			 "the database does not say which key generation is in force: its row is "
			 "not "
			 "there, or not as it was written; put back a copy of the database");
		return -EPROTO;
	}
	*recorded = (struct recorded){(uint8_t)generation, (uint8_t)next};
	return 0;
}

/* A registry region that has just been made: nothing was ever sealed under its keys. */
static int begin_region(struct rotation *rotation, const struct recorded *recorded)
{
	uint8_t generation = recorded->next ? recorded->next : recorded->generation;
	int err = give_roots(rotation, generation);

	if (!err)
		err = registry_generation_switch(rotation->engine->registry, generation);
	if (!err && recorded->next) {
		rotation->since_s = rotation->engine->started.unix_s;
		err = record(rotation, generation, 0);
	}
	return err;
}

/* Where it stood: what is in force the region says, where it leads to the database. */
static void take_up(struct rotation *rotation, const struct recorded *recorded)
{
	struct moment now = rotation->engine->started;
	uint8_t present = in_force(rotation);
	uint8_t other = registry_other_generation(rotation->engine->registry);

	if (!recorded->next && !other && recorded->generation == present)
		return;
	rotation->from = recorded->generation;
	rotation->to = recorded->next ? recorded->next : present;
	if (recorded->next && recorded->generation == present) {
		enter(rotation, ROTATION_TELLING, 0);
	} else if (recorded->next == present && other) {
		rotation->since_s = now.unix_s;
		enter(rotation, ROTATION_OVERLAP,
		      now.mono_ns + rotation->engine->config->key_overlap_s * ENGINE_NS_PER_S);
	} else { /* at its end; or an older copy of the database was put back */
		rotation->to = present;
		begin_retiring(rotation);
	}
	fan_log(FAN_LOG_INFO, "keys", "rotation from generation %u to %u goes on: %s",
		rotation->from, rotation->to, rotation_stage_name(rotation->stage));
}

/* Whether it seals a dataplane knows from its start on: subscribers are told what it does. */
static void give_secrets(const struct rotation *rotation)
{
	struct engine *engine = rotation->engine;
	const struct fan_registry *root = registry_root(engine->registry);
	bool seal = engine->config->seal;
	uint8_t replay_root[FAN_KEY_LEN];

	if (registry_dataplane_alive(engine->registry) && seal != root->seal) {
		seal = root->seal;
		fan_log(FAN_LOG_WARNING, "keys",
			"scope.seal was changed, and the dataplane runs with what it was before: "
			"stop fanwire-dataplane and fanwired, then start both");
	}
	fan_replay_root(replay_root, engine->keys.master, root->header.creation_epoch);
	registry_secrets_set(engine->registry, replay_root, seal);
	sodium_memzero(replay_root, sizeof(replay_root));
}

int rotation_open(struct rotation **out, struct engine *engine, char why[1024])
{
	const struct fan_registry *root = registry_root(engine->registry);
	struct rotation *rotation = calloc(1, sizeof(*rotation));
	struct recorded recorded;
	int err;

	if (!rotation)
		return -ENOMEM;
	rotation->engine = engine;
	give_secrets(rotation);
	err = read_recorded(rotation, &recorded, why);
	if (!err && !fan_root_of(root, root->key_generation)) {
		err = begin_region(rotation, &recorded);
	} else if (!err) {
		err = give_roots(rotation, in_force(rotation));
		if (!err)
			take_up(rotation, &recorded);
	}
	if (err) {
		if (!why[0])
			snprintf(why, 1024, "%s", registry_why(engine->registry));
		rotation_close(rotation);
		return err;
	}
	*out = rotation;
	return 0;
}

void rotation_close(struct rotation *rotation)
{
	free(rotation);
}

void rotation_status(const struct rotation *rotation, struct moment now,
		     struct rotation_status *status)
{
	*status = (struct rotation_status){.generation = in_force(rotation),
					   .from = rotation->from,
					   .to = rotation->to,
					   .stage = rotation->stage,
					   .since_s = rotation->since_s};
	if (rotation->stage == ROTATION_OVERLAP && rotation->due_ns > now.mono_ns)
		status->overlap_s = (rotation->due_ns - now.mono_ns) / ENGINE_NS_PER_S;
}
