/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What changes will touch, asked for before they are made. A change of one connection among
 * millions waits for some ten lines of memory, one after the other; told of several changes
 * beforehand, their lines are under way together. Nothing here changes anything, and what is asked
 * for in vain costs nothing but the asking: each step reads only what the step before it found.
 */
#include "common/wire/wire.h"
#include "control/registry/internal.h"

/* The record of an id, by the first cell of its probes alone. */
static uint32_t record_guess(const struct registry *r, uint64_t id)
{
	uint64_t hash = id_hash(r, id);
	uint64_t home = (uint64_t)(uint32_t)hash * r->ids.cell_cnt >> 32;

	for (uint32_t i = 0; i < 4 && home + i < r->ids.cell_cnt; i++) {
		const struct index_cell *cell = &r->ids.cells[home + i];

		if (cell->hash == (uint32_t)hash && cell->value)
			return cell->value - 1;
	}
	return NONE;
}

/* What the n-th pop from now will give, or NONE. */
static uint32_t stack_peek(const struct stack *stack, unsigned n)
{
	if (n < stack->cnt)
		return stack->items[stack->cnt - 1 - n];
	n -= stack->cnt;
	return n < stack->fresh_end - stack->fresh ? stack->fresh + n : NONE;
}

static void fresh_ask(const struct registry *r, unsigned n)
{
	uint32_t connection = stack_peek(&r->free_connections, n);
	uint32_t group = stack_peek(&r->free_groups, n);
	uint32_t user = stack_peek(&r->free_users, n);
	uint32_t membership = stack_peek(&r->free_memberships, n);

	if (connection != NONE) {
		__builtin_prefetch(&r->connections[connection], 1);
		__builtin_prefetch(&r->connection_books[connection], 1);
	}
	if (group != NONE) {
		__builtin_prefetch(&r->groups[group], 1);
		__builtin_prefetch(&r->group_links[group], 1);
		__builtin_prefetch(&r->group_books[group], 1);
	}
	if (user != NONE)
		__builtin_prefetch(&r->users[user], 1);
	if (membership != NONE)
		__builtin_prefetch(&r->memberships[membership], 1);
}

/* Blocks of one endpoint, the first of their list: what a user's first connection takes. */
static void blocks_ask(const struct registry *r, unsigned cnt)
{
	uint32_t at = r->blocks.lists[0];

	for (unsigned i = 0; i < cnt && at && at <= r->blocks.unit_cnt; i++) {
		__builtin_prefetch(&r->endpoints[at - 1], 1);
		at = r->blocks.tags[at - 1].next;
	}
}

void registry_ahead_add(const struct registry *r, const uint64_t *ids,
			const uint8_t *const *handles, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++) {
		uint64_t hash = fan_table_hash(r->table.seed, handles[i], FAN_CHANNEL_ALL);

		index_prefetch(&r->ids, id_hash(r, ids[i]));
		user_prefetch(r, handles[i]);
		__builtin_prefetch(&r->buckets[fan_table_bucket_idx(&r->table, hash)], 1);
		fresh_ask(r, i);
	}
	blocks_ask(r, cnt);
}

/* A connection's way to its groups, a step of all at a time. */
struct way {
	uint32_t record, membership, group;
};

static void records_ask(const struct registry *r, const uint64_t *ids, unsigned cnt,
			struct way *ways)
{
	for (unsigned i = 0; i < cnt; i++) {
		uint32_t record = record_guess(r, ids[i]);

		ways[i] = (struct way){record, NONE, NONE};
		if (record == NONE)
			continue;
		__builtin_prefetch(&r->connections[record], 1);
		__builtin_prefetch(&r->connection_books[record], 1);
	}
}

static void memberships_ask(const struct registry *r, unsigned cnt, struct way *ways)
{
	for (unsigned i = 0; i < cnt; i++) {
		const struct connection_books *books = &r->connection_books[ways[i].record];

		if (ways[i].record == NONE)
			continue;
		ways[i].membership = books->memberships;
		if (books->memberships != NONE)
			__builtin_prefetch(&r->memberships[books->memberships], 1);
		if (books->link.user != NONE)
			__builtin_prefetch(&r->users[books->link.user], 1);
	}
}

static void groups_ask(const struct registry *r, unsigned cnt, struct way *ways)
{
	for (unsigned i = 0; i < cnt; i++) {
		if (ways[i].membership == NONE)
			continue;
		ways[i].group = r->memberships[ways[i].membership].group;
		__builtin_prefetch(&r->groups[ways[i].group], 1);
		__builtin_prefetch(&r->group_books[ways[i].group], 1);
		__builtin_prefetch(&r->group_links[ways[i].group], 1);
	}
}

static void blocks_of_groups_ask(const struct registry *r, unsigned cnt, const struct way *ways)
{
	for (unsigned i = 0; i < cnt; i++) {
		uint32_t first;

		if (ways[i].group != NONE && group_block(r, ways[i].group, &first))
			__builtin_prefetch(&r->endpoints[first], 1);
	}
}

void registry_ahead_del(const struct registry *r, const uint64_t *ids, unsigned cnt)
{
	struct way ways[REGISTRY_AHEAD_MAX];

	cnt = cnt < REGISTRY_AHEAD_MAX ? cnt : REGISTRY_AHEAD_MAX;
	for (unsigned i = 0; i < cnt; i++)
		index_prefetch(&r->ids, id_hash(r, ids[i]));
	records_ask(r, ids, cnt, ways);
	memberships_ask(r, cnt, ways);
	groups_ask(r, cnt, ways);
	blocks_of_groups_ask(r, cnt, ways);
}

/* ---- within the registry ---- */

void ahead_group_end(const struct registry *r, uint32_t group)
{
	const struct fan_group *g = &r->groups[group];
	uint64_t hash = fan_table_hash(r->table.seed, g->handle, g->channel);

	__builtin_prefetch(&r->buckets[fan_table_bucket_idx(&r->table, hash)], 1);
	user_prefetch(r, g->handle);
}

void ahead_release(const struct registry *r, struct retired item)
{
	uint32_t cnt = item.cnt_kind >> RETIRED_KIND_BITS;

	if ((item.cnt_kind & ((1u << RETIRED_KIND_BITS) - 1)) != RETIRED_BLOCK)
		return;
	__builtin_prefetch(&r->blocks.tags[item.idx], 1);
	__builtin_prefetch(&r->blocks.tags[item.idx + cnt], 1);
}

void ahead_tell(const struct registry *r)
{
	const struct stack *freed = &r->freed;

	if (freed->cnt > 2 * REGISTRY_AHEAD) {
		uint32_t connection = freed->items[freed->cnt - 1 - 2 * REGISTRY_AHEAD];

		__builtin_prefetch(&r->connections[connection], 1);
		__builtin_prefetch(&r->connection_books[connection], 1);
	}
	if (freed->cnt > REGISTRY_AHEAD) {
		uint32_t connection = freed->items[freed->cnt - 1 - REGISTRY_AHEAD];

		index_prefetch(&r->ids, id_hash(r, r->connections[connection].id));
		if (r->connection_books[connection].link.user != NONE)
			__builtin_prefetch(&r->users[r->connection_books[connection].link.user], 1);
	}
}
