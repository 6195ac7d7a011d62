/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/regions.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plant.h"
#include "dataplane/privileges.h"

#define POLL_MS	     100
#define LOCK_WAIT_MS 3000
#define ALIGNMENT    4096u
#define SUBJECT	     "regions"

static void path_make(char path[2 * FAN_PATH_MAX], const struct plane *plane, const char *file)
{
	snprintf(path, 2 * FAN_PATH_MAX, "%s/%s", plane->config.region_dir, file);
}

/* ---- registry ---- */

/* -ENOENT, -ENODATA: absent, or still being laid out; the keys come last. */
static int registry_open(struct plane *plane, const char *path, char why[256])
{
	const struct fan_registry *registry;
	int err = fan_region_open_reader(&plane->registry, path, FAN_REGION_MAGIC_REGISTRY,
					 sizeof(struct fan_registry), why);

	if (err)
		return err;
	registry = plane->registry.base;
	if (fan_root_of(registry, __atomic_load_n(&registry->key_generation, __ATOMIC_ACQUIRE)))
		return 0;
	fan_region_close(&plane->registry);
	snprintf(why, 256, "fanwired has not yet put its keys into the registry region");
	return -ENODATA;
}

int regions_open_registry(struct plane *plane, unsigned wait_s, bool (*interrupted)(void))
{
	char path[2 * FAN_PATH_MAX], why[256] = "";
	int err = -ENOENT;

	path_make(path, plane, FAN_REGISTRY_FILE);
	for (unsigned waited_ms = 0; waited_ms <= wait_s * 1000; waited_ms += POLL_MS) {
		err = registry_open(plane, path, why);
		if (err != -ENOENT && err != -ENODATA)
			break;
		if (waited_ms == 0)
			fan_log(FAN_LOG_INFO, SUBJECT,
				"waiting up to %u s for fanwired's region %s", wait_s, path);
		if (interrupted())
			return -EINTR;
		usleep(POLL_MS * 1000);
	}
	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s%s", why,
			err == -ENOENT ? "; is fanwired running with this configuration?" : "");
		return err == -ENOENT ? -ETIMEDOUT : err;
	}
	err = fan_table_init(&plane->table, &plane->registry);
	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"%s: its layout does not fit its size; stop fanwired, remove the file, "
			"start it again",
			path);
		return err;
	}
	plane->request_cnt = plane->table.registry->request_cnt;
	return 0;
}

bool regions_registry_is_current(const struct plane *plane)
{
	return fan_region_is_current(&plane->registry);
}

/* ---- state ---- */

struct layout {
	uint64_t workers_off, groups_off, sessions_off, logs_off, log_bytes, size;
	uint32_t group_cnt, session_cnt;
};

static struct layout layout_of(uint32_t group_cnt, uint32_t session_cnt, uint32_t log_mb)
{
	struct layout l = {.group_cnt = group_cnt, .session_cnt = session_cnt};

	l.workers_off = RTE_ALIGN_CEIL(sizeof(struct fan_state), ALIGNMENT);
	l.groups_off = RTE_ALIGN_CEIL(
		l.workers_off + FAN_WORKERS_MAX * sizeof(struct fan_worker_state), ALIGNMENT);
	l.sessions_off = RTE_ALIGN_CEIL(
		l.groups_off + (uint64_t)l.group_cnt * sizeof(struct fan_group_state), ALIGNMENT);
	l.logs_off = RTE_ALIGN_CEIL(l.sessions_off + (uint64_t)l.session_cnt *
							     sizeof(struct fan_session_state),
				    ALIGNMENT);
	l.log_bytes = (uint64_t)log_mb << 20;
	l.size = l.logs_off + l.log_bytes;
	return l;
}

uint64_t regions_state_size(uint32_t group_cnt, uint32_t session_cnt, uint32_t log_mb)
{
	return layout_of(group_cnt, session_cnt, log_mb).size;
}

/*
 * Requests go on from where their head stands: what a predecessor left is old, and whose port it
 * names may be another user's by now. Reports of a predecessor stay, for they are true; where there
 * was none, their heads are where fanwired's tails stand.
 */
