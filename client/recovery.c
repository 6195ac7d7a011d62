/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is sent again, when, and how much may be on its way.
 *
 * The engine takes a session's datagrams strictly in order: where one is lost, those behind it are
 * dropped when they come, and an acknowledgement without results says so. That starts the window
 * anew at the gap at once; the clock is only for what nobody can tell: that the last ones of a
 * flight, or their acknowledgements, were lost. Sources: RFC 6298 (round trip, Karn, back-off),
 * RFC 5681 (window), RFC 8985 (an answer that is too early to be to what was sent last; probes
 * before the window is given up).
 */
#include "client/publisher.h"

#define RTO_FIRST_NS	   (20 * CLOCK_MS_NS) /* before anything was measured */
#define RTO_MARGIN_NS	   CLOCK_MS_NS	      /* least, over the round trip: the scheduler's */
#define RTO_MARGIN_MOST_NS (64 * CLOCK_MS_NS)
#define RTO_MOST_NS	   (500 * CLOCK_MS_NS)
#define PROBES		   2 /* time-outs in a row that do not yet mean that nothing gets through */
#define STALLS		   2 /* likewise, gaps at the same place */
#define CONGESTION_FIRST   32
#define CONGESTION_LEAST   16 /* while anything is heard */

/*
 * Where gaps come so often that a flight is mostly dropped, each datagram goes several times: of
 * copies in a row one gets through. All of them count as in flight. Run: accepted between two gaps.
 */
#define COPIES_MOST  4
#define RUN_SHORT    5	 /* one copy more */
#define RUN_LONG     256 /* without a gap: one less */
#define RUN_EXPECTED 16	 /* after a change */
#define RUN_FIRST    32

void recovery_init(struct recovery *r)
{
	*r = (struct recovery){.congestion = CONGESTION_FIRST,
			       .threshold = PUBLISHER_WINDOW,
			       .margin_ns = RTO_MARGIN_NS,
			       .copies = 1,
			       .run_mean = RUN_FIRST};
}

/* ---- the round trip -------------------------------------------------------------------------- */

static void measure(struct recovery *r, uint64_t sample_ns)
{
	uint64_t deviation;

	r->backoff = 0;
	r->margin_ns -= (r->margin_ns - RTO_MARGIN_NS) / 64;
	if (r->rtt_ns == 0) {
		r->rtt_ns = sample_ns ? sample_ns : 1;
		r->rtt_var_ns = sample_ns / 2;
		return;
	}
	deviation = r->rtt_ns > sample_ns ? r->rtt_ns - sample_ns : sample_ns - r->rtt_ns;
	r->rtt_var_ns = (3 * r->rtt_var_ns + deviation) / 4;
	r->rtt_ns = (7 * r->rtt_ns + sample_ns) / 8;
}

static uint64_t bounded(uint64_t wait_ns, unsigned doublings)
{
	if (wait_ns > RTO_MOST_NS)
		return RTO_MOST_NS;
	wait_ns <<= doublings < 20 ? doublings : 20;
	return wait_ns < RTO_MOST_NS ? wait_ns : RTO_MOST_NS;
}

static uint64_t timeout_ns(const struct recovery *r)
{
	uint64_t margin_ns = 4 * r->rtt_var_ns > r->margin_ns ? 4 * r->rtt_var_ns : r->margin_ns;

	return bounded(r->rtt_ns ? r->rtt_ns + margin_ns : RTO_FIRST_NS,
		       r->backoff > PROBES ? r->backoff - PROBES : 0);
}

/* ---- the window ------------------------------------------------------------------------------ */

static void widen(struct recovery *r)
{
	if (r->congestion >= PUBLISHER_WINDOW)
		return;
	if (r->congestion < r->threshold) {
		r->congestion++;
	} else if (++r->congestion_part >= r->congestion) {
		r->congestion_part = 0;
		r->congestion++;
	}
}

/* To half, once for what is lost of one flight. */
static void narrow(struct fan_publisher *p)
{
	struct recovery *r = &p->recovery;

	if (p->accepted + 1 < r->reduced_at)
		return;
	r->reduced_at = p->next;
	r->congestion /= 2;
	if (r->congestion < CONGESTION_LEAST)
		r->congestion = CONGESTION_LEAST;
	r->threshold = r->congestion;
}

/* While nothing moves one datagram at a time tells as much. */
static uint32_t shrunk(unsigned halvings)
{
	return halvings < 5 ? CONGESTION_LEAST >> halvings : 1;
}

static void copies_adapt(struct recovery *r)
{
	r->run_mean = (3 * r->run_mean + r->run) / 4;
	r->run = 0;
	if (r->run_mean < RUN_SHORT && r->copies < COPIES_MOST) {
		r->copies++;
		r->run_mean = RUN_EXPECTED;
	}
}

/* ---- what the engine says -------------------------------------------------------------------- */

void recovery_on_result(struct fan_publisher *p, const struct publisher_datagram *d,
			uint64_t now_ns)
{
	if (!d->vague && d->sent_ns > p->neglected_ns)
		measure(&p->recovery, now_ns - d->sent_ns);
	widen(&p->recovery);
}

