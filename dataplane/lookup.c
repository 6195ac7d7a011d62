/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lookup: the groups of the burst's publishes and events, and their lines that the next stages
 * need. Before publishes are opened, since their publisher is charged for the groups' copies.
 */
#include "common/shm/lookup.h"

#include "dataplane/worker.h"

_Static_assert(offsetof(struct fan_publish, channel) ==
		       offsetof(struct fan_publish, handle) + FAN_HANDLE_LEN,
	       "handle and channel of a publish are a key as they stand");

static void lookup(struct worker *w, struct rte_mbuf *const *mbufs, unsigned cnt,
		   const struct fan_group **groups)
{
	const void *keys[STAGE_MAX];
	uint64_t hashes[STAGE_MAX];

	for (unsigned i = 0; i < cnt; i++) {
		const struct packet *packet = packet_of(mbufs[i]);

		keys[i] = packet->publish.handle;
		hashes[i] = packet->hash;
	}
	fan_table_lookup_bulk_ahead(&w->plane->table, keys, hashes, cnt, groups,
				    w->plane->group_states);
}

void lookup_burst(struct worker *w)
{
	lookup(w, w->publishes, w->publish_cnt, w->named);
	if (unlikely(w->event_cnt))
		lookup(w, w->events, w->event_cnt, w->groups);
}
