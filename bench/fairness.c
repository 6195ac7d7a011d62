/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-fairness: the latency of everybody else's events, on DPDK's null port, while one
 * user with very many connections is published to and while a publisher floods one user. Each run
 * measures all three cases in turn, so that their ratios are of one moment.
 */
#include <getopt.h>
#include <rte_cycles.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/fairness_runs.h"
#include "bench/step.h"

#define WIRE_OVERHEAD 24 /* preamble, check sum, gap between frames */

static const char help[] =
	"usage: fanwire-bench-fairness [OPTION]...\n"
	"Latency of the other users' events while one user is pressed on, on DPDK's null port.\n"
	"Waits for \"run MS\" on standard input and answers in JSON.\n"
	"  --users N        the others (65536)\n"
	"  --fanout N       connections of each (3)\n"
	"  --rate N         their events a second, Poisson (250000)\n"
	"  --large N        connections of the large user (10000)\n"
	"  --ahead N        its events under way at any time (64)\n"
	"  --flood-mbit N   rate of the line that the flood fills (10000)\n"
	"  --payload N      bytes of an event, 0..1132 (128)\n"
	"  --burst N        packets at once, 8..256 (64)\n"
	"  --core N         CPU of the worker (the last one)\n"
	"  --dir DIR        where tables lie (huge pages of its own if free, else /dev/shm)\n";

struct program {
	struct rig rig;
	struct rig_options options;
	struct fairness_options fairness_options;
	unsigned flood_mbit;
	struct fairness *fairness;
	struct fairness_run runs[FAIRNESS_CASE_CNT];
};

/* ---- options ---- */

static unsigned number_take(const char *option, unsigned long least, unsigned long most)
{
	char *end;
	unsigned long number = strtoul(optarg, &end, 10);

	if (*optarg == '\0' || *end || number < least || number > most)
		exit(step_fail("--%s %s: a number from %lu to %lu is needed", option, optarg, least,
			       most));
	return (unsigned)number;
}

static const struct option option_table[] = {
	{"users", required_argument, NULL, 'u'},   {"fanout", required_argument, NULL, 'f'},
	{"rate", required_argument, NULL, 'r'},	   {"large", required_argument, NULL, 'l'},
	{"ahead", required_argument, NULL, 'a'},   {"flood-mbit", required_argument, NULL, 'm'},
	{"payload", required_argument, NULL, 'p'}, {"burst", required_argument, NULL, 'b'},
	{"core", required_argument, NULL, 'c'},	   {"dir", required_argument, NULL, 'd'},
	{"help", no_argument, NULL, 'h'},	   {NULL, 0, NULL, 0},
};

static void option_take(struct program *p, int option, const char *name)
{
	struct fairness_options *o = &p->fairness_options;

	switch (option) {
	case 'u':
		p->options.users = number_take(name, 2, 16000000);
		break;
	case 'f':
		p->options.fanout = number_take(name, 1, 1000);
		break;
	case 'r':
		o->rate = number_take(name, 100, 10000000);
		break;
	case 'l':
		p->options.large = number_take(name, 1, 1000000);
		break;
	case 'a':
		o->large_ahead = number_take(name, 1, 1024);
		break;
	case 'm':
		p->flood_mbit = number_take(name, 1, 400000);
		break;
	case 'p':
		p->options.payload_len = number_take(name, 0, FAN_PAYLOAD_DEFAULT);
		break;
	case 'b':
		p->options.burst = number_take(name, 8, BURST_MAX);
		break;
	case 'c':
		p->options.core = number_take(name, 0, CPU_SETSIZE - 1);
		break;
	case 'd':
		p->options.dir = optarg;
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

	p->options = (struct rig_options){
		.users = 65536,
		.fanout = 3,
		.large = 10000,
		.sessions = fairness_sessions(),
		.payload_len = 128,
		.burst = 64,
		.core = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1,
	};
	p->fairness_options = (struct fairness_options){.large_ahead = 64, .rate = 250000};
	p->flood_mbit = 10000;
	while ((option = getopt_long(argc, argv, "", option_table, &idx)) != -1)
		option_take(p, option, option_table[idx].name);
	if (optind != argc)
		exit(step_fail("\"%s\" is no option; see --help", argv[optind]));
	p->fairness_options.users = p->options.users;
	p->fairness_options.fanout = p->options.fanout;
	p->fairness_options.large = p->options.large;
}

/* ---- runs ---- */

static double us(uint64_t cycles)
{
	return (double)cycles * 1e6 / (double)rte_get_tsc_hz();
}

static void figure(json_t *told, enum fairness_case which, const char *name, double value)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_%s", fairness_case_names[which], name);
	json_object_set_new(told, key, json_real(value));
}