static void requests_skip(struct plane *plane)
{
	const struct fan_registry *registry = plane->table.registry;

	__atomic_store_n(&plane->state->request_tail,
			 __atomic_load_n(&registry->request_head, __ATOMIC_ACQUIRE),
			 __ATOMIC_RELEASE); /* pairs with fanwired's look whether they are done */
}

static void reports_begin(struct plane *plane)
{
	const struct fan_registry *registry = plane->table.registry;

	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		plane->worker_states[i].report_head =
			__atomic_load_n(&registry->report_tail[i], __ATOMIC_ACQUIRE);
}

static void state_map(struct plane *plane, const struct layout *l)
{
	char *base = plane->state_region.base;

	plane->state = plane->state_region.base;
	plane->worker_states = (void *)(base + l->workers_off);
	plane->group_states = (void *)(base + l->groups_off);
	plane->session_states = (void *)(base + l->sessions_off);
	plane->logs = (void *)(base + l->logs_off);
}

static int state_create(struct plane *plane, const char *path, const struct layout *l)
{
	char why[256];
	int err = fan_region_create(&plane->state_region, path, FAN_REGION_MAGIC_STATE,
				    sizeof(struct fan_state), l->size, why);

	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s", why);
		return err;
	}
	state_map(plane, l);
	plane->state->registry_epoch = plane->table.registry->header.creation_epoch;
	plane->state->workers_off = l->workers_off;
	plane->state->groups_off = l->groups_off;
	plane->state->sessions_off = l->sessions_off;
	plane->state->logs_off = l->logs_off;
	plane->state->log_bytes = l->log_bytes;
	plane->state->seal = plane->table.registry->seal;
	plane->state->group_cnt = l->group_cnt;
	plane->state->session_cnt = l->session_cnt;
	reports_begin(plane);
	fan_log(FAN_LOG_INFO, SUBJECT, "new state region %s, %" PRIu64 " KiB", path, l->size >> 10);
	return 0;
}

/*
 * Why what the region holds is of no use to anybody; NULL: it is. An event is replayed as it was
 * logged: with scope.seal switched, its streams begin anew.
 */
static const char *state_misfit(const struct plane *plane, const struct layout *l)
{
	const struct fan_state *state = plane->state_region.base;

	if (state->registry_epoch != plane->table.registry->header.creation_epoch)
		return "belongs to an earlier registry region";
	if (state->workers_off != l->workers_off || state->groups_off != l->groups_off ||
	    state->sessions_off != l->sessions_off || state->logs_off != l->logs_off ||
	    state->group_cnt != l->group_cnt || state->session_cnt != l->session_cnt ||
	    plane->state_region.size < l->logs_off)
		return "is of another geometry";
	if (state->seal != plane->table.registry->seal && !fan_planted(PLANT_SEAL_SWITCH_IGNORED))
		return state->seal ? "has sealed events, and scope.seal is off now"
				   : "has events that are not sealed, and scope.seal is on now";
	return NULL;
}

/*
 * The log is the last part of the file: another size leaves the rest as it is. The file first,
 * where it grows: without room for it nothing is given up. A log that is said to be longer than the
 * file is void; log_init() begins it anew.
 */
static int log_resize(struct plane *plane, const char *path, const struct layout *l)
{
	struct fan_state *state = plane->state_region.base;
	bool other = state->log_bytes != l->log_bytes;
	bool grows = l->size > plane->state_region.size;
	char why[256];
	int err = 0;

	if (grows)
		err = fan_region_resize(&plane->state_region, path, l->size, why);
	if (err)
		goto fail;
	state = plane->state_region.base;
	if (other || grows) {
		fan_log(FAN_LOG_WARNING, SUBJECT,
			"the event log is now of %" PRIu64 " MiB, not %" PRIu64
			": what it held cannot be had again",
			l->log_bytes >> 20, state->log_bytes >> 20);
		__atomic_store_n(&state->log_workers, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&state->log_bytes, l->log_bytes, __ATOMIC_RELEASE);
	}
	if (!grows)
		err = fan_region_resize(&plane->state_region, path, l->size, why);
	if (!err)
		return 0;
fail:
	fan_log(FAN_LOG_ERROR, SUBJECT, "%s", why);
	return err;
}

