/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/replay_share.h"

#include <errno.h>
#include <sodium.h>

#include "common/plant.h"
#include "common/wire/handle.h"
#include "dataplane/fanout.h"
#include "dataplane/handover.h"
#include "dataplane/housekeeping.h"

/* Of one registration: what it spent, its last request, how many tags of it were checked. */
struct meter {
	uint64_t counter;
	struct allowance allowance;
	uint32_t generation; /* whose this is; 0: nobody's yet */
	uint32_t check_burst : 24, checks : 8;
};

/* Where a connection was last looked for in its group. */
struct seek {
	uint64_t connection;
	uint32_t at;
};

#define SEEKS 1024
#define USERS 4096 /* are told apart by their handles' hash */

struct replay {
	uint64_t burst; /* in which so many tags were checked, and endpoints looked at */
	unsigned checks, looks;
	struct seek seeks[SEEKS];
	struct allowance users[USERS];
	struct share share;
	struct meter *meters; /* by the connection's record; never written: takes no memory */
};

int replay_init(struct worker *w)
{
	w->replay = calloc(1, sizeof(*w->replay));
	if (!w->replay)
		return -ENOMEM;
	share_init(&w->replay->share);
	w->replay->meters = calloc(w->plane->table.connection_cnt, sizeof(*w->replay->meters));
	return w->replay->meters ? 0 : -ENOMEM;
}

void replay_fini(struct worker *w)
{
	if (w->replay)
		free(w->replay->meters);
	free(w->replay);
	w->replay = NULL;
}

/* ---- meters ---- */

/* The registration's; begun anew where an earlier one had the record. */
static struct meter *meter_of(struct worker *w, struct replay_asker asker)
{
	struct meter *meter = &w->replay->meters[asker.record];

	if (meter->generation != asker.generation &&
	    !(meter->generation && fan_planted(PLANT_REPLAY_METER_KEPT)))
		*meter = (struct meter){.generation = asker.generation};
	return meter;
}

static struct allowance *user_allowance(struct worker *w, const uint8_t handle[FAN_HANDLE_LEN])
{
	return &w->replay->users[fan_table_hash(w->plane->table.seed, handle, 0) >> 40 &
				 (USERS - 1)];
}

/* ---- requests ---- */

static void burst_begin(struct worker *w)
{
	struct replay *replay = w->replay;

	if (replay->burst == w->burst_no)
		return;
	replay->burst = w->burst_no;
	replay->checks = replay->looks = 0;
}

/*
 * The connection among the group's endpoints; NULL and *why where it was not found. It is looked
 * for where it was last; a larger group than a burst has looks for is gone on with next time.
 */
static const struct fan_endpoint *asker_find(struct worker *w, const struct fan_group *group,
					     uint64_t connection, enum fan_counter *why)
{
	struct replay *replay = w->replay;
	struct seek *seek = &replay->seeks[fan_mix(connection ^ w->plane->table.seed[0],
						   w->plane->table.seed[1] | 1) %
					   SEEKS];
	uint32_t cnt, looks = REPLAY_LOOKS_EACH;
	const struct fan_endpoint *endpoints = fan_group_endpoints(&w->plane->table, group, &cnt);

	if (replay->looks + looks < REPLAY_LOOKS)
		looks = REPLAY_LOOKS - replay->looks;
	looks = RTE_MIN(cnt, looks);
	if (seek->connection != connection)
		*seek = (struct seek){.connection = connection};
	for (uint32_t n = 0; n < looks; n++, seek->at++) {
		replay->looks++;
		if (seek->at >= cnt)
			seek->at = 0;
		if (endpoints[seek->at].connection == connection)
			return &endpoints[seek->at];
	}
	*why = looks < cnt ? FAN_COUNTER_drop_replay_budget : FAN_COUNTER_drop_replay_unknown;
	return NULL;
}

/* Whoever cannot spoof an address takes nothing of what others' tags are checked with. */
static bool source_is_right(const struct packet *packet, const struct fan_endpoint *endpoint)
{
	return (packet->source_port == endpoint->port &&
		memcmp(packet->source, endpoint->address, sizeof(packet->source)) == 0) ||
	       fan_planted(PLANT_REPLAY_SOURCE_IGNORED);
}

static bool may_check(struct worker *w, struct meter *meter)
{
	uint32_t burst = w->burst_no & 0xffffff;

	if (meter->check_burst != burst)
		meter->checks = 0;
	meter->check_burst = burst;
	if (meter->checks >= REPLAY_CHECKS_CONNECTION || w->replay->checks >= REPLAY_CHECKS)
		return false;
	meter->checks++;
	w->replay->checks++;
	return true;
}

static bool tag_is_right(const struct worker *w, const struct fan_group *group,
			 const struct packet *packet, uint64_t connection)
{
	uint8_t key[FAN_TAG_KEY_LEN];
	bool right;

	fan_replay_key(key, w->plane->table.registry->replay_root, connection,
		       packet->asker.generation, group->user_generation, group->handle);
	right = fan_replay_tag_ok(packet->wire, key) || fan_planted(PLANT_REPLAY_TAG_IGNORED);
	sodium_memzero(key, sizeof(key));
	return right;
}

/* True: it is right, and the packet knows of whom it is. */
static bool judge(struct worker *w, struct packet *packet, const struct fan_replay *request,
		  enum fan_counter *why)
{
	const struct fan_group *group =
		fan_table_lookup(&w->plane->table, request->handle, request->channel, packet->hash);
	const struct fan_endpoint *endpoint;

