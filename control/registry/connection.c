/* SPDX-License-Identifier: BSD-3-Clause */
/* Records of connections, and questions about them. */
#include <errno.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/internal.h"

#define LEASE_UNIT_NS UINT64_C(100000000) /* a tenth of a second */

static uint64_t draw_id(struct registry *r)
{
	uint64_t id;

	do {
		id = draw_random(r) & FAN_CONNECTION_ID_MASK;
	} while (id == 0 || connection_find(r, id) != NONE);
	return id;
}

enum fan_connection_state connection_state(const struct fan_connection *connection)
{
	/* Pairs with the releases of the fanwired before. */
	uint16_t hop = __atomic_load_n(&connection->hop, __ATOMIC_ACQUIRE);

	return (enum fan_connection_state)((hop & FAN_HOP_STATE) >> FAN_HOP_STATE_SHIFT);
}

void connection_set_state(struct fan_connection *connection, enum fan_connection_state state)
{
	uint16_t hop =
		(uint16_t)((connection->hop & ~FAN_HOP_STATE) | state << FAN_HOP_STATE_SHIFT);

	/* Release: for sweep() of the next fanwired; nobody else reads it. */
	__atomic_store_n(&connection->hop, hop, __ATOMIC_RELEASE);
}

const uint8_t *connection_handle(const struct registry *r, uint32_t connection)
{
	static const uint8_t unknown[16];
	uint32_t user = r->connection_books[connection].link.user;

	return user == NONE ? unknown : r->users[user].handle;
}

/* ---- packing ---- */

/* Rounded up: a lease never ends early. */
static uint32_t lease_pack(uint64_t lease_ns)
{
	uint64_t tenths = (lease_ns + LEASE_UNIT_NS - 1) / LEASE_UNIT_NS;

	return tenths < UINT32_MAX ? (uint32_t)tenths : UINT32_MAX;
}

static uint32_t time_pack(uint64_t unix_s)
{
	return unix_s < UINT32_MAX ? (uint32_t)unix_s : UINT32_MAX;
}

/* FREE yet: its state is the last that is written. */
static void pack(struct fan_connection *record, const struct registry_connection *spec)
{
	*record = (struct fan_connection){
		.id = spec->id,
		.cookie = spec->cookie,
		.generation = spec->generation,
		.user_generation = spec->user_generation,
		.lease = lease_pack(spec->lease_ns),
		.token_expiry_s = time_pack(spec->token_expiry_s),
		.since_s = time_pack(spec->since_s),
		.port = spec->port,
		.hop = fan_hop(spec->nexthop, spec->family),
	};
	if (spec->vouched)
		record->hop |= FAN_HOP_VOUCHED;
	memcpy(record->address, spec->address, sizeof(record->address));
}

/* All but the user's handle, which is not in the record. */
static void unpack_record(const struct fan_connection *record,
			  struct registry_connection *connection)
{
	*connection = (struct registry_connection){
		.id = record->id,
		.cookie = record->cookie,
		.lease_ns = record->lease * LEASE_UNIT_NS,
		.token_expiry_s = record->token_expiry_s,
		.since_s = record->since_s,
		.generation = record->generation,
		.user_generation = record->user_generation,
		.nexthop = record->hop & FAN_HOP_NEXTHOP,
		.port = record->port,
		.family = record->hop & FAN_HOP_IPV6 ? 6 : 4,
		.state = connection_state(record),
		.vouched = record->hop & FAN_HOP_VOUCHED,
	};
	memcpy(connection->address, record->address, 16);
}

static void unpack(const struct registry *r, uint32_t idx, struct registry_connection *connection)
{
	unpack_record(&r->connections[idx], connection);
	memcpy(connection->handle, connection_handle(r, idx), 16);
}

/* ---- adding ---- */

static int spec_check(struct registry *r, const struct registry_connection *spec)
{
	if (spec->id & ~FAN_CONNECTION_ID_MASK)
		return registry_fail(r, -EINVAL, "connection id %016llx is over 62 bits",
				     (unsigned long long)spec->id);
	if (spec->family != 4 && spec->family != 6)
		return registry_fail(r, -EINVAL, "address of family %u; 4 or 6 is meant",
				     spec->family);
	if (spec->vouched && (spec->cookie || spec->lease_ns))
		return registry_fail(r, -EINVAL,
				     "a vouched connection has no socket of ours and no lease");
	if (spec->nexthop >= r->counts.nexthops)
		return registry_fail(r, -EINVAL, "no such next hop: %u", spec->nexthop);
	if (spec->id && connection_find(r, spec->id) != NONE)
		return registry_fail(r, -EEXIST, "connection %016llx is in use",
				     (unsigned long long)spec->id);
	return 0;
}

/* Advanced before it is used, and never 0. */
uint32_t registry_generation_draw(struct registry *r)
{
	uint32_t generation = r->root->next_generation;

	step(r, "generation");
	__atomic_store_n(&r->root->next_generation, generation + 1 ? generation + 1 : 1,
			 __ATOMIC_RELEASE);
	return generation;
}

int registry_connection_add(struct registry *r, const struct registry_connection *spec,
			    struct registry_connection *made)
{
	struct registry_connection wanted = *spec;
	struct fan_connection *record;
	uint32_t idx;
	int rc = spec_check(r, spec);

