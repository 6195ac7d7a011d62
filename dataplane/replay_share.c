/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/replay_share.h"

#include "common/plant.h"

#define NANOSECONDS INT64_C(1000000000)
#define LONG_VISITS 1024u /* who has had so many gives way to a user who has none */

void share_init(struct share *share)
{
	TAILQ_INIT(&share->idle_jobs);
	TAILQ_INIT(&share->idle_sharers);
	TAILQ_INIT(&share->sharers);
	for (unsigned i = 0; i < REPLAY_JOBS; i++) {
		TAILQ_INSERT_TAIL(&share->idle_jobs, &share->jobs[i], entry);
		TAILQ_INSERT_TAIL(&share->idle_sharers, &share->all_sharers[i], entry);
	}
}

/* ---- whose ---- */

static struct sharer *sharer_find(struct share *share, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct sharer *sharer;

	TAILQ_FOREACH(sharer, &share->sharers, entry)
	if (memcmp(sharer->handle, handle, FAN_HANDLE_LEN) == 0)
		return sharer;
	return NULL;
}

static struct sharer *sharer_begin(struct share *share, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct sharer *sharer = TAILQ_FIRST(&share->idle_sharers); /* as many as jobs */

	TAILQ_REMOVE(&share->idle_sharers, sharer, entry);
	TAILQ_INSERT_TAIL(&share->sharers, sharer, entry);
	TAILQ_INIT(&sharer->jobs);
	memcpy(sharer->handle, handle, FAN_HANDLE_LEN);
	sharer->job_cnt = 0;
	share->sharer_cnt++;
	return sharer;
}

/* Of those who have most jobs, the one that has had most. */
static struct job *longest(struct share *share)
{
	struct job *job, *most = NULL;
	struct sharer *sharer;

	TAILQ_FOREACH(sharer, &share->sharers, entry)
	{
		if (most && sharer->job_cnt < most->sharer->job_cnt)
			continue;
		TAILQ_FOREACH(job, &sharer->jobs, entry)
		if (!most || sharer->job_cnt > most->sharer->job_cnt ||
		    job->visited > most->visited)
			most = job;
	}
	return most;
}

/* Room for one more of who has own_cnt; false: nobody has more than that. */
static bool room_make(struct share *share, unsigned own_cnt)
{
	struct job *job = longest(share);

	if ((job->sharer->job_cnt <= own_cnt + 1 && (own_cnt || job->visited < LONG_VISITS)) ||
	    fan_planted(PLANT_REPLAY_UNFAIR))
		return false;
	share_end(share, job);
	return true;
}

struct job *share_job(struct share *share, const struct fan_replay *request,
		      struct replay_asker asker, bool *gave_up)
{
	struct sharer *sharer = sharer_find(share, request->handle);
	struct job *job;

	*gave_up = false;
	if (sharer)
		TAILQ_FOREACH(job, &sharer->jobs, entry)
	if (job->asker.record == asker.record && job->asker.generation == asker.generation &&
	    job->channel == request->channel)
		return job;
	if (share->job_cnt == REPLAY_JOBS)
		*gave_up = room_make(share, sharer ? sharer->job_cnt : 0);
	if (share->job_cnt == REPLAY_JOBS)
		return NULL;
	if (!sharer)
		sharer = sharer_begin(share, request->handle);
	job = TAILQ_FIRST(&share->idle_jobs);
	TAILQ_REMOVE(&share->idle_jobs, job, entry);
	*job = (struct job){.sharer = sharer,
			    .asker = asker,
			    .connection = request->connection,
			    .channel = request->channel};
	TAILQ_INSERT_TAIL(&sharer->jobs, job, entry);
	sharer->job_cnt++;
	share->job_cnt++;
	return job;
}

struct job *share_turn(struct share *share)
{
	struct sharer *sharer = TAILQ_FIRST(&share->sharers);
	struct job *job = TAILQ_FIRST(&sharer->jobs);

	TAILQ_REMOVE(&share->sharers, sharer, entry);
	TAILQ_INSERT_TAIL(&share->sharers, sharer, entry);
	TAILQ_REMOVE(&sharer->jobs, job, entry);
	TAILQ_INSERT_TAIL(&sharer->jobs, job, entry);
	return job;
}

void share_end(struct share *share, struct job *job)
{
	struct sharer *sharer = job->sharer;

	TAILQ_REMOVE(&sharer->jobs, job, entry);
	TAILQ_INSERT_TAIL(&share->idle_jobs, job, entry);
	share->job_cnt--;
	if (--sharer->job_cnt)
		return;
	TAILQ_REMOVE(&share->sharers, sharer, entry);
	TAILQ_INSERT_TAIL(&share->idle_sharers, sharer, entry);
	share->sharer_cnt--;
}

/* ---- how much ---- */

int64_t allowance_left(struct allowance *allowance, uint64_t now_ns, int64_t rate, int64_t kept)
{
	int64_t passed = (int64_t)RTE_MIN(now_ns - allowance->since_ns, (uint64_t)NANOSECONDS);
	int64_t more = passed * rate / NANOSECONDS;

	/* What passed of a visit is not forgotten where there are many loops in one. */
	allowance->since_ns = more < allowance->spent
				      ? allowance->since_ns + (uint64_t)(more * NANOSECONDS / rate)
				      : now_ns;
	allowance->spent = RTE_MAX(allowance->spent - more, INT64_C(0));
	return kept - allowance->spent;
}
