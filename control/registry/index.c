/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/registry/index.h"

#include <errno.h>
#include <stdlib.h>

int index_init(struct index *index, uint32_t max, const void *owner, index_same same)
{
	uint32_t cnt = 16;

	while (cnt < (uint64_t)max * 2 && cnt < UINT32_C(1) << 31)
		cnt *= 2;
	index->cells = calloc(cnt, sizeof(*index->cells));
	if (!index->cells)
		return -ENOMEM;
	index->mask = cnt - 1;
	index->cnt = 0;
	index->owner = owner;
	index->same = same;
	return 0;
}

void index_fini(struct index *index)
{
	free(index->cells);
	index->cells = NULL;
}

uint32_t index_get(const struct index *index, uint64_t hash, const void *key)
{
	uint32_t i = (uint32_t)hash & index->mask;

	for (; index->cells[i].value; i = (i + 1) & index->mask) {
		const struct index_cell *cell = &index->cells[i];

		if (cell->hash == (uint32_t)hash && index->same(index->owner, cell->value - 1, key))
			return cell->value - 1;
	}
	return INDEX_NONE;
}

void index_add(struct index *index, uint64_t hash, uint32_t value)
{
	uint32_t i = (uint32_t)hash & index->mask;

	while (index->cells[i].value)
		i = (i + 1) & index->mask;
	index->cells[i] = (struct index_cell){.hash = (uint32_t)hash, .value = value + 1};
	index->cnt++;
}

/* Moves later cells of the run back into the hole, so that no probe ends at it too early. */
static void close_hole(struct index *index, uint32_t hole)
{
	uint32_t i = hole;

	for (;;) {
		i = (i + 1) & index->mask;
		if (!index->cells[i].value)
			break;
		uint32_t home = index->cells[i].hash & index->mask;
		/* The cell may move when its home does not lie in (hole, i], cyclically. */
		if (((i - home) & index->mask) >= ((i - hole) & index->mask)) {
			index->cells[hole] = index->cells[i];
			hole = i;
		}
	}
	index->cells[hole] = (struct index_cell){0};
}

void index_del(struct index *index, uint64_t hash, uint32_t value)
{
	uint32_t i = (uint32_t)hash & index->mask;

	for (; index->cells[i].value; i = (i + 1) & index->mask) {
		if (index->cells[i].value != value + 1)
			continue;
		close_hole(index, i);
		index->cnt--;
		return;
	}
}
