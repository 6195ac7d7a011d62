/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fan-out: the one place that makes what a subscriber receives. fanout_burst() (worker.h)
 * does it for live events; challenges take the same way, and so must whatever else is to be sent to
 * a subscriber. One header and one filter tag an event, one frame a copy. The worker's lcore.
 */
#pragma once

#include "dataplane/worker.h"

/* Answers fanwired's request: a challenge to an address that wants to be registered. */
void fanout_challenge(struct worker *w, const struct fan_request *request);
