/* SPDX-License-Identifier: BSD-3-Clause */
/* A set of indices: one bit each, in memory of its owner's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

static inline uint32_t bits_words(uint32_t cnt)
{
	return cnt / 64 + 1;
}

static inline bool bits_has(const uint64_t *bits, uint32_t idx)
{
	return bits[idx / 64] >> (idx % 64) & 1;
}

/* False where it was there already. */
static inline bool bits_add(uint64_t *bits, uint32_t idx)
{
	uint64_t bit = UINT64_C(1) << (idx % 64);
	bool is_new = !(bits[idx / 64] & bit);

	bits[idx / 64] |= bit;
	return is_new;
}

/* The first index from `from` on that is there (or, absent: that is not), `cnt` where none is. */
static inline uint32_t bits_next(const uint64_t *bits, uint32_t cnt, uint32_t from, bool absent)
{
	for (uint32_t idx = from; idx < cnt; idx = (idx / 64 + 1) * 64) {
		uint64_t word = (absent ? ~bits[idx / 64] : bits[idx / 64]) >> (idx % 64);

		if (!word)
			continue;
		idx += (uint32_t)__builtin_ctzll(word);
		return idx < cnt ? idx : cnt;
	}
	return cnt;
}
