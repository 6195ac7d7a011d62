/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whose job is served next: users take turns, and so do the jobs of one. Where there are too many,
 * who has the most of them gives one up, which is asked for again. And what each may still have.
 * The worker's lcore.
 */
#pragma once

#include <sys/queue.h>

#include "dataplane/replay_job.h"

/* A user with jobs. */
struct sharer {
	uint8_t handle[FAN_HANDLE_LEN];
	unsigned job_cnt;
	TAILQ_HEAD(, job) jobs;
	TAILQ_ENTRY(sharer) entry;
};

struct share {
	unsigned job_cnt, sharer_cnt;
	TAILQ_HEAD(, job) idle_jobs;
	TAILQ_HEAD(, sharer) idle_sharers, sharers;
	struct job jobs[REPLAY_JOBS];
	struct sharer all_sharers[REPLAY_JOBS];
};

/* Visits that were had and are not made up for yet; zero: nothing was. */
struct allowance {
	uint64_t since_ns; /* as of when */
	int64_t spent;
};

void share_init(struct share *share);
/*
 * The registration's job for the channel, or a new one; NULL: there are too many. *gave_up: another
 * one ended for it.
 */
struct job *share_job(struct share *share, const struct fan_replay *request,
		      struct replay_asker asker, bool *gave_up);
/* Whose turn it is, who is the last one then. There is one. */
struct job *share_turn(struct share *share);
void share_end(struct share *share, struct job *job);

/* What is left, below 0 where a turn went further; rate: visits a second, of which kept are kept.
 */
int64_t allowance_left(struct allowance *allowance, uint64_t now_ns, int64_t rate, int64_t kept);
