/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Buckets of a bulk lookup, eight keys at a time: fingerprints and marks of two buckets are
 * compared in one vector, whose result is the two masks. Compiled for AVX-512 whatever the rest is
 * compiled for; called only where the processor and the kernel have it.
 */
#include "common/shm/lookup_passes.h"

#if defined(__x86_64__) && defined(FAN_VECTOR_LOADS)

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,lzcnt,popcnt")))
#define EACH   8

/* Of the 32 words of two half buckets: the fingerprints, and the upper half of `chain`. */
#define SLOTS (UINT32_C(1) * FAN_BUCKET_MASK | FAN_BUCKET_MASK << 16)
#define CHAIN (UINT32_C(1) * LOOKUP_CHAIN | LOOKUP_CHAIN << 16)

/* What a key's words are compared with; word 3 of each 64 bits belongs to it. */
struct wanted {
	__m512i fp, mark;
};

static inline AVX512 struct wanted wanted_of(__m512i hash)
{
	const __m512i one = _mm512_set1_epi64(1), three_bits = _mm512_set1_epi64(7);
	__m512i a = _mm512_and_si512(_mm512_srli_epi64(hash, 32), three_bits);
	__m512i b = _mm512_and_si512(_mm512_srli_epi64(hash, 35), three_bits);
	__m512i mark = _mm512_or_si512(_mm512_sllv_epi64(one, a), _mm512_sllv_epi64(one, b));

	return (struct wanted){
		.fp = _mm512_max_epu16(hash, _mm512_set1_epi16(1)), /* as fan_table_fp() */
		.mark = _mm512_slli_epi64(mark, 56),		    /* as fan_chain_mark() */
	};
}

/* An aligned load of a vector reads each of its 16-bit elements whole, and in their order. */
static inline AVX512 __m512i heads_load(const struct fan_bucket *first,
					const struct fan_bucket *second)
{
	__m256i a = _mm256_load_si256((const __m256i *)(const void *)first);
	__m256i b = _mm256_load_si256((const __m256i *)(const void *)second);

	return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

/* Masks of two keys; word 3 of their 64 bits is spread over 16 words each. */
static inline AVX512 uint32_t pair_match(const struct fan_table *t, const uint32_t *bucket,
					 const struct wanted *wanted, __m512i spread)
{
	__m512i heads = heads_load(&t->buckets[bucket[0]], &t->buckets[bucket[1]]);
	__m512i fp = _mm512_permutexvar_epi16(spread, wanted->fp);
	__m512i mark = _mm512_permutexvar_epi16(spread, wanted->mark);

	return _mm512_mask_cmpeq_epi16_mask(SLOTS, heads, fp) |
	       _mm512_mask_cmpeq_epi16_mask(CHAIN, _mm512_and_si512(heads, mark), mark);
}

/* Indices of the masks that are not 0, in their order: 32 at a time. */
static AVX512 unsigned note(unsigned cnt, struct lookup_work *work)
{
	unsigned noted = 0;

	for (unsigned i = 0; i < cnt; i += 32) {
		__m512i masks = _mm512_loadu_si512(&work->mask[i]);
		uint32_t some = _mm512_test_epi16_mask(masks, masks);

		if (cnt - i < 32)
			some &= (UINT32_C(1) << (cnt - i)) - 1;
		for (; some; some &= some - 1)
			work->noted[noted++] = (uint16_t)(i + (unsigned)__builtin_ctz(some));
	}
	return noted;
}

AVX512 unsigned lookup_buckets_avx512(const struct fan_table *t, const uint64_t *hashes,
				      unsigned cnt, struct lookup_work *work)
{
	const __m512i half = _mm512_inserti64x4(_mm512_set1_epi16(3), _mm256_set1_epi16(7), 1);
	const __m512i next = _mm512_set1_epi16(8);
	uint64_t padded[EACH] = {0};

	for (unsigned i = 0; i < cnt; i += EACH) {
		__m512i spread = half;
		struct wanted wanted;

		if (cnt - i <
		    EACH) { /* the rest of a vector: some bucket, and its mask is not used */
			memcpy(padded, hashes + i, (cnt - i) * sizeof(*padded));
			memset(&work->bucket[cnt], 0, (i + EACH - cnt) * sizeof(*work->bucket));
		}
		wanted = wanted_of(_mm512_loadu_si512(cnt - i < EACH ? padded : hashes + i));
		for (unsigned pair = 0; pair < EACH; pair += 2) {
			uint32_t masks = pair_match(t, &work->bucket[i + pair], &wanted, spread);

			memcpy(&work->mask[i + pair], &masks, sizeof(masks));
			spread = _mm512_add_epi16(spread, next);
		}
	}
	return note(cnt, work);
}

bool lookup_has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#else

unsigned lookup_buckets_avx512(const struct fan_table *t, const uint64_t *hashes, unsigned cnt,
			       struct lookup_work *work)
{
	return lookup_buckets_scalar(t, hashes, cnt, work);
}

bool lookup_has_avx512(void)
{
	return false;
}

#endif
