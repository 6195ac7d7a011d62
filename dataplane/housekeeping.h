/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a worker does beside events: its word of quiescence, heartbeat, counters, clock and
 * fanwired's requests. The worker's lcore only.
 */
#pragma once

#include "dataplane/worker.h"

/* The worker is in its loop from here: its word is odd. */
void worker_enter(struct worker *w);
/* One loop is over; no reference into the registry region is held. */
void worker_quiesce(struct worker *w);
/* Flushes what is queued and makes the word even: nobody waits for this worker any more. */
void worker_leave(struct worker *w);

/* Reads the clocks, once a burst that has work. */
void worker_clock(struct worker *w);
/* Replay, status, counters and heartbeat; fanwired's requests at worker 0. Returns what there was
 * to do. */
unsigned housekeeping(struct worker *w, unsigned work);
/* Adds the worker's counters to the shared ones. */
void counters_flush(struct worker *w);
