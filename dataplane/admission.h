/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fair share for each publisher session. Publishes of a session that sends far more than its
 * share wait in a queue of their own, from which a burst takes a few; so those of the others do not
 * wait for them. What finds the queue full is dropped before it costs anything: its publisher sends
 * it again. A session that is alone is never held back.
 *
 * A share is told from counts: of each window of ADMISSION_WINDOW publishes, how many were whose.
 * The worker's lcore. No reference into the registry is held.
 */
#pragma once

#include "dataplane/worker.h"

#define ADMISSION_WINDOW   4096 /* publishes */
#define ADMISSION_QUANTUM  4	/* publishes of the queue in one burst */
#define ADMISSION_ALONE_MS 10	/* without another session: then one is alone */

int admission_init(struct worker *w); /* 0 or -ENOMEM */
void admission_fini(struct worker *w);

/*
 * Counts a publish of the session in this slot. True: it may be opened now. False: it waits, or was
 * dropped; it is no longer the caller's.
 */
bool admission_admit(struct worker *w, struct rte_mbuf *mbuf, uint32_t slot);
/* Of those that waited, the next that is to be opened in this burst; NULL: none. */
struct rte_mbuf *admission_next(struct worker *w, unsigned *taken);
