/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/rig.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_version.h>
#include <sched.h>
#include <semaphore.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "bench/machine.h"
#include "common/log.h"
#include "dataplane/eal.h"
#include "dataplane/plane.h"
#include "dataplane/port.h"
#include "dataplane/regions.h"

#define POOL_CNT       16383
#define MEMORY_MB      128
#define LOG_MB	       64
#define SEAL_SCHEDULES 16384 /* the default */
#define PORT	       "net_null0,no-rx=1"

/* ---- where the regions lie ---- */

/* In a mount namespace of our own: whatever ends us, nothing stays mounted and no page taken. */
static bool huge_mount(const char *dir)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("hugetlbfs", dir, "hugetlbfs", 0, NULL) == 0;
}

static int dir_choose(struct rig *rig, uint64_t size, char why[256])
{
	/* the state region beside the registry, and rounding to huge pages */
	uint64_t all = size + (uint64_t)rig->options.users * sizeof(struct fan_group_state) +
		       ((uint64_t)(32 + LOG_MB) << 20);

	if (rig->options.dir) {
		snprintf(rig->dir, sizeof(rig->dir), "%s", rig->options.dir);
		return 0;
	}
	snprintf(rig->dir, sizeof(rig->dir), "/dev/shm/fanwire-bench-XXXXXX");
	if (!mkdtemp(rig->dir)) {
		snprintf(why, 256, "cannot make a directory in /dev/shm: %s", strerror(errno));
		return -errno;
	}
	rig->dir_made = true;
	rig->dir_huge = machine_huge_pages_free() >= all && huge_mount(rig->dir);
	return 0;
}

/* ---- EAL, pool, port ---- */

static void config_fill(struct fan_config *config, const struct rig_options *options)
{
	snprintf(config->instance, sizeof(config->instance), "bench-%d", getpid());
	snprintf(config->log_level, sizeof(config->log_level), "warning");
	snprintf(config->port, sizeof(config->port), PORT);
	memcpy(config->engine_address[0].bytes, bench_engine, 16);
	config->engine_address[0].family = 4;
	config->engine_address_cnt = 1;
	config->engine_port = BENCH_ENGINE_PORT;
	config->payload_limit = RTE_MAX(options->payload_len, (unsigned)FAN_PAYLOAD_DEFAULT);
	config->cores[0] = options->core;
	config->core_cnt = 1;
	config->log_mb = LOG_MB;
	config->main_core = -1;
	config->burst = options->burst;
	config->seal_schedules = SEAL_SCHEDULES;
	config->hugepage_mb = options->memory_mb ? options->memory_mb : MEMORY_MB;
	config->huge_pages = machine_huge_pages_free() >= (uint64_t)config->hugepage_mb << 20;
}

int rig_start(struct rig *rig, const struct rig_options *options, char why[256])
{
	struct fan_state no_state = {0};
	struct plane *plane = &rig->plane;

	*rig = (struct rig){.options = *options};
	snprintf(why, 256, "DPDK's environment, pool or null port could not be set up: see above");
	if (sodium_init() < 0)
		return -EIO;
	fan_log_init("fanwire-bench", "warning");
	config_fill(&plane->config, options);
	plane->worker_cnt = 1;
	if (eal_start(&plane->config, plane->config.port))
		return -EIO;
	plane->state = &no_state; /* for the port's name; each table has its own region */
	if (port_make_pool(plane, POOL_CNT) || port_start(plane))
		return -EIO;
	plane->state = NULL;
	return 0;
}

void rig_stop(struct rig *rig)
{
	char runtime[256];

	port_stop(&rig->plane);
	snprintf(runtime, sizeof(runtime), "%s", rte_eal_get_runtime_dir());
	rte_eal_cleanup();
	rmdir(runtime); /* EAL leaves it behind */
}

/* ---- a table ---- */

static bool never(void)
{
	return false;
}

