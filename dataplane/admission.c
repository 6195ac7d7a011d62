/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/admission.h"

#include <errno.h>
#include <rte_cycles.h>
#include <stdlib.h>

int admission_init(struct worker *w)
{
	w->admission.sessions =
		calloc(w->plane->table.session_mask + 1, sizeof(*w->admission.sessions));
	return w->admission.sessions ? 0 : -ENOMEM;
}

void admission_fini(struct worker *w)
{
	struct admission *a = &w->admission;

	for (; a->tail != a->head; a->tail++)
		rte_pktmbuf_free(a->queue[a->tail % ADMISSION_QUEUE]);
	free(a->sessions);
}

/* What was counted becomes what is judged by. */
static void window_end(struct admission *a)
{
	uint64_t now = rte_rdtsc();

	if (a->active > 1)
		a->others_tsc = now;
	a->last_active = a->active;
	if (a->active == 1 && a->others_tsc &&
	    now - a->others_tsc < rte_get_tsc_hz() / 1000 * ADMISSION_ALONE_MS)
		a->last_active = 2; /* the other one is only slow */
	a->window++;
	a->cnt = a->active = 0;
}

/* Half as much again as everybody's even share. Afterwards `last` is of the window before this. */
static bool is_heavy(struct admission *a, struct session_share *s)
{
	if (s->window != a->window) {
		s->last = s->window + 1 == a->window ? s->cnt : 0;
		s->window = a->window;
		s->cnt = 0;
		a->active++;
	}
	s->cnt++;
	if (++a->cnt == ADMISSION_WINDOW)
		window_end(a);
	return a->last_active > 1 && 2 * s->last * a->last_active > 3 * ADMISSION_WINDOW;
}

bool admission_admit(struct worker *w, struct rte_mbuf *mbuf, uint32_t slot)
{
	struct admission *a = &w->admission;
	struct session_share *s = &a->sessions[slot];

	/* Behind those that wait, or their order would be lost. */
	if (likely(!is_heavy(a, s) && s->waiting == 0))
		return true;
	if (a->head - a->tail == ADMISSION_QUEUE) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_session_share);
		return false;
	}
	a->queue[a->head++ % ADMISSION_QUEUE] = mbuf;
	s->waiting++;
	return false;
}

struct rte_mbuf *admission_next(struct worker *w, unsigned *taken)
{
	struct admission *a = &w->admission;
	struct rte_mbuf *mbuf;

	/* One that is alone by now is held back no more. */
	if (a->head == a->tail || (*taken == ADMISSION_QUANTUM && a->last_active > 1))
		return NULL;
	++*taken;
	mbuf = a->queue[a->tail++ % ADMISSION_QUEUE];
	a->sessions[(uint32_t)packet_of(mbuf)->publish.session & w->plane->table.session_mask]
		.waiting--;
	return mbuf;
}
