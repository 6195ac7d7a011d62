/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening, housekeeping, and what is told about the whole. */
#include "control/registry/registry.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/registry/internal.h"

int registry_fail(struct registry *r, int rc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(r->why, sizeof(r->why), format, args);
	va_end(args);
	return rc;
}

uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* All that a user's connections can stand in, ALL and single included, and as much again for ALL.
 */
static uint32_t user_groups_max(const struct fan_config *config)
{
	uint64_t max = (uint64_t)config->max_connections_per_user *
		       (2 + (uint64_t)config->max_threads_per_connection);

	return max < config->max_groups ? (uint32_t)max : config->max_groups;
}

static void configure(struct registry *r, const struct fan_config *config)
{
	snprintf(r->path, sizeof(r->path), "%s/%s", config->region_dir, FAN_REGISTRY_FILE);
	snprintf(r->state_path, sizeof(r->state_path), "%s/%s", config->region_dir, FAN_STATE_FILE);
	r->groups_max = config->max_groups;
	r->user_groups_max = user_groups_max(config);
	r->connections_max = config->max_connections;
	r->reserve = config->max_connections_per_user * (1 + config->max_threads_per_connection);
	r->linger_ns = (uint64_t)config->linger_s * UINT64_C(1000000000);
	r->now_ns = monotonic_ns();
	r->index_seed[0] = draw_random(r);
	r->index_seed[1] = draw_random(r);
}

static int refuse_connection(struct registry *r, uint32_t idx, const char *what)
{
	return registry_fail(r, -EPROTO,
			     "%s is corrupt: connection record %u %s; stop fanwired and "
			     "fanwire-dataplane, delete the file and start again (registrations "
			     "end with it)",
			     r->path, idx, what);
}

/* Only where the sweep's count says that there is one. */
static int refuse_groupless(struct registry *r)
{
	uint32_t i = 0;

	while (i + 1 < r->root->connection_cnt &&
	       (connection_state(&r->connections[i]) != FAN_CONNECTION_ACTIVE ||
		r->connection_books[i].memberships != NONE))
		i++;
	return refuse_connection(r, i, "is active and in no group");
}

/*
 * No change is in progress any more: who is PENDING stands in no group, and ends, for a challenge
 * to its port may still be under way; who is ACTIVE stands in some.
 */
static int settle_connections(struct registry *r)
{
	uint32_t i;

	if (r->groupless)
		return refuse_groupless(r);
	while ((i = stack_pop(&r->unsettled)) != NONE) {
		if (connection_state(&r->connections[i]) != FAN_CONNECTION_PENDING)
			continue;
		if (r->connection_books[i].memberships != NONE)
			return refuse_connection(r, i, "is pending and in a group");
		connection_end(r, i);
		retire(r, RETIRED_CONNECTION, i, 1);
	}
	stack_fini(&r->unsettled);
	return 0;
}

/*
 * What a dataplane that still runs may hold, it may hold: all that the sweep found free rests, and
 * so does what the redo unlinks. A dataplane that is dead, or none, makes that no time at all.
 */
static int take_over(struct registry *r)
{
	int rc = sweep(r);

	if (rc < 0)
		return rc;
	retire_takeover(r);
	retire_poll(r);
	rc = intent_redo(r);
	if (rc < 0)
		return rc;
	leaving_finish(r);
	return settle_connections(r);
}

int registry_open(struct registry **registry, const struct fan_config *config, char why[1024])
{
	struct registry *r = calloc(1, sizeof(*r));
	bool is_new;
	int rc;

	if (!r) {
		snprintf(why, WHY_LEN, "out of memory");
		return -ENOMEM;
	}
	configure(r, config);
	rc = layout_open(r, config, &is_new);
	if (rc < 0)
		goto fail;
	rc = books_init(r);
	if (rc == 0)
		rc = retire_init(r);
	if (rc < 0) {
		registry_fail(r, rc, "out of memory for the registry's books; lower the limits");
		goto fail;
	}
	dataplane_refresh(r, true);
	rc = take_over(r);
	if (rc < 0)
		goto fail;
	r->root->max_unattended_ns = (uint64_t)config->max_unattended_s * UINT64_C(1000000000);
	/* Release: the table is whole. Pairs with the workers' acquire of the heartbeat. */
	__atomic_store_n(&r->root->heartbeat_ns, r->now_ns, __ATOMIC_RELEASE);
	*registry = r;
	return 0;
fail:
	snprintf(why, WHY_LEN, "%s", r->why);
	registry_close(r);
	return rc;
}

void registry_close(struct registry *r)
{
	if (!r)
		return;
	books_fini(r);
	retire_fini(r);
	fan_region_close(&r->state_region);
	fan_region_close(&r->stale_region);
	fan_region_close(&r->region);
	explicit_bzero(r->random, sizeof(r->random));
	free(r);
}

const char *registry_why(const struct registry *r)
{
	return r->why;
}

const struct fan_table *registry_table(const struct registry *r)
{
	return &r->table;
}

const struct fan_registry *registry_root(const struct registry *r)
{
	return r->root;
}

void registry_housekeeping(struct registry *r, uint64_t now_ns)
{
	r->now_ns = now_ns;
	fan_region_close(&r->stale_region);
	dataplane_refresh(r, false);
	retire_poll(r);
	leaving_finish(r);
	keys_rewrite(r);
	group_linger_expire(r);
	compact(r);
	retire_poll(r);
	retire_tell(r);
	/* Release by habit: the word is all there is. Pairs with the workers' acquire. */
	__atomic_store_n(&r->root->heartbeat_ns, now_ns, __ATOMIC_RELEASE);
}

void registry_counts(const struct registry *r, struct registry_counts *counts)
{
	*counts = r->counts;
	counts->endpoints_free = r->resting ? 0 : r->blocks.free_cnt;
	counts->retired = r->retirement.head - r->retirement.tail + r->freed.cnt + r->resting;
}

void registry_set_on_connection_free(struct registry *r, registry_on_free on_free, void *arg)
{
	r->on_free = on_free;
	r->on_free_arg = arg;
}

void registry_set_step(struct registry *r, registry_step on_step, void *arg)
{
	r->step = on_step;
	r->step_arg = arg;
}
