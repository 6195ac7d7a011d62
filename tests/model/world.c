/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/wire/handle.h"
#include "dataplane/housekeeping.h"

#define SESSION_PORT TEST_PUBLISHER_PORT

static const char *const names[USERS] = {"alice", "bob", "carol", "dave"};

void world_fail(struct world *w, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(w->why, sizeof(w->why), format, args);
	va_end(args);
	longjmp(w->failed, 1);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "the model test itself: %s\n", what);
	abort();
}

void user_handle_of(uint8_t handle[16], unsigned user)
{
	fan_handle(handle, names[user], strlen(names[user]));
}

uint64_t channel_of(unsigned channel)
{
	return channel ? FAN_CHANNEL_THREAD | channel * UINT64_C(0x123456789) : FAN_CHANNEL_ALL;
}

/* ---- life ---- */

void world_engine_open(struct world *w)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1}, root[32] = {42};
	char why[1024] = "";
	int rc = registry_open(&w->r, &w->config, why);

	if (rc < 0)
		world_fail(w, "the registry does not open: %s", why);
	must(!registry_roots_set(w->r, 1, root, root), "roots of keys");
	if (w->now_ns < w->r->now_ns)
		w->now_ns = w->r->now_ns;
	must(!registry_nexthop_get(w->r, 4, receiver4, 1, engine4, 1500, &w->nexthop), "next hop");
	registry_nexthop_set_mac(w->r, w->nexthop, mac);
}

static void session_open(struct world *w)
{
	struct fan_session spec = {.port = SESSION_PORT, .family = 4, .nexthop = w->nexthop};

	world_keep(w, 0);
	memcpy(spec.address, receiver4, 16);
	memset(spec.key, 1, sizeof(spec.key)); /* as publish_make() has it of slot 0 */
	must(!registry_session_open(w->r, &spec, &w->session), "session");
	must((w->session & w->p.plane.table.session_mask) == 0, "the session is in slot 0");
}

static void config_fill(struct fan_config *config)
{
	config->max_users = USERS;
	config->max_connections = 16;
	config->max_connections_per_user = 16;
	config->max_threads_per_connection = THREADS;
	config->max_groups = 32;
	config->max_publishers = config->max_sessions = 1;
	config->linger_s = 1;
}

