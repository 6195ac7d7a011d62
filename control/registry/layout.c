/* SPDX-License-Identifier: BSD-3-Clause */
/* Where everything lies in the region, how large it is, and taking over one that exists. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "control/registry/internal.h"

/* Endpoints for the worst case of every connection in all of its threads, up to this many. */
#define ENDPOINTS_WORST (UINT64_C(1) << 18)
#define THREADS_MEAN	3u
#define RESERVE_WHOLE	(UINT64_C(1) << 18) /* up to so many a quarter is held in reserve */
#define GROUPS_A_BUCKET 7u

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint32_t power_of_two(uint64_t least)
{
	uint32_t n = 1;

	while (n < least && n < UINT32_C(1) << 30)
		n *= 2;
	return n;
}

/*
 * More than may be in use, for what rests: a quarter of the first RESERVE_WHOLE, and a share (one
 * in so many) of the others. How much rests is a matter of the changes within a grace period,
 * which a large site does not make more of for each connection that it has.
 */
static uint64_t with_reserve(uint64_t cnt, uint32_t one_in)
{
	uint64_t whole = min64(cnt, RESERVE_WHOLE);

	return cnt + whole / 4 + (cnt - whole) / one_in + 64;
}

/*
 * Endpoints: one for each (connection, channel). All connections in ALL and in every thread that
 * they may join, up to 2^18 (12 MiB); where that is more, in THREADS_MEAN threads each on average.
 * A larger reserve than others have: a change may copy a block while the old one rests, and runs of
 * free ones must be long enough. And twice what one deletion may copy (registry.reserve), so that a
 * small site has room for it too.
 */
static uint64_t endpoint_cnt(const struct fan_config *config)
{
	uint64_t threads = config->max_threads_per_connection;
	uint64_t worst = (uint64_t)config->max_connections * (1 + threads);
	uint64_t mean = (uint64_t)config->max_connections * (1 + min64(threads, THREADS_MEAN));
	uint64_t live = max64(min64(worst, ENDPOINTS_WORST), mean);

	return with_reserve(live, 32) + 2 * config->max_connections_per_user * (1 + threads);
}

static void place(uint64_t *off, uint64_t *end, uint64_t cnt, uint64_t len)
{
	*off = *end;
	*end = (*end + cnt * len + FAN_CACHE_LINE - 1) & ~(uint64_t)(FAN_CACHE_LINE - 1);
}

/*
 * Buckets: at most GROUPS_A_BUCKET groups a bucket of 10 slots on average. A table that was filled
 * at once then has 10 % of its buckets overflow (Poisson, mean 7: P(X > 10) = 0.099). Under lasting
 * change it is 31 %, since a group stays in its slot while room comes free in front of it
 * (simulated; ten servers with ordered overflow, offered 7 erlangs). 35 % are there, the rest for
 * those that rest.
 */
static uint32_t overflow_cnt(uint32_t bucket_cnt)
{
	return (uint32_t)((uint64_t)bucket_cnt * 35 / 100 + 64);
}

/* Counts and offsets that a configuration asks for; returns the region's size. */
static uint64_t geometry(struct fan_registry *root, const struct fan_config *config)
{
	uint64_t end = sizeof(*root);

	root->group_cnt = (uint32_t)with_reserve(config->max_groups, 64);
	root->bucket_cnt = (config->max_groups + GROUPS_A_BUCKET - 1) / GROUPS_A_BUCKET;
	root->overflow_cnt = overflow_cnt(root->bucket_cnt);
	root->endpoint_cnt = (uint32_t)min64(endpoint_cnt(config), UINT32_MAX / 2);
	root->connection_cnt = (uint32_t)with_reserve(config->max_connections, 64);
	root->session_cnt = power_of_two(config->max_sessions);
	root->nexthop_cnt = FAN_NEXTHOPS_MAX;
	root->request_cnt = FAN_REQUEST_CNT;
	place(&root->buckets_off, &end, (uint64_t)root->bucket_cnt + root->overflow_cnt,
	      sizeof(struct fan_bucket));
	place(&root->groups_off, &end, root->group_cnt, sizeof(struct fan_group));
	place(&root->endpoints_off, &end, root->endpoint_cnt, sizeof(struct fan_endpoint));
	place(&root->connections_off, &end, root->connection_cnt, sizeof(struct fan_connection));
	place(&root->sessions_off, &end, root->session_cnt, sizeof(struct fan_session));
	place(&root->nexthops_off, &end, root->nexthop_cnt, sizeof(struct fan_nexthop));
	place(&root->requests_off, &end, root->request_cnt, sizeof(struct fan_request));
	return end;
}

static bool draw(void *out, size_t len)
{
	return getrandom(out, len, 0) == (ssize_t)len;
}

static int fill(struct registry *r, const struct fan_config *config)
{
	struct fan_registry *root = r->region.base;

	geometry(root, config);
	root->next_incarnation = 1;
	root->next_generation = 1;
	root->key_generation = 1;
	if (!draw(root->hash_seed, sizeof(root->hash_seed)) ||
	    !draw(root->challenge_key, sizeof(root->challenge_key)))
		return registry_fail(r, -EIO, "%s: the kernel gives no random number", r->path);
	return 0;
}

