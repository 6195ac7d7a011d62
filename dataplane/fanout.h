/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fan-out: the one place that makes what a subscriber receives. fanout_burst() (worker.h)
 * does it for live events; challenges take the same way, and so must whatever else is to be sent to
 * a subscriber. One header and one filter tag an event, one frame a copy. The worker's lcore.
 */
#pragma once

#include "dataplane/worker.h"

/*
 * What a subscriber is sent of an event: the payload stays where it was opened; the header goes
 * right before it, over what has been read.
 */
static inline uint8_t *fanout_image(const struct packet *packet)
{
	return packet->wire + FAN_PUBLISH_LEN - FAN_DELIVERY_LEN;
}

/* ---- for flows.c, which goes on with what is longer than its share ---- */

/* The group's endpoints as they are now; the event's result and the counters say how many. */
struct block fanout_block(struct worker *w, struct packet *packet, const struct fan_group *group);
/* A copy for each; the event's header stands before its payload. kind: index of tx_sent. */
void fanout_copies(struct worker *w, const struct packet *packet,
		   const struct fan_endpoint *endpoints, unsigned cnt, uint16_t kind);
/* So many more copies of it left; group: whose, or NULL. */
void fanout_count(struct worker *w, struct rte_mbuf *event, const struct fan_group *group,
		  uint32_t sent);
/* Nothing more is to be done but to acknowledge it. */
void fanout_close(struct worker *w, struct rte_mbuf *event);

/*
 * ---- beside events: replay and status. Under the group's keys, to endpoints of the group; they
 * leave with fanout_beside_flush(), which counts them ----
 */

/* Whether the keys that a logged image was sent under are still known. */
bool fanout_can_replay(const struct worker *w, const struct fan_group *group, const uint8_t *image);
/* It once more; nothing where they are not. */
void fanout_replay(struct worker *w, const struct fan_group *group,
		   const struct fan_endpoint *endpoint, const uint8_t *image, uint16_t len);
/* The range first..last of the stream is not in the log. */
void fanout_lost(struct worker *w, const struct fan_group *group,
		 const struct fan_endpoint *endpoint, uint64_t epoch, uint64_t first,
		 uint64_t last);
/* Where the group's stream stands; epoch and sequence 0: it has had no event. */
void fanout_status(struct worker *w, const struct fan_group *group,
		   const struct fan_endpoint *endpoints, uint32_t cnt);
void fanout_beside_flush(struct worker *w);

/* Answers fanwired's request: a challenge to an address that wants to be registered. */
void fanout_challenge(struct worker *w, const struct fan_request *request);
