/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/fairness_runs.h"

#include <errno.h>
#include <math.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "dataplane/housekeeping.h"

#define CROWD	     4	   /* publishers of the others */
#define EVENTS_MAX   65536 /* of the others, in one segment; a multiple of CROWD */
#define LARGE_SEALED 8192
#define FLOOD_SEALED 32768
#define FLOOD_AHEAD  (2 * INGRESS_CNT) /* unaccepted: then the flood goes back to the gap */
#define RTO_MS	     5		       /* the least of libfanwire's publisher */
#define RTO_LOOK_US  250
#define QUIET_LOOPS  1000 /* without work: what was under way has ended */
#define DRAIN_MS     500

/* Of a delivery's header: docs/wire-format.md. */
#define WIRE_OFF     (RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_udp_hdr))
#define SESSION_OFF  60
#define SEQUENCE_OFF 68

enum { SLOT_LARGE = CROWD, SLOT_FLOOD, SLOT_CNT };

const char *const fairness_case_names[FAIRNESS_CASE_CNT] = {"without", "large_user", "flood"};

struct fairness {
	struct rig *rig;
	struct fairness_options options;
	const struct rte_eth_rxtx_callback *callback;
	struct ingress ingress;
	struct publisher publishers[SLOT_CNT];
	uint64_t *arrivals;    /* of each of the others' events: cycles after the segment's start */
	uint32_t *copies_left; /* likewise */
	/* The segment under way. */
	enum fairness_case which;
	struct fairness_run *run;
	uint64_t start_tsc, press_tsc, look_tsc;
	double press_gap; /* cycles between publishes of the flood */
	uint32_t others_cnt, others_next, others_done;
	uint64_t large_copies;
	/* The run. */
	uint64_t cycles;
	int err;
};

unsigned fairness_sessions(void)
{
	return SLOT_CNT;
}

/* ---- copies, as the port takes them ---- */

static void on_copy(struct fairness *f, const uint8_t *wire, uint64_t now)
{
	uint64_t session, sequence;
	uint32_t idx;

	memcpy(&session, wire + SESSION_OFF, sizeof(session));
	memcpy(&sequence, wire + SEQUENCE_OFF, sizeof(sequence));
	session = rte_be_to_cpu_64(session);
	if ((uint32_t)session >= CROWD) {
		f->run->pressed_copies++;
		f->large_copies += (uint32_t)session == SLOT_LARGE;
		return;
	}
	idx = ((uint32_t)rte_be_to_cpu_64(sequence) - 1) * CROWD + (uint32_t)session;
	if (idx >= f->others_cnt || f->copies_left[idx] == 0 || --f->copies_left[idx] > 0)
		return;
	f->others_done++;
	histogram_record(&f->run->latency, now - f->start_tsc - f->arrivals[idx]);
}

/* Runs in rte_eth_tx_burst(), right before the driver: the null port takes everything. */
static uint16_t on_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t cnt,
			    void *arg)
{
	struct fairness *f = arg;
	uint64_t now = rte_rdtsc();

	for (uint16_t i = 0; i < cnt; i++) {
		const uint8_t *wire = rte_pktmbuf_mtod_offset(mbufs[i], const uint8_t *, WIRE_OFF);

		if (wire[1] == FAN_TYPE_DELIVERY)
			on_copy(f, wire, now);
	}
	return cnt;
}

/* ---- arrivals ---- */

static uint64_t others_due(const struct fairness *f)
{
	return f->others_next < f->others_cnt ? f->start_tsc + f->arrivals[f->others_next]
					      : UINT64_MAX;
}

static uint64_t press_due(const struct fairness *f, uint64_t now)
{
	const struct publisher *large = &f->publishers[SLOT_LARGE];

	switch (f->which) {
	case FAIRNESS_LARGE_USER:
		return large->sent < large->cnt &&
				       large->sent - f->large_copies / f->options.large <
					       f->options.large_ahead
			       ? now
			       : UINT64_MAX;
	case FAIRNESS_FLOOD:
		return f->press_tsc;
	default:
		return UINT64_MAX;
	}
}

