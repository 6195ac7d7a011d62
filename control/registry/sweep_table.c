/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sweep of the table: first the buckets in their order, then the groups in theirs, a batch at a
 * time, so that what one group's books and endpoints wait for is under way together with others'.
 */
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/bits.h"
#include "control/registry/sweep.h"

#define BATCH	    32u
#define BLOCK_AHEAD 16u /* endpoints of a block that are asked for; others follow by themselves */

/* ---- buckets ---- */

/* All links of a chain before any walk in it: a ring would never end. */
static int sweep_links(struct registry *r, uint32_t first, struct seen *seen)
{
	for (uint32_t b = first; r->buckets[b].chain & FAN_CHAIN_NEXT;) {
		uint32_t next = fan_chain_next(&r->table, r->buckets[b].chain);

		if (next == NONE)
			return sweep_corrupt(r, "a bucket leads outside", b);
		if (!bits_add(seen->overflow, next - r->table.bucket_cnt))
			return sweep_corrupt(r, "two buckets lead to one", next);
		b = next;
	}
	return 0;
}

static bool same_key(const struct fan_group *a, const struct fan_group *b)
{
	return a->channel == b->channel && memcmp(a->handle, b->handle, 16) == 0;
}

/* Whether a slot before this one in the chain has the same key: its fingerprint would be equal. */
static bool is_second(const struct registry *r, uint32_t first, uint32_t bucket, unsigned slot)
{
	const struct fan_bucket *here = &r->buckets[bucket];
	const struct fan_group *group = &r->groups[here->group[slot] - 1];

	for (uint32_t b = first;; b = fan_chain_next(&r->table, r->buckets[b].chain)) {
		unsigned mask = fan_bucket_match(&r->buckets[b], here->fp[slot]);

		if (b == bucket)
			mask &= (1u << slot) - 1;
		for (; mask; mask &= mask - 1) {
			uint32_t other = r->buckets[b].group[__builtin_ctz(mask)];

			if (other && other <= r->root->group_cnt &&
			    same_key(&r->groups[other - 1], group))
				return true;
		}
		if (b == bucket)
			return false;
	}
}

static int sweep_bucket(struct registry *r, uint32_t first, uint32_t bucket, struct seen *seen)
{
	const struct fan_bucket *b = &r->buckets[bucket];

	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
		uint32_t group = b->group[i];

		if (!group)
			continue;
		if (group > r->root->group_cnt)
			return sweep_corrupt(r, "a slot names a group that is not there", bucket);
		if (seen->places[group - 1].first)
			return sweep_corrupt(r, "a group stands in the table twice", group - 1);
		if (is_second(r, first, bucket, i))
			return sweep_corrupt(r, "two groups have one user and channel", group - 1);
		seen->places[group - 1] =
			(struct place){.first = first + 1, .fp = b->fp[i], .deep = bucket != first};
	}
	return 0;
}

static int sweep_chain(struct registry *r, uint32_t first, struct seen *seen)
{
	int rc = sweep_links(r, first, seen);

	if (r->buckets[first].chain)
		stack_push(&seen->chained, first);
	for (uint32_t b = first; rc == 0 && b != NONE;
	     b = fan_chain_next(&r->table, r->buckets[b].chain))
		rc = sweep_bucket(r, first, b, seen);
	return rc;
}

/* ---- groups and endpoints ---- */

/* A group of the batch. What is checked of it is used. */
struct swept {
	uint32_t group, user;
	uint32_t first, cnt; /* endpoints */
};

/* Whose a connection is, its groups say: all of them the same. */
static bool sweep_user(struct registry *r, uint32_t connection, uint32_t user)
{
	enum fan_connection_state state = connection_state(&r->connections[connection]);

	if (r->connection_books[connection].link.user != NONE)
		return r->connection_books[connection].link.user == user;
	if (state == FAN_CONNECTION_ENDING)
		user_link_ending(r, connection, user);
	else
		user_link_known(r, connection, user);
	r->groupless -= state == FAN_CONNECTION_ACTIVE;
	return true;
}

/* A group's endpoints are met one after the other: a second of one connection finds the first. */
static bool stands_already(const struct registry *r, uint32_t connection, uint32_t group)
{
	uint32_t last = r->connection_books[connection].memberships;

	return last != NONE && r->memberships[last].group == group;
}

