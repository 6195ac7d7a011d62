/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The small model: an array of connections, and who gets what is found by looking at each of them.
 * It has no table, no groups, no blocks, and nothing that rests but a state.
 */
#pragma once

#include "tests/model/world.h"

#define CONNECTIONS 16

/* One operation. Its arguments mean something whatever came before, so any may be left out. */
struct op {
	uint8_t kind;
	uint8_t a, b, c; /* chosen among what is there */
	uint8_t event;	 /* the low 2 bits 1: an event in the middle; 2: fanwired is killed there */
	uint8_t step;	 /* which */
};

struct model_connection {
	uint64_t id; /* 0: none */
	uint32_t generation;
	uint8_t state, user, port;
	uint8_t channels; /* a bit each */
	uint64_t lease_ns;
};

struct model {
	struct world *w;
	struct model_connection c[CONNECTIONS];
	uint32_t leaving; /* ports of those whose end waited for memory before the operation */
};

const char *op_name(const struct op *op);
/* Does it to both and compares. Ends by world_fail() where they differ. */
void model_apply(struct model *m, const struct op *op);
/* Ends everything, and nothing is left. */
void model_drain(struct model *m);
