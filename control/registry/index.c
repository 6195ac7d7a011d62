/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/registry/index.h"

#include <errno.h>

#include "control/registry/big.h"

int index_init(struct index *index, uint32_t max, uint32_t likely, const void *owner,
	       index_same same)
{
	uint64_t cnt = (uint64_t)max + max / 4 + 16;

	if (cnt < (uint64_t)likely * 2)
		cnt = (uint64_t)likely * 2;
	*index = (struct index){.owner = owner, .same = same};
	index->cell_cnt = cnt < UINT32_MAX ? (uint32_t)cnt : UINT32_MAX;
	index->cells = big_calloc(index->cell_cnt, sizeof(*index->cells));
	return index->cells ? 0 : -ENOMEM;
}

void index_fini(struct index *index)
{
	big_free(index->cells, index->cell_cnt, sizeof(*index->cells));
	index->cells = NULL;
}

/* Where a hash's probes begin: its 32 bits scaled to the table. */
static uint32_t home_of(const struct index *index, uint32_t hash)
{
	return (uint32_t)((uint64_t)hash * index->cell_cnt >> 32);
}

static uint32_t after(const struct index *index, uint32_t i)
{
	return i + 1 == index->cell_cnt ? 0 : i + 1;
}

/* How far `to` lies behind `from`, around the end. */
static uint32_t distance(const struct index *index, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : index->cell_cnt - from + to;
}

/* The cell of a key, or the empty one that ends its probes. */
static uint32_t probe(const struct index *index, uint32_t hash, const void *key)
{
	uint32_t i = home_of(index, hash);

	for (; index->cells[i].value; i = after(index, i)) {
		const struct index_cell *cell = &index->cells[i];

		if (cell->hash == hash && index->same(index->owner, cell->value - 1, key))
			break;
	}
	return i;
}

uint32_t index_get(const struct index *index, uint64_t hash, const void *key)
{
	uint32_t value = index->cells[probe(index, (uint32_t)hash, key)].value;

	return value ? value - 1 : INDEX_NONE;
}

bool index_add_new(struct index *index, uint64_t hash, uint32_t value, const void *key)
{
	struct index_cell *cell = &index->cells[probe(index, (uint32_t)hash, key)];

	if (cell->value)
		return false;
	*cell = (struct index_cell){.hash = (uint32_t)hash, .value = value + 1};
	index->cnt++;
	return true;
}

void index_add(struct index *index, uint64_t hash, uint32_t value)
{
	uint32_t i = home_of(index, (uint32_t)hash);

	while (index->cells[i].value)
		i = after(index, i);
	index->cells[i] = (struct index_cell){.hash = (uint32_t)hash, .value = value + 1};
	index->cnt++;
}

/* Moves later cells of the run back into the hole, so that no probe ends at it too early. */
static void close_hole(struct index *index, uint32_t hole)
{
	uint32_t i = hole;

	for (;;) {
		i = after(index, i);
		if (!index->cells[i].value)
			break;
		uint32_t home = home_of(index, index->cells[i].hash);
		/* The cell may move when its home does not lie in (hole, i], cyclically. */
		if (distance(index, home, i) >= distance(index, hole, i)) {
			index->cells[hole] = index->cells[i];
			hole = i;
		}
	}
	index->cells[hole] = (struct index_cell){0};
}

void index_del(struct index *index, uint64_t hash, uint32_t value)
{
	uint32_t i = home_of(index, (uint32_t)hash);

	for (; index->cells[i].value; i = after(index, i)) {
		if (index->cells[i].value != value + 1)
			continue;
		close_hole(index, i);
		index->cnt--;
		return;
	}
}
