/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fair share for each group. A fan-out that is longer than its share of a burst becomes a flow:
 * it goes on in later bursts, a slice at a time, and later events of its group queue behind it, so
 * that a user with very many connections, or very many events, costs the others no more than a
 * share a burst. The worker's lcore.
 *
 * A fan-out under way refers to its group and endpoints, so it pins the worker's quiescence word
 * (docs/shared-memory.md): from FLOW_PIN_SOFT_US on no other one is begun, and after
 * FLOW_PIN_MAX_US those under way are ended at once. Events that wait hold no reference: their
 * group is looked up again, and where that has ended or is another one by now, they go to nobody.
 */
#pragma once

#include "dataplane/worker.h"

#define FLOW_EVENTS_MAX                                                                         \
	1024		    /* that wait in one flow and were accepted here: a session's window \
			     */
#define FLOW_ALONE_MS	 10 /* without another group's event: then one flow is alone */
#define FLOW_PIN_SOFT_US 200
#define FLOW_PIN_MAX_US	 5000

/* How many copies the group may still have in this burst, at most `wanted`; they count as made. */
unsigned flow_share(struct worker *w, const struct fan_group *group, unsigned wanted);

/* The flow of the event's group, or NULL. */
struct flow *flow_of(struct worker *w, uint64_t hash);
/* The event waits behind those of its flow. */
void flow_push(struct worker *w, struct flow *flow, struct rte_mbuf *event);
/*
 * The event, whose block's first `done` endpoints are served, goes on later. False where there are
 * too many flows: then it is to be ended at once.
 */
bool flow_begin(struct worker *w, struct rte_mbuf *event, const struct fan_group *group,
		struct block rest);

/* A slice of each flow, or a share where one is alone. The copies are counted, and what ended is
 * closed, by flows_settle(). */
void flows_serve(struct worker *w);
/* After the flush. */
void flows_settle(struct worker *w);

/* Whether so many of the group's events wait that no more are to be accepted. */
bool flow_is_full(struct worker *w, uint64_t hash);
/* Frees what waits; the worker has left its loop. */
void flows_fini(struct worker *w);
/* Whether references into the registry are held from burst to burst. */
bool flows_pin(const struct worker *w);
