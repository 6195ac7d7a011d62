/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop of a worker. No allocation but from mempools, no lock, no log line, no system call of
 * ours while there is work. */
#include <rte_cycles.h>
#include <rte_pause.h>

#include "dataplane/housekeeping.h"
#include "dataplane/shim.h"
#include "dataplane/worker.h"

#define EMPTY_POLLS_BEFORE_SLEEP 64

unsigned worker_burst(struct worker *w, struct rte_mbuf **received, unsigned cnt)
{
	unsigned work = cnt;

	w->burst_no++;
	parse_burst(w, received, cnt); /* frames become publishes; echoes become reports */
	work += handover_collect(w);   /* what other workers have for us */
	work += w->admission.waiting + w->flow_cnt; /* and what goes on from earlier bursts */
	if (work == 0)
		return 0;
	worker_clock(w);
	lookup_burst(w);	 /* groups: of publishes, and of others' events that are ours */
	session_open_burst(w);	 /* publishes: authentic, in order and in budget, become events */
	sequence_burst(w);	 /* their places in the groups' streams */
	header_burst(w);	 /* what each of their subscribers is sent */
	seal_burst(w);		 /* under the keys of their users */
	tag_burst(w);		 /* and with their filter tags */
	log_burst(w);		 /* which makes them events: from here they are delivered */
	fanout_burst(w);	 /* a copy to each endpoint, and the port takes them */
	session_finish_burst(w); /* results are kept */
	ack_burst(w);		 /* and told */
	return work;
}

static unsigned receive(struct worker *w, struct rte_mbuf **received)
{
	const struct plane *plane = w->plane;

	if (w->idx >= plane->rx_queue_cnt || __atomic_load_n(&plane->draining, __ATOMIC_RELAXED))
		return 0;
	return shim_receive(plane->port_id, (uint16_t)w->idx, received,
			    (uint16_t)plane->config.burst);
}

static void idle(struct worker *w, unsigned work)
{
	if (work == 0)
		rte_pause(); /* what shares the core goes on faster */
	if (work || w->plane->config.idle_sleep_us == 0)
		w->empty_polls = 0;
	else if (++w->empty_polls > EMPTY_POLLS_BEFORE_SLEEP)
		rte_delay_us_sleep(w->plane->config.idle_sleep_us);
}

int worker_run(void *arg)
{
	struct rte_mbuf *received[BURST_MAX];
	struct worker *w = arg;

	worker_enter(w);
	/* What waits and what was accepted is ended, too. */
	while (!__atomic_load_n(&w->plane->stopping, __ATOMIC_RELAXED) || w->flow_cnt ||
	       w->admission.waiting) {
		unsigned work = worker_burst(w, received, receive(w, received));

		work += housekeeping(w, work);
		worker_quiesce(w); /* holds no reference into the registry region, or says so */
		idle(w, work);
	}
	worker_leave(w);
	return 0;
}