static void remove_file(const struct world *w, const char *name)
{
	char path[2 * FAN_PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", w->config.region_dir, name);
	unlink(path);
}

static void workers_enter(struct world *w)
{
	for (unsigned i = 0; i < w->workers; i++)
		worker_enter(w->p.plane.workers[i]);
}

void world_begin(struct world *w)
{
	memset(&w->held, 0, sizeof(w->held));
	w->sequence = w->now_ns = 0;
	if (!w->started) {
		strcpy(w->config.region_dir, "/dev/shm/fanwire-model-XXXXXX");
		must(mkdtemp(w->config.region_dir), "no directory in /dev/shm");
		config_fill(&w->config);
	}
	world_engine_open(w);
	if (!w->started) {
		pipeline_open_on(&w->p, w->config.region_dir, WORKERS_MAX);
		pipeline_kill(&w->p);
		remove_file(w, FAN_STATE_FILE);
	}
	w->started = true;
	w->p.plane.config.core_cnt = w->p.plane.tx_queue_cnt = w->workers;
	pipeline_start(&w->p);
	workers_enter(w);
	w->r->state_looked_ns = 0;
	session_open(w);
}

void world_end(struct world *w)
{
	take_all(&w->p);
	pipeline_kill(&w->p);
	registry_close(w->r);
	w->r = NULL;
	remove_file(w, FAN_STATE_FILE);
	remove_file(w, FAN_REGISTRY_FILE);
}

void world_dataplane_restart(struct world *w)
{
	memset(&w->held, 0, sizeof(w->held)); /* nothing of a dead worker holds anything */
	take_all(&w->p);
	pipeline_restart(&w->p);
	workers_enter(w);
}

/* ---- time ---- */

void world_keep(struct world *w, uint64_t after_ns)
{
	w->now_ns += after_ns;
	registry_housekeeping(w->r, w->now_ns);
}

void world_pass(struct world *w)
{
	world_held_check(w);
	memset(&w->held, 0, sizeof(w->held));
	for (unsigned i = 0; i < w->workers; i++)
		worker_quiesce(w->p.plane.workers[i]);
}

/* ---- a slow worker ---- */

void world_hold(struct world *w, unsigned user, unsigned channel)
{
	const struct fan_table *t = &w->p.plane.table;
	struct held *held = &w->held;
	uint8_t handle[16];

	if (held->group)
		return;
	user_handle_of(handle, user);
	held->group = fan_table_lookup(t, handle, channel_of(channel),
				       fan_table_hash(t->seed, handle, channel_of(channel)));
	if (!held->group)
		return;
	held->was = *held->group;
	held->endpoints = fan_group_endpoints(t, held->group, &held->cnt);
	held->cnt = held->cnt < HELD_MAX ? held->cnt : HELD_MAX;
	memcpy(held->were, held->endpoints, held->cnt * sizeof(held->were[0]));
}

/* All but the word of its endpoints is as it was. */
void world_held_check(struct world *w)
{
	const struct held *held = &w->held;
	struct fan_group now;

	if (!held->group)
		return;
	now = *held->group;
	now.endpoints = held->was.endpoints;
	if (now.incarnation != held->was.incarnation || memcmp(now.handle, held->was.handle, 16))
		world_fail(w, "a group that a worker holds was reused");
	if (memcmp(held->were, held->endpoints, held->cnt * sizeof(held->were[0])))
		world_fail(w, "an endpoint that a worker holds was reused");
}

/* ---- events ---- */

static void heard_add(struct world *w, struct heard *heard, const struct frame *frame,
		      unsigned user)
{
	unsigned port = frame->target_port - PORT_FIRST;
	uint8_t handle[16];

	user_handle_of(handle, user);
	if (memcmp(frame->wire + FAN_DELIVERY_HANDLE_OFF, handle, 16))
		world_fail(w, "a delivery names another user than the event");
	if (port >= PORTS || memcmp(frame->target, receiver4, 16))
		world_fail(w, "a delivery went to port %u, where nobody is", frame->target_port);
	if (heard->ports >> port & 1)
		world_fail(w, "port %u got an event twice", frame->target_port);
	heard->ports |= UINT32_C(1) << port;
}

/* What the worker that took it in hands over to the group's, and what comes back. */
static void workers_turn(struct world *w)
{
	unsigned done;

	do {
		done = 0;
		for (unsigned i = 0; i < w->workers; i++)
			done += worker_burst(w->p.plane.workers[i], NULL, 0);
	} while (done);
}

struct heard world_publish(struct world *w, unsigned user, unsigned channel)
{
	struct publish_spec spec = {
		.sequence = ++w->sequence,
		.user = names[user],
		.channel = channel_of(channel),
		.payload_len = 8,
		.session = w->session,
	};
	const struct fan_result_record *result;
	struct heard heard = {0};
	struct frame frame;
	unsigned acks = 0;

	publish(&w->p, &spec);
	workers_turn(w);
	while (take(&w->p, &frame)) {
		if (frame.wire[1] == FAN_TYPE_DELIVERY)
			heard_add(w, &heard, &frame, user);
		else
			acks += frame.wire[1] == FAN_TYPE_ACK;
	}
	if (acks != 1)
		world_fail(w, "event %lu was acknowledged %u times", w->sequence, acks);
	result = &w->p.plane.session_states[0].results[w->sequence & (FAN_RESULTS_KEPT - 1)];
	heard.attempted = result->attempted;
	heard.sent = result->sent;
	heard.group = result->status == FAN_RESULT_OK;
	return heard;
}
