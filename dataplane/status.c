/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/status.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

#include "dataplane/fanout.h"
#include "dataplane/housekeeping.h"
#include "dataplane/log.h"
#include "dataplane/send.h"

#define AHEAD 4 /* entries */

/* What a loop may do. */
struct budget {
	unsigned checks, copies;
};

static uint32_t tick_now(const struct status *status)
{
	return (uint32_t)(rte_rdtsc() >> status->tick_shift);
}

/* ---- queues ---- */

static bool push(struct worker *w, unsigned stage, uint32_t group,
		 const struct fan_group_state *state)
{
	struct status *status = w->status;
	struct status_queue *queue = &status->queues[stage];

	if (queue->head - queue->tail == STATUS_QUEUE) {
		COUNT(w, statuses_skipped);
		return false;
	}
	queue->entries[queue->head++ % STATUS_QUEUE] = (struct status_entry){
		.group = group,
		.incarnation = (uint32_t)state->incarnation,
		.sequence = (uint32_t)state->sequence,
		.due = tick_now(status) + status->waits[stage],
	};
	return true;
}

static void armed_set(struct status *status, uint32_t group, bool armed)
{
	uint64_t bit = UINT64_C(1) << group % 64;

	if (armed)
		status->armed[group / 64] |= bit;
	else
		status->armed[group / 64] &= ~bit;
}

void status_arm(struct worker *w, uint32_t group, const struct fan_group_state *state)
{
	armed_set(w->status, group, push(w, 0, group, state));
}

/* ---- telling ---- */

static bool has_changed(const struct status_entry *entry, const struct fan_group_state *state)
{
	return entry->incarnation != (uint32_t)state->incarnation ||
	       entry->sequence != (uint32_t)state->sequence;
}

/* The group at an index may be another one by now, and half written: it counts as found by its key
 * only. */
static const struct fan_group *group_at(struct worker *w, uint32_t idx)
{
	const struct fan_table *table = &w->plane->table;
	const struct fan_group *group = &table->groups[idx], *found;
	const uint64_t *from = (const uint64_t *)(const void *)group;
	uint64_t words[3]; /* handle and channel */

	for (unsigned i = 0; i < RTE_DIM(words); i++)
		words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	found = fan_table_lookup(table, (const uint8_t *)words, words[2],
				 fan_table_hash(table->seed, (const uint8_t *)words, words[2]));
	return found == group ? group : NULL;
}

/* Some more of the group's endpoints; true: that was the last of them. */
static bool tell(struct worker *w, const struct status_entry *entry, struct budget *budget)
{
	struct status *status = w->status;
	const struct fan_group *group = group_at(w, entry->group);
	const struct fan_endpoint *endpoints;
	uint32_t cnt, now;

	if (!group || group->incarnation != w->plane->group_states[entry->group].incarnation)
		return true;
	endpoints = fan_group_endpoints(&w->plane->table, group, &cnt);
	if (status->told >= cnt)
		return true;
	now = RTE_MIN(cnt - status->told, budget->copies);
	fanout_status(w, group, endpoints + status->told, now);
	status->told += now;
	budget->copies -= now;
	return status->told == cnt;
}

/* Where it goes from here. */
static void next(struct worker *w, const struct status_entry *entry, unsigned stage)
{
	const struct fan_group_state *state = &w->plane->group_states[entry->group];
	bool changed = has_changed(entry, state);

	w->status->told = 0;
	if (stage == 0)
		armed_set(w->status, entry->group, changed && push(w, 0, entry->group, state));
	if (!changed && stage + 1 < STATUS_STAGES)
		push(w, stage + 1, entry->group, state);
}

static void entry_serve(struct worker *w, const struct status_entry *entry, unsigned stage,
			struct budget *budget)
{
	if (!has_changed(entry, &w->plane->group_states[entry->group]) && !tell(w, entry, budget)) {
		w->status->part = *entry;
		w->status->part_stage = stage;
		return;
	}
	next(w, entry, stage);
}

