/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer beside a worker: a registry full of users, and a thread that changes it at a steady
 * rate while it is told to. Main thread, but for what the thread does by itself.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/feed.h"
#include "control/registry/registry.h"

struct churn_writer {
	uint32_t rate; /* changes a second */
	struct fan_config config;
	struct registry *registry;
	uint32_t users, fanout, nexthop;
	/* Connections that the thread made, the oldest first to go. */
	struct churn_entry *ring;
	uint64_t ring_head, ring_tail, next_id, random;
	pthread_t thread;
	bool started;
	bool changing, stopping; /* __atomic: main to the thread */
	uint64_t changes;	 /* __atomic: the thread's, since it began */
	uint64_t changes_told;
	double told_s;
	int err; /* __atomic: with why, once */
	char why[1024];
};

/* A registry of `users` users with `fanout` connections each, and room for what comes and goes. */
int churn_writer_open(struct churn_writer *w, const char *dir, uint32_t users, uint32_t fanout,
		      char why[1024]);
void churn_writer_close(struct churn_writer *w);
/* Opens the session of a slot of the feed; the state region must be there. 0 or -errno. */
int churn_writer_session(struct churn_writer *w, uint32_t slot, struct feed *feed);
int churn_writer_start(struct churn_writer *w, unsigned cpu, char why[1024]);
void churn_writer_stop(struct churn_writer *w);

/* Begins, or pauses. While it pauses it keeps the registry as fanwired does. */
void churn_writer_set(struct churn_writer *w, bool changing);
/* Adds what was changed since it was last set, and the seconds that it took. */
void churn_writer_told(struct churn_writer *w, double *changes, double *seconds);
bool churn_never(void);
