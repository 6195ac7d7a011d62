/* SPDX-License-Identifier: BSD-3-Clause */
/* Lookup: the groups of the burst's events, and their lines that the next stages need. */
#include "common/shm/lookup.h"

#include "dataplane/worker.h"

_Static_assert(offsetof(struct fan_publish, channel) ==
		       offsetof(struct fan_publish, handle) + FAN_HANDLE_LEN,
	       "handle and channel of a publish are a key as they stand");

void lookup_burst(struct worker *w)
{
	const void *keys[STAGE_MAX];
	uint64_t hashes[STAGE_MAX];

	for (unsigned i = 0; i < w->event_cnt; i++) {
		const struct packet *packet = packet_of(w->events[i]);

		keys[i] = packet->publish.handle;
		hashes[i] = packet->hash;
	}
	fan_table_lookup_bulk_ahead(&w->plane->table, keys, hashes, w->event_cnt, w->groups,
				    w->plane->group_states);
}