static void flood_send(struct fairness *f)
{
	struct publisher *p = &f->publishers[SLOT_FLOOD];
	uint32_t accepted = publisher_accepted(p);

	if (accepted == p->cnt)
		publisher_restart(p);
	else if (p->sent == p->cnt || p->sent - accepted > FLOOD_AHEAD)
		publisher_go_back(p);
	publisher_send(p, &f->ingress);
	f->press_tsc = f->start_tsc + (uint64_t)(f->press_gap * (double)++f->run->pressed_sent);
}

static void press_send(struct fairness *f)
{
	if (f->which == FAIRNESS_FLOOD) {
		flood_send(f);
		return;
	}
	publisher_send(&f->publishers[SLOT_LARGE], &f->ingress);
	f->run->pressed_sent++;
}

/* Everything that is due, in the order of its arrival. */
static void arrive(struct fairness *f, uint64_t now)
{
	for (;;) {
		uint64_t others = others_due(f), press = press_due(f, now);

		if (RTE_MIN(others, press) > now)
			return;
		if (others <= press)
			publisher_send(&f->publishers[f->others_next++ % CROWD], &f->ingress);
		else
			press_send(f);
	}
}

/* What was lost on the way is sent again, as libfanwire does; its latency goes on counting. */
static void resend(struct fairness *f, uint64_t now)
{
	uint64_t rto = rte_get_tsc_hz() / 1000 * RTO_MS;

	if (now < f->look_tsc)
		return;
	f->look_tsc = now + rte_get_tsc_hz() / 1000000 * RTO_LOOK_US;
	for (unsigned i = 0; i < SLOT_FLOOD; i++) {
		struct publisher *p = &f->publishers[i];
		uint32_t sent = p->sent;

		if (!publisher_timeout(p, now, rto))
			continue;
		f->run->resent += i < CROWD;
		while (p->sent < sent)
			publisher_send(p, &f->ingress);
	}
}

/* ---- a segment, on the worker's lcore ---- */

static unsigned loop_once(struct fairness *f, struct worker *w)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	unsigned cnt = ingress_take(&f->ingress, w->plane->pool, mbufs, w->plane->config.burst);
	unsigned work = worker_burst(w, mbufs, cnt);

	work += housekeeping(w, work);
	worker_quiesce(w);
	return work;
}

static void segment_begin(struct fairness *f)
{
	for (unsigned i = 0; i < SLOT_CNT; i++)
		publisher_restart(&f->publishers[i]);
	for (uint32_t i = 0; i < f->others_cnt; i++)
		f->copies_left[i] = f->options.fanout;
	f->others_next = f->others_done = 0;
	f->large_copies = 0;
	f->run->pressed_sent = 0;
	f->press_gap = (double)rte_get_tsc_hz() / f->options.flood_rate;
	f->start_tsc = f->press_tsc = f->look_tsc = rte_rdtsc();
}

static void segment_run(struct fairness *f, struct worker *w)
{
	uint64_t limit, now;
	unsigned quiet = 0;

	segment_begin(f);
	while (f->others_next < f->others_cnt) {
		now = rte_rdtsc();
		arrive(f, now);
		resend(f, now);
		loop_once(f, w);
	}
	f->run->cycles += rte_rdtsc() - f->start_tsc;
	f->which = FAIRNESS_WITHOUT; /* nobody presses any more, and what is under way may end */
	limit = rte_rdtsc() + rte_get_tsc_hz() / 1000 * DRAIN_MS;
	while (quiet < QUIET_LOOPS && (now = rte_rdtsc()) < limit) {
		resend(f, now);
		quiet = loop_once(f, w) || f->others_done < f->others_cnt ? 0 : quiet + 1;
	}
}

