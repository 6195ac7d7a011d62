/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replay: what a subscriber missed is sent again from the event log, to the place that its
 * connection is registered at, and nowhere else. A request is judged by the worker that receives
 * it: its connection is in the group, it comes from there, its tag is right. Then it becomes a job
 * of the worker that owns the group. Jobs are served beside the live events, a bounded number of
 * records a loop; users take turns, and each connection and each user has a budget. A job holds no
 * reference into the registry: its group and its endpoint are looked up again each time. The
 * worker's lcore.
 *
 * Each job ends with a status, so that who asked knows where it stands.
 */
#pragma once

#include "dataplane/worker.h"

#define REPLAY_CHECKS		 128   /* tags of requests in one burst */
#define REPLAY_CHECKS_CONNECTION 32    /* of them, one connection's */
#define REPLAY_LOOKS		 16384 /* endpoints a burst, looking for those that ask, but */
#define REPLAY_LOOKS_EACH	 64    /* so many for each request in any case */
#define REPLAY_JOBS		 256   /* a worker */
#define REPLAY_RANGES		 16    /* of one job: more are joined */
#define REPLAY_CHUNK		 64    /* records that are found together, then sent in order */
#define REPLAY_VISITS_BUSY	 24    /* records a loop that has live events */
#define REPLAY_VISITS_IDLE	 512
#define REPLAY_TURNS		 32   /* jobs a loop */
#define REPLAY_SCAN		 1024 /* endpoints a turn, looking for the one that is served */
#define REPLAY_SCAN_VISIT	 16   /* of them cost as much as a record */

/*
 * Budgets, in records visited. A connection that loses half of 5,000 events a second, and half of
 * what is sent again, has 5,000 found for it, each some 20 records from the tail. A user has eight
 * times as much for all of his.
 */
#define REPLAY_RATE	 200000 /* a second */
#define REPLAY_RATE_KEPT 100000
#define REPLAY_RATE_USER (8 * REPLAY_RATE)
#define REPLAY_USER_KEPT (8 * REPLAY_RATE_KEPT)

int replay_init(struct worker *w); /* 0 or -ENOMEM */
void replay_fini(struct worker *w);

/* A decoded request, in the mbuf that it came in, which is taken. Judges it. */
void replay_request(struct worker *w, struct rte_mbuf *mbuf, const struct fan_replay *request);
/* One that has been judged, of a group that is this worker's. */
void replay_queue(struct worker *w, const struct fan_replay *request, struct replay_asker asker);

/* A part of what is to be sent again; returns how many records were visited. */
unsigned replay_serve(struct worker *w, bool busy);