/* Whether an unfinished file can go: nobody writes it, so its maker died. */
static int remove_unfinished(struct registry *r, const char *path)
{
	struct fan_region region;
	int rc = fan_region_open_writer(&region, path, FAN_REGION_MAGIC_REGISTRY,
					sizeof(struct fan_registry), r->why);

	if (rc == -EBUSY)
		return rc;
	if (rc == 0)
		fan_region_close(&region);
	return unlink(path) < 0 && errno != ENOENT
		       ? registry_fail(r, -errno, "%s: cannot delete", path)
		       : 0;
}

/* Completed under another name first: what stands under the real one is always whole. */
static int create(struct registry *r, const struct fan_config *config)
{
	char unfinished[sizeof(r->path) + 8];
	struct fan_registry sizes = {0};
	int rc;

	snprintf(unfinished, sizeof(unfinished), "%s.new", r->path);
	rc = remove_unfinished(r, unfinished);
	if (rc < 0)
		return rc;
	rc = fan_region_create(&r->region, unfinished, FAN_REGION_MAGIC_REGISTRY,
			       sizeof(struct fan_registry), geometry(&sizes, config), r->why);
	if (rc < 0)
		return rc;
	rc = fill(r, config);
	if (rc < 0)
		goto remove;
	fan_region_set_ready(&r->region);
	if (renameat2(AT_FDCWD, unfinished, AT_FDCWD, r->path, RENAME_NOREPLACE) < 0) {
		rc = registry_fail(r, -errno, "%s: cannot name the new region: %s", r->path,
				   strerror(errno));
		goto remove;
	}
	return 0;
remove:
	unlink(unfinished);
	fan_region_close(&r->region);
	return rc;
}

static int refuse_limit(struct registry *r, const char *limit, uint32_t is, uint32_t wanted)
{
	return registry_fail(
		r, -EPROTO,
		"%s was made for other limits: %s changed (room for %u, the "
		"configuration asks for %u); change it back, or end all registrations: "
		"stop fanwired and fanwire-dataplane (./dev down) and delete the file",
		r->path, limit, is, wanted);
}

static int check_geometry(struct registry *r, const struct fan_config *config)
{
	const struct fan_registry *is = r->region.base;
	struct fan_registry wanted = {0};
	uint64_t size = geometry(&wanted, config);

	if (is->connection_cnt != wanted.connection_cnt)
		return refuse_limit(r, "limits.max_connections", is->connection_cnt,
				    wanted.connection_cnt);
	if (is->group_cnt != wanted.group_cnt)
		return refuse_limit(r, "limits.max_groups", is->group_cnt, wanted.group_cnt);
	if (is->session_cnt != wanted.session_cnt)
		return refuse_limit(r, "limits.max_sessions", is->session_cnt, wanted.session_cnt);
	if (is->endpoint_cnt != wanted.endpoint_cnt)
		return refuse_limit(r,
				    "limits.max_threads_per_connection or "
				    "limits.max_connections_per_user",
				    is->endpoint_cnt, wanted.endpoint_cnt);
	if (is->bucket_cnt != wanted.bucket_cnt || is->overflow_cnt != wanted.overflow_cnt ||
	    is->nexthop_cnt != wanted.nexthop_cnt || is->request_cnt != wanted.request_cnt ||
	    is->buckets_off != wanted.buckets_off || is->groups_off != wanted.groups_off ||
	    is->endpoints_off != wanted.endpoints_off ||
	    is->connections_off != wanted.connections_off ||
	    is->sessions_off != wanted.sessions_off || is->nexthops_off != wanted.nexthops_off ||
	    is->requests_off != wanted.requests_off || size > r->region.size)
		return registry_fail(
			r, -EPROTO,
			"%s is corrupt: its sizes contradict each other; stop fanwired "
			"and fanwire-dataplane, delete the file and start again "
			"(registrations end with it)",
			r->path);
	return 0;
}

static void resolve(struct registry *r)
{
	char *base = r->region.base;

	r->root = r->region.base;
	r->buckets = (void *)(base + r->root->buckets_off);
	r->groups = (void *)(base + r->root->groups_off);
	r->endpoints = (void *)(base + r->root->endpoints_off);
	r->connections = (void *)(base + r->root->connections_off);
	r->sessions = (void *)(base + r->root->sessions_off);
	r->nexthops = (void *)(base + r->root->nexthops_off);
	r->requests = (void *)(base + r->root->requests_off);
}

int layout_open(struct registry *r, const struct fan_config *config, bool *is_new)
{
	int rc = fan_region_open_writer(&r->region, r->path, FAN_REGION_MAGIC_REGISTRY,
					sizeof(struct fan_registry), r->why);

	*is_new = rc == -ENOENT;
	if (*is_new)
		rc = create(r, config);
	if (rc < 0)
		return rc;
	rc = check_geometry(r, config);
	if (rc == 0 && fan_table_init(&r->table, &r->region) < 0)
		rc = registry_fail(r, -EPROTO, "%s is corrupt: its arrays do not fit", r->path);
	if (rc < 0) {
		fan_region_close(&r->region);
		return rc;
	}
	resolve(r);
	return 0;
}
