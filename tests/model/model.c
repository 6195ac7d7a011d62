/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LEASE_NS UINT64_C(2000000000)

/* What happens in the middle of a change. */
static struct middle {
	struct model *m;
	const struct op *op;
	unsigned left; /* steps */
	bool heard_at;
	struct heard heard;
	jmp_buf killed;
} middle;

/* ---- looking things up ---- */

static struct model_connection *pick(struct model *m, unsigned from, unsigned states)
{
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct model_connection *c = &m->c[(from + i) % CONNECTIONS];

		if (c->id && (states >> c->state & 1))
			return c;
	}
	return NULL;
}

static struct model_connection *unused(struct model *m)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (!m->c[i].id)
			return &m->c[i];
	return NULL;
}

static bool port_is_free(const struct model *m, unsigned port)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (m->c[i].id && m->c[i].port == port)
			return false;
	return true;
}

/* The whole of what the system is about. */
static uint32_t listeners(const struct model *m, unsigned user, unsigned channel)
{
	uint32_t ports = 0;

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		const struct model_connection *c = &m->c[i];

		if (c->id && c->state == FAN_CONNECTION_ACTIVE && c->user == user &&
		    (c->channels >> channel & 1))
			ports |= UINT32_C(1) << c->port;
	}
	return ports;
}

/* Whose end waits for memory: until it is there they may or may not be served any more. */
static uint32_t leaving(const struct model *m)
{
	uint32_t ports = 0;

	for (unsigned i = 0; m->w->r->leaving.cnt && i < CONNECTIONS; i++)
		if (m->c[i].id && m->c[i].state == FAN_CONNECTION_ENDING)
			ports |= UINT32_C(1) << m->c[i].port;
	return ports;
}

/* ---- comparing ---- */

static void heard_check(struct model *m, const struct heard *heard, uint32_t before, uint32_t after)
{
	unsigned cnt = (unsigned)__builtin_popcount(heard->ports);

	uint32_t sure = ~(m->leaving | leaving(m));

	if ((heard->ports & sure) != (before & sure) && (heard->ports & sure) != (after & sure))
		world_fail(m->w, "an event went to ports %x, and is for %x or %x", heard->ports,
			   before, after);
	if (heard->sent != cnt || heard->attempted != cnt)
		world_fail(m->w, "%u copies left, and the publisher was told %u of %u", cnt,
			   heard->sent, heard->attempted);
	if (cnt && !heard->group)
		world_fail(m->w, "an event that was delivered was answered \"no group\"");
}

static void compare(struct model *m)
{
	struct world *w = m->w;
	unsigned live[USERS] = {0};
	uint8_t handle[16];

	world_held_check(w);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		const struct model_connection *c = &m->c[i];
		struct registry_connection is;

		if (!c->id)
			continue;
		if (!registry_connection(w->r, c->id, &is))
			world_fail(w, "connection %u is gone", i);
		if (is.state != c->state || is.generation != c->generation ||
		    is.port != PORT_FIRST + c->port)
			world_fail(w, "connection %u is in state %u, not %u", i, is.state,
				   c->state);
		live[c->user] += c->state != FAN_CONNECTION_ENDING;
	}
	for (unsigned user = 0; user < USERS; user++) {
		unsigned cnt;

		user_handle_of(handle, user);
		cnt = registry_user_connections(w->r, handle, NULL, 0);
		if (cnt != live[user])
			world_fail(w, "user %u has %u connections, not %u", user, cnt, live[user]);
	}
}

static void on_free(void *arg, uint64_t id)
{
	struct model *m = arg;

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		if (m->c[i].id != id)
			continue;
		if (m->c[i].state != FAN_CONNECTION_ENDING)
			world_fail(m->w, "connection %u was freed before it ended", i);
		m->c[i].id = 0;
		return;
	}
	world_fail(m->w, "a connection was freed that was none");
}

/* ---- the middle of a change ---- */

static void on_step(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	if (middle.left-- != 0)
		return;
	if ((middle.op->event & 3) == 2)
		longjmp(middle.killed, 1);
	middle.heard = world_publish(middle.m->w, middle.op->b % USERS, middle.op->c % CHANNELS);
	middle.heard_at = true;
}

/* What a restarted fanwired finds: pending ones are forgotten, and of a change all or nothing. */
static void reopen(struct model *m)
{
	struct world *w = m->w;

	registry_close(w->r);
	w->r = NULL;
	world_engine_open(w);
	registry_set_on_connection_free(w->r, on_free, m);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (m->c[i].id && m->c[i].state == FAN_CONNECTION_PENDING)
			m->c[i].state = FAN_CONNECTION_ENDING;
}

static bool is_active(const struct model *m, uint64_t id)
{
	struct registry_connection is;

	return registry_connection(m->w->r, id, &is) && is.state == FAN_CONNECTION_ACTIVE;
}

/* ---- operations on both ---- */

static struct registry_user_keys keys_of(const struct op *op)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};

	keys.user_generation +=
		op->c % 16 == 15; /* a group of another generation takes the place */
	memset(keys.tag_key, 7, sizeof(keys.tag_key));
	return keys;
}