	*why = FAN_COUNTER_drop_replay_unknown;
	if (!group)
		return false;
	burst_begin(w);
	endpoint = asker_find(w, group, request->connection, why);
	if (!endpoint)
		return false;
	packet->asker.record = endpoint->record;
	packet->asker.generation = fan_endpoint_generation(&w->plane->table, endpoint);
	*why = FAN_COUNTER_drop_endpoint_range;
	if (!packet->asker.generation)
		return false;
	*why = FAN_COUNTER_drop_replay_source;
	if (!source_is_right(packet, endpoint))
		return false;
	*why = FAN_COUNTER_drop_replay_budget;
	if (!may_check(w, meter_of(w, packet->asker)))
		return false;
	*why = FAN_COUNTER_drop_replay_tag;
	return tag_is_right(w, group, packet, request->connection);
}

void replay_request(struct worker *w, struct rte_mbuf *mbuf, const struct fan_replay *request)
{
	struct packet *packet = packet_of(mbuf);
	enum fan_counter why;

	packet->hash = fan_table_hash(w->plane->table.seed, request->handle, request->channel);
	if (!judge(w, packet, request, &why)) {
		packet_drop(w, mbuf, why);
	} else if (group_owner(w->plane, packet->hash) != w->idx) {
		handover_replay(w, group_owner(w->plane, packet->hash), mbuf);
	} else {
		replay_queue(w, request, packet->asker);
		rte_pktmbuf_free(mbuf);
	}
}

/* ---- jobs ---- */

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
}

/* A range of another stream than the present one, or behind its tail, is answered by a status. */
static void job_ask(struct worker *w, struct job *job, const struct fan_group *group,
		    const struct fan_replay *request)
{
	const struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	struct range range = {request->first, RTE_MIN(request->last, state->sequence)};

	if (job->incarnation != group->incarnation || job->epoch != state->epoch) {
		job->range_cnt = 0;
		job->at = 0;
		if (!fan_planted(PLANT_LOST_OF_ANOTHER_EPOCH))
			job->lost = (struct range){0};
	}
	job->incarnation = group->incarnation;
	job->epoch = state->epoch;
	if (state->incarnation == group->incarnation && request->epoch == state->epoch &&
	    range.first <= range.last)
		range_add(job, range);
}

void replay_queue(struct worker *w, const struct fan_replay *request, struct replay_asker asker)
{
	uint64_t hash = fan_table_hash(w->plane->table.seed, request->handle, request->channel);
	const struct fan_group *group =
		fan_table_lookup(&w->plane->table, request->handle, request->channel, hash);
	struct meter *meter;
	struct job *job;
	bool gave_up;

	if (!group) {
		COUNT(w, drop_replay_unknown);
		return;
	}
	worker_clock(w);
	meter = meter_of(w, asker);
	if (request->counter <= meter->counter && !fan_planted(PLANT_REPLAY_COUNTER_IGNORED)) {
		COUNT(w, drop_replay_repeated);
		return;
	}
	meter->counter = request->counter;
	job = share_job(&w->replay->share, request, asker, &gave_up);
	COUNT_N(w, drop_replay_full, gave_up + !job);
	if (!job)
		return;
	job->hash = hash;
	job_ask(w, job, group, request);
	COUNT(w, replay_requests);
}

/* ---- serving ---- */

/* As much of the loop's budget as it, its connection and its user have; returns what it took. */
static int job_turn(struct worker *w, struct job *job, int visits, bool *done)
{
	struct allowance *own = &meter_of(w, job->asker)->allowance;
	struct allowance *user = user_allowance(w, job->sharer->handle);
	int64_t left = allowance_left(own, w->monotonic_ns, REPLAY_RATE, REPLAY_RATE_KEPT);
	int64_t left_user =
		allowance_left(user, w->monotonic_ns, REPLAY_RATE_USER, REPLAY_USER_KEPT);
	struct turn turn = {.visits = visits};

	/* A turn is not cut to what is left: it would find its way for a record or two. */
	if (RTE_MIN(left, left_user) <= 0 && !fan_planted(PLANT_REPLAY_BUDGET_IGNORED))
		return 0;
	*done = replay_job_serve(w, job, &turn);
	visits -= turn.visits;
	job->visited += (unsigned)visits;
	own->spent += visits;
	user->spent += visits;
	return visits;
}

unsigned replay_serve(struct worker *w, bool busy)
{
	struct share *share = &w->replay->share;
	int left = busy ? REPLAY_VISITS_BUSY : REPLAY_VISITS_IDLE, all = left, each;

	if (likely(share->job_cnt == 0))
		return 0;
	each = RTE_MAX(left / (int)share->sharer_cnt, REPLAY_VISITS_BUSY);
	worker_clock(w);
	if (w->unattended) /* nobody can be revoked: nobody is served */
		return 0;
	for (unsigned n = RTE_MIN(share->job_cnt, (unsigned)REPLAY_TURNS);
	     n && left >= REPLAY_VISITS_BUSY / 2; n--) {
		struct job *job = share_turn(share);
		bool done = false;

		left -= job_turn(w, job, RTE_MIN(each, left), &done);
		if (done)
			share_end(share, job);
		if (share->job_cnt == 0)
			break;
	}
	fanout_beside_flush(w);
	return (unsigned)(all - left);
}
