/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwire-bench-core: copies a second and cycles a copy of one worker on DPDK's null port. */
#include <errno.h>
#include <getopt.h>
#include <rte_cycles.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/core_runs.h"
#include "bench/step.h"

#define LIST_MAX 16
#define RUNS_MAX 64

#define WARM_RUN_MS   250
#define WARM_RUNS_MAX 200

static const char help[] =
	"usage: fanwire-bench-core [OPTION]...\n"
	"Copies a second and cycles a copy of one dataplane worker on DPDK's null port. Waits for\n"
	"\"run MS\" on standard input and answers in JSON; with --once it prints a table and "
	"ends.\n"
	"  --mode MODE,...  what is timed: whole, fanout, stages; of several each figure's name\n"
	"                   begins with the mode (whole; with --once whole,fanout)\n"
	"  --users N        users in the table (65536); with --once a list: N,...\n"
	"  --fanout N       connections of each user (3); with --once a list\n"
	"  --payload N      bytes of an event, 0..1132 (128); with --once a list\n"
	"  --burst N        packets at once, 8..256 (64)\n"
	"  --sessions N     publisher sessions, 1..200 (4)\n"
	"  --seal           each figure also with deliveries sealed, on the same table in turn;\n"
	"                   its name then begins with sealed_\n"
	"  --core N         CPU of the worker (the last one)\n"
	"  --dir DIR        where tables lie (huge pages of its own if free, else /dev/shm)\n"
	"  --once           a table for people\n"
	"  --runs N         runs of each case with --once; their median counts (3)\n"
	"  --run-ms N       timed part of such a run, milliseconds (500)\n";

struct program {
	struct rig rig;
	struct rig_options options;
	unsigned modes; /* bit mask of enum core_mode */
	bool once;
	unsigned runs, run_ms;
	uint32_t users[LIST_MAX], fanouts[LIST_MAX], payloads[LIST_MAX];
	unsigned user_cnt, fanout_cnt, payload_cnt;
};

/* ---- options ---- */

static unsigned number_take(const char *option, const char *text, unsigned long least,
			    unsigned long most)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end || number < least || number > most)
		exit(step_fail("--%s %s: a number from %lu to %lu is needed", option, text, least,
			       most));
	return (unsigned)number;
}

static void list_take(const char *option, const char *text, uint32_t list[LIST_MAX], unsigned *cnt,
		      unsigned long least, unsigned long most)
{
	char copy[256], *save = NULL;

	*cnt = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, ",", &save); word && *cnt < LIST_MAX;
	     word = strtok_r(NULL, ",", &save))
		list[(*cnt)++] = number_take(option, word, least, most);
	if (*cnt == 0)
		exit(step_fail("--%s: a number is needed", option));
}

/* "whole,fanout" into the mask. */
static void modes_take(struct program *p, const char *text)
{
	char copy[64], *save = NULL;

	p->modes = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		unsigned mode = 0;

		while (mode < CORE_MODE_CNT && strcmp(word, core_mode_names[mode]) != 0)
			mode++;
		if (mode == CORE_MODE_CNT)
			exit(step_fail("--mode %s: whole, fanout or stages is needed", word));
		p->modes |= 1u << mode;
	}
	if (p->modes == 0)
		exit(step_fail("--mode: whole, fanout or stages is needed"));
}

