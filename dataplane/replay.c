/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/replay_job.h"

#include <errno.h>
#include <sodium.h>

#include "common/plant.h"
#include "common/wire/handle.h"
#include "dataplane/fanout.h"
#include "dataplane/handover.h"
#include "dataplane/housekeeping.h"

#define NANOSECONDS UINT64_C(1000000000)

/* What a connection may still have, and the counter of its last request. connection 0: free. */
struct meter {
	uint64_t connection, counter;
	uint64_t refilled_ns;
	int64_t visits;
};

struct replay {
	uint64_t check_burst; /* in which burst `checks` tags were checked */
	unsigned checks;
	unsigned job_cnt, turn;
	struct job jobs[REPLAY_JOBS];
	struct meter meters[REPLAY_METERS];
};

int replay_init(struct worker *w)
{
	w->replay = calloc(1, sizeof(*w->replay));
	return w->replay ? 0 : -ENOMEM;
}

void replay_fini(struct worker *w)
{
	free(w->replay);
	w->replay = NULL;
}

/* ---- budget ---- */

/* The connection's, or the one of its set that was used longest ago, begun anew. */
static struct meter *meter_of(struct worker *w, uint64_t connection)
{
	uint64_t hash = fan_mix(connection ^ w->plane->table.seed[0], w->plane->table.seed[1] | 1);
	struct meter *set = &w->replay->meters[hash % (REPLAY_METERS / REPLAY_WAYS) * REPLAY_WAYS];
	struct meter *oldest = set;

	for (unsigned i = 0; i < REPLAY_WAYS; i++) {
		if (set[i].connection == connection)
			return &set[i];
		if (set[i].refilled_ns < oldest->refilled_ns)
			oldest = &set[i];
	}
	*oldest = (struct meter){.connection = connection,
				 .refilled_ns = w->monotonic_ns,
				 .visits = REPLAY_RATE_KEPT};
	return oldest;
}

static void meter_refill(struct worker *w, struct meter *meter)
{
	uint64_t passed = RTE_MIN(w->monotonic_ns - meter->refilled_ns, NANOSECONDS);
	int64_t more = (int64_t)(passed * REPLAY_RATE / NANOSECONDS);

	if (more == 0)
		return;
	meter->refilled_ns = w->monotonic_ns;
	meter->visits = RTE_MIN(meter->visits + more, (int64_t)REPLAY_RATE_KEPT);
}

/* ---- requests ---- */

static bool may_check(struct worker *w)
{
	struct replay *replay = w->replay;

	if (replay->check_burst != w->burst_no)
		replay->checks = 0;
	replay->check_burst = w->burst_no;
	return replay->checks++ < REPLAY_CHECKS;
}

static bool tag_is_right(const struct worker *w, const struct fan_group *group,
			 const struct packet *packet, uint64_t connection)
{
	uint8_t key[FAN_TAG_KEY_LEN];
	bool right;

	fan_replay_key(key, w->plane->table.registry->replay_root, connection,
		       group->user_generation, group->handle);
	right = fan_replay_tag_ok(packet->wire, key) || fan_planted(PLANT_REPLAY_TAG_IGNORED);
	sodium_memzero(key, sizeof(key));
	return right;
}

void replay_request(struct worker *w, struct rte_mbuf *mbuf, const struct fan_replay *request)
{
	struct packet *packet = packet_of(mbuf);
	const struct fan_group *group;

	if (!may_check(w)) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_replay_budget);
		return;
	}
	packet->hash = fan_table_hash(w->plane->table.seed, request->handle, request->channel);
	group = fan_table_lookup(&w->plane->table, request->handle, request->channel, packet->hash);
	if (!group) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_replay_unknown);
	} else if (!tag_is_right(w, group, packet, request->connection)) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_replay_tag);
	} else if (group_owner(w->plane, packet->hash) != w->idx) {
		handover_replay(w, group_owner(w->plane, packet->hash), mbuf);
	} else {
		replay_queue(w, request);
		rte_pktmbuf_free(mbuf);
	}
}

/* ---- jobs ---- */

static bool job_is(const struct job *job, const struct fan_replay *request)
{
	return job->connection == request->connection && job->channel == request->channel &&
	       memcmp(job->handle, request->handle, FAN_HANDLE_LEN) == 0;
}

/* The connection's job for the channel, or a new one; NULL: there are too many. */
static struct job *job_for(struct worker *w, const struct fan_replay *request)
{
	struct replay *replay = w->replay;
	unsigned user = 0;
	struct job *job;

