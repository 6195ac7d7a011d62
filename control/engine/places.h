/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has an address and port: the wall that keeps one user's data off another's screen where an
 * administrator vouches for addresses. A set of 64-bit keyed fingerprints, each with the
 * connection's id; two places with one fingerprint are taken for one, which refuses once in 10^12
 * and never lets anybody in. Fixed capacity, no allocation after init. Event-loop thread only.
 */
#pragma once

#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>

struct place {
	uint64_t mark; /* fingerprint; never 0 */
	uint64_t id;   /* 0: empty */
};
struct places {
	struct place *cells;
	uint64_t cell_cnt;
	uint32_t cnt, max;
	uint8_t key[crypto_shorthash_KEYBYTES];
};

/* Room for `max`. -ENOMEM. */
int places_init(struct places *places, uint32_t max);
void places_fini(struct places *places);
uint64_t places_mark(const struct places *places, const uint8_t address[16], uint16_t port);
/* Brings the line of a mark under way. */
void places_prefetch(const struct places *places, uint64_t mark);
/* Id of the connection that has the place, or 0. */
uint64_t places_find(const struct places *places, uint64_t mark);
/* -EEXIST: another connection has the place; -ENOSPC. Adding what is there already does nothing. */
int places_add(struct places *places, uint64_t mark, uint64_t id);
void places_del(struct places *places, uint64_t mark, uint64_t id);