static unsigned channels_of(const struct op *op, uint64_t channels[THREADS])
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < THREADS; i++)
		if (op->b >> i & 1)
			channels[cnt++] = channel_of(i + 1);
	return cnt;
}

static void op_add(struct model *m, const struct op *op)
{
	struct registry_connection spec = {.nexthop = m->w->nexthop,
					   .family = 4,
					   .port = (uint16_t)(PORT_FIRST + op->b % PORTS)};
	struct model_connection *c = unused(m);
	struct registry_connection made;

	/* Whoever hands ports out gives one only when its last connection is free. */
	if (!c || !port_is_free(m, op->b % PORTS))
		return;
	user_handle_of(spec.handle, op->a % USERS);
	memcpy(spec.address, receiver4, 16);
	spec.cookie = op->b + 1u;
	if (registry_connection_add(m->w->r, &spec, &made) < 0)
		return;
	*c = (struct model_connection){.id = made.id,
				       .generation = made.generation,
				       .state = FAN_CONNECTION_PENDING,
				       .user = op->a % USERS,
				       .port = op->b % PORTS};
}

static void op_activate(struct model *m, const struct op *op)
{
	struct model_connection *c = pick(m, op->a, 1 << FAN_CONNECTION_PENDING);
	struct registry_user_keys keys = keys_of(op);
	uint64_t channels[THREADS];
	unsigned cnt = channels_of(op, channels);
	int rc;

	if (!c)
		return;
	c->channels = (uint8_t)((op->b & ((1 << THREADS) - 1)) << 1 | 1);
	rc = registry_connection_activate(m->w->r, c->id, &keys, channels, cnt);
	if (rc < 0 && rc != -ENOSPC)
		world_fail(m->w, "a pending connection cannot be activated: %s",
			   registry_why(m->w->r));
	if (rc == 0) {
		c->state = FAN_CONNECTION_ACTIVE;
		c->lease_ns = m->w->now_ns + LEASE_NS;
		registry_connection_renew(m->w->r, c->id, c->lease_ns, UINT32_MAX);
	}
}

static void op_del(struct model *m, const struct op *op)
{
	struct model_connection *c =
		pick(m, op->a, 1 << FAN_CONNECTION_ACTIVE | 1 << FAN_CONNECTION_PENDING);

	if (!c)
		return;
	if (op->b % 8 == 0) { /* of a connection that had this id before */
		if (registry_connection_del(m->w->r, c->id, c->generation - 1) != -ESTALE)
			world_fail(m->w, "a deletion of another generation was obeyed");
		return;
	}
	if (registry_connection_del(m->w->r, c->id, c->generation) < 0)
		world_fail(m->w, "a deletion was refused: %s", registry_why(m->w->r));
	c->state = FAN_CONNECTION_ENDING;
}

static void user_end(struct model *m, unsigned user)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (m->c[i].id && m->c[i].user == user)
			m->c[i].state = FAN_CONNECTION_ENDING;
}

static void op_revoke(struct model *m, const struct op *op)
{
	uint8_t handle[16];

	user_handle_of(handle, op->a % USERS);
	if (registry_user_revoke(m->w->r, handle) < 0)
		world_fail(m->w, "a revocation was refused: %s", registry_why(m->w->r));
	user_end(m, op->a % USERS);
}

static void op_renew(struct model *m, const struct op *op)
{
	struct model_connection *c = pick(m, op->a, 1 << FAN_CONNECTION_ACTIVE);

	if (!c)
		return;
	c->lease_ns = m->w->now_ns + LEASE_NS;
	if (registry_connection_renew(m->w->r, c->id, c->lease_ns, UINT32_MAX) < 0)
		world_fail(m->w, "a renewal was refused: %s", registry_why(m->w->r));
}

/* As fanwired does: who is over by the registry's record ends; the model goes by its own. */
static void op_expire(struct model *m, const struct op *op)
{
	struct registry_connection is;
	uint32_t cursor = 0;

	m->w->now_ns += op->a * 10 * MILLISECOND;
	while (registry_connection_next(m->w->r, &cursor, &is))
		if (is.state == FAN_CONNECTION_ACTIVE &&
		    is.lease_ns + 100 * MILLISECOND < m->w->now_ns)
			registry_connection_del(m->w->r, is.id, is.generation);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct model_connection *c = &m->c[i];
		uint64_t tenths = (c->lease_ns + 100 * MILLISECOND - 1) / (100 * MILLISECOND);

		if (c->id && c->state == FAN_CONNECTION_ACTIVE &&
		    (tenths + 1) * 100 * MILLISECOND < m->w->now_ns)
			c->state = FAN_CONNECTION_ENDING;
	}
}

static void op_publish(struct model *m, const struct op *op)
{
	unsigned user = op->a % USERS, channel = op->b % CHANNELS;
	struct heard heard = world_publish(m->w, user, channel);
	uint32_t wanted = listeners(m, user, channel);

	heard_check(m, &heard, wanted, wanted);
}

static void op_hold(struct model *m, const struct op *op)
{
	world_hold(m->w, op->a % USERS, op->b % CHANNELS);
}