	if (rc < 0)
		return rc;
	if (r->counts.connections_pending + r->counts.connections_active >= r->connections_max)
		return registry_fail(r, -ENOSPC, "connections full: raise limits.max_connections");
	idx = stack_pop(&r->free_connections);
	if (idx == NONE)
		return registry_no_space(r, "connections", "limits.max_connections");
	record = &r->connections[idx];
	if (!wanted.generation)
		wanted.generation = registry_generation_draw(r);
	if (!wanted.id)
		wanted.id = draw_id(r);
	step(r, "connection fill");
	pack(record, &wanted);
	step(r, "state pending");
	connection_set_state(record, FAN_CONNECTION_PENDING);
	ids_add(r, idx);
	user_link_connection(r, idx, wanted.handle);
	r->sockets += !wanted.vouched;
	r->counts.connections_pending++;
	unpack(r, idx, made);
	return 0;
}

/* No group, no request, nobody outside has met it: it is free again at once. */
static void add_undo(struct registry *r, uint64_t id)
{
	uint32_t idx = connection_find(r, id);

	ids_del(r, idx);
	connection_set_state(&r->connections[idx], FAN_CONNECTION_FREE);
	user_unlink_connection(r, idx);
	user_unlink_ending(r, idx);
	stack_push(&r->free_connections, idx);
	r->counts.connections_pending--;
}

int registry_connection_vouch(struct registry *r, const struct registry_connection *spec,
			      const struct registry_user_keys *keys, const uint64_t *channels,
			      unsigned channel_cnt, struct registry_connection *made)
{
	struct registry_connection vouched = *spec;
	int rc;

	vouched.vouched = true;
	rc = registry_connection_add(r, &vouched, made);
	if (rc < 0)
		return rc;
	rc = registry_connection_activate(r, made->id, keys, channels, channel_cnt);
	if (rc < 0)
		add_undo(r, made->id);
	else
		made->state = FAN_CONNECTION_ACTIVE;
	return rc;
}

int registry_connection_renew(struct registry *r, uint64_t id, uint64_t lease_ns,
			      uint64_t token_expiry_s)
{
	uint32_t idx = connection_find(r, id);
	struct fan_connection *record;

	if (idx == NONE)
		return registry_fail(r, -ENOENT, "no such connection; subscribe again");
	record = &r->connections[idx];
	if (connection_state(record) == FAN_CONNECTION_ENDING)
		return registry_fail(r, -ESTALE, "the connection has ended; subscribe again");
	if (record->hop & FAN_HOP_VOUCHED)
		return registry_fail(r, -EINVAL, "a vouched connection has no lease");
	__atomic_store_n(&record->lease, lease_pack(lease_ns), __ATOMIC_RELAXED);
	__atomic_store_n(&record->token_expiry_s, time_pack(token_expiry_s), __ATOMIC_RELAXED);
	return 0;
}

/* ---- questions ---- */

bool registry_connection(const struct registry *r, uint64_t id,
			 struct registry_connection *connection)
{
	uint32_t idx = connection_find(r, id);

	if (idx == NONE)
		return false;
	unpack(r, idx, connection);
	return true;
}

bool registry_connection_next(const struct registry *r, uint32_t *cursor,
			      struct registry_connection *connection)
{
	while (*cursor < r->root->connection_cnt) {
		uint32_t idx = (*cursor)++;

		if (connection_state(&r->connections[idx]) == FAN_CONNECTION_FREE)
			continue;
		unpack(r, idx, connection);
		return true;
	}
	return false;
}

/* Index of the next record that is not FREE, and vouched or not; NONE at the end. */
static uint32_t next_of_kind(const struct registry *r, uint32_t *cursor, bool vouched)
{
	while (*cursor < r->root->connection_cnt) {
		const struct fan_connection *record = &r->connections[*cursor];
		uint16_t hop = __atomic_load_n(&record->hop, __ATOMIC_ACQUIRE);

		(*cursor)++;
		if ((hop & FAN_HOP_STATE) && !(hop & FAN_HOP_VOUCHED) == !vouched)
			return *cursor - 1;
	}
	return NONE;
}

bool registry_socket_next(const struct registry *r, uint32_t *cursor,
			  struct registry_connection *connection)
{
	/* Where all are vouched there is nothing to look for. */
	uint32_t idx = r->sockets ? next_of_kind(r, cursor, false) : NONE;

	if (idx != NONE)
		unpack(r, idx, connection);
	return idx != NONE;
}

bool registry_vouched_next(const struct registry *r, uint32_t *cursor,
			   struct registry_connection *connection)
{
	uint32_t idx = next_of_kind(r, cursor, true);

	if (idx != NONE)
		unpack_record(&r->connections[idx], connection);
	return idx != NONE;
}

unsigned registry_user_connections(const struct registry *r, const uint8_t handle[16],
				   uint64_t *ids, unsigned max)
{
	uint32_t user = user_find(r, handle);
	unsigned cnt = 0;

	if (user == NONE)
		return 0;
	for (uint32_t c = r->users[user].connections; c != NONE && cnt < max;
	     c = r->connection_books[c].link.next)
		ids[cnt++] = r->connections[c].id;
	return r->users[user].connection_cnt;
}

unsigned registry_user_ending(const struct registry *r, const uint8_t handle[16], uint64_t *ids,
			      unsigned max)
{
	uint32_t user = user_find(r, handle);
	unsigned cnt = 0;

	for (uint32_t c = user == NONE ? NONE : r->users[user].ending; c != NONE;
	     c = r->connection_books[c].link.next) {
		if (cnt < max)
			ids[cnt] = r->connections[c].id;
		cnt++;
	}
	return cnt;
}

unsigned registry_connection_channels(const struct registry *r, uint64_t id, uint64_t *channels,
				      unsigned max)
{
	uint32_t idx = connection_find(r, id);
	unsigned cnt = 0;

	if (idx == NONE)
		return 0;
	for (uint32_t m = r->connection_books[idx].memberships; m != NONE;
	     m = r->memberships[m].next) {
		if (cnt < max)
			channels[cnt] = r->groups[r->memberships[m].group].channel;
		cnt++;
	}
	return cnt;
}
