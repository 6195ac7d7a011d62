/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replay: what a subscriber missed is sent again from the event log, to the place that its
 * connection is registered at, and nowhere else. A request whose tag is right becomes a job of the
 * worker that owns the group; jobs are served beside the live events, a bounded number of records a
 * loop, and each connection has a budget of them. A job holds no reference into the registry: its
 * group and its endpoint are looked up again each time. The worker's lcore.
 *
 * Each job ends with a status, so that who asked knows where it stands.
 */
#pragma once

#include "dataplane/worker.h"

#define REPLAY_CHECKS	   32  /* tags of requests in one burst */
#define REPLAY_JOBS	   256 /* a worker */
#define REPLAY_JOBS_USER   64  /* of them, one user's */
#define REPLAY_RANGES	   16  /* of one job: more are joined */
#define REPLAY_CHUNK	   64  /* records that are found together, then sent in order */
#define REPLAY_VISITS_BUSY 24  /* records a loop that has live events */
#define REPLAY_VISITS_IDLE 512
#define REPLAY_SCAN	   1024 /* endpoints a loop, looking for the one that asked */
#define REPLAY_SCAN_VISIT  16	/* of them cost as much as a record */

/*
 * A connection's budget, in records visited. One that loses half of 5,000 events a second, and half
 * of what is sent again, has 5,000 found for it, each some 20 records from the tail.
 */
#define REPLAY_RATE	 200000 /* a second */
#define REPLAY_RATE_KEPT 100000
#define REPLAY_METERS	 4096 /* connections that are remembered */
#define REPLAY_WAYS	 4    /* of them in one set */

int replay_init(struct worker *w); /* 0 or -ENOMEM */
void replay_fini(struct worker *w);

/* A decoded request, in the mbuf that it came in, which is taken. Checks its tag. */
void replay_request(struct worker *w, struct rte_mbuf *mbuf, const struct fan_replay *request);
/* A request whose tag is right, of a group that is this worker's. */
void replay_queue(struct worker *w, const struct fan_replay *request);

/* A part of what is to be sent again; returns how many records were visited. */
unsigned replay_serve(struct worker *w, bool busy);
