/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/ingress.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the queue ---- */

void ingress_push(struct ingress *ingress, const uint8_t *frame)
{
	if (ingress->head - ingress->tail == INGRESS_CNT)
		ingress->lost++;
	else
		ingress->frames[ingress->head++ % INGRESS_CNT] = frame;
}

unsigned ingress_take(struct ingress *ingress, struct rte_mempool *pool, struct rte_mbuf **mbufs,
		      unsigned cnt)
{
	cnt = RTE_MIN(cnt, ingress->head - ingress->tail);
	if (cnt == 0 || rte_pktmbuf_alloc_bulk(pool, mbufs, cnt))
		return 0;
	for (unsigned i = 0; i < cnt; i++)
		rte_memcpy(rte_pktmbuf_append(mbufs[i], ingress->frame_len),
			   ingress->frames[ingress->tail++ % INGRESS_CNT], ingress->frame_len);
	return cnt;
}

/* ---- publishers ---- */

static uint32_t stride(const struct publisher *p)
{
	return RTE_ALIGN_CEIL((uint32_t)feed_frame_len(&p->rig->feed), RTE_CACHE_LINE_SIZE);
}

int publisher_init(struct publisher *p, struct rig *rig, uint32_t slot, uint32_t cnt,
		   uint32_t first, uint32_t users)
{
	uint64_t random = UINT64_C(0x9e3779b97f4a7c15) * (slot + 1); /* fixed: runs are alike */

	*p = (struct publisher){.rig = rig, .slot = slot, .cnt = cnt};
	p->frames = aligned_alloc(RTE_CACHE_LINE_SIZE, (size_t)cnt * stride(p));
	if (!p->frames)
		return -ENOMEM;
	for (uint32_t i = 0; i < cnt; i++) {
		random ^= random >> 12; /* xorshift64*, Vigna 2016 */
		random ^= random << 25;
		random ^= random >> 27;
		feed_seal(&rig->feed, p->frames + (size_t)i * stride(p), slot,
			  first + (uint32_t)((random * UINT64_C(0x2545f4914f6cdd1d)) >> 32) %
					  users);
	}
	return 0;
}

void publisher_fini(struct publisher *p)
{
	free(p->frames);
	p->frames = NULL;
}

static struct fan_session_state *state_of(const struct publisher *p)
{
	return &p->rig->plane.session_states[p->slot];
}

uint32_t publisher_accepted(const struct publisher *p)
{
	const struct fan_session_state *state = state_of(p);

	return state->session == p->rig->feed.ids[p->slot] ? (uint32_t)state->accepted : 0;
}

void publisher_restart(struct publisher *p)
{
	state_of(p)->session = 0; /* nobody's: the worker begins it anew */
	p->sent = p->moved = 0;
	p->moved_tsc = 0;
}

void publisher_send(struct publisher *p, struct ingress *ingress)
{
	ingress_push(ingress, p->frames + (size_t)p->sent++ * stride(p));
}

void publisher_go_back(struct publisher *p)
{
	p->sent = publisher_accepted(p);
}

bool publisher_timeout(struct publisher *p, uint64_t now_tsc, uint64_t rto_tsc)
{
	uint32_t accepted = publisher_accepted(p);

	if (accepted != p->moved || accepted == p->sent) {
		p->moved = accepted;
		p->moved_tsc = now_tsc;
	}
	if (now_tsc - p->moved_tsc < rto_tsc)
		return false;
	p->moved_tsc = now_tsc;
	publisher_go_back(p);
	return true;
}
