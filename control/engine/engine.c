/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/engine.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/http.h"
#include "control/engine/log_watch.h"
#include "control/engine/marks.h"
#include "control/engine/metrics.h"
#include "control/engine/nexthop.h"
#include "control/engine/publishers.h"
#include "control/engine/registrations.h"
#include "control/engine/rotation.h"
#include "control/engine/sessions.h"
#include "control/engine/store.h"
#include "control/engine/top.h"
#include "control/engine/users.h"
#include "control/engine/vouched.h"
#include "control/link.h"
#include "control/registry/registry.h"

#define TICK_MS		10
#define WALLS_EACH_NS	ENGINE_NS_PER_S
#define OUTAGE_NS	(10 * ENGINE_NS_PER_S)
#define CALENDAR_JUMP_S 2
#define LATE_NS		(ENGINE_NS_PER_S / 2) /* a tick that comes so late: we were paused */
#define RETURN_NS	(2 * ENGINE_NS_PER_S) /* nobody has come back for so long: no queue */

struct moment moment_now(void)
{
	struct timespec mono, real;

	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &real);
	return (struct moment){.mono_ns = (uint64_t)mono.tv_sec * ENGINE_NS_PER_S +
					  (uint64_t)mono.tv_nsec,
			       .unix_s = real.tv_sec > 0 ? (uint64_t)real.tv_sec : 0};
}

/* ---- running --------------------------------------------------------------------------------- */

static void audit_foreign_drop(struct engine *engine, const struct message *message)
{
	char source[46];
	static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct audit_record record = {.event = "foreign_drop",
				      .victim = message->u.foreign.victim,
				      .foreign = message->u.foreign.foreign,
				      .source = source,
				      .cnt = message->u.foreign.cnt,
				      .uid = AUDIT_NO_UID};

	fan_address_format(source, message->u.foreign.source,
			   memcmp(message->u.foreign.source, v4_mapped, 12) == 0 ? 4 : 6);
	audit_add(engine->audit, &record);
}

static void on_agent_message(void *arg, const struct message *message)
{
	struct engine *engine = arg;
	struct moment now = moment_now();

	switch (message->type) {
	case MESSAGE_SESSION_OPEN:
	case MESSAGE_SESSION_ATTACH:
	case MESSAGE_SESSION_DETACH:
	case MESSAGE_SESSION_END:
		sessions_on_message(engine->sessions, message, now);
		return;
	case MESSAGE_FOREIGN_DROP:
		audit_foreign_drop(engine, message);
		return;
	case MESSAGE_MARKED:
		marks_on_message(engine->marks, message);
		return;
	case MESSAGE_AGENT_STATUS: /* something about its walls changed */
		engine_walls_refresh(engine, now);
		return;
	default:
		registrations_on_message(engine->registrations, message, now);
	}
}

/* An outage of the dataplane is told once, after ten seconds of it. */
static void watch_dataplane(struct engine *engine, struct moment now)
{
	struct dataplane_watch *watch = &engine->watch;
	enum dataplane_state state = engine_dataplane_state(engine, now);
	struct audit_record record = {.event = "outage", .uid = AUDIT_NO_UID};
	/* a stall is known only after ten seconds of it */
	uint64_t patience_ns = state == DATAPLANE_STALLED ? 0 : OUTAGE_NS;

	if (state != watch->state) {
		if (state == DATAPLANE_RUNNING && watch->alarmed)
			fan_log(FAN_LOG_INFO, "dataplane", "runs again");
		watch->state = state;
		watch->since_ns = now.mono_ns;
		watch->alarmed = false;
	}
	if (state == DATAPLANE_RUNNING || watch->alarmed ||
	    now.mono_ns - watch->since_ns < patience_ns)
		return;
	watch->alarmed = true;
	record.detail = state == DATAPLANE_STALLED ? "the dataplane is stalled"
						   : "the dataplane is not running";
	fan_log(FAN_LOG_ERROR, "dataplane", "%s: nothing is delivered; look at its log%s",
		record.detail, state == DATAPLANE_STALLED ? "" : ", or start fanwire-dataplane");
	audit_add(engine->audit, &record);
}

