/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/places.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* At most three quarters full: linear probing with backward-shift deletion, no tombstones. */
int places_init(struct places *places, uint32_t max)
{
	places->cell_cnt = (uint64_t)max + max / 3 + 16;
	places->cells =
		mmap(NULL, places->cell_cnt * sizeof(*places->cells), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (places->cells == MAP_FAILED) {
		places->cells = NULL;
		return -ENOMEM;
	}
	/* most of the cost is the walk to a cell's page; it is a hint only */
	madvise(places->cells, places->cell_cnt * sizeof(*places->cells), MADV_HUGEPAGE);
	places->cnt = 0;
	places->max = max;
	randombytes_buf(places->key, sizeof(places->key));
	return 0;
}

void places_fini(struct places *places)
{
	if (places->cells)
		munmap(places->cells, places->cell_cnt * sizeof(*places->cells));
	places->cells = NULL;
}

uint64_t places_mark(const struct places *places, const uint8_t address[16], uint16_t port)
{
	uint8_t place[18], hash[crypto_shorthash_BYTES];
	uint64_t mark;

	memcpy(place, address, 16);
	memcpy(place + 16, &port, sizeof(port));
	crypto_shorthash(hash, place, sizeof(place), places->key);
	memcpy(&mark, hash, sizeof(mark));
	return mark ? mark : 1;
}

static uint64_t home_of(const struct places *places, uint64_t mark)
{
	return (uint64_t)((unsigned __int128)mark * places->cell_cnt >> 64);
}

static uint64_t next_of(const struct places *places, uint64_t at)
{
	return at + 1 == places->cell_cnt ? 0 : at + 1;
}

void places_prefetch(const struct places *places, uint64_t mark)
{
	__builtin_prefetch(&places->cells[home_of(places, mark)], 1);
}

/* The cell of a mark, or the empty one where it would stand. */
static uint64_t seek(const struct places *places, uint64_t mark)
{
	uint64_t at = home_of(places, mark);

	while (places->cells[at].id && places->cells[at].mark != mark)
		at = next_of(places, at);
	return at;
}

uint64_t places_find(const struct places *places, uint64_t mark)
{
	return places->cells[seek(places, mark)].id;
}

int places_add(struct places *places, uint64_t mark, uint64_t id)
{
	struct place *cell = &places->cells[seek(places, mark)];

	if (cell->id)
		return cell->id == id ? 0 : -EEXIST;
	if (places->cnt == places->max)
		return -ENOSPC;
	*cell = (struct place){mark, id};
	places->cnt++;
	return 0;
}

/* Steps from one cell to another, around the end. */
static uint64_t distance(const struct places *places, uint64_t from, uint64_t to)
{
	return to >= from ? to - from : to + places->cell_cnt - from;
}

/* Moves later cells of the run back into the hole, so that no search ends at it too early. */
static void close_hole(struct places *places, uint64_t hole)
{
	for (uint64_t at = next_of(places, hole); places->cells[at].id; at = next_of(places, at)) {
		uint64_t home = home_of(places, places->cells[at].mark);

		if (distance(places, home, at) < distance(places, hole, at))
			continue;
		places->cells[hole] = places->cells[at];
		hole = at;
	}
	places->cells[hole] = (struct place){0};
}

void places_del(struct places *places, uint64_t mark, uint64_t id)
{
	uint64_t at = seek(places, mark);

	if (!id || places->cells[at].id != id)
		return;
	close_hole(places, at);
	places->cnt--;
}
