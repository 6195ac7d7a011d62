/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A histogram of times, log-linear as HdrHistogram's: values below 256 have a bucket each, every
 * power of two above is cut into 128 equal buckets, so what is read back is at most 1/128 too high,
 * and never too low. Fixed size; recording is a handful of instructions. One thread; histograms of
 * several threads are merged afterwards.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7
/* Larger ones count in the last bucket: 18 minutes, in nanoseconds. */
#define HISTOGRAM_VALUE_MAX ((UINT64_C(1) << 40) - 1)
#define HISTOGRAM_BUCKETS   ((40 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t cnt;
	uint64_t sum;
	uint64_t least, most; /* exact; 0 where cnt is 0 */
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
	unsigned shift;

	if (value > HISTOGRAM_VALUE_MAX)
		value = HISTOGRAM_VALUE_MAX;
	if (value < 2u << HISTOGRAM_SUB_BITS)
		return (unsigned)value;
	shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
	return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(value >> shift);
}

static inline void histogram_record(struct histogram *h, uint64_t value)
{
	h->buckets[histogram_bucket(value)]++;
	h->least = h->cnt == 0 || value < h->least ? value : h->least;
	h->most = value > h->most ? value : h->most;
	h->sum += value;
	h->cnt++;
}

void histogram_clear(struct histogram *h);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* Highest value that lies in the bucket. */
uint64_t histogram_bucket_most(unsigned bucket);
/*
 * The value that `percent` (0..100) of the recorded ones do not exceed: the highest of its bucket,
 * or the exact greatest where that is less. 0 where nothing was recorded.
 */
uint64_t histogram_percentile(const struct histogram *h, double percent);
double histogram_mean(const struct histogram *h);
/*
 * [[value, count], ...] of the buckets that hold something, in rising order; value: the bucket's
 * highest (or the greatest recorded) divided by `unit`. The caller owns it.
 */
json_t *histogram_tell(const struct histogram *h, double unit);
