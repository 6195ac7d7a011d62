/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Filter tags (wire.h) of several delivery headers side by side, compiled once for each level of
 * the x86-64 instruction set. All levels make the same tags. No state; any thread.
 */
#pragma once

#include <stdint.h>

#define FAN_TAGS_LANES	 8
#define FAN_TAGS_COVERED 92 /* bytes of a header before its tag, which covers them */

/* The tags, as they stand in memory, of cnt headers, 1..FAN_TAGS_LANES, each under its own key. */
typedef void fan_tags(uint64_t *tags, const uint8_t *const *headers, const uint8_t *const *keys,
		      unsigned cnt);

/* x86-64-v2, -v3 (AVX2), -v4 (AVX-512): only where the CPU has what the level needs. */
fan_tags fan_tags_v2, fan_tags_v3, fan_tags_v4;
/* The fastest that this CPU can run. */
fan_tags *fan_tags_best(void);
