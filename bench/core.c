/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/core.h"

#include <errno.h>
#include <jansson.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "bench/feed.h"
#include "bench/machine.h"
#include "bench/region.h"
#include "common/log.h"
#include "dataplane/eal.h"
#include "dataplane/housekeeping.h"
#include "dataplane/plane.h"
#include "dataplane/port.h"
#include "dataplane/regions.h"

#define CHUNK	  2048 /* publishes sealed ahead */
#define POOL_CNT  16383
#define MEMORY_MB 128
#define RUNS_MAX  64

/* One run: what the timed part did. */
struct run {
	uint64_t cycles, events, copies, acks;
};

struct bench_case {
	const struct core_options *options;
	uint32_t users, fanout;
	struct plane *plane;
	struct bench_region region;
	struct feed feed;
	struct run runs[RUNS_MAX];
	int err;
};

/* ---- measuring, on the worker's lcore ---- */

static uint64_t counted(const struct worker *w, enum fan_counter idx)
{
	return w->counters[idx] + w->shared->counters[idx];
}

/* What a loop of the worker does, but that the packets are there already. */
static uint64_t burst_timed(struct worker *w, struct rte_mbuf **mbufs, unsigned cnt)
{
	uint64_t start = rte_rdtsc_precise();

	housekeeping(w, worker_burst(w, mbufs, cnt));
	worker_quiesce(w);
	return rte_rdtsc_precise() - start;
}

static int chunk_run(struct bench_case *c, struct worker *w, struct run *run)
{
	unsigned burst = c->options->burst;
	struct rte_mbuf *mbufs[CHUNK];

	if (feed_make(&c->feed, mbufs, CHUNK))
		return -ENOMEM;
	for (unsigned i = 0; i < CHUNK; i += burst) {
		unsigned cnt = RTE_MIN(burst, CHUNK - i);

		run->cycles += burst_timed(w, mbufs + i, cnt);
		run->events += cnt;
	}
	return 0;
}

static int run_measure(struct bench_case *c, struct worker *w, struct run *run, uint64_t cycles)
{
	uint64_t copies = counted(w, FAN_COUNTER_copies_sent);
	uint64_t acks = counted(w, FAN_COUNTER_acks_sent);
	struct rte_eth_stats before, after;
	int err = 0;

	rte_eth_stats_get(c->plane->port_id, &before);
	while (!err && run->cycles < cycles)
		err = chunk_run(c, w, run);
	rte_eth_stats_get(c->plane->port_id, &after);
	run->copies = counted(w, FAN_COUNTER_copies_sent) - copies;
	run->acks = counted(w, FAN_COUNTER_acks_sent) - acks;
	if (err)
		return err;
	/* Nothing is a copy that did not reach the port, and nothing was refused on the way. */
	if (after.opackets - before.opackets != run->copies + run->acks ||
	    run->copies != run->events * c->fanout)
		return -EPROTO;
	return 0;
}

static int case_measure(void *arg)
{
	struct bench_case *c = arg;
	struct worker *w = c->plane->workers[0];
	uint64_t cycles = rte_get_tsc_hz() / 1000 * c->options->run_ms;
	struct run warm_up = {0};

	worker_enter(w);
	c->err = run_measure(c, w, &warm_up, cycles / 4);
	for (unsigned i = 0; i < c->options->runs && !c->err; i++)
		c->err = run_measure(c, w, &c->runs[i], cycles);
	worker_leave(w);
	return 0;
}

/* ---- one case ---- */

static bool never(void)
{
	return false;
}

static int case_open(struct bench_case *c, char why[256])
{
	const struct core_options *o = c->options;
	struct plane *plane = c->plane;
	int err = bench_region_create(&c->region, o->dir, c->users, c->fanout, o->sessions, why);

	if (err)
		return err;
	snprintf(why, 256, "the regions or the worker could not be set up");
	err = regions_open_registry(plane, 1, never);
	if (!err)
		err = regions_open_state(plane);
	if (!err)
		err = plane_init(plane);
	if (!err)
		err = feed_init(&c->feed, plane->pool, c->users, o->sessions,
				(uint16_t)o->payload_len);
	for (uint32_t slot = 0; !err && slot < o->sessions; slot++)
		c->feed.ids[slot] =
			bench_region_session(&c->region, slot, plane->state->header.creation_epoch);
	return err;
}

