/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rebuilds all private memory from a region that was taken over, and believes nothing in it:
 * every index is checked before it is followed, nothing may be used twice, and what repeats must
 * agree. What is referenced nowhere is free. A corrupt region is refused, never repaired.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/internal.h"

struct seen { /* one byte for each group, endpoint and bucket that was met */
	uint8_t *groups;
	uint8_t *endpoints;
	uint8_t *buckets;
};

static int corrupt(struct registry *r, const char *what, uint32_t idx)
{
	return registry_fail(r, -EPROTO,
			     "%s is corrupt: %s (%u); stop fanwired and fanwire-dataplane, delete "
			     "the file and start again (registrations end with it)",
			     r->path, what, idx);
}

/* ---- connections ---- */

static bool connection_ok(const struct registry *r, const struct fan_connection *c)
{
	bool vouched = c->hop & FAN_HOP_VOUCHED;

	return c->id && !(c->id & ~FAN_CONNECTION_ID_MASK) && c->generation != 0 &&
	       (c->hop & FAN_HOP_NEXTHOP) < r->root->nexthop_cnt &&
	       (!vouched || (c->cookie == 0 && c->lease == 0));
}

static int sweep_connection(struct registry *r, uint32_t idx)
{
	const struct fan_connection *c = &r->connections[idx];

	enum fan_connection_state state = connection_state(c);

	if (state == FAN_CONNECTION_FREE) {
		stack_push(&r->free_connections, idx);
		return 0;
	}
	if (!connection_ok(r, c))
		return corrupt(r, "a connection's record makes no sense", idx);
	if (connection_find(r, c->id) != NONE)
		return corrupt(r, "two connections have one id", idx);
	ids_add(r, idx);
	if (state == FAN_CONNECTION_ENDING) {
		r->counts.connections_ending++;
		return 0;
	}
	if (state == FAN_CONNECTION_ACTIVE) {
		r->counts.connections_active++;
		r->groupless++;
	} else {
		r->counts.connections_pending++;
	}
	return 0;
}

static int sweep_connections(struct registry *r)
{
	int rc = 0;

	for (uint32_t i = r->root->connection_cnt; rc == 0 && i-- > 0;)
		rc = sweep_connection(r, i);
	return rc;
}

/* ---- groups ---- */

/* Whose a connection is, its groups say: all of them the same. */
static bool sweep_user(struct registry *r, uint32_t connection, uint32_t group)
{
	enum fan_connection_state state = connection_state(&r->connections[connection]);
	uint32_t user = r->group_books[group].link.user;

	if (r->connection_books[connection].link.user != NONE)
		return r->connection_books[connection].link.user == user;
	if (state == FAN_CONNECTION_ENDING)
		user_link_ending(r, connection, user);
	else
		user_link_connection(r, connection, r->groups[group].handle);
	r->groupless -= state == FAN_CONNECTION_ACTIVE;
	return true;
}

static int sweep_endpoint(struct registry *r, uint32_t group, uint32_t idx)
{
	const struct fan_group *g = &r->groups[group];
	const struct fan_endpoint *e = &r->endpoints[idx];
	uint32_t connection = e->record;
	const struct fan_connection *c;

	if (connection >= r->root->connection_cnt)
		return corrupt(r, "an endpoint is of no connection", idx);
	c = &r->connections[connection];
	if (connection_state(c) == FAN_CONNECTION_FREE || e->connection != c->id)
		return corrupt(r, "an endpoint is of no connection", idx);
	if (memcmp(e->handle, g->handle, 16) != 0 || !sweep_user(r, connection, group))
		return corrupt(r, "an endpoint is of another user than its group", idx);
	if (e->hop != (c->hop & (FAN_HOP_NEXTHOP | FAN_HOP_IPV6)) || e->port != c->port ||
	    memcmp(e->address, c->address, 16) != 0)
		return corrupt(r, "an endpoint differs from its connection", idx);
	if ((g->channel & FAN_CHANNEL_KIND_MASK) == FAN_CHANNEL_SINGLE &&
	    g->channel != (FAN_CHANNEL_SINGLE | c->id))
		return corrupt(r, "a connection stands in another one's channel", idx);
	if (membership_has(r, connection, group))
		return corrupt(r, "a connection stands in a group twice", idx);
	membership_add(r, connection, group);
	r->counts.endpoints_used++;
	return 0;
}

static int sweep_block(struct registry *r, uint32_t group, struct seen *seen)
{
	uint64_t word = r->groups[group].endpoints;
	uint64_t first = word >> FAN_ENDPOINT_CNT_BITS;
	uint32_t cnt = (uint32_t)word & FAN_ENDPOINT_CNT_MAX;
	int rc = 0;

	if (first + cnt > r->root->endpoint_cnt || (cnt == 0 && word != 0))
		return corrupt(r, "a group's endpoints lie outside", group);
	for (uint32_t i = 0; rc == 0 && i < cnt; i++) {
		if (seen->endpoints[first + i]++)
			return corrupt(r, "two groups share an endpoint", (uint32_t)first + i);
		rc = sweep_endpoint(r, group, (uint32_t)first + i);
	}
	if (rc == 0 && cnt == 0)
		group_linger_begin(r, group);
	return rc;
}

static int sweep_group(struct registry *r, uint32_t group, uint32_t first, uint16_t fp,
		       struct seen *seen)
{
	const struct fan_group *g = &r->groups[group];
	uint64_t hash = group_hash(r, group);

