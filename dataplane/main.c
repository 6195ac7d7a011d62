/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-dataplane: replicates each event to every connection of its user, from DPDK cores.
 * The main thread starts everything, then sleeps, watches and logs; workers only poll.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <rte_eal.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/privilege/privilege.h"
#include "dataplane/eal.h"
#include "dataplane/memif_port.h"
#include "dataplane/plane.h"
#include "dataplane/port.h"
#include "dataplane/privileges.h"
#include "dataplane/regions.h"
#include "dataplane/shim.h"
#include "dataplane/steer_port.h"
#include "dataplane/telemetry.h"

#define PROGRAM		"fanwire-dataplane"
#define SUBJECT		"main"
#define REGISTRY_WAIT_S 60
#define OUTAGE_ALARM_NS UINT64_C(10000000000)
#define NANOSECONDS	UINT64_C(1000000000)

/* Exit statuses; a supervisor restarts on EXIT_REPLACED. */
enum { EXIT_DONE = 0, EXIT_USAGE = 1, EXIT_FAILED = 2, EXIT_REPLACED = 3 };

static struct plane plane;

static void usage(FILE *to)
{
	fputs("usage: " PROGRAM " --config FILE\n"
	      "       " PROGRAM " --version\n"
	      "Runs Fanwire's dataplane. It needs fanwired of the same configuration, and stops on "
	      "SIGTERM.\n",
	      to);
}

/* 0: go on; otherwise exit with status - 1. */
static int options(int argc, char **argv, const char **config)
{
	static const struct option table[] = {
		{"config", required_argument, NULL, 'c'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "c:Vh", table, NULL)) != -1) {
		switch (option) {
		case 'c':
			*config = optarg;
			break;
		case 'V':
			puts(PROGRAM " " FAN_VERSION);
			return EXIT_DONE + 1;
		case 'h':
			usage(stdout);
			return EXIT_DONE + 1;
		default:
			usage(stderr);
			return EXIT_USAGE + 1;
		}
	}
	if (*config && optind == argc)
		return 0;
	usage(stderr);
	return EXIT_USAGE + 1;
}

/* ---- signals: blocked everywhere, taken by the main thread when it has time ---- */

static sigset_t signals_block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return set;
}

/* Whether one came within wait_ms. */
static bool signal_wait(unsigned wait_ms)
{
	const struct timespec wait = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000};
	sigset_t set = signals_block();

	return sigtimedwait(&set, NULL, &wait) > 0;
}

static bool interrupted(void)
{
	return signal_wait(0);
}

/* ---- running ---- */

/* Deliveries go on while fanwired is away; somebody has to know. */
static void outage_watch(bool *alarmed)
{
	uint64_t heartbeat = __atomic_load_n(&plane.table.registry->heartbeat_ns, __ATOMIC_RELAXED);
	struct timespec now;
	uint64_t now_ns;
	bool away;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
	away = now_ns > heartbeat && now_ns - heartbeat > OUTAGE_ALARM_NS;
	if (away && !*alarmed)
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"fanwired has been away for more than 10 s: deliveries go on, "
			"registrations do not change; start it again");
	if (!away && *alarmed)
		fan_log(FAN_LOG_INFO, SUBJECT, "fanwired is back");
	*alarmed = away;
}

static int watch(void)
{
	bool alarmed = false;

	while (!signal_wait(1000)) {
		outage_watch(&alarmed);
		if (!regions_registry_is_current(&plane)) {
			fan_log(FAN_LOG_ERROR, SUBJECT,
				"the registry region was made anew: leaving with status %d, to be "
				"started again on it",
				EXIT_REPLACED);
			return EXIT_REPLACED;
		}
	}
	fan_log(FAN_LOG_INFO, SUBJECT, "asked to leave: draining");
	return EXIT_DONE;
}

/* Everything from the pool to the end; EAL and the regions are there. */
static int run_port(const struct steer_port *steer)
{
	int status = EXIT_FAILED;

	if (port_make_pool(&plane, plane.config.mbuf_cnt))
		return EXIT_FAILED;
	if (port_start(&plane))
		return EXIT_FAILED;
	if (plane_init(&plane)) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"no memory for the workers: raise dataplane.hugepage_mb");
		goto stop;
	}
	if (steer_port_configure(steer, &plane.config) || telemetry_register(&plane) ||
	    shim_start() || privileges_drop(&plane.config))
		goto stop;
	if (plane_launch(&plane)) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "workers did not start");
		goto stop;
	}
	fan_log(FAN_LOG_INFO, SUBJECT, "ready");
	status = watch();
	plane_drain(&plane);
stop:
	shim_stop();
	telemetry_forget();
	privileges_raise();
	port_stop(&plane);
	plane_fini(&plane);
	return status;
}

static int run(void)
{
	struct steer_port steer;
	int err, status = EXIT_FAILED;

	plane.worker_cnt = plane.config.core_cnt;
	err = regions_open_registry(&plane, REGISTRY_WAIT_S, interrupted);
	if (err)
		return err == -EINTR ? EXIT_DONE : EXIT_FAILED;
	if (regions_open_state(&plane))
		goto regions;
	if (steer_port_open(&steer, &plane.config))
		goto steer;
	memif_port_clear(&plane.config);
	if (eal_start(&plane.config, eal_port_is_pci(plane.config.port) ? NULL : steer.vdev))
		goto steer;
	status = run_port(&steer);
	rte_eal_cleanup();
steer:
	steer_port_close(&steer);
regions:
	regions_close(&plane);
	return status;
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	char why[4096];
	int err = options(argc, argv, &path);

	if (err)
		return err - 1;
	signals_block();
	privilege_harden();
	/* one arena: libc gives memory of another back only after a look into /proc, refused later
	 */
	mallopt(M_ARENA_MAX, 1);
	fan_log_init(PROGRAM, "info");
	if (sodium_init() < 0)
		return EXIT_FAILED;
	if (fan_config_load(&plane.config, path, why)) {
		fputs(why, stderr); /* whole lines, one a problem */
		return EXIT_USAGE;
	}
	fan_log_init(PROGRAM, plane.config.log_level);
	return run();
}