static void case_close(struct bench_case *c)
{
	char path[512];

	plane_fini(c->plane);
	regions_close(c->plane);
	if (c->feed.pool)
		feed_fini(&c->feed);
	if (c->region.root)
		bench_region_destroy(&c->region);
	snprintf(path, sizeof(path), "%s/%s", c->options->dir, FAN_STATE_FILE);
	unlink(path);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned cnt)
{
	qsort(values, cnt, sizeof(*values), compare);
	return cnt % 2 ? values[cnt / 2] : (values[cnt / 2 - 1] + values[cnt / 2]) / 2;
}

/* Every run, and their median, least and most. */
static json_t *case_tell(const struct bench_case *c)
{
	double rates[RUNS_MAX], cycles[RUNS_MAX], hz = (double)rte_get_tsc_hz();
	unsigned cnt = c->options->runs;
	json_t *runs = json_array();
	double rate, cost;

	for (unsigned i = 0; i < cnt; i++) {
		const struct run *run = &c->runs[i];

		cycles[i] = (double)run->cycles / (double)run->copies;
		rates[i] = hz / cycles[i];
		json_array_append_new(runs, json_pack("{s:I, s:I, s:I, s:I, s:f, s:f}", "cycles",
						      (json_int_t)run->cycles, "events",
						      (json_int_t)run->events, "copies",
						      (json_int_t)run->copies, "acknowledgements",
						      (json_int_t)run->acks, "copies_per_second",
						      rates[i], "cycles_per_copy", cycles[i]));
	}
	rate = median(rates, cnt);
	cost = median(cycles, cnt);
	printf("%9u %8u %14.0f %12.1f %13.1f   %.0f..%.0f\n", c->users, c->fanout, rate, cost,
	       cost * c->fanout, rates[0], rates[cnt - 1]);
	return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "users", (json_int_t)c->users,
			 "fanout", (json_int_t)c->fanout, "copies_per_second", rate,
			 "copies_per_second_least", rates[0], "copies_per_second_most",
			 rates[cnt - 1], "cycles_per_copy", cost, "cycles_per_event",
			 cost * c->fanout, "runs", runs);
}

static json_t *case_skip(const struct bench_case *c, const char *why)
{
	printf("%9u %8u   skipped: %s\n", c->users, c->fanout, why);
	return json_pack("{s:I, s:I, s:s}", "users", (json_int_t)c->users, "fanout",
			 (json_int_t)c->fanout, "skipped", why);
}

/* Room for the region: in memory, and in the file system that it lies in. */
static uint64_t memory_budget(const struct core_options *options)
{
	uint64_t budget = options->memory ? options->memory : machine_memory_available() / 2;
	struct statvfs fs;

	if (statvfs(options->dir, &fs) == 0)
		budget = RTE_MIN(budget, (uint64_t)fs.f_bavail * fs.f_frsize);
	return budget;
}

static json_t *case_run(struct plane *plane, const struct core_options *options, uint32_t users,
			uint32_t fanout, bool *failed)
{
	struct bench_case *c = calloc(1, sizeof(*c));
	uint64_t size = bench_region_size(users, fanout, options->sessions);
	char why[256];
	json_t *told;
	int err;

	*c = (struct bench_case){
		.options = options, .users = users, .fanout = fanout, .plane = plane};
	if ((uint64_t)users * fanout > UINT32_MAX || size > memory_budget(options)) {
		snprintf(why, sizeof(why), "its table takes %llu MiB, the budget is %llu MiB",
			 (unsigned long long)size >> 20,
			 (unsigned long long)memory_budget(options) >> 20);
		told = case_skip(c, why);
		free(c);
		return told;
	}
	err = case_open(c, why);
	if (!err && rte_eal_remote_launch(case_measure, c, 1) == 0)
		rte_eal_wait_lcore(1);
	if (!err && c->err) {
		err = c->err;
		snprintf(why, sizeof(why), "%s",
			 err == -EPROTO ? "copies and the port's count differ" : strerror(-err));
	}
	*failed |= err != 0;
	told = err ? case_skip(c, why) : case_tell(c);
	case_close(c);
	free(c);
	return told;
}