static int sweep_endpoint(struct registry *r, const struct swept *swept, uint32_t idx)
{
	const struct fan_group *g = &r->groups[swept->group];
	const struct fan_endpoint *e = &r->endpoints[idx];
	uint32_t connection = e->record;
	const struct fan_connection *c;

	if (connection >= r->root->connection_cnt)
		return sweep_corrupt(r, "an endpoint is of no connection", idx);
	c = &r->connections[connection];
	if (connection_state(c) == FAN_CONNECTION_FREE || e->connection != c->id)
		return sweep_corrupt(r, "an endpoint is of no connection", idx);
	if (memcmp(e->handle, g->handle, 16) != 0 || !sweep_user(r, connection, swept->user))
		return sweep_corrupt(r, "an endpoint is of another user than its group", idx);
	if (e->hop != (c->hop & (FAN_HOP_NEXTHOP | FAN_HOP_IPV6)) || e->port != c->port ||
	    memcmp(e->address, c->address, 16) != 0)
		return sweep_corrupt(r, "an endpoint differs from its connection", idx);
	if ((g->channel & FAN_CHANNEL_KIND_MASK) == FAN_CHANNEL_SINGLE &&
	    g->channel != (FAN_CHANNEL_SINGLE | c->id))
		return sweep_corrupt(r, "a connection stands in another one's channel", idx);
	if (stands_already(r, connection, swept->group))
		return sweep_corrupt(r, "a connection stands in a group twice", idx);
	membership_add(r, connection, swept->group);
	return 0;
}

/* Its place and its record; asks for what comes next. */
static int sweep_group(struct registry *r, uint32_t group, struct seen *seen, struct swept *swept)
{
	const struct fan_group *g = &r->groups[group];
	const struct place *place = &seen->places[group];
	uint64_t first = g->endpoints >> FAN_ENDPOINT_CNT_BITS, hash = group_hash(r, group);
	uint32_t cnt = (uint32_t)g->endpoints & FAN_ENDPOINT_CNT_MAX;

	if (fan_table_bucket_idx(&r->table, hash) != place->first - 1 ||
	    fan_table_fp(hash) != place->fp)
		return sweep_corrupt(r, "a group stands in a bucket that is not its own", group);
	if (place->deep && bucket_find(r, g->handle, g->channel, hash) != group)
		return sweep_corrupt(r, "a group is not found where it stands", group);
	if (!fan_channel_ok(g->channel) || g->incarnation == 0 ||
	    g->incarnation >= r->root->next_incarnation)
		return sweep_corrupt(r, "a group's record makes no sense", group);
	if (first + cnt > r->root->endpoint_cnt || (cnt == 0 && g->endpoints != 0))
		return sweep_corrupt(r, "a group's endpoints lie outside", group);
	*swept = (struct swept){.group = group, .first = (uint32_t)first, .cnt = cnt};
	user_prefetch(r, g->handle);
	for (uint32_t i = 0; i < cnt && i < BLOCK_AHEAD; i++)
		__builtin_prefetch(&r->endpoints[first + i]);
	return 0;
}

/* Its user; asks for the records of its connections. */
static void sweep_members_ahead(struct registry *r, struct swept *swept)
{
	user_link_group(r, swept->group);
	swept->user = r->group_links[swept->group].user;
	for (uint32_t i = 0; i < swept->cnt && i < BLOCK_AHEAD; i++) {
		uint32_t record = r->endpoints[swept->first + i].record;

		if (record >= r->root->connection_cnt)
			continue;
		__builtin_prefetch(&r->connections[record]);
		__builtin_prefetch((const char *)&r->connections[record + 1] - 1);
		__builtin_prefetch(&r->connection_books[record], 1);
	}
}

static int sweep_members(struct registry *r, const struct swept *swept, struct seen *seen)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < swept->cnt; i++) {
		if (!bits_add(seen->endpoints, swept->first + i))
			return sweep_corrupt(r, "two groups share an endpoint", swept->first + i);
		rc = sweep_endpoint(r, swept, swept->first + i);
	}
	r->counts.endpoints_used += swept->cnt;
	if (rc == 0 && swept->cnt == 0)
		group_linger_begin(r, swept->group);
	return rc;
}

static int sweep_batch(struct registry *r, struct swept *batch, unsigned cnt, struct seen *seen)
{
	int rc = 0;

	for (unsigned i = 0; i < cnt; i++)
		sweep_members_ahead(r, &batch[i]);
	for (unsigned i = 0; rc == 0 && i < cnt; i++)
		rc = sweep_members(r, &batch[i], seen);
	return rc;
}

static int sweep_groups(struct registry *r, struct seen *seen)
{
	struct swept batch[BATCH];
	unsigned cnt = 0;
	int rc = 0;

	for (uint32_t group = 0; rc == 0 && group < r->root->group_cnt; group++) {
		if (!seen->places[group].first)
			continue;
		rc = sweep_group(r, group, seen, &batch[cnt++]);
		if (rc == 0 && cnt == BATCH) {
			rc = sweep_batch(r, batch, cnt, seen);
			cnt = 0;
		}
	}
	return rc ? rc : sweep_batch(r, batch, cnt, seen);
}

/* ---- the whole ---- */

/* Overflow buckets without a group, and marks of groups that are gone: a kill fell in between. */
static void tidy_buckets(struct registry *r, struct seen *seen)
{
	uint32_t first;

	while ((first = stack_pop(&seen->chained)) != NONE)
		bucket_trim(r, first);
}

int sweep_table(struct registry *r, struct seen *seen)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < r->table.bucket_cnt; i++)
		rc = sweep_chain(r, i, seen);
	if (rc == 0)
		rc = sweep_groups(r, seen);
	if (rc == 0)
		tidy_buckets(r, seen);
	return rc;
}
