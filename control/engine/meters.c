/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/meters.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

int meters_init(struct meters *meters, uint32_t cnt)
{
	*meters = (struct meters){.cnt = cnt, .items = calloc(cnt, sizeof(struct meter))};
	return meters->items ? 0 : -ENOMEM;
}

void meters_fini(struct meters *meters)
{
	free(meters->items);
	meters->items = NULL;
}

static struct meter *at(struct meters *meters, uint64_t id)
{
	return &meters->items[id & (meters->cnt - 1)];
}

static bool is_of(const struct meter *meter, const struct meter_owner *owner)
{
	return meter->id && meter->owner.publisher == owner->publisher &&
	       memcmp(meter->owner.user, owner->user, sizeof(owner->user)) == 0;
}

/* The owner's, or of those that nobody uses the one left longest ago. */
static struct meter *choose(struct meters *meters, const struct meter_owner *owner)
{
	struct meter *best = NULL;

	for (struct meter *m = meters->items; m < meters->items + meters->cnt; m++) {
		if (is_of(m, owner))
			return m;
		if (m->open_cnt == 0 && (!best || m->used < best->used))
			best = m;
	}
	return best;
}

uint64_t meters_open(struct meters *meters, const struct meter_owner *owner)
{
	struct meter *meter = choose(meters, owner);
	uint64_t high;

	if (!is_of(meter, owner)) {
		do {
			randombytes_buf(&high, sizeof(high));
			high &= ~(uint64_t)(meters->cnt - 1);
		} while (high == 0);
		*meter = (struct meter){.owner = *owner,
					.id = high | (uint64_t)(meter - meters->items)};
	}
	meter->open_cnt++;
	return meter->id;
}

uint64_t meters_adopt(struct meters *meters, const struct meter_owner *owner, uint64_t id)
{
	struct meter *meter = at(meters, id);

	if (id == 0 || (meter->id && (meter->id != id || !is_of(meter, owner))))
		return meters_open(meters, owner);
	meter->owner = *owner;
	meter->id = id;
	meter->open_cnt++;
	return id;
}

void meters_close(struct meters *meters, uint64_t id)
{
	struct meter *meter = at(meters, id);

	if (--meter->open_cnt == 0)
		meter->used = ++meters->closings;
}
