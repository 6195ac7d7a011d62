/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/registry/block.h"

#include <errno.h>
#include <string.h>

#include "control/registry/big.h"

int block_pool_init(struct block_pool *pool, uint32_t unit_cnt)
{
	memset(pool, 0, sizeof(*pool));
	/* + 1: never free, a stop */
	pool->tags = big_calloc((size_t)unit_cnt + 1, sizeof(*pool->tags));
	if (!pool->tags)
		return -ENOMEM;
	pool->unit_cnt = unit_cnt;
	return 0;
}

void block_pool_fini(struct block_pool *pool)
{
	big_free(pool->tags, (size_t)pool->unit_cnt + 1, sizeof(*pool->tags));
	pool->tags = NULL;
}

static unsigned list_of(uint32_t cnt)
{
	if (cnt <= BLOCK_EXACT)
		return cnt - 1;
	unsigned power = 31 - (unsigned)__builtin_clz(cnt);

	return BLOCK_EXACT + (power - 6) * 4 + ((cnt >> (power - 2)) & 3);
}

static void list_add(struct block_pool *pool, uint32_t first, uint32_t cnt)
{
	unsigned list = list_of(cnt);
	struct block_tag *tag = &pool->tags[first];

	tag->run = cnt;
	if (cnt > 1)
		pool->tags[first + cnt - 1].run = cnt | BLOCK_LAST;
	tag->prev = 0;
	tag->next = pool->lists[list];
	if (tag->next)
		pool->tags[tag->next - 1].prev = first + 1;
	pool->lists[list] = first + 1;
	pool->filled[list / 64] |= UINT64_C(1) << (list % 64);
}

static void list_del(struct block_pool *pool, uint32_t first)
{
	struct block_tag *tag = &pool->tags[first];
	uint32_t cnt = tag->run;
	unsigned list = list_of(cnt);

	if (tag->next)
		pool->tags[tag->next - 1].prev = tag->prev;
	if (tag->prev)
		pool->tags[tag->prev - 1].next = tag->next;
	else
		pool->lists[list] = tag->next;
	if (!pool->lists[list])
		pool->filled[list / 64] &= ~(UINT64_C(1) << (list % 64));
	pool->tags[first + cnt - 1].run = 0;
	tag->run = 0;
}

/* A run of at least cnt in the list that cnt itself belongs to: its runs may be shorter. */
static uint32_t search_own_list(const struct block_pool *pool, uint32_t cnt)
{
	for (uint32_t at = pool->lists[list_of(cnt)]; at; at = pool->tags[at - 1].next) {
		if (pool->tags[at - 1].run >= cnt)
			return at - 1;
	}
	return BLOCK_NONE;
}

/* The first run of the next filled list above: each of them is long enough. */
static uint32_t search_larger(const struct block_pool *pool, uint32_t cnt)
{
	unsigned list = list_of(cnt) + 1;

	for (unsigned word = list / 64; word < BLOCK_LISTS / 64; word++) {
		uint64_t bits = pool->filled[word];

		if (word == list / 64)
			bits &= ~UINT64_C(0) << (list % 64);
		if (bits)
			return pool->lists[word * 64 + (unsigned)__builtin_ctzll(bits)] - 1;
	}
	return BLOCK_NONE;
}

uint32_t block_take(struct block_pool *pool, uint32_t first, uint32_t cnt)
{
	uint32_t run = pool->tags[first].run;

	if (run < cnt)
		return BLOCK_NONE;
	list_del(pool, first);
	if (run > cnt)
		list_add(pool, first + cnt, run - cnt);
	pool->free_cnt -= cnt;
	return first;
}

uint32_t block_alloc(struct block_pool *pool, uint32_t cnt)
{
	uint32_t first;

	if (cnt == 0 || cnt > pool->free_cnt)
		return BLOCK_NONE;
	/* Exact fit first for small ones; for large ones a longer list spares the search. */
	first = cnt <= BLOCK_EXACT ? search_own_list(pool, cnt) : search_larger(pool, cnt);
	if (first == BLOCK_NONE)
		first = cnt <= BLOCK_EXACT ? search_larger(pool, cnt) : search_own_list(pool, cnt);
	if (first == BLOCK_NONE)
		return BLOCK_NONE;
	return block_take(pool, first, cnt);
}

uint32_t block_run(const struct block_pool *pool, uint32_t first)
{
	return pool->tags[first].run & BLOCK_LAST ? 0 : pool->tags[first].run;
}

uint32_t block_next(const struct block_pool *pool, uint32_t from, uint32_t most)
{
	uint32_t i = from;

	while (i < pool->unit_cnt && i - from < most && !block_run(pool, i))
		i++;
	return i;
}

/* The least length that a list holds: of the exact ones each, else what list_of() begins it with.
 */
uint32_t block_longest(const struct block_pool *pool)
{
	for (unsigned word = BLOCK_LISTS / 64; word-- > 0;) {
		if (!pool->filled[word])
			continue;
		unsigned list = word * 64 + 63 - (unsigned)__builtin_clzll(pool->filled[word]);
		if (list < BLOCK_EXACT)
			return list + 1;
		unsigned power = 6 + (list - BLOCK_EXACT) / 4;
		return (4 + (list - BLOCK_EXACT) % 4) << (power - 2);
	}
	return 0;
}

void block_free(struct block_pool *pool, uint32_t first, uint32_t cnt)
{
	pool->free_cnt += cnt;
	if (first > 0 && pool->tags[first - 1].run) {
		uint32_t left = pool->tags[first - 1].run & ~BLOCK_LAST;

		first -= left;
		cnt += left;
		list_del(pool, first);
	}
	if (pool->tags[first + cnt].run) {
		uint32_t right = pool->tags[first + cnt].run;

		list_del(pool, first + cnt);
		cnt += right;
	}
	list_add(pool, first, cnt);
}
