/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fan-out: the one place that makes what a subscriber receives. Live events go through
 * fanout_emit() as challenges do, and as whatever else is to be sent to a subscriber must. The
 * worker's lcore.
 */
#pragma once

#include "dataplane/worker.h"

/*
 * Sends `delivery` to each of the endpoints: one header and one filter tag an event, one frame a
 * copy. image: FAN_DELIVERY_LEN writable bytes with the payload right behind. An endpoint whose
 * user is not the delivery's is counted and never sent to. kind: index of tx_sent.
 */
void fanout_emit(struct worker *w, uint8_t *image, const struct fan_delivery *delivery,
		 const uint8_t tag_key[16], const struct fan_endpoint *endpoints, unsigned cnt,
		 uint16_t kind);

/* Answers fanwired's request: a challenge to an address that wants to be registered. */
void fanout_challenge(struct worker *w, const struct fan_request *request);
