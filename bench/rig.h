/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What programs that measure a worker stand on: EAL with one worker lcore and DPDK's null port, a
 * registry region full of users, and a feed of sealed publishes. EAL once a process, then any
 * number of tables, one after the other. Main thread; what runs on the worker's lcore says so.
 */
#pragma once

#include <jansson.h>

#include "bench/feed.h"
#include "bench/region.h"
#include "dataplane/worker.h"

struct rig_options {
	uint32_t users, fanout, sessions;
	uint32_t large; /* connections of one more user, number `users`; 0: there is none */
	unsigned payload_len, burst;
	unsigned core;	    /* CPU of the worker */
	unsigned memory_mb; /* of DPDK's; 0: what a worker takes */
	bool seal;	    /* deliveries */
	const char *dir;    /* for the regions; NULL: huge pages of our own, else /dev/shm */
};

struct rig {
	struct rig_options options;
	struct plane plane;
	struct bench_region region;
	struct feed feed;
	char dir[128];
	bool dir_made, dir_huge; /* ours to remove; on huge pages */
};

/* EAL, pool and port. 0 or -errno with `why`. */
int rig_start(struct rig *rig, const struct rig_options *options, char why[256]);
/* The table of options.users × options.fanout, the worker and the feed. 0 or -errno with `why`. */
int rig_open(struct rig *rig, char why[256]);
void rig_close(struct rig *rig); /* what rig_open() made, as far as it came */
void rig_stop(struct rig *rig);	 /* what rig_start() made */

/* Runs `work` on the worker's lcore and waits for it. */
void rig_call(int (*work)(void *arg), void *arg);

/* Of the worker, the shared part included. */
uint64_t rig_counter(const struct rig *rig, enum fan_counter idx);
json_t *rig_settings(const struct rig *rig);
json_t *rig_versions(void);
