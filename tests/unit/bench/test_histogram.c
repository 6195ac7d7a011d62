/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "bench/histogram.h"

#define SAMPLES 200000

static struct histogram h;

/* xorshift64*: the same numbers in every run. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The same definition on the samples themselves: sorted, the ceil(p * n)th. */
static uint64_t exact(const uint64_t *sorted, unsigned cnt, double percent)
{
	unsigned rank = (unsigned)ceil(percent / 100 * cnt);

	return sorted[rank ? rank - 1 : 0];
}

static void expect_close(const uint64_t *sorted, unsigned cnt)
{
	static const double percents[] = {0, 1, 10, 50, 90, 99, 99.9, 99.99, 100};

	for (unsigned i = 0; i < sizeof(percents) / sizeof(*percents); i++) {
		uint64_t want = exact(sorted, cnt, percents[i]);
		uint64_t got = histogram_percentile(&h, percents[i]);

		cr_expect_geq(got, want, "p%g: %lu reads less than %lu", percents[i], got, want);
		cr_expect_leq((double)got, (double)want * (1 + 1.0 / 128), "p%g: %lu for %lu",
			      percents[i], got, want);
	}
}

static void samples_compare(uint64_t (*make)(uint64_t random))
{
	uint64_t *samples = malloc(SAMPLES * sizeof(*samples)), state = 88172645463325252u;

	histogram_clear(&h);
	for (unsigned i = 0; i < SAMPLES; i++) {
		samples[i] = make(draw(&state));
		histogram_record(&h, samples[i]);
	}
	qsort(samples, SAMPLES, sizeof(*samples), compare);
	expect_close(samples, SAMPLES);
	cr_expect_eq(h.cnt, (uint64_t)SAMPLES);
	cr_expect_eq(h.least, samples[0]);
	cr_expect_eq(h.most, samples[SAMPLES - 1]);
	free(samples);
}

static uint64_t even(uint64_t random)
{
	return random % 1000000;
}

/* As latencies are: exponential, with a long tail. */
static uint64_t tailed(uint64_t random)
{
	double unit = ((double)(random >> 11) + 1) / 9007199254740993.0;

	return (uint64_t)(-log(unit) * 20000 + 5000 / unit);
}

static uint64_t over_all_magnitudes(uint64_t random)
{
	return (random >> 6) >> (18 + random % 40);
}

Test(histogram, percentiles_of_even_values)
{
	samples_compare(even);
}

Test(histogram, percentiles_of_a_long_tail)
{
	samples_compare(tailed);
}

Test(histogram, percentiles_over_all_magnitudes)
{
	samples_compare(over_all_magnitudes);
}

Test(histogram, buckets_follow_one_another_without_a_gap)
{
	uint64_t least = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t most = histogram_bucket_most(i);

		cr_assert_eq(histogram_bucket(least), i, "least of bucket %u", i);
		cr_assert_eq(histogram_bucket(most), i, "most of bucket %u", i);
		cr_assert_leq(most - least, least / 128, "bucket %u is too wide", i);
		least = most + 1;
	}
	cr_expect_eq(least, HISTOGRAM_VALUE_MAX + 1, "the last bucket ends with the range");
}

Test(histogram, small_values_are_exact)
{
	histogram_clear(&h);
	for (uint64_t i = 1; i <= 200; i++)
		histogram_record(&h, i);
	cr_expect_eq(histogram_percentile(&h, 50), 100u);
	cr_expect_eq(histogram_percentile(&h, 99), 198u);
	cr_expect_eq(histogram_percentile(&h, 100), 200u);
	cr_expect_float_eq(histogram_mean(&h), 100.5, 1e-9);
}

Test(histogram, what_is_beyond_the_range_keeps_its_exact_greatest)
{
	histogram_clear(&h);
	histogram_record(&h, 7);
	histogram_record(&h, UINT64_C(1) << 50);
	cr_expect_eq(histogram_percentile(&h, 50), 7u);
	cr_expect_eq(histogram_percentile(&h, 99.9), UINT64_C(1) << 50);
}

Test(histogram, empty_reads_zero)
{
	json_t *told;

	histogram_clear(&h);
	told = histogram_tell(&h, 1);
	cr_expect_eq(histogram_percentile(&h, 99), 0u);
	cr_expect_float_eq(histogram_mean(&h), 0, 0);
	cr_expect_eq(json_array_size(told), 0u);
	json_decref(told);
}

Test(histogram, merge_equals_recording_into_one)
{
	static struct histogram a, b;
	uint64_t state = 4;

	histogram_clear(&h);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t value = tailed(draw(&state));

		histogram_record(&h, value);
		histogram_record(i % 3 ? &a : &b, value);
	}
	histogram_merge(&a, &b);
	cr_expect_arr_eq(&a, &h, sizeof(h));
	histogram_clear(&b);
	histogram_merge(&a, &b);
	cr_expect_arr_eq(&a, &h, sizeof(h), "an empty one changes nothing, not even the least");
	histogram_merge(&b, &a);
	cr_expect_arr_eq(&b, &h, sizeof(h));
}

Test(histogram, tells_every_bucket_once_in_rising_order)
{
	uint64_t state = 9, cnt = 0;
	double before = -1;
	json_t *told, *pair;
	size_t i;

	histogram_clear(&h);
	for (unsigned n = 0; n < 5000; n++)
		histogram_record(&h, 1000 * tailed(draw(&state)));
	told = histogram_tell(&h, 1000);
	json_array_foreach (told, i, pair) {
		double value = json_real_value(json_array_get(pair, 0));

		cr_expect_gt(value, before);
		cnt += (uint64_t)json_integer_value(json_array_get(pair, 1));
		before = value;
	}
	cr_expect_eq(cnt, 5000u);
	cr_expect_float_eq(before, (double)h.most / 1000, 1e-6);
	json_decref(told);
}