static int sessions_open(struct rig *rig)
{
	struct plane *plane = &rig->plane;
	int err = feed_init(&rig->feed, plane->pool, rig->options.users, rig->options.sessions,
			    (uint16_t)rig->options.payload_len);

	for (uint32_t slot = 0; !err && slot < rig->options.sessions; slot++)
		rig->feed.ids[slot] = bench_region_session(&rig->region, slot,
							   plane->state->header.creation_epoch);
	return err;
}

/* No page fault in a run. Where the kernel cannot do this (before 5.14), the first run has them. */
static void pages_map(struct plane *plane)
{
	(void)madvise(plane->registry.base, plane->registry.size, MADV_POPULATE_READ);
	(void)madvise(plane->state_region.base, plane->state_region.size, MADV_POPULATE_WRITE);
}

int rig_open(struct rig *rig, char why[256])
{
	const struct rig_options *o = &rig->options;
	struct plane *plane = &rig->plane;
	int err = dir_choose(rig, bench_region_size(o->users, o->fanout, o->sessions), why);

	if (err)
		return err;
	snprintf(plane->config.region_dir, sizeof(plane->config.region_dir), "%s", rig->dir);
	err = bench_region_create_uneven(&rig->region, rig->dir, o->users, o->fanout, o->large,
					 o->sessions, why);
	if (err)
		return err;
	rig->region.root->seal = o->seal;
	snprintf(why, 256, "the regions or the worker could not be set up: see above");
	err = regions_open_registry(plane, 1, never);
	if (!err)
		err = regions_open_state(plane);
	if (!err)
		err = plane_init(plane);
	if (!err)
		err = sessions_open(rig);
	if (!err)
		pages_map(plane);
	return err;
}

void rig_close(struct rig *rig)
{
	char path[256];

	plane_fini(&rig->plane);
	regions_close(&rig->plane);
	if (rig->feed.pool)
		feed_fini(&rig->feed);
	rig->feed.pool = NULL;
	if (rig->region.root)
		bench_region_destroy(&rig->region);
	rig->region.root = NULL;
	snprintf(path, sizeof(path), "%s/%s", rig->dir, FAN_STATE_FILE);
	unlink(path);
	if (rig->dir_huge)
		umount(rig->dir);
	if (rig->dir_made)
		rmdir(rig->dir);
	rig->dir_made = rig->dir_huge = false;
}

/* What the worker's lcore is to do, and word of its end. */
struct call {
	int (*work)(void *arg);
	void *arg;
	sem_t done;
};

static int call_work(void *arg)
{
	struct call *call = arg;
	int status = call->work(call->arg);

	sem_post(&call->done);
	return status;
}

/* DPDK's own wait spins, perhaps on the worker's CPU. */
void rig_call(int (*work)(void *arg), void *arg)
{
	struct call call = {.work = work, .arg = arg};

	sem_init(&call.done, 0, 0);
	if (rte_eal_remote_launch(call_work, &call, 1) == 0) {
		while (sem_wait(&call.done) && errno == EINTR)
			;
		rte_eal_wait_lcore(1);
	}
	sem_destroy(&call.done);
}

/* ---- what it is ---- */

uint64_t rig_counter(const struct rig *rig, enum fan_counter idx)
{
	const struct worker *w = rig->plane.workers[0];

	return w->counters[idx] + w->shared->counters[idx];
}

json_t *rig_settings(const struct rig *rig)
{
	const struct rig_options *o = &rig->options;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:s}", "users",
			 (json_int_t)o->users, "fanout", (json_int_t)o->fanout, "payload_bytes",
			 (json_int_t)o->payload_len, "sessions", (json_int_t)o->sessions, "burst",
			 (json_int_t)o->burst, "core", (json_int_t)o->core, "packets_on_huge_pages",
			 rig->plane.config.huge_pages, "table_on_huge_pages", rig->dir_huge, "port",
			 PORT);
}

json_t *rig_versions(void)
{
	return json_pack("{s:s, s:s, s:s}", "fanwire", FAN_VERSION, "dpdk", rte_version(),
			 "ipsec_mb", IMB_VERSION_STR);
}
