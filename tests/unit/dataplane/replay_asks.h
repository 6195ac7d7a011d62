/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of log, replay and status do beside publishing: ask for ranges again, and see what
 * comes. One instance a process, as pipeline.h.
 */
#pragma once

#include "tests/unit/dataplane/pipeline.h"

#define SEEN_MAX 4096

/* What came, of one kind or another, in its order. */
struct seen {
	unsigned cnt, foreign;
	struct fan_delivery delivery[SEEN_MAX];
	uint16_t port[SEEN_MAX];
};

/* A request for first..last of the group's stream, from `connection`; counter: the next one. */
struct fan_replay ask_of(const struct pipeline *p, const struct fan_group *group,
			 uint64_t connection, uint64_t first, uint64_t last);
/* It as a frame from the connection's own place, under its replay key; returns the length. */
uint16_t ask_make(const struct pipeline *p, uint8_t frame[2048], const struct fan_replay *request,
		  uint32_t user_generation);
/* Sends that; the whole loop of worker 0 runs once. */
void ask(struct pipeline *p, const struct fan_replay *request, uint32_t user_generation);
/* Loops of worker `idx` without live events, until they find nothing to do. */
void loops(struct pipeline *p, unsigned idx);
/* Takes every frame; acknowledgements are thrown away. Of deliveries, whose tag is wrong under the
 * fixture's key fails the test. */
void see(struct pipeline *p, struct seen *seen);
/* How many of a type were seen. */
unsigned seen_type(const struct seen *seen, uint8_t type);
/* No status comes but those that are asked for. */
void status_hold(struct pipeline *p);
/* Publishes cnt events to a user, of payload_len bytes, from session slot 0; copies thrown away. */
void publish_events(struct pipeline *p, const char *user, unsigned cnt, uint16_t payload_len);
