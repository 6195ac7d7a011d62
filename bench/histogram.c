/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/histogram.h"

#include <math.h>
#include <string.h>

void histogram_clear(struct histogram *h)
{
	memset(h, 0, sizeof(*h));
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	if (from->cnt == 0)
		return;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
	if (into->cnt == 0 || from->least < into->least)
		into->least = from->least;
	if (from->most > into->most)
		into->most = from->most;
	into->sum += from->sum;
	into->cnt += from->cnt;
}

uint64_t histogram_bucket_most(unsigned bucket)
{
	unsigned shift;

	if (bucket < 2u << HISTOGRAM_SUB_BITS)
		return bucket;
	shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
	return ((uint64_t)(bucket - (shift << HISTOGRAM_SUB_BITS) + 1) << shift) - 1;
}

/* What the bucket stands for: nothing that was recorded is greater than `most`. */
static uint64_t bucket_value(const struct histogram *h, unsigned bucket)
{
	uint64_t value = histogram_bucket_most(bucket);

	return value < h->most && bucket != HISTOGRAM_BUCKETS - 1 ? value : h->most;
}

uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	uint64_t rank = (uint64_t)ceil(percent / 100 * (double)h->cnt), seen = 0;

	if (h->cnt == 0)
		return 0;
	rank = rank < 1 ? 1 : rank > h->cnt ? h->cnt : rank;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= rank)
			return bucket_value(h, i);
	}
	return h->most;
}

double histogram_mean(const struct histogram *h)
{
	return h->cnt ? (double)h->sum / (double)h->cnt : 0;
}

json_t *histogram_tell(const struct histogram *h, double unit)
{
	json_t *told = json_array();

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (h->buckets[i])
			json_array_append_new(told,
					      json_pack("[f, I]", (double)bucket_value(h, i) / unit,
							(json_int_t)h->buckets[i]));
	return told;
}
