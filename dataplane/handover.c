/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/handover.h"

#include <errno.h>
#include <stdio.h>

#include "dataplane/flows.h"
#include "dataplane/replay.h"
#include "dataplane/send.h"

int handover_init(struct plane *plane)
{
	char name[RTE_RING_NAMESIZE];

	for (uint8_t kind = 0; kind < HANDOVER_KIND_CNT; kind++)
		for (uint8_t from = 0; from < plane->worker_cnt; from++)
			for (uint8_t to = 0; to < plane->worker_cnt; to++) {
				if (from == to)
					continue;
				snprintf(name, sizeof(name), "handover_%hhu_%hhu_%hhu", kind, from,
					 to);
				plane->rings[kind][from][to] = rte_ring_create(
					name, HANDOVER_CNT, SOCKET_ID_ANY,
					RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
				if (!plane->rings[kind][from][to])
					return -ENOMEM;
			}
	return 0;
}

static void ring_destroy(struct rte_ring *ring)
{
	void *mbuf;

	if (!ring)
		return;
	while (rte_ring_sc_dequeue(ring, &mbuf) == 0)
		rte_pktmbuf_free(mbuf);
	rte_ring_free(ring);
}

void handover_fini(struct plane *plane)
{
	for (unsigned kind = 0; kind < HANDOVER_KIND_CNT; kind++)
		for (unsigned from = 0; from < FAN_WORKERS_MAX; from++)
			for (unsigned to = 0; to < FAN_WORKERS_MAX; to++) {
				ring_destroy(plane->rings[kind][from][to]);
				plane->rings[kind][from][to] = NULL;
			}
}

static void in_flight_change(struct worker *w, unsigned to, int by)
{
	uint32_t cnt = __atomic_load_n(&w->in_flight[to], __ATOMIC_RELAXED);

	__atomic_store_n(&w->in_flight[to], cnt + (uint32_t)by, __ATOMIC_RELAXED);
}

bool handover_room(const struct worker *w, unsigned to)
{
	return __atomic_load_n(&w->in_flight[to], __ATOMIC_RELAXED) < HANDOVER_CNT;
}

bool handover_group_busy(const struct worker *w, uint64_t hash)
{
	return w->in_flight_groups[hash % GROUP_PLACES] >= HANDOVER_GROUP_MAX;
}

void handover_event(struct worker *w, unsigned to, struct rte_mbuf *mbuf)
{
	in_flight_change(w, to, 1);
	w->in_flight_groups[packet_of(mbuf)->hash % GROUP_PLACES]++;
	rte_ring_sp_enqueue(w->plane->rings[HANDOVER_EVENT][w->idx][to], mbuf);
	COUNT(w, handovers);
}

void handover_publish(struct worker *w, unsigned to, struct rte_mbuf *mbuf)
{
	if (rte_ring_sp_enqueue(w->plane->rings[HANDOVER_PUBLISH][w->idx][to], mbuf) == 0)
		COUNT(w, handovers);
	else
		packet_drop(w, mbuf, FAN_COUNTER_drop_handover_full);
}

void handover_replay(struct worker *w, unsigned to, struct rte_mbuf *mbuf)
{
	if (rte_ring_sp_enqueue(w->plane->rings[HANDOVER_REPLAY][w->idx][to], mbuf) == 0)
		COUNT(w, handovers);
	else
		packet_drop(w, mbuf, FAN_COUNTER_drop_replay_full);
}

void handover_result(struct worker *w, unsigned to, struct rte_mbuf *mbuf)
{
	rte_ring_sp_enqueue(w->plane->rings[HANDOVER_RESULT][w->idx][to], mbuf);
}

/* At most BURST_MAX of a kind from all workers together: the stages' arrays hold no more. Each
 * burst begins with another worker, so that none waits for the busiest. */
static unsigned collect(struct worker *w, enum handover kind, struct rte_mbuf **to, unsigned *from)
{
	unsigned cnt = 0;

	for (unsigned n = 0; n < w->plane->worker_cnt; n++) {
		unsigned i = (unsigned)((w->burst_no + n) % w->plane->worker_cnt);
		struct rte_ring *ring = w->plane->rings[kind][i][w->idx];

		if (!ring)
			continue;
		unsigned got =
			rte_ring_sc_dequeue_burst(ring, (void **)to + cnt, BURST_MAX - cnt, NULL);
		from[i] = got;
		cnt += got;
	}
	return cnt;
}

/* Through `others`, which is nobody's meanwhile. */
static unsigned collect_replays(struct worker *w, struct rte_mbuf **others, unsigned *from)
{
	unsigned cnt = collect(w, HANDOVER_REPLAY, others, from);

	for (unsigned i = 0; i < cnt; i++) {
		const struct packet *packet = packet_of(others[i]);
		struct fan_replay request;

		if (fan_replay_decode(packet->wire, packet->wire_len, &request) == FAN_WIRE_OK)
			replay_queue(w, &request, packet->asker);
		rte_pktmbuf_free(others[i]);
	}
	return cnt;
}

unsigned handover_collect(struct worker *w)
{
	unsigned from[FAN_WORKERS_MAX] = {0};
	struct rte_mbuf *others[BURST_MAX];
	unsigned publishes, events, results, transmits, replays;

	if (w->plane->worker_cnt == 1)
		return 0;
	publishes = collect(w, HANDOVER_PUBLISH, w->publishes + w->publish_cnt, from);
	w->publish_cnt += publishes;
	events = collect(w, HANDOVER_EVENT, w->events + w->event_cnt, from);
	w->event_cnt += events;
	replays = collect_replays(w, others, from);
	transmits = collect(w, HANDOVER_TRANSMIT, others, from);
	for (unsigned i = 0; i < transmits; i++)
		send_queue(w, others[i], SENT_ACK);
	memset(from, 0, sizeof(from));
	results = collect(w, HANDOVER_RESULT, w->done + w->done_cnt, from);
	for (unsigned i = 0; i < results; i++)
		w->in_flight_groups[packet_of(w->done[w->done_cnt + i])->hash % GROUP_PLACES]--;
	w->done_cnt += results;
	for (unsigned i = 0; i < w->plane->worker_cnt; i++)
		in_flight_change(w, i, -(int)from[i]);
	return publishes + events + replays + transmits + results;
}

bool handover_is_quiet(const struct plane *plane)
{
	for (unsigned from = 0; from < plane->worker_cnt; from++)
		for (unsigned to = 0; to < plane->worker_cnt; to++) {
			if (__atomic_load_n(&plane->workers[from]->in_flight[to], __ATOMIC_RELAXED))
				return false;
			for (unsigned kind = 0; from != to && kind < HANDOVER_KIND_CNT; kind++)
				if (!rte_ring_empty(plane->rings[kind][from][to]))
					return false;
		}
	return true;
}
