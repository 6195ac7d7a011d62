/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fair share for each publisher session. Publishes of a session that sends far more than its
 * share wait in a queue of the session, from which a burst takes a few; so those of the others do
 * not wait for them. What finds no room is dropped before it costs anything: its publisher sends it
 * again. A queue may be as long as there is room left, so that one session takes no other's. A
 * session that is alone is never held back, and one that sends too much no more is so no longer.
 *
 * A share is told from counts: of each window of ADMISSION_WINDOW publishes, how many were whose.
 * The worker's lcore. No reference into the registry is held.
 */
#pragma once

#include "dataplane/worker.h"

#define ADMISSION_WINDOW   4096 /* publishes */
#define ADMISSION_QUANTUM  4	/* publishes of a session's queue in one burst */
#define ADMISSION_ALONE_MS 10	/* without another session: then one is alone */

int admission_init(struct worker *w); /* 0 or -ENOMEM */
void admission_fini(struct worker *w);

/* Whose turn it is in this burst. */
struct admission_turn {
	unsigned left;	/* sessions, this one included */
	unsigned taken; /* publishes of this one */
};

/*
 * Counts a publish of the session in this slot. True: it may be opened now, after those of its
 * session that wait. False: it waits, or was dropped; it is no longer the caller's.
 */
bool admission_admit(struct worker *w, struct rte_mbuf *mbuf, uint32_t slot);
/* The session's next that waits; NULL: none does. */
struct rte_mbuf *admission_take(struct worker *w, uint32_t slot);
/* Of those that wait, the next that is to be opened in this burst; NULL: none. */
struct rte_mbuf *admission_next(struct worker *w, struct admission_turn *turn);
