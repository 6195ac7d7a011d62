/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/churn_writer.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/region.h"
#include "bench/table_kinds.h"

#define EXTRA	     65536u /* connections that come and go, at a time */
#define TICK_NS	     UINT64_C(500000)
#define HOUSEKEEP_NS UINT64_C(10000000) /* as fanwired */
#define USER_MAX     32u		/* connections of one user at most */

struct churn_entry {
	uint64_t id;
	uint32_t generation;
};

static uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

bool churn_never(void)
{
	return false;
}

/* ---- changes ---- */

static int connection_add(struct churn_writer *w, uint32_t user, struct churn_entry *entry)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};
	struct registry_connection made, spec = {
						 .id = ++w->next_id,
						 .nexthop = w->nexthop,
						 .port = (uint16_t)(20000 + user % 4000),
						 .family = 4,
					 };

	bench_user_handle(spec.handle, user);
	memcpy(spec.address, bench_peer, sizeof(spec.address));
	memset(keys.tag_key, (int)(user & 0xff), sizeof(keys.tag_key));
	int err = registry_connection_vouch(w->registry, &spec, &keys, NULL, 0, &made);

	*entry = (struct churn_entry){.id = made.id, .generation = made.generation};
	return err;
}

/* One goes where there are enough, and one comes: of somebody who is published to, or of another.
 */
static int change_two(struct churn_writer *w)
{
	uint64_t draw = table_random(&w->random) >> 32;
	int err = 0;

	if (w->ring_head - w->ring_tail == EXTRA) {
		const struct churn_entry *oldest = &w->ring[w->ring_tail++ % EXTRA];

		err = registry_connection_del(w->registry, oldest->id, oldest->generation);
	}
	if (!err)
		err = connection_add(w, (uint32_t)(draw * 2 * w->users >> 32),
				     &w->ring[w->ring_head++ % EXTRA]);
	if (err) {
		snprintf(w->why, sizeof(w->why), "%.1000s", registry_why(w->registry));
		__atomic_store_n(&w->err, err, __ATOMIC_RELEASE);
	}
	return err;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec time = {.tv_nsec = (long)ns};

	nanosleep(&time, NULL);
}

/* As many as are due by now: a tick's worth at a time, as registrations come in. */
static void *writer_main(void *arg)
{
	struct churn_writer *w = arg;
	uint64_t since = clock_now_ns(), done = 0, kept = 0;

	while (!__atomic_load_n(&w->stopping, __ATOMIC_ACQUIRE) && !w->err) {
		uint64_t now = clock_now_ns();

		if (!__atomic_load_n(&w->changing, __ATOMIC_ACQUIRE)) {
			since = now;
			done = 0;
		}
		uint64_t due = (now - since) * w->rate / UINT64_C(1000000000);

		for (; done + 2 <= due && !w->err; done += 2)
			if (change_two(w) == 0)
				__atomic_fetch_add(&w->changes, 2, __ATOMIC_RELAXED);
		if (now - kept >= HOUSEKEEP_NS) {
			registry_housekeeping(w->registry, now);
			kept = now;
		}
		sleep_ns(TICK_NS);
	}
	return NULL;
}

void churn_writer_set(struct churn_writer *w, bool changing)
{
	w->changes_told = __atomic_load_n(&w->changes, __ATOMIC_RELAXED);
	w->told_s = (double)clock_now_ns() / 1e9;
	__atomic_store_n(&w->changing, changing, __ATOMIC_RELEASE);
}

void churn_writer_told(struct churn_writer *w, double *changes, double *seconds)
{
	*changes += (double)(__atomic_load_n(&w->changes, __ATOMIC_RELAXED) - w->changes_told);
	*seconds += (double)clock_now_ns() / 1e9 - w->told_s;
}

int churn_writer_start(struct churn_writer *w, unsigned cpu, char why[1024])
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_create(&w->thread, NULL, writer_main, w) ||
	    pthread_setaffinity_np(w->thread, sizeof(set), &set)) {
		snprintf(why, 1024, "the writer's thread could not be started on CPU %u", cpu);
		return -EIO;
	}
	w->started = true;
	return 0;
}

void churn_writer_stop(struct churn_writer *w)
{
	__atomic_store_n(&w->stopping, true, __ATOMIC_RELEASE);
	if (w->started)
		pthread_join(w->thread, NULL);
}

/* ---- the scene ---- */

static int fill(struct churn_writer *w)
{
	struct churn_entry entry;
	int err = 0;

	for (uint32_t user = 0; user < w->users && !err; user++)
		for (uint32_t i = 0; i < w->fanout && !err; i++)
			err = connection_add(w, user, &entry);
	for (uint32_t i = 0; i < EXTRA && !err; i++)
		err = change_two(w);
	return err;
}

int churn_writer_open(struct churn_writer *w, const char *dir, uint32_t users, uint32_t fanout,
		      char why[1024])
{
	static const uint8_t root[32] = {1}; /* any: nobody opens what is sent */
	struct fan_config *config = &w->config;
	int err;

	snprintf(config->region_dir, sizeof(config->region_dir), "%s", dir);
	config->max_users = users + 4 * EXTRA;
	config->max_connections = users * fanout + 4 * EXTRA;
	config->max_connections_per_user = fanout + USER_MAX;
	config->max_groups = users + 4 * EXTRA;
	config->max_sessions = 16;
	w->users = users;
	w->fanout = fanout;
	w->random = UINT64_C(0x2545f4914f6cdd1d);
	w->ring = calloc(EXTRA, sizeof(*w->ring));
	if (!w->ring)
		return -ENOMEM;
	err = registry_open(&w->registry, config, why);
	if (err)
		return err;
	registry_roots_set(w->registry, 1, root, root);
	err = registry_nexthop_get(w->registry, 4, bench_peer, 1, bench_engine, 9000, &w->nexthop);
	if (!err)
		registry_nexthop_set_mac(w->registry, w->nexthop,
					 (const uint8_t[]){2, 0, 0, 0, 0, 1});
	if (!err)
		err = fill(w);
	if (err)
		snprintf(why, 1024, "the registry: %.900s", registry_why(w->registry));
	return err;
}

void churn_writer_close(struct churn_writer *w)
{
	registry_close(w->registry);
	free(w->ring);
}

int churn_writer_session(struct churn_writer *w, uint32_t slot, struct feed *feed)
{
	struct fan_session spec = {
		.nexthop = w->nexthop,
		.family = 4,
		.port = (uint16_t)(BENCH_PUBLISHER_PORT + slot),
	};
	uint64_t id;
	int err;

	memset(spec.key, (int)slot + 1, sizeof(spec.key));
	memcpy(spec.address, bench_peer, sizeof(spec.address));
	/* Until the registry has seen the worker's region there is nothing to open it against. */
	for (unsigned i = 0; i < 200 && !registry_state(w->registry); i++) {
		sleep_ns(TICK_NS);
		registry_housekeeping(w->registry, clock_now_ns() + i * UINT64_C(100000000));
	}
	err = registry_session_open(w->registry, &spec, &id);
	feed->ids[slot] = id;
	return err;
}
