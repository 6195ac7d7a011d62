/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealing: each event's payload is sealed once, in the burst that gave it its place, under the key
 * of its stream and with its sequence as the nonce (docs/wire-format.md). What is sent or logged of
 * it afterwards is these bytes; nothing is ever sealed again (docs/security.md).
 *
 * Keys are kept twice. Every group has a place for its stream's key, one cache line, so that a key
 * is derived once a stream and key generation. ipsec-mb's schedules, of about 1 KiB, are kept for
 * as many streams as dataplane.seal_schedules says, and made again for others. What is kept says
 * whose it is, and is compared before it is used.
 *
 * Set up and taken down by the main thread; a group's key is touched by the worker that owns it.
 */
#pragma once

#include "dataplane/worker.h"

/* Which key it is: incarnations are never reused, so a stream has them to itself. */
struct seal_stream {
	uint64_t incarnation; /* 0: nobody's */
	uint64_t epoch;
	uint32_t generation;
};

struct seal_key {
	struct seal_stream stream;
	uint8_t bytes[FAN_KEY_LEN];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct seal_key) == 64, "the key of a stream is one cache line");

struct seal_schedule {
	struct gcm_key_data gcm;
	struct seal_stream stream;
} __attribute__((aligned(64)));

/* Whether deliveries are sealed, and the places of all groups' keys. 0 or -ENOMEM. */
int seal_init(struct plane *plane);
void seal_fini(struct plane *plane); /* keys are wiped */
/* A worker's schedules. 0 or -ENOMEM. */
int seal_worker_init(struct worker *w);
void seal_worker_fini(struct worker *w);

/* Its key's line is asked for, a stage ahead. */
void seal_prefetch(const struct worker *w, const struct fan_group *group);
