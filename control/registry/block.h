/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Allocator of contiguous runs of units (endpoints). Its books are private memory, rebuilt by the
 * sweep; the units themselves are never touched.
 *
 * Segregated free lists with boundary tags: exact lists up to 64 units, four lists a power of two
 * above, a bitmap to find the next filled one; neighbours coalesce on free, so that churn in one
 * size does not use up the area for another. Source: Masmano et al., "TLSF", ECRTS 2004.
 *
 * Owner: control/registry. One thread.
 */
#pragma once

#include <stdint.h>

#define BLOCK_NONE  UINT32_MAX
#define BLOCK_EXACT 64
#define BLOCK_LISTS 192

/*
 * Of a unit. `run` is the length at a free run's first unit, and at its last one with BLOCK_LAST
 * (unless that is the first, too); 0 everywhere else.
 */
#define BLOCK_LAST (UINT32_C(1) << 31)
struct block_tag {
	uint32_t run;
	uint32_t next; /* first units of the same list, + 1 */
	uint32_t prev;
};

struct block_pool {
	struct block_tag *tags;
	uint32_t unit_cnt;
	uint32_t free_cnt;
	uint32_t lists[BLOCK_LISTS]; /* first unit + 1 */
	uint64_t filled[BLOCK_LISTS / 64];
};

/* All units are in use to begin with: give the free ones with block_free(). -ENOMEM. */
int block_pool_init(struct block_pool *pool, uint32_t unit_cnt);
void block_pool_fini(struct block_pool *pool);
/* First unit of a run of cnt (at least 1), or BLOCK_NONE. */
uint32_t block_alloc(struct block_pool *pool, uint32_t cnt);
/* The first `cnt` units of the free run that begins at `first`; BLOCK_NONE: it is shorter. */
uint32_t block_take(struct block_pool *pool, uint32_t first, uint32_t cnt);
/* Length of the free run that begins at `first`; 0: none does. */
uint32_t block_run(const struct block_pool *pool, uint32_t first);
/* Where the next free run at or after `from` begins; where it is no nearer than `most`, that far.
 */
uint32_t block_next(const struct block_pool *pool, uint32_t from, uint32_t most);
/* There is a free run of at least so many units, of the longest kind that there is; 0: none. */
uint32_t block_longest(const struct block_pool *pool);
/* Any run of units in use, not only a whole one as it was allocated. */
void block_free(struct block_pool *pool, uint32_t first, uint32_t cnt);