bool engine_is_absent(const struct engine *engine, uint64_t absent_ns, struct moment now)
{
	return now.mono_ns >= absent_ns && now.mono_ns - engine->returned_ns >= RETURN_NS;
}

/*
 * After a pause (a stopped process, a machine that slept or swapped) what subscribers sent
 * meanwhile lies unread in their sockets: nobody's time has run on.
 */
static void forgive_pause(struct engine *engine, struct moment now)
{
	uint64_t gap_ns = now.mono_ns - engine->ticked_ns;

	engine->ticked_ns = now.mono_ns;
	if (gap_ns < LATE_NS)
		return;
	fan_log(FAN_LOG_WARNING, "engine", "paused for %.1f s: every lease is extended by that",
		(double)gap_ns / 1e9);
	registrations_extend(engine->registrations, gap_ns, now);
	sessions_extend(engine->sessions, gap_ns);
}

/*
 * Leases run on the monotonic clock and were bounded by their tokens when they were given: where
 * the calendar jumps ahead, tokens expire before that.
 */
static void notice_calendar(struct engine *engine, struct moment now, uint64_t gap_ns)
{
	uint64_t expected_s = engine->ticked_unix_s + gap_ns / ENGINE_NS_PER_S;

	engine->ticked_unix_s = now.unix_s;
	if (now.unix_s <= expected_s + CALENDAR_JUMP_S)
		return;
	fan_log(FAN_LOG_WARNING, "engine",
		"the calendar's clock jumped ahead by %" PRIu64 " s: tokens are looked at again",
		now.unix_s - expected_s);
	registrations_expire(engine->registrations, now);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct engine *engine = arg;
	struct moment now = moment_now();
	uint64_t gap_ns = now.mono_ns - engine->ticked_ns;
	struct fan_report report;

	forgive_pause(engine, now);
	notice_calendar(engine, now, gap_ns);
	registry_housekeeping(engine->registry, now.mono_ns);
	while (registry_report(engine->registry, &report))
		if (report.type == FAN_REPORT_ECHO)
			registrations_on_echo(engine->registrations, report.connection, report.salt,
					      now);
	registrations_tick(engine->registrations, now);
	vouched_tick(engine->vouched, now);
	sessions_tick(engine->sessions, now);
	rotation_tick(engine->rotation, now);
	watch_dataplane(engine, now);
	log_watch_tick(engine, now);
	if (now.mono_ns - engine->agent_status_ns >= WALLS_EACH_NS)
		engine_walls_refresh(engine, now);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static int start_store(struct engine *engine, char why[4096])
{
	const struct fan_config *config = engine->config;
	char keys[FAN_PATH_MAX + 32], path[FAN_PATH_MAX + 32];
	struct store_owner owner;
	int err;

	snprintf(keys, sizeof(keys), "%s/keys", config->state_dir);
	snprintf(path, sizeof(path), "%s/fanwire.db", config->state_dir);
	err = keys_load(&engine->keys, keys, why);
	if (err)
		return err;
	keys_id(&engine->keys, owner.id);
	keys_row_key(&engine->keys, owner.row_key);
	owner.fresh = engine->keys.fresh;
	err = store_open(&engine->store, engine->base, path, &owner, why);
	if (!err && owner.fresh)
		err = keys_save(&engine->keys, keys, why);
	if (!err)
		err = audit_open(engine->store, &engine->audit, why);
	if (!err)
		err = users_open(&engine->users, engine->store, config->max_users, why);
	if (!err)
		err = publishers_open(&engine->publishers, engine->store, config->max_publishers,
				      why);
	return err;
}

static int start_table(struct engine *engine, char why[4096])
{
	int err = registry_open(&engine->registry, engine->config, why);

	if (!err)
		err = rotation_open(&engine->rotation, engine, why);
	if (err)
		return err;
	return nexthops_open(&engine->nexthops, engine->base, engine->registry, engine->config,
			     why);
}

/*
 * The agent is there before the registrations, which tell it at once what it has to hold; and that
 * comes before the first housekeeping, which frees records whose port must rest.
 */
static int start_agent(struct engine *engine, char why[4096])
{
	int err;

	engine->link = link_create(engine->base);
	if (!engine->link)
		return -ENOMEM;
	link_set_engine(engine->link, on_agent_message, engine);
	engine->marks = marks_create(engine->link);
	if (!engine->marks)
		return -ENOMEM;
	err = agent_create(&engine->agent, engine->base, engine->link, engine->config, why);
	if (!err)
		err = registrations_open(&engine->registrations, engine, engine->started, why);
	if (!err)
		err = vouched_open(&engine->vouched, engine, why);
	if (!err)
		err = sessions_open(&engine->sessions, engine, engine->started);
	if (!err)
		registry_housekeeping(engine->registry, engine->started.mono_ns);
	return err;
}

static int start_serving(struct engine *engine, char why[4096])
{
	struct timeval each = {.tv_usec = TICK_MS * 1000};
	struct audit_record record = {
		.event = "start", .uid = getuid(), .detail = "fanwired " FAN_VERSION};
	int err;

	engine_walls_refresh(engine, engine->started);
	engine->watch.since_ns = engine->started.mono_ns;
	engine->ticked_ns = moment_now().mono_ns;
	engine->ticked_unix_s = moment_now().unix_s;
	engine->tick = event_new(engine->base, -1, EV_PERSIST, on_tick, engine);
	engine->top = top_create();
	if (!engine->tick || !engine->top || event_add(engine->tick, &each))
		return -ENOMEM;
	err = http_open(&engine->http, engine, why);
	if (!err)
		err = metrics_open(&engine->metrics, engine, why);
	if (!err)
		audit_add(engine->audit, &record);
	return err;
}

int engine_create(struct engine **out, struct event_base *base, const struct fan_config *config,
		  char why[4096])
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int err;

	why[0] = '\0';
	if (!engine)
		return -ENOMEM;
	engine->base = base;
	engine->config = config;
	engine->started = moment_now();
	err = start_store(engine, why);
	if (!err)
		err = start_table(engine, why);
	if (!err)
		err = start_agent(engine, why);
	if (!err)
		err = start_serving(engine, why);
	if (err) {
		if (!why[0])
			snprintf(why, 4096, "cannot start: %s", strerror(-err));
		engine_destroy(engine);
		return err;
	}
	*out = engine;
	return 0;
}

void engine_destroy(struct engine *engine)
{
	struct audit_record record = {.event = "stop", .uid = AUDIT_NO_UID};

	if (!engine)
		return;
	if (engine->metrics)
		audit_add(engine->audit, &record); /* it had started */
	if (engine->tick)
		event_free(engine->tick);
	if (engine->store)
		store_flush(engine->store); /* answers what waits, while all are there */
	vouched_close(engine->vouched);	    /* so does this */
	engine->vouched = NULL;
	marks_destroy(engine->marks);
	metrics_close(engine->metrics);
	http_close(engine->http);
	top_destroy(engine->top);
	sessions_close(engine->sessions);
	registrations_close(engine->registrations);
	if (engine->agent)
		agent_destroy(engine->agent);
	if (engine->link)
		link_destroy(engine->link);
	nexthops_close(engine->nexthops);
	if (engine->registry)
		registry_close(engine->registry);
	publishers_close(engine->publishers);
	users_close(engine->users);
	store_close(engine->store);
	audit_close(engine->audit);
	rotation_close(engine->rotation);
	sodium_memzero(&engine->keys, sizeof(engine->keys));
	free(engine);
}
