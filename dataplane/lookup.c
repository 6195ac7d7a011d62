/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bulk lookup: three passes over the burst, each touching the lines that the pass before asked for,
 * so that the misses of a burst overlap: buckets, then groups and their state, then endpoints.
 */
#include <rte_prefetch.h>

#include "dataplane/worker.h"

static void prefetch_groups(const struct worker *w, uint64_t hash)
{
	const struct fan_table *table = &w->plane->table;
	const struct fan_bucket *bucket = &table->buckets[fan_table_bucket_idx(table, hash)];
	unsigned mask = fan_bucket_match(bucket, fan_table_fp(hash));
	uint32_t group;

	if (!mask)
		return;
	group = __atomic_load_n(&bucket->group[__builtin_ctz(mask)], __ATOMIC_RELAXED);
	if (group == 0 || group > table->group_cnt)
		return;
	rte_prefetch0(&table->groups[group - 1]);
	rte_prefetch0(&w->plane->group_states[group - 1]);
}

static void prefetch_endpoints(const struct worker *w, const struct fan_group *group)
{
	const struct fan_endpoint *endpoints;
	uint32_t cnt;

	endpoints = fan_group_endpoints(&w->plane->table, group, &cnt);
	for (uint32_t i = 0; i < RTE_MIN(cnt, 3u); i++)
		rte_prefetch0(&endpoints[i]);
}

void lookup_burst(struct worker *w)
{
	const struct fan_table *table = &w->plane->table;

	for (unsigned i = 0; i < w->event_cnt; i++)
		rte_prefetch0(&table->buckets[fan_table_bucket_idx(table,
								   packet_of(w->events[i])->hash)]);
	for (unsigned i = 0; i < w->event_cnt; i++)
		prefetch_groups(w, packet_of(w->events[i])->hash);
	for (unsigned i = 0; i < w->event_cnt; i++) {
		const struct packet *packet = packet_of(w->events[i]);

		w->groups[i] = fan_table_lookup(table, packet->publish.handle,
						packet->publish.channel, packet->hash);
		if (w->groups[i])
			prefetch_endpoints(w, w->groups[i]);
	}
}
