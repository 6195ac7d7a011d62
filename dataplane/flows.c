/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/flows.h"

#include <rte_cycles.h>

#include "common/shm/lookup.h"
#include "dataplane/fanout.h"

/* ---- shares ---- */

unsigned flow_share(struct worker *w, const struct fan_group *group, unsigned wanted)
{
	uint32_t idx = fan_group_idx(&w->plane->table, group);
	struct group_share *share = &w->shares[idx % GROUP_SHARES];

	/* Two groups that meet in a place have one share together: by that neither gets more. */
	if (share->burst != (uint32_t)w->burst_no)
		*share = (struct group_share){.burst = (uint32_t)w->burst_no};
	wanted = RTE_MIN(wanted, FLOW_SHARE - share->used);
	share->used += wanted;
	return wanted;
}

/* ---- flows ---- */

struct flow *flow_of(struct worker *w, uint64_t hash)
{
	for (unsigned i = 0; i < w->flow_cnt; i++)
		if (w->flows[i].hash == hash)
			return &w->flows[i];
	return NULL;
}

bool flow_is_full(struct worker *w, uint64_t hash)
{
	const struct flow *flow = flow_of(w, hash);

	return flow && (flow->cnt >= FLOW_EVENTS_MAX || w->flow_event_cnt >= w->flow_event_max);
}

void flow_push(struct worker *w, struct flow *flow, struct rte_mbuf *event)
{
	w->flow_event_cnt++;
	packet_of(event)->next = NULL;
	if (flow->cnt++)
		packet_of(flow->last)->next = event;
	else
		flow->first = event;
	flow->last = event;
}

bool flow_begin(struct worker *w, struct rte_mbuf *event, const struct fan_group *group,
		struct block rest)
{
	struct flow *flow = &w->flows[w->flow_cnt];

	if (w->flow_cnt == FLOWS_MAX)
		return false;
	*flow = (struct flow){.hash = packet_of(event)->hash, .group = group, .rest = rest};
	flow_push(w, flow, event);
	w->flow_cnt++;
	if (!w->pinned_tsc)
		w->pinned_tsc = rte_rdtsc();
	return true;
}

bool flows_pin(const struct worker *w)
{
	for (unsigned i = 0; i < w->flow_cnt; i++)
		if (w->flows[i].group)
			return true;
	return false;
}

/* ---- serving ---- */

/* Its group has ended since it was accepted: it goes to nobody, and its publisher hears so. */
static void event_no_group(struct worker *w, struct packet *packet)
{
	packet->result = (struct fan_result){
		.publisher_sequence = packet->result.publisher_sequence,
		.status = FAN_RESULT_NO_GROUP,
	};
	COUNT(w, events_no_group);
}

/* The first event in the queue begins: its group as it is now, unless that is another one by now.
 */
static void event_begin(struct worker *w, struct flow *flow)
{
	struct packet *packet = packet_of(flow->first);

	flow->group = fan_table_lookup(&w->plane->table, packet->publish.handle,
				       packet->publish.channel, packet->hash);
	if (flow->group && flow->group->incarnation != packet->incarnation)
		flow->group = NULL;
	flow->rest.cnt = 0;
	if (flow->group)
		flow->rest = fanout_block(w, packet, flow->group);
	else
		event_no_group(w, packet);
	if (!w->pinned_tsc)
		w->pinned_tsc = rte_rdtsc();
}

/* Copies for the flow's first event; its count of copies is known only after the flush. */
static unsigned slice_emit(struct worker *w, struct flow *flow, unsigned cnt)
{
	struct slice *slice = &w->slices[w->slice_cnt];
	uint16_t kind = (uint16_t)(SENT_SLICES + w->slice_cnt++);

	cnt = RTE_MIN(cnt, flow->rest.cnt);
	w->tx_sent[kind] = 0;
	*slice = (struct slice){.event = flow->first, .group = flow->group};
	if (cnt)
		fanout_copies(w, packet_of(flow->first), flow->rest.endpoints, cnt, kind);
	flow->rest.endpoints += cnt;
	flow->rest.cnt -= cnt;
	if (flow->rest.cnt == 0) {
		slice->ended = true;
		flow->group = NULL;
		flow->first = packet_of(flow->first)->next;
		flow->cnt--;
		w->flow_event_cnt--;
	}
	return cnt;
}

/* How flows are served in one burst. */
struct serving {
	unsigned budget; /* copies of each */
	bool may_begin;	 /* the next event */
	bool must_end;	 /* the one under way, whole */
};

static void flow_serve(struct worker *w, struct flow *flow, const struct serving *serving)
{
	unsigned budget = serving->budget;

	while (flow->cnt && budget && w->slice_cnt < SLICES_MAX) {
		if (!flow->group && !serving->may_begin)
			return;
		if (!flow->group)
			event_begin(w, flow);
		if (serving->must_end)
			slice_emit(w, flow, UINT32_MAX);
		else
			budget -= slice_emit(w, flow, budget);
		/* An event without endpoints costs too. */
		budget -= RTE_MIN(budget, 1u);
	}
}

static struct serving serving_now(struct worker *w)
{
	uint64_t now = rte_rdtsc(), us = rte_get_tsc_hz() / 1000000;
	uint64_t pinned = w->pinned_tsc ? now - w->pinned_tsc : 0;
	bool alone = w->flow_cnt == 1 && now - w->mixed_tsc > FLOW_ALONE_MS * 1000 * us;

	return (struct serving){
		.budget = alone ? FLOW_SHARE : FLOW_SLICE,
		.may_begin = pinned<FLOW_PIN_SOFT_US * us, .must_end = pinned> FLOW_PIN_MAX_US * us,
	};
}

void flows_serve(struct worker *w)
{
	const struct serving serving = serving_now(w);

	w->slice_cnt = 0;
	for (unsigned n = 0; n < w->flow_cnt; n++) /* each burst begins with another one */
		flow_serve(w, &w->flows[(w->burst_no + n) % w->flow_cnt], &serving);
	for (unsigned i = w->flow_cnt; i-- > 0;)
		if (w->flows[i].cnt == 0)
			w->flows[i] = w->flows[--w->flow_cnt];
	if (!flows_pin(w))
		w->pinned_tsc = 0;
}

void flows_settle(struct worker *w)
{
	for (unsigned i = 0; i < w->slice_cnt; i++) {
		const struct slice *slice = &w->slices[i];

		fanout_count(w, slice->event, slice->group, w->tx_sent[SENT_SLICES + i]);
		if (slice->ended)
			fanout_close(w, slice->event);
	}
	w->slice_cnt = 0;
}

void flows_fini(struct worker *w)
{
	for (unsigned i = 0; i < w->flow_cnt; i++)
		while (w->flows[i].cnt--) {
			struct rte_mbuf *event = w->flows[i].first;

			w->flows[i].first = packet_of(event)->next;
			rte_pktmbuf_free(event);
		}
	w->flow_cnt = w->flow_event_cnt = 0;
}