	if (seen->groups[group]++)
		return corrupt(r, "a group stands in the table twice", group);
	if (fan_table_bucket_idx(&r->table, hash) != first || fan_table_fp(hash) != fp)
		return corrupt(r, "a group stands in a bucket that is not its own", group);
	if (!fan_channel_ok(g->channel) || g->incarnation == 0 ||
	    g->incarnation >= r->root->next_incarnation)
		return corrupt(r, "a group's record makes no sense", group);
	if (bucket_find(r, g->handle, g->channel, hash) != group)
		return corrupt(r, "two groups have one user and channel", group);
	user_link_group(r, group);
	return sweep_block(r, group, seen);
}

static int sweep_slots(struct registry *r, uint32_t bucket, uint32_t first, struct seen *seen)
{
	const struct fan_bucket *b = &r->buckets[bucket];
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < FAN_BUCKET_SLOTS; i++) {
		if (b->group[i] > r->root->group_cnt)
			return corrupt(r, "a slot names a group that is not there", bucket);
		if (b->group[i])
			rc = sweep_group(r, b->group[i] - 1, first, b->fp[i], seen);
	}
	return rc;
}

/* All links of a chain before any lookup in it: a ring would never end. */
static int sweep_links(struct registry *r, uint32_t first, struct seen *seen)
{
	for (uint32_t b = first; r->buckets[b].chain & FAN_CHAIN_NEXT;) {
		uint32_t next = fan_chain_next(&r->table, r->buckets[b].chain);

		if (next == NONE)
			return corrupt(r, "a bucket leads outside", b);
		if (seen->buckets[next]++)
			return corrupt(r, "two buckets lead to one", next);
		b = next;
	}
	return 0;
}

static int sweep_chain(struct registry *r, uint32_t first, struct seen *seen)
{
	int rc = sweep_links(r, first, seen);
	uint32_t b = first;

	for (; rc == 0 && b != NONE; b = fan_chain_next(&r->table, r->buckets[b].chain))
		rc = sweep_slots(r, b, first, seen);
	return rc;
}

/* Who is ENDING has left its groups, and rests; or had to wait for memory, and still does. */
static void sweep_ending(struct registry *r)
{
	for (uint32_t i = 0; i < r->root->connection_cnt; i++) {
		if (connection_state(&r->connections[i]) != FAN_CONNECTION_ENDING)
			continue;
		if (r->connection_books[i].memberships == NONE)
			retire(r, RETIRED_CONNECTION, i, 1);
		else
			connection_leave_later(r, i);
	}
}

/* ---- sessions and next hops ---- */

static int sweep_sessions(struct registry *r)
{
	for (uint32_t i = r->root->session_cnt; i-- > 0;) {
		const struct fan_session *session = &r->sessions[i];

		if (!session->id) {
			stack_push(&r->free_sessions, i);
			continue;
		}
		if (((uint32_t)session->id & r->table.session_mask) != i)
			return corrupt(r, "a publisher session is not in its slot", i);
		if (session->nexthop >= r->root->nexthop_cnt ||
		    (session->family != 4 && session->family != 6) ||
		    session->scope > FAN_SCOPE_ONE)
			return corrupt(r, "a publisher session makes no sense", i);
		r->counts.sessions++;
	}
	return 0;
}

/* Next hops are never given back, so they lie together at the front. */
static int sweep_nexthops(struct registry *r)
{
	bool ended = false;

	for (uint32_t i = 0; i < r->root->nexthop_cnt; i++) {
		uint8_t family = r->nexthops[i].family;

		if (family != 0 && family != 4 && family != 6)
			return corrupt(r, "a next hop is of no known family", i);
		if (family && ended)
			return corrupt(r, "a next hop stands behind a gap", i);
		ended = !family;
		r->counts.nexthops += family != 0;
	}
	return 0;
}

/* ---- what is left is free ---- */

static void collect_free(struct registry *r, const struct seen *seen)
{
	uint32_t run = 0;

	for (uint32_t i = 0; i < r->root->endpoint_cnt; i++) {
		if (!seen->endpoints[i]) {
			run++;
			continue;
		}
		if (run)
			block_free(&r->blocks, i - run, run);
		run = 0;
	}
	if (run)
		block_free(&r->blocks, r->root->endpoint_cnt - run, run);
	for (uint32_t i = r->root->group_cnt; i-- > 0;) {
		if (!seen->groups[i])
			stack_push(&r->free_groups, i);
	}
	for (uint32_t i = r->table.bucket_total; i-- > r->root->bucket_cnt;) {
		if (!seen->buckets[i])
			stack_push(&r->free_overflow, i);
	}
}

/* Overflow buckets without a group: a kill fell between clearing the last slot and unlinking. */
static void tidy_buckets(struct registry *r)
{
	for (uint32_t i = 0; i < r->table.bucket_cnt; i++) {
		if (r->buckets[i].chain)
			bucket_trim(r, i);
	}
}

static int sweep_table(struct registry *r, struct seen *seen)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < r->table.bucket_cnt; i++)
		rc = sweep_chain(r, i, seen);
	if (rc == 0) {
		collect_free(r, seen);
		sweep_ending(r);
		tidy_buckets(r);
	}
	return rc;
}

int sweep(struct registry *r)
{
	struct seen seen = {
		.groups = calloc(r->root->group_cnt, 1),
		.endpoints = calloc(r->root->endpoint_cnt, 1),
		.buckets = calloc(r->table.bucket_total, 1),
	};
	int rc = -ENOMEM;

	if (!seen.groups || !seen.endpoints || !seen.buckets)
		goto out;
	rc = sweep_connections(r);
	if (rc == 0)
		rc = sweep_table(r, &seen);
	if (rc == 0)
		rc = sweep_sessions(r);
	if (rc == 0)
		rc = sweep_nexthops(r);
out:
	free(seen.groups);
	free(seen.endpoints);
	free(seen.buckets);
	return rc;
}