/* ---- all of them ---- */

static void config_fill(struct fan_config *config, const struct core_options *options)
{
	snprintf(config->instance, sizeof(config->instance), "bench-%d", getpid());
	snprintf(config->region_dir, sizeof(config->region_dir), "%s", options->dir);
	snprintf(config->log_level, sizeof(config->log_level), "warning");
	snprintf(config->port, sizeof(config->port), "net_null0,no-rx=1");
	memcpy(config->engine_address[0].bytes, bench_engine, 16);
	config->engine_address[0].family = 4;
	config->engine_address_cnt = 1;
	config->engine_port = BENCH_ENGINE_PORT;
	config->payload_limit = RTE_MAX(options->payload_len, (unsigned)FAN_PAYLOAD_DEFAULT);
	config->cores[0] = options->core;
	config->core_cnt = 1;
	config->main_core = -1;
	config->burst = options->burst;
	config->hugepage_mb = MEMORY_MB;
	config->huge_pages = machine_huge_pages_free() >= (uint64_t)MEMORY_MB << 20;
}

static json_t *settings_tell(const struct core_options *o, const struct fan_config *config)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:s}", "runs",
			 (json_int_t)o->runs, "run_ms", (json_int_t)o->run_ms, "burst",
			 (json_int_t)o->burst, "payload_bytes", (json_int_t)o->payload_len,
			 "sessions", (json_int_t)o->sessions, "core", (json_int_t)o->core,
			 "huge_pages", config->huge_pages, "region_dir", o->dir, "port",
			 config->port);
}

static int report_write(const struct core_options *options, json_t *report)
{
	if (!options->json[0] || json_dump_file(report, options->json, JSON_INDENT(2)) == 0)
		return 0;
	fprintf(stderr, "cannot write %s: %s\n", options->json, strerror(errno));
	return 2;
}

static json_t *cases_run(struct plane *plane, const struct core_options *options, bool *failed)
{
	json_t *cases = json_array();

	printf("%9s %8s %14s %12s %13s   %s\n", "users", "fan-out", "copies/s", "cycles/copy",
	       "cycles/event", "copies/s, least..most");
	for (unsigned i = 0; i < options->user_cnt; i++)
		for (unsigned j = 0; j < options->fanout_cnt; j++) {
			json_array_append_new(cases, case_run(plane, options, options->users[i],
							      options->fanouts[j], failed));
			fflush(stdout);
		}
	return cases;
}

static json_t *report_make(struct plane *plane, const struct core_options *options, bool *failed)
{
	char date[32];
	time_t now = time(NULL);
	struct tm utc;

	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "benchmark", "core", "version",
			 FAN_VERSION, "time", date, "machine", machine_describe(), "settings",
			 settings_tell(options, &plane->config), "cases",
			 cases_run(plane, options, failed));
}

int core_run(const struct core_options *options)
{
	struct plane *plane = calloc(1, sizeof(*plane));
	struct fan_state no_state = {0};
	bool failed = false;
	char runtime[256];
	json_t *report;
	int status;

	if (!plane || sodium_init() < 0)
		return 2;
	fan_log_init("fanwire-bench", "warning");
	config_fill(&plane->config, options);
	plane->worker_cnt = 1;
	if (eal_start(&plane->config, plane->config.port))
		return 2;
	plane->state = &no_state; /* for the port's name; each case has its own region */
	if (port_make_pool(plane, POOL_CNT) || port_start(plane))
		return 2;
	plane->state = NULL;
	report = report_make(plane, options, &failed);
	status = report_write(options, report);
	json_decref(report);
	port_stop(plane);
	free(plane);
	snprintf(runtime, sizeof(runtime), "%s", rte_eal_get_runtime_dir());
	rte_eal_cleanup();
	rmdir(runtime); /* EAL leaves it behind */
	return status ? status : failed ? 2 : 0;
}
