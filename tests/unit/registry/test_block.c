/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "control/registry/block.h"

#define UNITS 4096

static void pool_make(struct block_pool *pool)
{
	cr_assert_eq(block_pool_init(pool, UNITS), 0);
	cr_assert_eq(block_alloc(pool, 1), BLOCK_NONE, "nothing is free to begin with");
	block_free(pool, 0, UNITS);
}

Test(block, gives_everything_once_and_takes_it_back)
{
	struct block_pool pool;

	pool_make(&pool);
	cr_assert_eq(block_alloc(&pool, UNITS + 1), BLOCK_NONE);
	cr_assert_eq(block_alloc(&pool, 0), BLOCK_NONE);
	cr_assert_eq(block_alloc(&pool, UNITS), 0);
	cr_assert_eq(block_alloc(&pool, 1), BLOCK_NONE);
	block_free(&pool, 0, UNITS);
	cr_assert_eq(pool.free_cnt, UNITS);
	block_pool_fini(&pool);
}

/* Churn in size 1 must not use up the area for anything larger. */
Test(block, neighbours_coalesce_in_any_order)
{
	struct block_pool pool;

	pool_make(&pool);
	for (uint32_t i = 0; i < UNITS; i++)
		cr_assert_neq(block_alloc(&pool, 1), BLOCK_NONE);
	for (uint32_t i = 0; i < UNITS; i += 2)
		block_free(&pool, i, 1);
	cr_assert_eq(block_alloc(&pool, 2), BLOCK_NONE, "no two neighbours are free");
	for (uint32_t i = UNITS; i > 0; i -= 2)
		block_free(&pool, i - 1, 1);
	cr_assert_eq(block_alloc(&pool, UNITS), 0);
	block_pool_fini(&pool);
}

Test(block, runs_are_found_from_their_beginning)
{
	struct block_pool pool;

	pool_make(&pool);
	cr_assert_eq(block_longest(&pool), UNITS);
	cr_assert_eq(block_alloc(&pool, 100), 0);
	block_free(&pool, 10, 5);
	block_free(&pool, 30, 1);
	cr_assert_eq(block_next(&pool, 0, UNITS), 10);
	cr_assert_eq(block_run(&pool, 10), 5);
	cr_assert_eq(block_run(&pool, 14), 0, "its last unit is no beginning");
	cr_assert_eq(block_next(&pool, 11, UNITS), 30, "from within a run: the next one");
	cr_assert_eq(block_next(&pool, 11, 7), 18, "no farther than it may look");
	cr_assert_eq(block_next(&pool, 31, UNITS), 100);
	cr_assert_eq(block_take(&pool, 10, 6), BLOCK_NONE, "it is shorter");
	cr_assert_eq(block_take(&pool, 10, 2), 10);
	cr_assert_eq(block_run(&pool, 12), 3);
	cr_assert_eq(block_take(&pool, 12, 3), 12);
	cr_assert_eq(block_take(&pool, 30, 1), 30);
	block_free(&pool, 0, 100);
	cr_assert_eq(block_take(&pool, 0, UNITS), 0);
	cr_assert_eq(block_longest(&pool), 0);
	cr_assert_eq(block_next(&pool, 0, UNITS), UNITS);
	block_free(&pool, 0, 77);
	cr_assert_leq(block_longest(&pool), 77, "at least so long, never longer");
	cr_assert_gt(block_longest(&pool), 48);
	block_pool_fini(&pool);
}

Test(block, a_part_of_a_run_can_go_back)
{
	struct block_pool pool;
	uint32_t first;

	pool_make(&pool);
	first = block_alloc(&pool, 10);
	block_free(&pool, first, 1);
	block_free(&pool, first + 9, 1);
	block_free(&pool, first + 4, 2);
	cr_assert_eq(pool.free_cnt, UNITS - 6);
	block_free(&pool, first + 1, 3);
	block_free(&pool, first + 6, 3);
	cr_assert_eq(block_alloc(&pool, UNITS), 0);
	block_pool_fini(&pool);
}

struct run {
	uint32_t first, cnt;
};

static uint32_t random_cnt(void)
{
	return 1 + (uint32_t)random() % (random() % 16 ? 12 : 300);
}

/* Seeded churn against a map of owners: no overlap, no loss; refused only when nothing fits. */
Test(block, agrees_with_a_map)
{
	static uint8_t used[UNITS];
	static struct run runs[UNITS];
	struct block_pool pool;
	uint32_t run_cnt = 0, free_cnt = UNITS, longest, at;

	srandom(2);
	pool_make(&pool);
	for (unsigned n = 0; n < 100000; n++) {
		if (random() % 2 && run_cnt) {
			uint32_t i = (uint32_t)random() % run_cnt;

			block_free(&pool, runs[i].first, runs[i].cnt);
			memset(used + runs[i].first, 0, runs[i].cnt);
			free_cnt += runs[i].cnt;
			runs[i] = runs[--run_cnt];
		} else {
			struct run run = {.cnt = random_cnt()};

			run.first = block_alloc(&pool, run.cnt);
			if (run.first == BLOCK_NONE) {
				for (longest = at = 0; at < UNITS; at++) {
					uint32_t len = 0;

					while (at + len < UNITS && !used[at + len])
						len++;
					longest = len > longest ? len : longest;
					at += len;
				}
				cr_assert_lt(longest, run.cnt, "refused, and a run was there");
				continue;
			}
			cr_assert_leq(run.first + run.cnt, UNITS);
			cr_assert_null(memchr(used + run.first, 1, run.cnt));
			memset(used + run.first, 1, run.cnt);
			free_cnt -= run.cnt;
			runs[run_cnt++] = run;
		}
		cr_assert_eq(pool.free_cnt, free_cnt);
	}
	block_pool_fini(&pool);
}
