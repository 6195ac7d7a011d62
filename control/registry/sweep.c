/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rebuilds all private memory from a region that was taken over, and believes nothing in it:
 * every index is checked before it is followed, nothing may be used twice, and what repeats must
 * agree. What is referenced nowhere is free. A corrupt region is refused, never repaired.
 *
 * Each array is met once, in its own order, for there may be tens of millions of records, and
 * fanwired serves nobody meanwhile; what must be looked up elsewhere is asked for some records
 * ahead.
 */
#include <errno.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/big.h"
#include "control/registry/bits.h"
#include "control/registry/sweep.h"

#define IDS_AHEAD 32u

int sweep_corrupt(struct registry *r, const char *what, uint32_t idx)
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

/* Ids on their way into the index: its memory was asked for when they came. */
struct ids {
	uint32_t records[IDS_AHEAD];
	uint64_t hashes[IDS_AHEAD];
	uint64_t cnt, done;
};

static int ids_finish(struct registry *r, struct ids *ids)
{
	unsigned i = ids->done++ % IDS_AHEAD;
	uint32_t record = ids->records[i];

	if (!index_add_new(&r->ids, ids->hashes[i], record, &r->connections[record].id))
		return sweep_corrupt(r, "two connections have one id", record);
	return 0;
}

static int ids_begin(struct registry *r, struct ids *ids, uint32_t record)
{
	int rc = ids->cnt - ids->done == IDS_AHEAD ? ids_finish(r, ids) : 0;
	unsigned i = ids->cnt++ % IDS_AHEAD;

	ids->records[i] = record;
	ids->hashes[i] = id_hash(r, r->connections[record].id);
	index_prefetch(&r->ids, ids->hashes[i]);
	return rc;
}

static int sweep_connection(struct registry *r, uint32_t idx, struct ids *ids)
{
	const struct fan_connection *c = &r->connections[idx];
	enum fan_connection_state state = connection_state(c);

	r->connection_books[idx] = (struct connection_books){
		.link = {.user = NONE, .prev = NONE, .next = NONE}, .memberships = NONE};
	if (state == FAN_CONNECTION_FREE) {
		stack_push(&r->free_connections, idx);
		return 0;
	}
	if (!connection_ok(r, c))
		return sweep_corrupt(r, "a connection's record makes no sense", idx);
	if (state != FAN_CONNECTION_ACTIVE)
		stack_push(&r->unsettled, idx);
	r->sockets += !(c->hop & FAN_HOP_VOUCHED);
	r->groupless += state == FAN_CONNECTION_ACTIVE;
	r->counts.connections_active += state == FAN_CONNECTION_ACTIVE;
	r->counts.connections_pending += state == FAN_CONNECTION_PENDING;
	r->counts.connections_ending += state == FAN_CONNECTION_ENDING;
	return ids_begin(r, ids, idx);
}

static int sweep_connections(struct registry *r)
{
	struct ids ids = {.cnt = 0};
	int rc = 0;

	for (uint32_t i = r->root->connection_cnt; rc == 0 && i-- > 0;)
		rc = sweep_connection(r, i, &ids);
	while (rc == 0 && ids.done != ids.cnt)
		rc = ids_finish(r, &ids);
	return rc;
}

/* Who is ENDING has left its groups, and rests; or had to wait for memory, and still does. */
static void sweep_ending(struct registry *r)
{
	for (uint32_t i = 0; i < r->unsettled.cnt; i++) {
		uint32_t idx = r->unsettled.items[i];

		if (connection_state(&r->connections[idx]) != FAN_CONNECTION_ENDING)
			continue;
		if (r->connection_books[idx].memberships == NONE)
			retire(r, RETIRED_CONNECTION, idx, 1);
		else
			connection_leave_later(r, idx);
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
			return sweep_corrupt(r, "a publisher session is not in its slot", i);
		if (session->nexthop >= r->root->nexthop_cnt ||
		    (session->family != 4 && session->family != 6) ||
		    session->scope > FAN_SCOPE_ONE)
			return sweep_corrupt(r, "a publisher session makes no sense", i);
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
			return sweep_corrupt(r, "a next hop is of no known family", i);
		if (family && ended)
			return sweep_corrupt(r, "a next hop stands behind a gap", i);
		ended = !family;
		r->counts.nexthops += family != 0;
	}
	return 0;
}

/* ---- what is left is free ---- */

static void collect_free(struct registry *r, const struct seen *seen)
{
	uint32_t cnt = r->root->endpoint_cnt, first = bits_next(seen->endpoints, cnt, 0, true);

	while (first < cnt) {
		uint32_t end = bits_next(seen->endpoints, cnt, first, false);

		block_free(&r->blocks, first, end - first);
		first = bits_next(seen->endpoints, cnt, end, true);
	}
	for (uint32_t i = r->root->group_cnt; i-- > 0;) {
		if (!seen->places[i].first)
			stack_push(&r->free_groups, i);
	}
	for (uint32_t i = r->root->overflow_cnt; i-- > 0;) {
		if (!bits_has(seen->overflow, i))
			stack_push(&r->free_overflow, r->root->bucket_cnt + i);
	}
}

static int sweep_all(struct registry *r, struct seen *seen)
{
	int rc = sweep_connections(r);

	if (rc == 0)
		rc = sweep_table(r, seen);
	if (rc == 0) {
		collect_free(r, seen);
		sweep_ending(r);
		rc = sweep_sessions(r);
	}
	return rc == 0 ? sweep_nexthops(r) : rc;
}

int sweep(struct registry *r)
{
	const struct fan_registry *root = r->root;
	uint32_t endpoint_words = bits_words(root->endpoint_cnt);
	uint32_t overflow_words = bits_words(root->overflow_cnt);
	struct seen seen = {
		.places = big_calloc(root->group_cnt, sizeof(*seen.places)),
		.endpoints = big_calloc(endpoint_words, sizeof(*seen.endpoints)),
		.overflow = big_calloc(overflow_words, sizeof(*seen.overflow)),
	};
	int rc = -ENOMEM;

	if (seen.places && seen.endpoints && seen.overflow &&
	    stack_init(&seen.chained, root->bucket_cnt) &&
	    stack_init(&r->unsettled, root->connection_cnt))
		rc = sweep_all(r, &seen);
	else
		registry_fail(r, rc, "out of memory for the registry's books; lower the limits");
	big_free(seen.places, root->group_cnt, sizeof(*seen.places));
	big_free(seen.endpoints, endpoint_words, sizeof(*seen.endpoints));
	big_free(seen.overflow, overflow_words, sizeof(*seen.overflow));
	stack_fini(&seen.chained);
	return rc;
}
