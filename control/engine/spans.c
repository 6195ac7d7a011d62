/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void spans_clear(struct spans *spans)
{
	spans->cnt = 0;
	spans->closed = false;
}

void spans_free(struct spans *spans)
{
	free(spans->items);
	*spans = (struct spans){0};
}

static int add_end(struct spans *spans, const uint8_t first[16])
{
	if (spans->cnt == SPANS_MAX)
		return -E2BIG;
	if (spans->cnt == spans->room) {
		uint32_t room = spans->room ? 2 * spans->room : 64;
		struct span *items = realloc(spans->items, room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		spans->items = items;
		spans->room = room;
	}
	spans->items[spans->cnt] = (struct span){.way = SPAN_UNKNOWN};
	memcpy(spans->items[spans->cnt++].first, first, 16);
	return 0;
}

/* The first address behind a prefix; false where it is the last of all. */
static bool behind(uint8_t address[16], unsigned bits)
{
	unsigned byte = bits ? (bits - 1) / 8 : 0;
	unsigned carry = bits ? 1u << (7 - (bits - 1) % 8) : 0;

	if (!bits)
		return false;
	for (unsigned i = byte + 1; carry && i-- > 0;) {
		unsigned sum = address[i] + carry;

		address[i] = (uint8_t)sum;
		carry = sum >> 8;
	}
	return carry == 0;
}

int spans_add(struct spans *spans, const uint8_t prefix[16], unsigned bits)
{
	uint8_t end[16];
	int err = add_end(spans, prefix);

	memcpy(end, prefix, sizeof(end));
	if (!err && behind(end, bits))
		err = add_end(spans, end);
	return err;
}

static int by_first(const void *a, const void *b)
{
	return memcmp(((const struct span *)a)->first, ((const struct span *)b)->first, 16);
}

int spans_close(struct spans *spans)
{
	static const uint8_t zero[16];
	uint32_t kept = 0;
	int err = add_end(spans, zero);

	if (err)
		return err;
	qsort(spans->items, spans->cnt, sizeof(*spans->items), by_first);
	for (uint32_t i = 1; i < spans->cnt; i++)
		if (by_first(&spans->items[kept], &spans->items[i]) != 0)
			spans->items[++kept] = spans->items[i];
	spans->cnt = kept + 1;
	spans->closed = true;
	return 0;
}

struct span *spans_find(struct spans *spans, const uint8_t address[16])
{
	uint32_t low = 0, high = spans->cnt; /* items[low] <= address < items[high] */

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (memcmp(spans->items[middle].first, address, 16) <= 0)
			low = middle;
		else
			high = middle;
	}
	return &spans->items[low];
}