static void case_tell(json_t *told, enum fairness_case which, const struct fairness_run *run)
{
	double seconds = us(run->cycles) / 1e6;
	char key[64];

	figure(told, which, "p50_us", us(histogram_percentile(&run->latency, 50)));
	figure(told, which, "p90_us", us(histogram_percentile(&run->latency, 90)));
	figure(told, which, "p99_us", us(histogram_percentile(&run->latency, 99)));
	figure(told, which, "p999_us", us(histogram_percentile(&run->latency, 99.9)));
	figure(told, which, "max_us", us(run->latency.most));
	figure(told, which, "cpu_share", run->cpu_share);
	figure(told, which, "events_per_second", (double)run->others / seconds);
	figure(told, which, "unfinished", (double)run->unfinished);
	figure(told, which, "overflowed", (double)run->overflowed);
	figure(told, which, "resent", (double)run->resent);
	if (which != FAIRNESS_WITHOUT) {
		figure(told, which, "pressed_datagrams_per_second",
		       (double)run->pressed_sent / seconds);
		figure(told, which, "pressed_copies_per_second",
		       (double)run->pressed_copies / seconds);
	}
	snprintf(key, sizeof(key), "%s_histogram", fairness_case_names[which]);
	json_object_set_new(told, key,
			    histogram_tell(&run->latency, (double)rte_get_tsc_hz() / 1e6));
}

static int on_run(void *context, unsigned ms, json_t *told, char *why, size_t why_size)
{
	struct program *p = context;
	double without;
	char text[256];

	for (enum fairness_case which = 0; which < FAIRNESS_CASE_CNT; which++) {
		int err = fairness_measure(p->fairness, which, RTE_MAX(ms / FAIRNESS_CASE_CNT, 1u),
					   &p->runs[which], text);

		if (err) {
			snprintf(why, why_size, "%s", text);
			return err;
		}
		case_tell(told, which, &p->runs[which]);
	}
	without = (double)histogram_percentile(&p->runs[FAIRNESS_WITHOUT].latency, 99);
	for (enum fairness_case which = FAIRNESS_LARGE_USER; which < FAIRNESS_CASE_CNT; which++)
		figure(told, which, "p99_x",
		       (double)histogram_percentile(&p->runs[which].latency, 99) / without);
	return 0;
}

static json_t *settings_tell(const struct program *p)
{
	const struct fairness_options *o = &p->fairness_options;
	json_t *settings = rig_settings(&p->rig);

	json_object_set_new(settings, "others_events_per_second", json_real(o->rate));
	json_object_set_new(settings, "large_user_connections", json_integer(o->large));
	json_object_set_new(settings, "large_user_events_ahead", json_integer(o->large_ahead));
	json_object_set_new(settings, "flood_mbit", json_integer(p->flood_mbit));
	json_object_set_new(settings, "flood_datagrams_per_second", json_real(o->flood_rate));
	return settings;
}

static int serve(struct program *p)
{
	char why[256];
	int status;

	if (rig_open(&p->rig, why)) {
		rig_close(&p->rig);
		return step_fail("%s", why);
	}
	p->fairness_options.flood_rate =
		p->flood_mbit * 1e6 / 8 / (feed_frame_len(&p->rig.feed) + WIRE_OVERHEAD);
	p->fairness = fairness_create(&p->rig, &p->fairness_options);
	if (!p->fairness) {
		status = step_fail("no memory for the publishes that are sealed beforehand");
	} else if (fairness_warm(p->fairness, why)) {
		status = step_fail("%s", why);
	} else {
		status = step_serve(settings_tell(p), rig_versions(), on_run, p);
	}
	if (p->fairness)
		fairness_destroy(p->fairness);
	rig_close(&p->rig);
	return status;
}

int main(int argc, char **argv)
{
	struct program *p = calloc(1, sizeof(*p));
	char why[256];
	int status;

	if (!p)
		return step_fail("out of memory");
	options_parse(p, argc, argv);
	status = rig_start(&p->rig, &p->options, why) ? step_fail("%s", why) : serve(p);
	if (p->rig.plane.pool)
		rig_stop(&p->rig);
	free(p);
	return status;
}