static void op_pass(struct model *m, const struct op *op)
{
	(void)op;
	world_pass(m->w);
}

static void op_keep(struct model *m, const struct op *op)
{
	world_keep(m->w, op->a % 4 ? 10 * MILLISECOND : 600 * MILLISECOND);
}

static void op_engine(struct model *m, const struct op *op)
{
	(void)op;
	reopen(m);
}

static void op_dataplane(struct model *m, const struct op *op)
{
	(void)op;
	world_dataplane_restart(m->w);
}

static const struct kind {
	const char *name;
	unsigned weight;
	void (*run)(struct model *m, const struct op *op);
	bool steps; /* may be watched, or cut short, in the middle */
} kinds[] = {
	{"register", 5, op_add, true},	   {"activate", 8, op_activate, true},
	{"end", 4, op_del, true},	   {"revoke", 1, op_revoke, true},
	{"renew", 1, op_renew, false},	   {"expire", 1, op_expire, false},
	{"publish", 6, op_publish, false}, {"hold", 3, op_hold, false},
	{"pass", 4, op_pass, false},	   {"keep", 5, op_keep, true},
	{"engine", 1, op_engine, false},   {"dataplane", 1, op_dataplane, false},
};

static const struct kind *kind_of(const struct op *op)
{
	unsigned total = 0, at;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		total += kinds[i].weight;
	at = op->kind % total;
	for (const struct kind *kind = kinds;; kind++) {
		if (at < kind->weight)
			return kind;
		at -= kind->weight;
	}
}

const char *op_name(const struct op *op)
{
	return kind_of(op)->name;
}

/* Killed in it: each connection is as before or as after, and of a revocation all or none. */
static void killed(struct model *m, const struct op *op)
{
	unsigned ended = 0, left = 0;

	reopen(m);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct model_connection *c = &m->c[i];
		uint8_t was = c->state;

		if (!c->id)
			continue;
		c->state = is_active(m, c->id) ? FAN_CONNECTION_ACTIVE : FAN_CONNECTION_ENDING;
		if (kind_of(op)->run == op_activate && was != FAN_CONNECTION_ACTIVE)
			continue; /* its last step may have been done */
		if (was == FAN_CONNECTION_ENDING && c->state != was)
			world_fail(m->w, "connection %u came back by a kill", i);
		if (was != FAN_CONNECTION_ACTIVE || kind_of(op)->run == op_add)
			continue;
		if (kind_of(op)->run == op_revoke && c->user == op->a % USERS) {
			ended += c->state == FAN_CONNECTION_ENDING;
			left += c->state == FAN_CONNECTION_ACTIVE;
		} else if (c->state != was && c != pick(m, op->a, 1 << was)) {
			/* the one that is being ended was the first that pick() found */
			ended += kind_of(op)->run != op_del;
			left += kind_of(op)->run != op_del;
		}
	}
	if (ended && left)
		world_fail(m->w, "a kill left %u of the connections, and ended %u", left, ended);
}

/* Unless it is killed on the way. */
static void run_whole(struct model *m, const struct op *op)
{
	const struct kind *kind = kind_of(op);

	if (kind->steps && ((op->event & 3) == 1 || (op->event & 15) == 2))
		registry_set_step(m->w->r, on_step, NULL);
	kind->run(m, op);
	registry_set_step(m->w->r, NULL, NULL);
}

void model_apply(struct model *m, const struct op *op)
{
	unsigned user = op->b % USERS, channel = op->c % CHANNELS;
	uint32_t before = listeners(m, user, channel);

	m->leaving = leaving(m);
	registry_set_on_connection_free(m->w->r, on_free, m);
	middle.m = m;
	middle.op = op;
	middle.left = op->step % 24;
	middle.heard_at = false;
	if (setjmp(middle.killed) == 0)
		run_whole(m, op);
	else
		killed(m, op);
	if (middle.heard_at)
		heard_check(m, &middle.heard, before, listeners(m, user, channel));
	compare(m);
}

void model_drain(struct model *m)
{
	struct registry_counts counts;

	m->leaving = leaving(m);
	for (unsigned user = 0; user < USERS; user++)
		for (unsigned channel = 0; channel < CHANNELS; channel++)
			op_publish(m, &(struct op){.a = (uint8_t)user, .b = (uint8_t)channel});
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (m->c[i].id && m->c[i].state != FAN_CONNECTION_ENDING) {
			registry_connection_del(m->w->r, m->c[i].id, m->c[i].generation);
			m->c[i].state = FAN_CONNECTION_ENDING;
		}
	for (unsigned i = 0; i < 4; i++) {
		world_pass(m->w);
		world_keep(m->w, 1001 * MILLISECOND);
	}
	registry_counts(m->w->r, &counts);
	if (counts.groups || counts.endpoints_used || counts.connections_ending || counts.retired)
		world_fail(m->w,
			   "left at the end: %u groups, %u endpoints, %u connections, %u resting",
			   counts.groups, counts.endpoints_used, counts.connections_ending,
			   counts.retired);
}
