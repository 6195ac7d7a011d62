/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay.c's jobs, as replay_job.c serves them. The worker's lcore; no reference into the registry
 * but in struct turn, which ends before the loop does.
 */
#pragma once

#include <sys/queue.h>

#include "dataplane/replay.h"

struct sharer;

struct range {
	uint64_t first, last;
};

/* What one connection is to be sent again of one channel. */
struct job {
	TAILQ_ENTRY(job) entry; /* of its user's, or of those that are idle */
	struct sharer *sharer;	/* its user */
	struct replay_asker asker;
	uint64_t channel, hash;
	uint64_t connection;
	uint64_t incarnation;
	uint64_t epoch;
	unsigned range_cnt;
	struct range ranges[REPLAY_RANGES]; /* ascending, apart */
	struct range lost;		    /* gone, and not told yet; last 0: none */
	uint64_t at; /* position of a record from which the walk goes on; 0: the tail */
	uint32_t endpoint, scanned; /* index to look at first; how many were looked at in vain */
	uint64_t visited;
};

/* One job's turn. */
struct turn {
	const struct fan_group *group;
	const struct fan_endpoint *endpoint;
	int visits; /* still to be had; below 0: a chunk went a little further */
};

static inline void job_range_remove(struct job *job, unsigned idx)
{
	job->range_cnt--;
	memmove(&job->ranges[idx], &job->ranges[idx + 1],
		(job->range_cnt - idx) * sizeof(job->ranges[0]));
}

/* Sends what it may; true: the job is done with. */
bool replay_job_serve(struct worker *w, struct job *job, struct turn *turn);
