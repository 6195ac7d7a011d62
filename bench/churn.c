/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-churn: what a worker loses while fanwired changes the table under it. The
 * registry's own writer makes changes at a steady rate on one CPU, each an intent, blocks and
 * buckets like any other, half of them to the users that are published to; a worker's whole loop
 * runs on another, on DPDK's null port, and the time of each burst's lookup is kept. Idle and
 * changing slices take turns.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <rte_cycles.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/churn_writer.h"
#include "bench/histogram.h"
#include "bench/rig.h"
#include "bench/step.h"
#include "bench/table_dir.h"
#include "dataplane/housekeeping.h"
#include "dataplane/plane.h"
#include "dataplane/regions.h"

#define CHUNK	  2048 /* publishes sealed ahead */
#define SLICES	  4    /* of a run, idle and changing in turn */
#define MEMORY_MB 128
#define SETTLE_MS 20 /* of a slice: not counted */

enum phase { IDLE, CHANGING, PHASES };
static const char *const phases[] = {"idle", "changing"};

struct bench {
	struct rig rig;
	struct table_dir dir;
	struct churn_writer writer;
	unsigned cpu; /* of the writer */
	/* Of the run under way. */
	uint64_t cycles[PHASES], events[PHASES];
	double changes, changing_s;
	struct histogram lookups[PHASES];
	enum phase phase;
	uint64_t slice_cycles;
	int err;
};

/* ---- the worker ---- */

/* worker_burst() and the loop around it, with the time of the lookup. */
static void burst_run(struct bench *b, struct worker *w, struct rte_mbuf **mbufs, unsigned cnt,
		      bool counted)
{
	uint64_t start = rte_rdtsc_precise(), before, lookup;

	w->burst_no++;
	parse_burst(w, mbufs, cnt);
	handover_collect(w);
	worker_clock(w);
	before = rte_rdtsc_precise();
	lookup_burst(w);
	lookup = rte_rdtsc_precise() - before;
	session_open_burst(w);
	sequence_burst(w);
	header_burst(w);
	seal_burst(w);
	tag_burst(w);
	fanout_burst(w);
	session_finish_burst(w);
	ack_burst(w);
	housekeeping(w, cnt);
	worker_quiesce(w);
	if (!counted)
		return;
	b->cycles[b->phase] += rte_rdtsc_precise() - start;
	b->events[b->phase] += cnt;
	histogram_record(&b->lookups[b->phase], lookup);
}

/* On the worker's lcore: one slice. */
static int slice_run(void *arg)
{
	struct bench *b = arg;
	struct worker *w = b->rig.plane.workers[0];
	unsigned burst = b->rig.options.burst;
	uint64_t start = rte_rdtsc(), settle = rte_get_tsc_hz() / 1000 * SETTLE_MS;
	struct rte_mbuf *mbufs[CHUNK];

	worker_enter(w);
	while (!b->err && rte_rdtsc() - start < settle + b->slice_cycles) {
		b->err = feed_make(&b->rig.feed, mbufs, CHUNK);
		for (unsigned i = 0; !b->err && i < CHUNK; i += burst)
			burst_run(b, w, mbufs + i, RTE_MIN(burst, CHUNK - i),
				  rte_rdtsc() - start > settle);
	}
	worker_leave(w);
	return 0;
}

/* ---- a run ---- */

static void figures_tell(const struct bench *b, json_t *run)
{
	double hz = (double)rte_get_tsc_hz();
	char name[64];

	for (enum phase p = IDLE; p < PHASES; p++) {
		snprintf(name, sizeof(name), "events_per_s_%s", phases[p]);
		json_object_set_new(run, name,
				    json_real((double)b->events[p] * hz / (double)b->cycles[p]));
		snprintf(name, sizeof(name), "lookup_p50_ns_%s", phases[p]);
		json_object_set_new(
			run, name,
			json_real((double)histogram_percentile(&b->lookups[p], 50) * 1e9 / hz));
		snprintf(name, sizeof(name), "lookup_p999_ns_%s", phases[p]);
		json_object_set_new(
			run, name,
			json_real((double)histogram_percentile(&b->lookups[p], 99.9) * 1e9 / hz));
	}
	json_object_set_new(run, "changes_per_s", json_real(b->changes / b->changing_s));
}

static int run(void *context, unsigned ms, json_t *figures, char *why, size_t why_size)
{
	struct bench *b = context;

	memset(b->cycles, 0, sizeof(b->cycles));
	memset(b->events, 0, sizeof(b->events));
	histogram_clear(&b->lookups[IDLE]);
	histogram_clear(&b->lookups[CHANGING]);
	b->changes = b->changing_s = 0;
	b->slice_cycles = rte_get_tsc_hz() / 1000 * ms / SLICES;
	for (unsigned i = 0; i < SLICES && !b->err; i++) {
		b->phase = i % PHASES;
		churn_writer_set(&b->writer, b->phase == CHANGING);
		rig_call(slice_run, b);
		if (b->phase == CHANGING)
			churn_writer_told(&b->writer, &b->changes, &b->changing_s);
		churn_writer_set(&b->writer, false);
	}
	if (b->err || b->writer.err) {
		snprintf(why, why_size, "%s: %s", b->err ? "the worker" : "the registry",
			 b->err ? strerror(-b->err) : b->writer.why);
		return -EIO;
	}
	figures_tell(b, figures);
	return 0;
}

