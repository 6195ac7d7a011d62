/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Serving one job: finds the records of its first range by skipping back from the group's tail,
 * checks each, and sends them in the order of their sequences; says what is gone.
 */
#include "dataplane/replay_share.h"

#include "common/plant.h"
#include "dataplane/fanout.h"
#include "dataplane/log.h"

enum find { FIND_FOUND, FIND_LATER, FIND_NONE };

/* The connection among the group's endpoints as they are now. */
static enum find endpoint_find(struct worker *w, struct job *job, struct turn *turn)
{
	const struct fan_endpoint *endpoints;
	uint32_t cnt;

	endpoints = fan_group_endpoints(&w->plane->table, turn->group, &cnt);
	for (uint32_t n = 0; n < REPLAY_SCAN && job->scanned < cnt; n++, job->scanned++) {
		turn->visits -= n % REPLAY_SCAN_VISIT == REPLAY_SCAN_VISIT - 1;
		if (job->endpoint >= cnt)
			job->endpoint = 0;
		if (endpoints[job->endpoint].connection == job->connection &&
		    endpoints[job->endpoint].record == job->asker.record &&
		    fan_endpoint_generation(&w->plane->table, &endpoints[job->endpoint]) ==
			    job->asker.generation) {
			turn->endpoint = &endpoints[job->endpoint];
			job->scanned = 0;
			return FIND_FOUND;
		}
		job->endpoint++;
	}
	return job->scanned < cnt ? FIND_LATER : FIND_NONE;
}

static bool visit(struct turn *turn)
{
	return turn->visits-- > 0;
}

/* Told in as few messages as there are gaps. */
static void lost_tell(struct worker *w, struct job *job, const struct turn *turn)
{
	if (!job->lost.last)
		return;
	if (!fan_planted(PLANT_LOST_SILENT))
		fanout_lost(w, turn->group, turn->endpoint, job->epoch, job->lost.first,
			    job->lost.last);
	COUNT_N(w, replay_lost, job->lost.last - job->lost.first + 1);
	job->lost = (struct range){0};
}

static void lost_add(struct worker *w, struct job *job, const struct turn *turn, uint64_t first,
		     uint64_t last)
{
	if (first > last)
		return;
	if (job->lost.last + 1 != first)
		lost_tell(w, job, turn);
	if (!job->lost.last)
		job->lost.first = first;
	job->lost.last = last;
}

/* Up to here the job's first range is done with. */
static void range_done(struct job *job, uint64_t to)
{
	struct range *range = &job->ranges[0];

	if (to >= range->last)
		job_range_remove(job, 0);
	else
		range->first = to + 1;
}

/* A record that is not what it should be ends the replay: what is older cannot be had. */
static enum log_get get(struct worker *w, const struct job *job, uint64_t position, uint64_t before,
			const struct fan_log_record **record)
{
	enum log_get got = log_get(w, position, job->incarnation, before, record);

	if (got == LOG_TORN)
		COUNT(w, replay_torn);
	return got;
}

/*
 * The furthest that one step leads without passing `target`: a skip leads to the latest sequence
 * before the record's that is a multiple of its distance, unless that one was lost in a crash.
 */
static uint64_t step_from(struct worker *w, const struct job *job,
			  const struct fan_log_record *record, uint64_t target, struct turn *turn)
{
	for (unsigned i = FAN_LOG_SKIPS; i-- > 0;) {
		uint64_t distance = UINT64_C(1) << (FAN_LOG_SKIP_BITS * (i + 1));
		const struct fan_log_record *to;

		if ((record->sequence - 1) / distance * distance < target)
			continue;
		if (visit(turn) &&
		    log_get(w, record->skip[i], job->incarnation, record->sequence, &to) ==
			    LOG_FOUND &&
		    to->sequence >= target)
			return record->skip[i];
	}
	return record->previous;
}

/*
 * Walks back to the group's latest record that is not after range->last, or to one within the range
 * that an earlier walk came to: then the range ends there. FIND_LATER: goes on in another loop;
 * FIND_NONE: there is none, and *oldest is the first sequence that there is.
 */
