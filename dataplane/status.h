/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Status: a group that falls silent is told where its stream ends, so that whoever lost the last
 * events asks for them. Once STATUS_MS[0] after the last event, and twice more, in case that was
 * lost too.
 *
 * Groups that had events stand in a queue for each wait, which is a wheel with one spoke, since a
 * queue's wait is constant. An event costs a look at one bit. What stands in a queue is a group's
 * index and where its stream stood; the group is looked up again when its time has come. Statuses
 * yield to events: a loop that has such looks at few groups, and where a queue is full, a
 * subscriber learns of its stream's end by its lease's renewal. The worker's lcore.
 */
#pragma once

#include "dataplane/worker.h"

#define STATUS_STAGES 3
#define STATUS_WAITS_MS       \
	{                     \
		20, 250, 2000 \
	}
#define STATUS_QUEUE	   65536 /* groups that wait in one queue; power of two */
#define STATUS_CHECKS_BUSY 8	 /* groups looked at in a loop that has live events */
#define STATUS_CHECKS_IDLE 256
#define STATUS_COPIES_BUSY 32	      /* copies in such a loop; FLOW_SHARE in another */
#define STATUS_REARM	   (8u << 20) /* bytes of the log: whose events are in them is told anew */

struct status_entry {
	uint32_t group;	      /* index */
	uint32_t incarnation; /* low bits of both */
	uint32_t sequence;
	uint32_t due; /* tick */
};

struct status_queue {
	uint32_t head, tail; /* of what comes, of what goes */
	struct status_entry entries[STATUS_QUEUE];
};

struct status {
	unsigned tick_shift;	       /* of the time-stamp counter */
	uint32_t waits[STATUS_STAGES]; /* ticks */
	uint64_t *armed;	       /* a bit a group: it stands in queue 0 */
	struct status_entry part; /* told in parts: the first `told` of its endpoints are done */
	unsigned part_stage;
	uint32_t told; /* 0: there is none */
	struct status_queue queues[STATUS_STAGES];
};

/*
 * 0 or -ENOMEM. After a predecessor, groups of the log's last part are told where they stand: what
 * was logged and never sent is theirs all the same.
 */
int status_init(struct worker *w);
void status_fini(struct worker *w);

void status_arm(struct worker *w, uint32_t group, const struct fan_group_state *state);

/* The group had an event. */
static inline void status_event(struct worker *w, uint32_t group,
				const struct fan_group_state *state)
{
	if (!(w->status->armed[group / 64] >> group % 64 & 1))
		status_arm(w, group, state);
}

/* Statuses whose time has come; returns how many groups were looked at. */
unsigned status_serve(struct worker *w, bool busy);