/* ---- setting up ---- */

/* The worker's plane over the registry that the writer made. */
static int plane_open(struct bench *b, char why[256])
{
	struct plane *plane = &b->rig.plane;
	const struct rig_options *o = &b->rig.options;
	int err;

	snprintf(plane->config.region_dir, sizeof(plane->config.region_dir), "%s", b->dir.path);
	snprintf(why, 256, "the regions or the worker could not be set up: see above");
	err = regions_open_registry(plane, 1, churn_never);
	if (!err)
		err = regions_open_state(plane);
	if (!err)
		err = plane_init(plane);
	if (!err)
		err = feed_init(&b->rig.feed, plane->pool, o->users, o->sessions,
				(uint16_t)o->payload_len);
	for (uint32_t slot = 0; !err && slot < o->sessions; slot++)
		err = churn_writer_session(&b->writer, slot, &b->rig.feed);
	(void)madvise(plane->registry.base, plane->registry.size, MADV_POPULATE_READ);
	(void)madvise(plane->state_region.base, plane->state_region.size, MADV_POPULATE_WRITE);
	return err;
}

static int serve(struct bench *b, const struct rig_options *options)
{
	char why[1024] = "no memory";
	json_t *settings;
	int status;

	if (rig_start(&b->rig, options, why) || table_dir_make(&b->dir, why) ||
	    churn_writer_open(&b->writer, b->dir.path, options->users, options->fanout, why) ||
	    plane_open(b, why) || churn_writer_start(&b->writer, b->cpu, why))
		return step_fail("%s", why);
	settings =
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "users",
			  (json_int_t)options->users, "fanout", (json_int_t)options->fanout,
			  "burst", (json_int_t)options->burst, "payload_bytes",
			  (json_int_t)options->payload_len, "worker_cpu", (json_int_t)options->core,
			  "writer_cpu", (json_int_t)b->cpu, "tables", "huge pages");
	status = step_serve(settings, rig_versions(), run, b);
	churn_writer_stop(&b->writer);
	plane_fini(&b->rig.plane);
	regions_close(&b->rig.plane);
	churn_writer_close(&b->writer);
	table_dir_remove(&b->dir);
	rig_stop(&b->rig);
	return status;
}

static const char help[] =
	"usage: fanwire-bench-churn [OPTION]...\n"
	"A worker beside a writer of the table; driven line by line, see docs/benchmarks.md.\n"
	"  --users N       published to, drawn at random (1000000)\n"
	"  --fanout N      connections of each (1)\n"
	"  --burst N       packets at once (64)\n"
	"  --rate N        changes a second (200000)\n"
	"  --core N        CPU of the worker (0)\n"
	"  --writer N      CPU of the writer (1)\n";

static bool number(uint32_t least, uint32_t most, uint32_t *value)
{
	char *end;
	unsigned long n = strtoul(optarg, &end, 10);

	*value = (uint32_t)n;
	return *optarg && !*end && n >= least && n <= most;
}

static bool option_take(struct bench *b, struct rig_options *o, int option)
{
	switch (option) {
	case 'u':
		return number(1000, 16000000, &o->users);
	case 'f':
		return number(1, 16, &o->fanout);
	case 'b':
		return number(8, 256, &o->burst);
	case 'r':
		return number(1000, 10000000, &b->writer.rate);
	case 'c':
		return number(0, CPU_SETSIZE - 1, &o->core);
	case 'w':
		return number(0, CPU_SETSIZE - 1, &b->cpu);
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
		{"users", required_argument, NULL, 'u'},
		{"fanout", required_argument, NULL, 'f'},
		{"burst", required_argument, NULL, 'b'},
		{"rate", required_argument, NULL, 'r'},
		{"core", required_argument, NULL, 'c'},
		{"writer", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	struct rig_options options = {
		.users = 1000000,
		.fanout = 1,
		.sessions = 4,
		.payload_len = 64,
		.burst = 64,
		.core = 0,
		.memory_mb = MEMORY_MB,
	};
	struct bench *b = calloc(1, sizeof(*b));
	int option;

	if (!b)
		return step_fail("no memory");
	b->cpu = 1;
	b->writer.rate = 200000;
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1)
		if (!option_take(b, &options, option)) {
			fputs(help, stderr);
			return step_fail("an option is wrong; the help stands on standard error");
		}
	return serve(b, &options);
}