static double seconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_on_worker(void *arg)
{
	struct fairness *f = arg;
	struct worker *w = f->rig->plane.workers[0];
	enum fairness_case which = f->which;
	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	uint64_t left, sent = 0;

	worker_enter(w);
	while (f->run->cycles < f->cycles) {
		left = (uint64_t)((double)(f->cycles - f->run->cycles) / (double)rte_get_tsc_hz() *
				  f->options.rate);
		f->which = which;
		f->others_cnt = (uint32_t)RTE_MIN(left + CROWD, (uint64_t)EVENTS_MAX);
		f->others_cnt -= f->others_cnt % CROWD;
		segment_run(f, w);
		sent += f->run->pressed_sent;
		f->run->others += f->others_cnt;
		f->run->unfinished += f->others_cnt - f->others_done;
	}
	worker_leave(w);
	f->run->pressed_sent = sent;
	f->run->cpu_share =
		(seconds(CLOCK_THREAD_CPUTIME_ID) - cpu) / (seconds(CLOCK_MONOTONIC) - wall);
	return 0;
}

int fairness_measure(struct fairness *f, enum fairness_case which, unsigned ms,
		     struct fairness_run *run, char why[256])
{
	*run = (struct fairness_run){0};
	f->which = which;
	f->run = run;
	f->cycles = rte_get_tsc_hz() / 1000 * ms;
	f->ingress.lost = 0;
	rig_call(run_on_worker, f);
	run->overflowed = f->ingress.lost;
	if (run->latency.cnt)
		return 0;
	snprintf(why, 256, "%s: not one of %llu events was delivered", fairness_case_names[which],
		 (unsigned long long)run->others);
	return -EPROTO;
}

int fairness_warm(struct fairness *f, char why[256])
{
	struct fairness_run *run = calloc(1, sizeof(*run));
	unsigned ms = (unsigned)(EVENTS_MAX / f->options.rate * 1000) + 1;
	int err = run ? fairness_measure(f, FAIRNESS_WITHOUT, ms, run, why) : -ENOMEM;

	free(run);
	return err;
}

/* ---- life ---- */

/* Poisson arrivals: the gaps are exponential. The same in every run. */
static void arrivals_draw(struct fairness *f)
{
	double at = 0, gap = (double)rte_get_tsc_hz() / f->options.rate;
	uint64_t random = UINT64_C(0x9e3779b97f4a7c15);

	for (uint32_t i = 0; i < EVENTS_MAX; i++) {
		random ^= random >> 12; /* xorshift64*, Vigna 2016 */
		random ^= random << 25;
		random ^= random >> 27;
		at -= log(((double)((random * UINT64_C(0x2545f4914f6cdd1d)) >> 11) + 1) * 0x1p-53) *
		      gap;
		f->arrivals[i] = (uint64_t)at;
	}
}

static int publishers_init(struct fairness *f)
{
	const struct fairness_options *o = &f->options;
	struct publisher *publishers = f->publishers;
	int err = 0;

	for (uint32_t i = 0; i < CROWD && !err; i++) /* user 0 is the one that is flooded */
		err = publisher_init(&publishers[i], f->rig, i, EVENTS_MAX / CROWD, 1,
				     o->users - 1);
	if (!err)
		err = publisher_init(&publishers[SLOT_LARGE], f->rig, SLOT_LARGE, LARGE_SEALED,
				     o->users, 1);
	if (!err)
		err = publisher_init(&publishers[SLOT_FLOOD], f->rig, SLOT_FLOOD, FLOOD_SEALED, 0,
				     1);
	return err;
}

struct fairness *fairness_create(struct rig *rig, const struct fairness_options *options)
{
	struct fairness *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->rig = rig;
	f->options = *options;
	f->ingress.frame_len = feed_frame_len(&rig->feed);
	f->arrivals = calloc(EVENTS_MAX, sizeof(*f->arrivals));
	f->copies_left = calloc(EVENTS_MAX, sizeof(*f->copies_left));
	if (f->arrivals && f->copies_left && publishers_init(f) == 0)
		f->callback = rte_eth_add_tx_callback(rig->plane.port_id, 0, on_transmit, f);
	if (!f->callback) {
		fairness_destroy(f);
		return NULL;
	}
	arrivals_draw(f);
	return f;
}

void fairness_destroy(struct fairness *f)
{
	if (f->callback)
		rte_eth_remove_tx_callback(f->rig->plane.port_id, 0, f->callback);
	for (unsigned i = 0; i < SLOT_CNT; i++)
		publisher_fini(&f->publishers[i]);
	free(f->copies_left);
	free(f->arrivals);
	free(f);
}
