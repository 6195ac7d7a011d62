/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handing a publish from worker to worker: one single-producer single-consumer ring for each kind
 * and pair. What is handed over is an mbuf with its struct packet, never a table reference. The
 * events that a worker has out at another are bounded by the rings' capacity, so neither an
 * accepted event nor its result can meet a full ring.
 */
#pragma once

#include "dataplane/worker.h"

/* Main lcore, before the workers run. 0 or -errno. */
int handover_init(struct plane *plane);
void handover_fini(struct plane *plane);

/* Whether an event for worker `to` may be accepted now. */
bool handover_room(const struct worker *w, unsigned to);
/* Whether so many of the group's events are at its owner that no more are to be accepted: they
 * would take the room of other groups'. */
bool handover_group_busy(const struct worker *w, uint64_t hash);
/* Passes an accepted event on; handover_room() said yes. */
void handover_event(struct worker *w, unsigned to, struct rte_mbuf *mbuf);
/* Passes a received publish to its session's owner, or drops it with its reason. */
void handover_publish(struct worker *w, unsigned to, struct rte_mbuf *mbuf);
/* Passes a request for replay, whose tag is right, to its group's owner, or drops it. */
void handover_replay(struct worker *w, unsigned to, struct rte_mbuf *mbuf);
/* Passes the result back to the session's owner. Cannot fail: see above. */
void handover_result(struct worker *w, unsigned to, struct rte_mbuf *mbuf);
/* Nothing is on its way between workers. Main lcore, while draining. */
bool handover_is_quiet(const struct plane *plane);