/* A predecessor that was killed a moment ago holds its lock until the kernel has taken it apart. */
static int state_lock(struct plane *plane, const char *path, char why[256])
{
	int err;

	for (unsigned waited_ms = 0;; waited_ms += POLL_MS) {
		err = fan_region_open_writer(&plane->state_region, path, FAN_REGION_MAGIC_STATE,
					     sizeof(struct fan_state), why);
		if (err != -EBUSY || waited_ms >= LOCK_WAIT_MS)
			return err;
		usleep(POLL_MS * 1000);
	}
}

/* 1: there is none to take over (any more), make a new one. */
static int state_take_over(struct plane *plane, const char *path, const struct layout *l)
{
	const char *misfit;
	char why[256];
	int err = state_lock(plane, path, why);

	if (err == -ENOENT)
		return 1;
	if (err == -ENODATA) { /* died while making it: nothing was ever done under it */
		fan_log(FAN_LOG_WARNING, SUBJECT, "%s; it is made anew", why);
		return unlink(path) == 0 ? 1 : -errno;
	}
	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s", why);
		return err;
	}
	misfit = state_misfit(plane, l);
	if (misfit) {
		fan_log(FAN_LOG_INFO, SUBJECT, "%s %s; it is replaced", path, misfit);
		err = unlink(path) == 0 ? 1 : -errno;
		fan_region_close(&plane->state_region);
		return err;
	}
	err = log_resize(plane, path, l);
	if (err) {
		fan_region_close(&plane->state_region);
		return err;
	}
	state_map(plane, l);
	fan_log(FAN_LOG_INFO, SUBJECT, "took over %s, run %u", path, plane->state->run + 1);
	return 0;
}

/*
 * A predecessor that was killed may have left odd words; whoever waits sees them change. A
 * heartbeat is of this run or 0.
 */
static void words_settle(struct plane *plane)
{
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++) {
		uint64_t *word = &plane->worker_states[i].quiescent;

		__atomic_store_n(&plane->worker_states[i].heartbeat_ns, 0, __ATOMIC_RELAXED);
		__atomic_exchange_n(word, *word + 2 + (*word & 1), __ATOMIC_SEQ_CST);
	}
}

int regions_open_state(struct plane *plane)
{
	struct layout l = layout_of(plane->table.group_cnt, plane->table.session_mask + 1,
				    RTE_MAX(plane->config.log_mb, 1u));
	char path[2 * FAN_PATH_MAX];
	int err;

	path_make(path, plane, FAN_STATE_FILE);
	err = state_take_over(plane, path, &l);
	if (err == 1)
		err = state_create(plane, path, &l);
	if (err)
		return err;
	err = privileges_give_state(&plane->config, &plane->state_region);
	if (err)
		return err;
	words_settle(plane);
	requests_skip(plane);
	plane->state->run++;
	plane->state->pid = (uint32_t)getpid();
	__atomic_store_n(&plane->state->worker_cnt, plane->worker_cnt, __ATOMIC_RELEASE);
	fan_region_set_ready(&plane->state_region);
	plane->key_schedules =
		aligned_alloc(64, (size_t)l.session_cnt * sizeof(struct key_schedule));
	if (!plane->key_schedules)
		return -ENOMEM;
	memset(plane->key_schedules, 0, (size_t)l.session_cnt * sizeof(struct key_schedule));
	return 0;
}

void regions_close(struct plane *plane)
{
	if (plane->key_schedules) /* session keys do not stay in freed memory */
		sodium_memzero(plane->key_schedules,
			       (plane->table.session_mask + 1) * sizeof(struct key_schedule));
	free(plane->key_schedules);
	plane->key_schedules = NULL;
	if (plane->state)
		fan_region_close(&plane->state_region);
	plane->state = NULL;
	if (plane->registry.base)
		fan_region_close(&plane->registry);
}
