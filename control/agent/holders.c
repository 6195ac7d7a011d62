/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/holders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "control/agent/ports.h"

LIST_HEAD(holder_list, holder);

struct holders {
	uint32_t mask;
	uint8_t seed[crypto_shorthash_KEYBYTES]; /* clients may choose ids, not buckets */
	struct holder_list buckets[];
};

struct holders *holders_create(uint32_t expected_cnt)
{
	struct holders *holders;
	uint32_t cnt = 64;

	while (cnt < expected_cnt && cnt < 1U << 24)
		cnt *= 2;
	holders = calloc(1, sizeof(*holders) + cnt * sizeof(holders->buckets[0]));
	if (!holders)
		return NULL;
	holders->mask = cnt - 1;
	randombytes_buf(holders->seed, sizeof(holders->seed));
	return holders;
}

void holders_destroy(struct holders *holders)
{
	struct holder *holder;

	if (!holders)
		return;
	for (uint32_t i = 0; i <= holders->mask; i++)
		while ((holder = LIST_FIRST(&holders->buckets[i])))
			holders_del(holder);
	free(holders);
}

static struct holder_list *bucket(struct holders *holders, uint64_t id)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t idx;

	crypto_shorthash(hash, (const uint8_t *)&id, sizeof(id), holders->seed);
	memcpy(&idx, hash, sizeof(idx));
	return &holders->buckets[idx & holders->mask];
}

struct holder *holders_add(struct holders *holders, uint64_t id)
{
	struct holder *holder = calloc(1, sizeof(*holder));

	if (!holder) {
		fprintf(stderr, "agent: out of memory\n");
		abort();
	}
	holder->id = id;
	holder->port_idx = PORT_NONE;
	LIST_INSERT_HEAD(bucket(holders, id), holder, link);
	return holder;
}

struct holder *holders_find(struct holders *holders, uint64_t id)
{
	struct holder *holder;

	LIST_FOREACH(holder, bucket(holders, id), link)
	if (holder->id == id)
		return holder;
	return NULL;
}

void holders_del(struct holder *holder)
{
	LIST_REMOVE(holder, link);
	free(holder);
}
