/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/shm/table.h"

#include <errno.h>
#include <stdbool.h>

struct extent { /* one array of the region */
	uint64_t off;
	uint64_t len;
};

static bool is_power_of_two(uint32_t n)
{
	return n && (n & (n - 1)) == 0;
}

/* Counts are 32 bits and elements small, so the product cannot overflow 64 bits. */
static struct extent extent(uint64_t off, uint64_t cnt, uint64_t element_len)
{
	return (struct extent){off, cnt * element_len};
}

static bool extents_ok(const struct extent *extents, unsigned cnt, uint64_t size)
{
	for (unsigned i = 0; i < cnt; i++) {
		const struct extent *e = &extents[i];

		if (e->len == 0 || e->off % FAN_CACHE_LINE || e->off < sizeof(struct fan_registry))
			return false;
		if (e->off > size || e->len > size - e->off)
			return false;
		for (unsigned j = 0; j < i; j++) {
			const struct extent *f = &extents[j];

			if (e->off < f->off + f->len && f->off < e->off + e->len)
				return false;
		}
	}
	return true;
}

static bool geometry_ok(const struct fan_registry *r, uint64_t size)
{
	uint64_t bucket_total = (uint64_t)r->bucket_cnt + r->overflow_cnt;
	const struct extent extents[] = {
		extent(r->buckets_off, bucket_total, sizeof(struct fan_bucket)),
		extent(r->groups_off, r->group_cnt, sizeof(struct fan_group)),
		extent(r->endpoints_off, r->endpoint_cnt, sizeof(struct fan_endpoint)),
		extent(r->connections_off, r->connection_cnt, sizeof(struct fan_connection)),
		extent(r->sessions_off, r->session_cnt, sizeof(struct fan_session)),
		extent(r->nexthops_off, r->nexthop_cnt, sizeof(struct fan_nexthop)),
		extent(r->requests_off, r->request_cnt, sizeof(struct fan_request)),
	};

	/* an index + 1 is what buckets store: it has to fit 32 bits too */
	if (bucket_total >= UINT32_MAX || r->overflow_cnt > FAN_OVERFLOW_MAX ||
	    r->group_cnt == UINT32_MAX)
		return false;
	if (r->bucket_cnt == 0 || !is_power_of_two(r->session_cnt) ||
	    !is_power_of_two(r->request_cnt) || r->nexthop_cnt > FAN_NEXTHOPS_MAX)
		return false;
	return extents_ok(extents, sizeof(extents) / sizeof(extents[0]), size);
}

int fan_table_init(struct fan_table *table, const struct fan_region *region)
{
	const struct fan_registry *r = region->base;
	const char *base = region->base;
	struct fan_registry geometry;

	if (!base || region->size < sizeof(*r))
		return -EPROTO;
	geometry = *r; /* what was checked is what is used, whatever the file does meanwhile */
	if (!geometry_ok(&geometry, region->size))
		return -EPROTO;
	*table = (struct fan_table){
		.registry = r,
		.buckets = (const void *)(base + geometry.buckets_off),
		.groups = (const void *)(base + geometry.groups_off),
		.endpoints = (const void *)(base + geometry.endpoints_off),
		.connections = (const void *)(base + geometry.connections_off),
		.nexthops = (const void *)(base + geometry.nexthops_off),
		.sessions = (const void *)(base + geometry.sessions_off),
		.seed = {geometry.hash_seed[0], geometry.hash_seed[1]},
		.bucket_cnt = geometry.bucket_cnt,
		.bucket_total = geometry.bucket_cnt + geometry.overflow_cnt,
		.group_cnt = geometry.group_cnt,
		.endpoint_cnt = geometry.endpoint_cnt,
		.connection_cnt = geometry.connection_cnt,
		.nexthop_cnt = geometry.nexthop_cnt,
		.session_mask = geometry.session_cnt - 1,
	};
	return 0;
}