/* Both were answered: it was late, not lost. Else nobody measures a round trip that has grown. */
void recovery_on_repeated(struct fan_publisher *p, const struct publisher_datagram *d)
{
	struct recovery *r = &p->recovery;

	if (d->vague && r->copies == 1 && r->margin_ns < RTO_MARGIN_MOST_NS)
		r->margin_ns *= 2;
}

void recovery_on_accepted(struct fan_publisher *p, uint64_t accepted, bool gap)
{
	struct recovery *r = &p->recovery;

	if (accepted > p->accepted && accepted < p->next) {
		r->run += (uint32_t)(accepted - p->accepted);
		r->stalls = 0;
		r->gap_told = false;
		p->accepted = accepted;
	}
	if (r->stalls <= STALLS) { /* something gets through, and is taken */
		r->backoff = r->backoff < PROBES ? r->backoff : PROBES;
		if (r->congestion < CONGESTION_LEAST)
			r->congestion = CONGESTION_LEAST;
	}
	r->gap_told |= gap && accepted == p->accepted;
	if (r->run >= RUN_LONG) {
		r->run = 0;
		r->run_mean = RUN_FIRST;
		r->copies -= r->copies > 1;
	}
}

/* From the gap on nothing that is in flight can be accepted any more. */
static void lose_behind_gap(struct fan_publisher *p, bool vague)
{
	uint64_t first = p->accepted + 1 > p->base ? p->accepted + 1 : p->base;

	for (uint64_t s = first; s < p->next; s++) {
		if (!window_at(p, s)->in_flight)
			continue;
		window_at(p, s)->vague = vague;
		window_lose(p, s);
	}
}

/*
 * Told after the round trip of what was sent last to fill the gap: that was lost as well. Sooner:
 * the word is of the flight before. Where the same is told again and again
 * it is the engine that cannot take it, rather than the network: ever more slowly.
 */
static void judge_gap(struct fan_publisher *p, uint64_t now_ns)
{
	struct recovery *r = &p->recovery;
	const struct publisher_datagram *d = window_at(p, p->accepted + 1);
	uint64_t wait_ns = bounded(r->rtt_ns / 4 * 3, r->stalls > STALLS ? r->stalls - STALLS : 0);

	r->gap_told = false;
	if (p->accepted + 1 < p->base || p->accepted + 1 >= p->next || !d->in_flight ||
	    (d->sent_cnt > 1 && now_ns - d->sent_ns < wait_ns))
		return;
	narrow(p);
	lose_behind_gap(p, false);
	if (++r->stalls <= STALLS)
		copies_adapt(r);
	else
		r->congestion = shrunk(r->stalls - STALLS);
}

/* Accepted, and the result is overdue. */
static void judge_results(struct fan_publisher *p, uint64_t now_ns)
{
	const struct recovery *r = &p->recovery;
	uint64_t margin_ns = 4 * r->rtt_var_ns > r->rtt_ns / 4 ? 4 * r->rtt_var_ns : r->rtt_ns / 4;
	uint64_t wait_ns = r->rtt_ns + margin_ns;

	for (uint64_t s = p->base; s <= p->accepted; s++) {
		struct publisher_datagram *d = window_at(p, s);

		if (!d->in_flight || now_ns - d->sent_ns < wait_ns)
			continue;
		d->vague = true;
		window_lose(p, s);
	}
}

void recovery_judge(struct fan_publisher *p, uint64_t now_ns)
{
	if (p->recovery.gap_told)
		judge_gap(p, now_ns);
	if (p->recovery.rtt_ns)
		judge_results(p, now_ns);
}

/* ---- what only time tells -------------------------------------------------------------------- */

/* Of those behind the gap, which were sent in order, the first; of the others each. */
uint64_t recovery_deadline(const struct fan_publisher *p)
{
	uint64_t oldest_ns = CLOCK_NEVER;

	for (uint64_t s = p->base; s < p->next; s++) {
		const struct publisher_datagram *d = window_at(p, s);

		if (!d->in_flight)
			continue;
		oldest_ns = clock_earlier(oldest_ns, d->sent_ns);
		if (s > p->accepted)
			break;
	}
	return oldest_ns == CLOCK_NEVER ? CLOCK_NEVER : oldest_ns + timeout_ns(&p->recovery);
}

void recovery_expire(struct fan_publisher *p, uint64_t now_ns)
{
	struct recovery *r = &p->recovery;
	uint64_t overdue_ns;

	if (now_ns < recovery_deadline(p))
		return;
	overdue_ns = now_ns - timeout_ns(r);
	for (uint64_t s = p->base; s < p->next; s++) {
		struct publisher_datagram *d = window_at(p, s);

		if (!d->in_flight)
			continue;
		if (d->sent_ns > overdue_ns && s > p->accepted)
			break;
		if (s > p->accepted) {
			lose_behind_gap(p, true);
			if (r->stalls <= STALLS)
				copies_adapt(r);
			break;
		}
		if (d->sent_ns <= overdue_ns) {
			d->vague = true;
			window_lose(p, s);
		}
	}
	r->reduced_at = 0;
	narrow(p);
	if (++r->backoff >
	    PROBES) { /* nothing gets through: one datagram at a time tells as much */
		unsigned halvings = r->backoff - PROBES;

		r->congestion = halvings < 5 ? CONGESTION_LEAST >> halvings : 1;
	}
}
