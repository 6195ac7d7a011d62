/* SPDX-License-Identifier: BSD-3-Clause */
/* Records of connections, and questions about them. */
#include <errno.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/internal.h"

static uint64_t draw_id(struct registry *r)
{
	uint64_t id;

	do {
		id = draw_random(r) & FAN_CONNECTION_ID_MASK;
	} while (id == 0 || connection_find(r, id) != NONE);
	return id;
}

static int spec_check(struct registry *r, const struct fan_connection *spec)
{
	if (spec->id & ~FAN_CONNECTION_ID_MASK)
		return registry_fail(r, -EINVAL, "connection id %016llx is over 62 bits",
				     (unsigned long long)spec->id);
	if (spec->family != 4 && spec->family != 6)
		return registry_fail(r, -EINVAL, "address of family %u; 4 or 6 is meant",
				     spec->family);
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

int registry_connection_add(struct registry *r, const struct fan_connection *spec,
			    const struct fan_connection **connection)
{
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
	uint32_t generation = spec->generation ? spec->generation : registry_generation_draw(r);

	step(r, "connection fill");
	*record = *spec;
	record->state = FAN_CONNECTION_FREE;
	record->generation = generation;
	if (!record->id)
		record->id = draw_id(r);
	step(r, "state pending");
	/* Release: the record is written. Pairs with sweep() of the next fanwired. */
	__atomic_store_n(&record->state, FAN_CONNECTION_PENDING, __ATOMIC_RELEASE);
	ids_add(r, idx);
	user_link_connection(r, idx);
	r->counts.connections_pending++;
	*connection = record;
	return 0;
}

int registry_connection_renew(struct registry *r, uint64_t id, uint64_t lease_ns,
			      uint64_t token_expiry_s)
{
	uint32_t idx = connection_find(r, id);

	if (idx == NONE)
		return registry_fail(r, -ENOENT, "no such connection; subscribe again");
	if (r->connections[idx].state == FAN_CONNECTION_ENDING)
		return registry_fail(r, -ESTALE, "the connection has ended; subscribe again");
	__atomic_store_n(&r->connections[idx].lease_ns, lease_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&r->connections[idx].token_expiry_s, token_expiry_s, __ATOMIC_RELAXED);
	return 0;
}

const struct fan_connection *registry_connection(const struct registry *r, uint64_t id)
{
	uint32_t idx = connection_find(r, id);

	return idx == NONE ? NULL : &r->connections[idx];
}

const struct fan_connection *registry_connection_next(const struct registry *r, uint32_t *cursor)
{
	while (*cursor < r->root->connection_cnt) {
		const struct fan_connection *c = &r->connections[(*cursor)++];

		if (c->state != FAN_CONNECTION_FREE)
			return c;
	}
	return NULL;
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
