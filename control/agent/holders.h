/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which client holds which connection or session, by id. A connection that was registered before a
 * restart has no client until its subscriber re-attaches.
 *
 * Owner: the agent. One thread.
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

struct client;
struct holders;

struct holder {
	LIST_ENTRY(holder) link;
	uint64_t id;
	uint64_t cookie;       /* of the scoped socket; sessions: 0 */
	uint8_t handle[16];    /* of the user; sessions: zero */
	uint32_t port_idx;     /* PORT_NONE: of no pool (sessions; or the configuration changed) */
	struct client *client; /* NULL: not back yet */
	uint64_t attaching; /* ref that claims it and has no answer yet, client gone or not; 0: none
			     */
};

struct holders *holders_create(uint32_t expected_cnt); /* NULL: out of memory */
void holders_destroy(struct holders *holders);	       /* and each holder; NULL is allowed */
/* The id must be new. Aborts the process when out of memory, as the link does. */
struct holder *holders_add(struct holders *holders, uint64_t id);
struct holder *holders_find(struct holders *holders, uint64_t id);
void holders_del(struct holder *holder); /* frees it */
