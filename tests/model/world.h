/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The real thing under the model test: control/registry's writer, the table, and the dataplane's
 * pipeline on a port made of rings, all in one process and one thread. One world a process, reset
 * for each sequence. What is wrong is told by world_fail(), which ends the sequence.
 */
#pragma once

#include <setjmp.h>

#include "control/registry/internal.h"
#include "tests/unit/dataplane/pipeline.h"

#define USERS	    4
#define PORTS	    8 /* of receivers; all at one address */
#define PORT_FIRST  25500
#define THREADS	    3
#define CHANNELS    (THREADS + 1) /* 0: ALL */
#define WORKERS_MAX 2
#define HELD_MAX    8 /* endpoints of a block that a slow worker holds */
#define MILLISECOND UINT64_C(1000000)

/* What a worker that is slow has met, as it was then. */
struct held {
	const struct fan_group *group;
	struct fan_group was;
	const struct fan_endpoint *endpoints;
	struct fan_endpoint were[HELD_MAX];
	uint32_t cnt;
};

/* Who got one event. */
struct heard {
	uint32_t ports; /* a bit a port */
	uint32_t attempted, sent;
	bool group; /* there is one */
};

struct world {
	struct fan_config config;
	struct registry *r;
	struct pipeline p;
	uint32_t nexthop;
	uint64_t session, sequence, now_ns;
	struct held held;
	bool started;
	unsigned workers; /* of the dataplane; set before world_begin() */
	jmp_buf failed;	  /* of the sequence */
	char why[512];
};

void world_begin(struct world *w); /* a new registry, a new dataplane */
void world_end(struct world *w);   /* and their files */
__attribute__((noreturn, format(printf, 2, 3))) void world_fail(struct world *w, const char *format,
								...);
void world_engine_open(struct world *w);
void world_dataplane_restart(struct world *w);
/* Publishes and looks at every frame that left. */
struct heard world_publish(struct world *w, unsigned user, unsigned channel);
/* The worker looks a group up and does not come to its quiescent point yet. */
void world_hold(struct world *w, unsigned user, unsigned channel);
void world_held_check(struct world *w);
void world_pass(struct world *w); /* it does */
void world_keep(struct world *w, uint64_t after_ns);
void user_handle_of(uint8_t handle[16], unsigned user);
uint64_t channel_of(unsigned channel);
