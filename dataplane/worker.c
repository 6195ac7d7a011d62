/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/worker.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_malloc.h>
#include <sodium.h>
#include <stdlib.h>

#include "dataplane/admission.h"
#include "dataplane/flows.h"
#include "dataplane/log.h"
#include "dataplane/replay.h"
#include "dataplane/seal.h"
#include "dataplane/send.h"
#include "dataplane/status.h"
#include "dataplane/tag.h"

#define HEARTBEATS_PER_S 100

int worker_create(struct plane *plane, unsigned idx)
{
	struct worker *w = rte_zmalloc("worker", sizeof(*w), RTE_CACHE_LINE_SIZE);

	if (!w)
		return -ENOMEM;
	plane->workers[idx] = w;
	w->plane = plane;
	w->idx = idx;
	w->shared = &plane->worker_states[idx];
	w->heartbeat_tsc = rte_get_tsc_hz() / HEARTBEATS_PER_S;
	w->ack_first = calloc(plane->table.session_mask + 1, sizeof(*w->ack_first));
	w->templates = calloc(plane->table.nexthop_cnt, sizeof(*w->templates));
	w->crypto = alloc_mb_mgr(0);
	if (admission_init(w) || log_open(w) || replay_init(w) || status_init(w) || !w->ack_first ||
	    !w->templates || !w->crypto)
		return -ENOMEM;
	init_mb_mgr_auto(w->crypto, NULL);
	if (imb_get_errno(w->crypto))
		return -ENODEV;
	/* What waits must not take the buffers that the port receives into. */
	w->flow_event_max = RTE_MAX(plane->pool->size / 4 / plane->worker_cnt, 1u);
	randombytes_buf(w->epoch_key, sizeof(w->epoch_key));
	tag_generation(w);
	return w->roots.generation ? seal_worker_init(w) : -EPROTO;
}

void worker_destroy(struct worker *w)
{
	if (!w)
		return;
	flows_fini(w);
	admission_fini(w);
	status_fini(w);
	replay_fini(w);
	log_close(w);
	seal_worker_fini(w);
	send_fini(w);
	sodium_memzero(w->epoch_key, sizeof(w->epoch_key));
	sodium_memzero(&w->roots, sizeof(w->roots));
	if (w->crypto)
		free_mb_mgr(w->crypto);
	free(w->templates);
	free(w->ack_first);
	w->plane->workers[w->idx] = NULL;
	rte_free(w);
}

void stage_add(struct rte_mbuf **stage, unsigned *cnt, struct rte_mbuf *mbuf)
{
	RTE_VERIFY(*cnt < STAGE_MAX);
	stage[(*cnt)++] = mbuf;
}

void packet_drop(struct worker *w, struct rte_mbuf *mbuf, enum fan_counter reason)
{
	w->counters[reason]++;
	rte_pktmbuf_free(mbuf);
}
