/* SPDX-License-Identifier: BSD-3-Clause */
/* Between sweep.c, which knows records, and sweep_table.c, which knows buckets and groups. */
#pragma once

#include "control/registry/internal.h"

/* Where a group stands in the table. */
struct place {
	uint32_t first; /* first-level bucket of its chain + 1; 0: it is not in the table */
	uint16_t fp;
	bool deep; /* in an overflow bucket */
};

struct seen {
	struct place *places; /* of each group */
	uint64_t *endpoints;  /* bits: in use */
	uint64_t *overflow;   /* bits, by number among the overflow buckets: in a chain */
	struct stack chained; /* first-level buckets whose chain word is not 0 */
};

/* -EPROTO, with a sentence in registry.why. */
int sweep_corrupt(struct registry *r, const char *what, uint32_t idx);
/* Buckets, groups and their endpoints; the connections are known already. */
int sweep_table(struct registry *r, struct seen *seen);
