/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwire-bench: measures what docs/benchmarks.md states. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/core.h"

static const char help[] =
	"usage: fanwire-bench [core] [OPTION]...\n"
	"Copies a second and cycles a copy of one dataplane worker on DPDK's null port.\n"
	"  --users N,...    users in the table (65536,1000000)\n"
	"  --fanout N,...   connections of each user (1,3,16,64)\n"
	"  --runs N         runs of each case; their median counts (5)\n"
	"  --run-ms N       timed part of a run, milliseconds (1000)\n"
	"  --burst N        packets at once, 8..256 (64)\n"
	"  --payload N      bytes of an event, 0..1132 (64)\n"
	"  --sessions N     publisher sessions, 1..200 (4)\n"
	"  --core N         CPU of the worker (the last one)\n"
	"  --memory MiB     largest table; larger cases are skipped (half of what is free)\n"
	"  --region-dir DIR where tables lie (a new directory in /dev/shm)\n"
	"  --json FILE      every run, the settings and the machine\n"
	"  --output DIR     the same, into DIR/core.json\n";

/* "1,3,16" into list; 0 or -EINVAL. */
static int list_parse(const char *text, uint32_t list[CORE_CASES_MAX], unsigned *cnt)
{
	for (*cnt = 0; *cnt < CORE_CASES_MAX; text++) {
		char *end;
		unsigned long value = strtoul(text, &end, 10);

		if (end == text || value == 0 || value > 16000000)
			return -EINVAL;
		list[(*cnt)++] = (uint32_t)value;
		text = end;
		if (*text != ',')
			return *text ? -EINVAL : 0;
	}
	return -EINVAL;
}

static int number_parse(const char *text, unsigned long least, unsigned long most, unsigned *value)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end || number < least || number > most)
		return -EINVAL;
	*value = (unsigned)number;
	return 0;
}

static int option_take(struct core_options *o, int option)
{
	unsigned megabytes = 0;

	switch (option) {
	case 'u':
		return list_parse(optarg, o->users, &o->user_cnt);
	case 'f':
		return list_parse(optarg, o->fanouts, &o->fanout_cnt);
	case 'r':
		return number_parse(optarg, 1, 64, &o->runs);
	case 't':
		return number_parse(optarg, 10, 60000, &o->run_ms);
	case 'b':
		return number_parse(optarg, 8, 256, &o->burst);
	case 'p':
		return number_parse(optarg, 0, 1132, &o->payload_len);
	case 's':
		return number_parse(optarg, 1, 200, &o->sessions);
	case 'c':
		return number_parse(optarg, 0, CPU_SETSIZE - 1, &o->core);
	case 'm':
		if (number_parse(optarg, 1, 1u << 24, &megabytes))
			return -EINVAL;
		o->memory = (uint64_t)megabytes << 20;
		return 0;
	case 'd':
		o->dir = optarg;
		return 0;
	case 'j':
		snprintf(o->json, sizeof(o->json), "%s", optarg);
		return 0;
	case 'o':
		snprintf(o->json, sizeof(o->json), "%s/core.json", optarg);
		return 0;
	default:
		return -EINVAL;
	}
}

static int options_parse(struct core_options *options, int argc, char **argv)
{
	static const struct option table[] = {
		{"users", required_argument, NULL, 'u'},
		{"fanout", required_argument, NULL, 'f'},
		{"runs", required_argument, NULL, 'r'},
		{"run-ms", required_argument, NULL, 't'},
		{"burst", required_argument, NULL, 'b'},
		{"payload", required_argument, NULL, 'p'},
		{"sessions", required_argument, NULL, 's'},
		{"core", required_argument, NULL, 'c'},
		{"memory", required_argument, NULL, 'm'},
		{"region-dir", required_argument, NULL, 'd'},
		{"json", required_argument, NULL, 'j'},
		{"output", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	int option, idx = 0;

	while ((option = getopt_long(argc, argv, "", table, &idx)) != -1) {
		if (option == '?')
			return -EINVAL;
		if (option_take(options, option)) {
			fprintf(stderr, "fanwire-bench: --%s %s: out of range or no number\n",
				table[idx].name, optarg);
			return -EINVAL;
		}
	}
	return optind == argc ? 0 : -EINVAL;
}

static int core_command(int argc, char **argv)
{
	char dir[] = "/dev/shm/fanwire-bench-XXXXXX";
	struct core_options options = {
		.users = {65536, 1000000},
		.user_cnt = 2,
		.fanouts = {1, 3, 16, 64},
		.fanout_cnt = 4,
		.runs = 5,
		.run_ms = 1000,
		.burst = 64,
		.payload_len = 64,
		.sessions = 4,
		.core = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1,
	};
	bool made = false;
	int status;

	if (options_parse(&options, argc, argv)) {
		fputs(help, stderr);
		return 1;
	}
	if (!options.dir) {
		options.dir = mkdtemp(dir);
		made = true;
	}
	if (!options.dir) {
		fprintf(stderr, "fanwire-bench: cannot make a directory in /dev/shm: %s\n",
			strerror(errno));
		return 2;
	}
	status = core_run(&options);
	if (made)
		rmdir(dir);
	return status;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "core") == 0)
		return core_command(argc - 1, argv + 1);
	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(help, stdout);
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts("fanwire-bench " FAN_VERSION);
		return 0;
	}
	return core_command(argc, argv); /* `core` may be left out while it is the only one */
}