static enum find walk(struct worker *w, struct job *job, struct turn *turn, struct range *range,
		      uint64_t *oldest)
{
	const struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, turn->group)];
	const struct fan_log_record *record = NULL;

	if (job->at && (log_get(w, job->at, job->incarnation, UINT64_MAX, &record) != LOG_FOUND ||
			record->sequence < range->first))
		job->at = 0;
	if (job->at)
		range->last = RTE_MIN(range->last, record->sequence);
	if (!job->at)
		job->at = log_tail(w, state);
	*oldest = state->sequence + 1;
	while (visit(turn)) {
		if (get(w, job, job->at, *oldest, &record) != LOG_FOUND)
			return FIND_NONE;
		if (record->sequence <= range->last)
			return FIND_FOUND;
		*oldest = record->sequence;
		job->at = step_from(w, job, record, range->last, turn);
	}
	return FIND_LATER;
}

/* The records from job->at back to `first`, each checked, in the order of their sequences. */
static unsigned collect(struct worker *w, const struct job *job, struct turn *turn, uint64_t first,
			unsigned max, const struct fan_log_record **records)
{
	uint64_t position = job->at, before = UINT64_MAX;
	unsigned cnt = 0;

	while (cnt < max) {
		const struct fan_log_record *record;

		visit(turn);
		if (get(w, job, position, before, &record) != LOG_FOUND || record->sequence < first)
			break;
		if (!log_check(w, record, turn->group, job->epoch)) {
			COUNT(w, replay_torn);
			break;
		}
		records[cnt++] = record;
		before = record->sequence;
		position = record->previous;
	}
	for (unsigned i = 0; i < cnt / 2; i++) {
		const struct fan_log_record *other = records[i];

		records[i] = records[cnt - 1 - i];
		records[cnt - 1 - i] = other;
	}
	return cnt;
}

static void send_chunk(struct worker *w, struct job *job, struct turn *turn, struct range chunk,
		       unsigned max)
{
	const struct fan_log_record *records[REPLAY_CHUNK];
	unsigned cnt = collect(w, job, turn, chunk.first, max, records);

	for (unsigned i = 0; i < cnt; i++) {
		uint64_t sequence = records[i]->sequence;
		const uint8_t *image = log_image(records[i]);

		lost_add(w, job, turn, chunk.first, sequence - 1);
		chunk.first = sequence + 1;
		if (!fanout_can_replay(w, turn->group, image)) { /* its keys have been retired */
			lost_add(w, job, turn, sequence, sequence);
			continue;
		}
		lost_tell(w, job, turn); /* before what follows it */
		fanout_replay(w, turn->group, turn->endpoint, image, records[i]->image_len);
	}
	lost_add(w, job, turn, chunk.first, chunk.last);
	range_done(job, chunk.last);
}

/* The beginning of the job's first range; false where nothing more can be done in this turn. */
static bool chunk(struct worker *w, struct job *job, struct turn *turn)
{
	int half = RTE_MAX(turn->visits / 2, 1);
	unsigned max = (unsigned)RTE_MIN(REPLAY_CHUNK, half);
	struct range range = job->ranges[0];
	uint64_t oldest;

	range.last = RTE_MIN(range.last, range.first + max - 1);
	switch (walk(w, job, turn, &range, &oldest)) {
	case FIND_LATER:
		return false;
	case FIND_NONE:
		range.last = RTE_MIN(job->ranges[0].last, oldest - 1);
		lost_add(w, job, turn, range.first, range.last);
		range_done(job, range.last);
		break;
	case FIND_FOUND:
		send_chunk(w, job, turn, range, max);
		break;
	}
	job->at = 0;
	return true;
}

bool replay_job_serve(struct worker *w, struct job *job, struct turn *turn)
{
	const struct fan_group_state *state;

	turn->group =
		fan_table_lookup(&w->plane->table, job->sharer->handle, job->channel, job->hash);
	if (!turn->group || turn->group->incarnation != job->incarnation) {
		COUNT(w, drop_replay_unknown);
		return true;
	}
	switch (endpoint_find(w, job, turn)) {
	case FIND_LATER:
		return false;
	case FIND_NONE:
		COUNT(w, drop_replay_unknown);
		return true;
	case FIND_FOUND:
		break;
	}
	state = &w->plane->group_states[fan_group_idx(&w->plane->table, turn->group)];
	if (state->incarnation != job->incarnation || state->epoch != job->epoch)
		job->range_cnt = 0;
	while (job->range_cnt)
		if (!chunk(w, job, turn))
			return false;
	lost_tell(w, job, turn);
	fanout_status(w, turn->group, turn->endpoint, 1);
	return true;
}
