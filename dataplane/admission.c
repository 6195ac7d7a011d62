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
	struct rte_mbuf *mbuf;

	for (uint32_t i = 0; i < a->list_cnt; i++)
		while ((mbuf = admission_take(w, a->slots[(a->list_first + i) % ADMISSION_QUEUE])))
			rte_pktmbuf_free(mbuf);
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

static void list(struct admission *a, uint32_t slot)
{
	a->slots[(a->list_first + a->list_cnt++) % ADMISSION_QUEUE] = slot;
	a->sessions[slot].listed = true;
}

/* As long as there is room left: of one session alone, half of it. */
static bool has_room(const struct admission *a, const struct session_share *s)
{
	return s->waiting < ADMISSION_QUEUE - a->waiting &&
	       (s->listed || a->list_cnt < ADMISSION_QUEUE);
}

bool admission_admit(struct worker *w, struct rte_mbuf *mbuf, uint32_t slot)
{
	struct admission *a = &w->admission;
	struct session_share *s = &a->sessions[slot];

	if (likely(!is_heavy(a, s)))
		return true;
	if (!has_room(a, s)) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_session_share);
		return false;
	}
	packet_of(mbuf)->next = NULL;
	if (s->waiting++)
		packet_of(s->last_waiting)->next = mbuf;
	else
		s->first_waiting = mbuf;
	s->last_waiting = mbuf;
	a->waiting++;
	if (!s->listed)
		list(a, slot);
	return false;
}

struct rte_mbuf *admission_take(struct worker *w, uint32_t slot)
{
	struct session_share *s = &w->admission.sessions[slot];
	struct rte_mbuf *mbuf = s->first_waiting;

	if (s->waiting == 0)
		return NULL;
	s->first_waiting = packet_of(mbuf)->next;
	s->waiting--;
	w->admission.waiting--;
	return mbuf;
}

/* The first in the list has had its turn. */
static void turn_end(struct admission *a)
{
	uint32_t slot = a->slots[a->list_first++ % ADMISSION_QUEUE];

	a->list_cnt--;
	a->sessions[slot].listed = false;
	if (a->sessions[slot].waiting)
		list(a, slot);
}

struct rte_mbuf *admission_next(struct worker *w, struct admission_turn *turn)
{
	struct admission *a = &w->admission;

	for (; turn->left; turn->left--, turn->taken = 0) {
		uint32_t slot = a->slots[a->list_first % ADMISSION_QUEUE];

		/* One that is alone by now is held back no more. */
		if (a->sessions[slot].waiting &&
		    (turn->taken < ADMISSION_QUANTUM || a->last_active <= 1)) {
			turn->taken++;
			return admission_take(w, slot);
		}
		turn_end(a);
	}
	return NULL;
}
