/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/housekeeping.h"

#include <rte_cycles.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/plant.h"
#include "common/shm/ring.h"
#include "dataplane/fanout.h"
#include "dataplane/flows.h"
#include "dataplane/replay.h"
#include "dataplane/send.h"
#include "dataplane/status.h"

#define NANOSECONDS	  UINT64_C(1000000000)
#define REQUESTS_PER_LOOP 16

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

void worker_clock(struct worker *w)
{
	const struct fan_registry *registry = w->plane->table.registry;
	uint64_t limit = __atomic_load_n(&registry->max_unattended_ns, __ATOMIC_RELAXED);
	uint64_t heartbeat = __atomic_load_n(&registry->heartbeat_ns, __ATOMIC_RELAXED);

	w->now_ns = clock_ns(CLOCK_REALTIME);
	w->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	w->unattended = limit && w->monotonic_ns > heartbeat && w->monotonic_ns - heartbeat > limit;
}

/* The word's store and a reclaimer's fence are both seq_cst: see common/shm/state.h. */
void worker_enter(struct worker *w)
{
	uint64_t word = __atomic_load_n(&w->shared->quiescent, __ATOMIC_RELAXED);

	prctl(PR_SET_TIMERSLACK, 1); /* ns: an idle sleep is as short as it says */
	__atomic_exchange_n(&w->shared->quiescent, word + 1 + (word & 1), __ATOMIC_SEQ_CST);
}

void worker_quiesce(struct worker *w)
{
	uint64_t word = __atomic_load_n(&w->shared->quiescent, __ATOMIC_RELAXED);

	if (unlikely(w->flow_cnt) && flows_pin(w) && !fan_planted(PLANT_PINS_FORGOTTEN))
		return; /* for a bounded time: flows.h */
	__atomic_exchange_n(&w->shared->quiescent, word + 2, __ATOMIC_SEQ_CST);
}

void worker_leave(struct worker *w)
{
	uint64_t word = __atomic_load_n(&w->shared->quiescent, __ATOMIC_RELAXED);

	send_flush(w);
	counters_flush(w);
	__atomic_exchange_n(&w->shared->quiescent, word + (word & 1), __ATOMIC_SEQ_CST);
}

void counters_flush(struct worker *w)
{
	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++) {
		uint64_t *shared = &w->shared->counters[i];

		if (!w->counters[i])
			continue;
		__atomic_store_n(shared, *shared + w->counters[i], __ATOMIC_RELAXED);
		w->counters[i] = 0;
	}
}

/*
 * The tail moves on when what was taken has left, not before: fanwired gives a port to another user
 * only when no request for it is left, and a worker can be stopped between any two instructions.
 */
static unsigned requests(struct worker *w)
{
	const struct plane *plane = w->plane;
	const struct fan_registry *registry = plane->table.registry;
	const void *slots = (const char *)registry + registry->requests_off;
	uint32_t tail = plane->state->request_tail, before = tail;
	struct fan_request request;
	unsigned cnt = 0;

	while (cnt < REQUESTS_PER_LOOP &&
	       fan_ring_try_pop(slots, plane->request_cnt, sizeof(request), &registry->request_head,
				&tail, &request)) {
		if (cnt++ == 0)
			worker_clock(w);
		if (request.deadline_ns < w->monotonic_ns)
			COUNT(w, drop_request_late);
		else if (request.type == FAN_REQUEST_CHALLENGE)
			fanout_challenge(w, &request);
	}
	if (cnt) {
		send_flush(w);
		COUNT_N(w, challenges_sent, w->tx_sent[SENT_CHALLENGE]);
		w->tx_sent[SENT_CHALLENGE] = 0;
	}
	if (tail != before) /* pairs with fanwired's acquire */
		__atomic_store_n(&plane->state->request_tail, tail, __ATOMIC_RELEASE);
	return cnt;
}

static void heartbeat(struct worker *w)
{
	uint64_t now = rte_rdtsc();

	if (now < w->next_heartbeat_tsc)
		return;
	w->next_heartbeat_tsc = now + w->heartbeat_tsc;
	__atomic_store_n(&w->shared->heartbeat_ns, clock_ns(CLOCK_MONOTONIC), __ATOMIC_RELAXED);
}

unsigned housekeeping(struct worker *w, unsigned work)
{
	unsigned cnt = w->idx == 0 ? requests(w) : 0;

	cnt += replay_serve(w, work > 0);
	cnt += status_serve(w, work > 0);
	__atomic_store_n(&w->shared->loops, w->shared->loops + 1, __ATOMIC_RELAXED);
	if (work + cnt) {
		__atomic_store_n(&w->shared->busy_loops, w->shared->busy_loops + 1,
				 __ATOMIC_RELAXED);
		counters_flush(w);
	}
	heartbeat(w);
	return cnt;
}