static void queue_serve(struct worker *w, unsigned stage, struct budget *budget)
{
	struct status *status = w->status;
	struct status_queue *queue = &status->queues[stage];
	uint32_t now = tick_now(status);

	while (queue->head != queue->tail && budget->checks && budget->copies && !status->told) {
		struct status_entry entry = queue->entries[queue->tail % STATUS_QUEUE];
		uint32_t ahead = queue->entries[(queue->tail + AHEAD) % STATUS_QUEUE].group;

		if ((int32_t)(now - entry.due) < 0)
			return;
		rte_prefetch0(&w->plane->group_states[ahead]);
		queue->tail++;
		budget->checks--;
		entry_serve(w, &entry, stage, budget);
	}
}

static bool is_due(const struct status *status)
{
	uint32_t now = tick_now(status);
	bool due = status->told;

	for (unsigned stage = 0; stage < STATUS_STAGES; stage++) {
		const struct status_queue *queue = &status->queues[stage];

		due |= queue->head != queue->tail &&
		       (int32_t)(now - queue->entries[queue->tail % STATUS_QUEUE].due) >= 0;
	}
	return due;
}

unsigned status_serve(struct worker *w, bool busy)
{
	struct status *status = w->status;
	struct budget budget = {busy ? STATUS_CHECKS_BUSY : STATUS_CHECKS_IDLE,
				busy ? STATUS_COPIES_BUSY : FLOW_SHARE};
	unsigned all = budget.checks, copies = budget.copies;

	if (likely(!is_due(status)))
		return 0;
	worker_clock(w);
	if (w->unattended) /* nobody can be revoked: nobody is served */
		return 0;
	if (status->told) {
		struct status_entry entry = status->part;

		budget.checks--;
		entry_serve(w, &entry, status->part_stage, &budget);
	}
	for (unsigned stage = 0; stage < STATUS_STAGES; stage++)
		queue_serve(w, stage, &budget);
	if (budget.copies != copies)
		fanout_beside_flush(w);
	return all - budget.checks;
}

/* ---- life ---- */

/* Whether the group is this worker's and had an event not long before its predecessor ended. */
static bool is_recent(const struct worker *w, uint32_t idx)
{
	const struct plane *plane = w->plane;
	const struct fan_group_state *state = &plane->group_states[idx];
	const struct fan_group *group = &plane->table.groups[idx];
	uint64_t tail;

	if (!state->log_tail || state->incarnation != group->incarnation ||
	    group_owner(plane, fan_table_hash(plane->table.seed, group->handle, group->channel)) !=
		    w->idx)
		return false;
	tail = log_tail(w, state);
	return tail && w->shared->log_head[tail >> 63] - (tail & ~FAN_LOG_RING_BIT) < STATUS_REARM;
}

int status_init(struct worker *w)
{
	static const unsigned waits_ms[STATUS_STAGES] = STATUS_WAITS_MS;
	uint32_t group_cnt = w->plane->table.group_cnt;
	uint64_t hz = rte_get_tsc_hz();
	struct status *status = rte_zmalloc("status", sizeof(*status), RTE_CACHE_LINE_SIZE);

	if (!status)
		return -ENOMEM;
	w->status = status;
	status->armed = calloc(group_cnt / 64 + 1, sizeof(*status->armed));
	if (!status->armed)
		return -ENOMEM;
	while (hz / 1000 >> (status->tick_shift + 1)) /* about a millisecond */
		status->tick_shift++;
	for (unsigned i = 0; i < STATUS_STAGES; i++)
		status->waits[i] = (uint32_t)(hz / 1000 * waits_ms[i] >> status->tick_shift);
	if (w->idx >= w->plane->tx_queue_cnt || w->plane->state->run == 1)
		return 0;
	for (uint32_t idx = 0; idx < group_cnt; idx++)
		if (is_recent(w, idx))
			status_arm(w, idx, &w->plane->group_states[idx]);
	return 0;
}

void status_fini(struct worker *w)
{
	if (!w->status)
		return;
	free(w->status->armed);
	rte_free(w->status);
	w->status = NULL;
}