static const struct option option_table[] = {
	{"mode", required_argument, NULL, 'M'},	  {"users", required_argument, NULL, 'u'},
	{"fanout", required_argument, NULL, 'f'}, {"payload", required_argument, NULL, 'p'},
	{"burst", required_argument, NULL, 'b'},  {"sessions", required_argument, NULL, 's'},
	{"seal", no_argument, NULL, 'S'},	  {"core", required_argument, NULL, 'c'},
	{"dir", required_argument, NULL, 'd'},	  {"once", no_argument, NULL, '1'},
	{"runs", required_argument, NULL, 'r'},	  {"run-ms", required_argument, NULL, 't'},
	{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
};

static void option_take(struct program *p, int option, const char *name)
{
	switch (option) {
	case 'M':
		modes_take(p, optarg);
		break;
	case 'u':
		list_take(name, optarg, p->users, &p->user_cnt, 1, 16000000);
		break;
	case 'f':
		list_take(name, optarg, p->fanouts, &p->fanout_cnt, 1, 100000);
		break;
	case 'p':
		list_take(name, optarg, p->payloads, &p->payload_cnt, 0, FAN_PAYLOAD_DEFAULT);
		break;
	case 'b':
		p->options.burst = number_take(name, optarg, 8, BURST_MAX);
		break;
	case 's':
		p->options.sessions = number_take(name, optarg, 1, 200);
		break;
	case 'S':
		p->options.seal = true;
		break;
	case 'c':
		p->options.core = number_take(name, optarg, 0, CPU_SETSIZE - 1);
		break;
	case 'd':
		p->options.dir = optarg;
		break;
	case '1':
		p->once = true;
		break;
	case 'r':
		p->runs = number_take(name, optarg, 1, RUNS_MAX);
		break;
	case 't':
		p->run_ms = number_take(name, optarg, 10, 60000);
		break;
	case 'h':
		fputs(help, stdout);
		exit(0);
	default:
		fputs(help, stderr);
		exit(1);
	}
}

static void options_parse(struct program *p, int argc, char **argv)
{
	int option, idx = 0;

	*p = (struct program){
		.options = {.sessions = 4,
			    .burst = 64,
			    .core = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1},
		.runs = 3,
		.run_ms = 500,
		.users = {65536},
		.fanouts = {3},
		.payloads = {128},
		.user_cnt = 1,
		.fanout_cnt = 1,
		.payload_cnt = 1,
	};
	while ((option = getopt_long(argc, argv, "", option_table, &idx)) != -1)
		option_take(p, option, option_table[idx].name);
	if (optind != argc)
		exit(step_fail("\"%s\" is no option; see --help", argv[optind]));
	if (p->modes == 0)
		p->modes = 1u << CORE_WHOLE | (p->once ? 1u << CORE_FANOUT : 0);
	if (!p->once && p->user_cnt + p->fanout_cnt + p->payload_cnt != 3)
		exit(step_fail("lists of users, fan-outs and payloads need --once"));
	p->options.users = p->users[0];
	p->options.fanout = p->fanouts[0];
	p->options.payload_len = p->payloads[0];
}

/* Nearly all streams have their key, as when they have been in use for a while. */
static int keys_warm(struct program *p, char why[256])
{
	struct core_run run = {.events = 1, .keys_derived = 1};
	int err = 0;

	p->rig.plane.seal = p->options.seal;
	for (unsigned i = 0; p->options.seal && i < WARM_RUNS_MAX && !err; i++) {
		if (run.keys_derived * 100 < run.events)
			break;
		err = core_run(&p->rig, CORE_WHOLE, WARM_RUN_MS, &run, why);
	}
	return err;
}

/* ---- driven by lines ---- */

static void figure(json_t *told, const char *prefix, const char *name, double value)
{
	char key[96];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	json_object_set_new(told, key, json_real(value));
}

static void run_tell(json_t *told, const char *prefix, const struct core_run *run)
{
	double copies = (double)run->copies, events = (double)run->events;
	double cycles = (double)run->cycles;
	char name[64];

	figure(told, prefix, "copies_per_second", copies * (double)rte_get_tsc_hz() / cycles);
	figure(told, prefix, "cycles_per_copy", cycles / copies);
	figure(told, prefix, "cycles_per_event", cycles / events);
	figure(told, prefix, "events", events);
	for (unsigned i = 0; i < STAGE_CNT; i++) {
		if (run->stages[i] == 0)
			continue;
		snprintf(name, sizeof(name), "%s_cycles_per_event", core_stage_names[i]);
		figure(told, prefix, name, (double)run->stages[i] / events);
		snprintf(name, sizeof(name), "%s_cycles_per_copy", core_stage_names[i]);
		figure(told, prefix, name, (double)run->stages[i] / copies);
	}
}

/* A mode's figures, with deliveries sealed or not. */
static int mode_tell(struct program *p, enum core_mode mode, bool sealed, unsigned ms, json_t *told,
		     char why[256])
{
	bool several = p->modes & (p->modes - 1);
	char prefix[64] = "";
	struct core_run run;

	p->rig.plane.seal = sealed;
	if (core_run(&p->rig, mode, ms, &run, why))
		return -EPROTO;
	snprintf(prefix, sizeof(prefix), "%s%s%s", sealed ? "sealed_" : "",
		 several ? core_mode_names[mode] : "", several ? "_" : "");
	run_tell(told, prefix, &run);
	if (sealed)
		figure(told, prefix, "keys_derived_per_event",
		       (double)run.keys_derived / (double)run.events);
	return 0;
}

static int on_run(void *context, unsigned ms, json_t *told, char *why, size_t why_size)
{
	struct program *p = context;

	for (enum core_mode mode = 0; mode < CORE_MODE_CNT; mode++) {
		char text[256];
		int err;

		if (!(p->modes & 1u << mode))
			continue;
		err = mode_tell(p, mode, false, ms, told, text);
		if (!err && p->options.seal)
			err = mode_tell(p, mode, true, ms, told, text);
		if (err) {
			snprintf(why, why_size, "%s", text);
			return err;
		}
	}
	return 0;
}

static json_t *settings_tell(const struct program *p)
{
	json_t *settings = rig_settings(&p->rig), *modes = json_array();

	for (enum core_mode mode = 0; mode < CORE_MODE_CNT; mode++)
		if (p->modes & 1u << mode)
			json_array_append_new(modes, json_string(core_mode_names[mode]));
	json_object_set_new(settings, "modes", modes);
	return settings;
}

static int serve(struct program *p, char why[256])
{
	int err = rig_open(&p->rig, why);
	int status;

	if (!err)
		err = keys_warm(p, why);
	if (err)
		return step_fail("%s", why);
	status = step_serve(settings_tell(p), rig_versions(), on_run, p);
	rig_close(&p->rig);
	return status;
}

/* ---- once, for people ---- */

static int compare(const void *a, const void *b)
{
	double x =
		((const struct core_run *)a)->copies * 1.0 / ((const struct core_run *)a)->cycles;
	double y =
		((const struct core_run *)b)->copies * 1.0 / ((const struct core_run *)b)->cycles;

	return (x > y) - (x < y);
}

static double rate(const struct core_run *run)
{
	return (double)run->copies / (double)run->cycles * (double)rte_get_tsc_hz();
}

static void stages_print(const struct core_run *run)
{
	for (unsigned i = 0; i < STAGE_CNT; i++)
		printf("%39s %-13s %9.1f cycles an event %9.1f a copy\n", "", core_stage_names[i],
		       (double)run->stages[i] / (double)run->events,
		       (double)run->stages[i] / (double)run->copies);
}

static int case_print(struct program *p, enum core_mode mode, bool sealed, char why[256])
{
	struct core_run runs[RUNS_MAX], *median = &runs[p->runs / 2];
	int err;

	p->rig.plane.seal = sealed;
	err = core_run(&p->rig, mode, RTE_MAX(p->run_ms / 4, 10u), &runs[0], why);
	for (unsigned i = 0; i < p->runs && !err; i++)
		err = core_run(&p->rig, mode, p->run_ms, &runs[i], why);
	if (err)
		return err;
	qsort(runs, p->runs, sizeof(runs[0]), compare);
	printf("%9u %8u %8u  %-8s %12.2f %12.1f %13.1f   %.2f..%.2f%s\n", p->rig.options.users,
	       p->rig.options.fanout, p->rig.options.payload_len, core_mode_names[mode],
	       rate(median) / 1e6, (double)median->cycles / (double)median->copies,
	       (double)median->cycles / (double)median->events, rate(&runs[0]) / 1e6,
	       rate(&runs[p->runs - 1]) / 1e6, sealed ? "  sealed" : "");
	if (mode == CORE_STAGES)
		stages_print(median);
	fflush(stdout);
	return 0;
}

/* One table, in each mode that is asked for. */
static int table_print(struct program *p, char why[256])
{
	int err = rig_open(&p->rig, why);

	if (!err)
		err = keys_warm(p, why);
	for (enum core_mode mode = 0; mode < CORE_MODE_CNT && !err; mode++)
		for (int sealed = 0; sealed <= p->options.seal && !err; sealed++)
			if (p->modes & 1u << mode)
				err = case_print(p, mode, sealed, why);
	rig_close(&p->rig);
	return err;
}

static int once(struct program *p, char why[256])
{
	printf("%9s %8s %8s  %-8s %12s %12s %13s   %s\n", "users", "fan-out", "payload", "mode",
	       "M copies/s", "cycles/copy", "cycles/event", "least..most");
	for (unsigned u = 0; u < p->user_cnt; u++)
		for (unsigned f = 0; f < p->fanout_cnt; f++)
			for (unsigned l = 0; l < p->payload_cnt; l++) {
				p->rig.options.users = p->users[u];
				p->rig.options.fanout = p->fanouts[f];
				p->rig.options.payload_len = p->payloads[l];
				if (table_print(p, why))
					return step_fail("%s", why);
			}
	return 0;
}

int main(int argc, char **argv)
{
	struct program *p = calloc(1, sizeof(*p));
	char why[256];
	int status;

	if (!p)
		return step_fail("out of memory");
	options_parse(p, argc, argv);
	if (rig_start(&p->rig, &p->options, why))
		return step_fail("%s", why);
	status = p->once ? once(p, why) : serve(p, why);
	rig_stop(&p->rig);
	free(p);
	return status;
}
