/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/load.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench/peers/load_run.h"

#define SILENCE_NS UINT64_C(100000000) /* after which what has not come is lost */

int load_error(struct load *load, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(load->why, sizeof(load->why), format, args);
	va_end(args);
	return error;
}

/* ---- what has come --------------------------------------------------------------------------- */

static void follow(struct load *load, const struct load_mark *mark)
{
	struct load_event *event =
		&load->events[(size_t)mark->user * LOAD_EVENTS + mark->number % LOAD_EVENTS];
	uint64_t ns = load->now_ns > mark->due_ns ? load->now_ns - mark->due_ns : 0;

	histogram_record(load->copies, ns);
	if (event->number != mark->number)
		*event = (struct load_event){.number = mark->number};
	if (++event->seen == load->options.fanout)
		histogram_record(load->last, ns);
}

void load_take(struct load *load, unsigned receiver, const void *payload, size_t len)
{
	struct load_receiver *r = &load->receivers[receiver];
	struct load_mark mark;
	uint32_t step;

	if (len < sizeof(mark))
		return;
	memcpy(&mark, payload, sizeof(mark));
	step = mark.number - r->number;
	if (mark.user != receiver / load->options.fanout || step == 0 || step > INT32_MAX)
		return; /* given up before, or not ours: it counts as lost */
	load->counts.lost += step - 1;
	load->counts.received++;
	r->number = mark.number;
	if (load->options.rate)
		follow(load, &mark);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static uint64_t missing(const struct load *load)
{
	return load->counts.published * load->options.fanout - load->counts.received -
	       load->counts.lost;
}

static uint32_t draw(struct load *load)
{
	load->random ^= load->random << 13;
	load->random ^= load->random >> 7;
	load->random ^= load->random << 17;
	return (uint32_t)load->random;
}

static bool publish_one(struct load *load, uint64_t due_ns)
{
	struct load_mark mark = {.due_ns = due_ns};

	mark.user = (uint32_t)(((uint64_t)draw(load) * load->options.users) >> 32);
	mark.number = load->users[mark.user].number + 1;
	if (!load->transport->publish(load, &mark))
		return false;
	load->users[mark.user].number++;
	load->counts.published++;
	return true;
}

static void publish_window(struct load *load, uint64_t now_ns)
{
	for (unsigned i = 0; i < LOAD_BATCH; i++)
		if (missing(load) + load->options.fanout > load->options.window ||
		    !publish_one(load, now_ns))
			break;
}

/* To the next event: as long as all the others, or exponential, as between Poisson arrivals. */
static double gap_ns(struct load *load)
{
	double mean = 1e9 / load->options.rate;

	return load->options.poisson ? -log((draw(load) + 1.0) * 0x1p-32) * mean : mean;
}

/* Open loop: an event is due by the clock, whatever became of those before it. */
static void publish_due(struct load *load, uint64_t start_ns, uint64_t now_ns)
{
	for (unsigned i = 0; i < LOAD_BATCH; i++) {
		uint64_t due_ns = start_ns + (uint64_t)load->due_ns;

		if (due_ns > now_ns || !publish_one(load, due_ns))
			break;
		load->due_ns += gap_ns(load);
	}
}

/* What is still missing will not come: every receiver stands where its user stands. */
static void give_up(struct load *load)
{
	load->counts.lost += missing(load);
	for (unsigned i = 0; i < load->receiver_cnt; i++)
		load->receivers[i].number = load->users[i / load->options.fanout].number;
}

static void receive(struct load *load, uint64_t *progress_ns)
{
	uint64_t before = load->counts.received;

	load->now_ns = load_now_ns();
	load->transport->receive(load);
	if (load->counts.received != before || missing(load) == 0)
		*progress_ns = load->now_ns;
	else if (load->now_ns - *progress_ns > SILENCE_NS)
		give_up(load);
}

int load_run(struct load *load, unsigned ms, struct load_figures *figures)
{
	uint64_t start_ns = load_now_ns(), end_ns = start_ns + (uint64_t)ms * 1000000;
	uint64_t progress_ns = start_ns, now_ns;

	memset(&load->counts, 0, sizeof(load->counts));
	histogram_clear(load->copies);
	histogram_clear(load->last);
	load->due_ns = 0;
	while ((now_ns = load_now_ns()) < end_ns && !load->why[0]) {
		if (load->options.rate)
			publish_due(load, start_ns, now_ns);
		else
			publish_window(load, now_ns);
		load->transport->flush(load);
		receive(load, &progress_ns);
	}
	figures->seconds = (double)(load_now_ns() - start_ns) / 1e9;
	figures->in_time = load->counts.received;
	while (missing(load) && !load->why[0]) { /* what comes now is late, not lost */
		load->transport->flush(load);
		receive(load, &progress_ns);
	}
	figures->counts = load->counts;
	if (load->counts.received == 0 && !load->why[0])
		return load_error(load, -ETIMEDOUT,
				  "of %lu events that were published, no copy came to a receiver",
				  load->counts.published);
	return load->why[0] ? -EIO : 0;
}