	for (unsigned i = 0; i < replay->job_cnt; i++) {
		job = &replay->jobs[i];
		if (job_is(job, request))
			return job;
		user += memcmp(job->handle, request->handle, FAN_HANDLE_LEN) == 0;
	}
	if (replay->job_cnt == REPLAY_JOBS || user >= REPLAY_JOBS_USER)
		return NULL;
	job = &replay->jobs[replay->job_cnt++];
	*job = (struct job){.connection = request->connection, .channel = request->channel};
	memcpy(job->handle, request->handle, FAN_HANDLE_LEN);
	return job;
}

/* Joined with what it touches; where there are too many, with its neighbour. */
static void range_add(struct job *job, struct range range)
{
	unsigned at = 0;

	while (at < job->range_cnt && job->ranges[at].last + 1 < range.first)
		at++;
	if (at == job->range_cnt && at == REPLAY_RANGES)
		at--;
	while (at < job->range_cnt &&
	       (job->ranges[at].first <= range.last + 1 || job->range_cnt == REPLAY_RANGES)) {
		range.first = RTE_MIN(range.first, job->ranges[at].first);
		range.last = RTE_MAX(range.last, job->ranges[at].last);
		job_range_remove(job, at);
	}
	memmove(&job->ranges[at + 1], &job->ranges[at],
		(job->range_cnt - at) * sizeof(job->ranges[0]));
	job->ranges[at] = range;
	job->range_cnt++;
	job->at = 0;
}

/* A range of another stream than the present one, or behind its tail, is answered by a status. */
static void job_ask(struct worker *w, struct job *job, const struct fan_group *group,
		    const struct fan_replay *request)
{
	const struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	struct range range = {request->first, RTE_MIN(request->last, state->sequence)};

	if (job->incarnation != group->incarnation || job->epoch != state->epoch)
		job->range_cnt = 0;
	job->incarnation = group->incarnation;
	job->epoch = state->epoch;
	if (state->incarnation == group->incarnation && request->epoch == state->epoch &&
	    range.first <= range.last)
		range_add(job, range);
}

void replay_queue(struct worker *w, const struct fan_replay *request)
{
	uint64_t hash = fan_table_hash(w->plane->table.seed, request->handle, request->channel);
	const struct fan_group *group =
		fan_table_lookup(&w->plane->table, request->handle, request->channel, hash);
	struct meter *meter;
	struct job *job;

	if (!group) {
		COUNT(w, drop_replay_unknown);
		return;
	}
	worker_clock(w);
	meter = meter_of(w, request->connection);
	if (request->counter <= meter->counter && !fan_planted(PLANT_REPLAY_COUNTER_IGNORED)) {
		COUNT(w, drop_replay_repeated);
		return;
	}
	meter->counter = request->counter;
	job = job_for(w, request);
	if (!job) {
		COUNT(w, drop_replay_full);
		return;
	}
	job->hash = hash;
	job_ask(w, job, group, request);
	COUNT(w, replay_requests);
}

/* ---- serving ---- */

/* As much of the loop's budget as it and its connection have; returns what it took. */
static int job_turn(struct worker *w, struct job *job, int visits, bool *done)
{
	struct meter *meter = meter_of(w, job->connection);
	struct turn turn = {0};

	meter_refill(w, meter);
	if (meter->visits <= 0 && fan_planted(PLANT_REPLAY_BUDGET_IGNORED))
		meter->visits = visits;
	if (meter->visits <= 0)
		return 0;
	turn.visits = visits = (int)RTE_MIN((int64_t)visits, meter->visits);
	*done = replay_job_serve(w, job, &turn);
	meter->visits -= visits - turn.visits;
	return visits - turn.visits;
}

unsigned replay_serve(struct worker *w, bool busy)
{
	struct replay *replay = w->replay;
	int left = busy ? REPLAY_VISITS_BUSY : REPLAY_VISITS_IDLE, all = left;
	int share;

	if (likely(replay->job_cnt == 0))
		return 0;
	share = RTE_MAX(left / (int)replay->job_cnt, REPLAY_VISITS_BUSY);
	worker_clock(w);
	if (w->unattended) /* nobody can be revoked: nobody is served */
		return 0;
	for (unsigned n = replay->job_cnt; n && left > 0; n--) {
		unsigned idx = replay->turn++ % replay->job_cnt;
		bool done = false;

		left -= job_turn(w, &replay->jobs[idx], RTE_MIN(share, left), &done);
		if (done)
			replay->jobs[idx] = replay->jobs[--replay->job_cnt];
		if (replay->job_cnt == 0)
			break;
	}
	fanout_beside_flush(w);
	return (unsigned)(all - left);
}
