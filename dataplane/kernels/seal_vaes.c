/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AES-256-GCM (NIST SP 800-38D) of deliveries, four at a time.
 *
 * Two ways of filling a register of 64 bytes take turns. What there is one of an event (round keys,
 * the hash key and its powers, the tag's mask) is computed with an event in each quarter; what
 * there is much of (counter blocks, ciphertext) with four blocks of one event.
 *
 * GHASH in the reflected domain, with the hash key multiplied by x beforehand and a reduction by
 * two carry-less products (Gueron, Kounavis: Intel Carry-Less Multiplication Instruction, 2014; the
 * order of operations as in Linux' AES-GCM for AVX-512). Key expansion by AESENCLAST, whose
 * ShiftRows does nothing to four equal columns (as in OpenSSL).
 */
#include <immintrin.h>
#include <string.h>

#include "common/wire/wire.h"
#include "dataplane/kernels/seal_vaes.h"

#define LANES	     4
#define BLOCK	     16
#define WIDE	     64 /* bytes of a register */
#define ROUNDS	     14
#define POWERS	     8
#define HEADER	     FAN_SEALED_HEADER_LEN
#define LENGTH_OFF   4
#define SEQUENCE_OFF 40

_Static_assert(HEADER > BLOCK && HEADER <= BLOCK + WIDE,
	       "additional data: a block, then up to four");

/* What there is one of an event, of four events. */
struct group {
	__m512i rounds[ROUNDS + 1]; /* an event a quarter */
	__m512i masks;		    /* of the tags, likewise */
	__m128i powers[LANES][POWERS + LANES] __attribute__((aligned(64))); /* H^8 .. H^1, 0 .. */
};

/* ---- keys ---- */

static inline __m512i four(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d)
{
	__m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i_u *)a));

	all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i_u *)b), 1);
	all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i_u *)c), 2);
	return _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i_u *)d), 3);
}

/* Each word with all before it added, and what comes from the key before to each. */
static inline __m512i key_next(__m512i key, __m512i from)
{
	key = _mm512_xor_si512(key, _mm512_bslli_epi128(key, 4));
	key = _mm512_xor_si512(key, _mm512_bslli_epi128(key, 8));
	return _mm512_xor_si512(key, from);
}

static inline void keys_expand(struct group *g, const uint8_t *const *keys)
{
	/* the last word, rotated by a byte, in all four columns */
	const __m512i rotated = _mm512_set1_epi32(0x0c0f0e0d);
	__m512i *k = g->rounds;

	k[0] = four(keys[0], keys[1], keys[2], keys[3]);
	k[1] = four(keys[0] + BLOCK, keys[1] + BLOCK, keys[2] + BLOCK, keys[3] + BLOCK);
#pragma GCC unroll 14
	for (int i = 2; i <= ROUNDS; i += 2) {
		__m512i last = _mm512_shuffle_epi8(k[i - 1], rotated);

		last = _mm512_aesenclast_epi128(last, _mm512_set1_epi32(1 << (i / 2 - 1)));
		k[i] = key_next(k[i - 2], last);
		if (i == ROUNDS)
			break;
		last = _mm512_shuffle_epi32(k[i], 0xff);
		last = _mm512_aesenclast_epi128(last, _mm512_setzero_si512());
		k[i + 1] = key_next(k[i - 1], last);
	}
}

/* ---- hash ---- */

/* A product that is not reduced yet. */
struct product {
	__m512i low, middle, high;
};

static inline __m512i reflected(__m512i blocks)
{
	const __m512i order = _mm512_broadcast_i32x4(
		_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));

	return _mm512_shuffle_epi8(blocks, order);
}

static inline struct product multiply(__m512i a, __m512i b)
{
	return (struct product){
		.low = _mm512_clmulepi64_epi128(a, b, 0x00),
		.middle = _mm512_xor_si512(_mm512_clmulepi64_epi128(a, b, 0x01),
					   _mm512_clmulepi64_epi128(a, b, 0x10)),
		.high = _mm512_clmulepi64_epi128(a, b, 0x11),
	};
}

static inline struct product sum(struct product a, struct product b)
{
	return (struct product){
		.low = _mm512_xor_si512(a.low, b.low),
		.middle = _mm512_xor_si512(a.middle, b.middle),
		.high = _mm512_xor_si512(a.high, b.high),
	};
}

static inline __m512i reduce(struct product p)
{
	const __m512i poly = _mm512_set1_epi64((long long)0xc200000000000000);
	__m512i fold = _mm512_clmulepi64_epi128(p.low, poly, 0x00);

	p.middle =
		_mm512_ternarylogic_epi64(p.middle, _mm512_shuffle_epi32(p.low, 0x4e), fold, 0x96);
	fold = _mm512_clmulepi64_epi128(p.middle, poly, 0x00);
	return _mm512_ternarylogic_epi64(p.high, _mm512_shuffle_epi32(p.middle, 0x4e), fold, 0x96);
}

static inline __m512i times(__m512i a, __m512i b)
{
	return reduce(multiply(a, b));
}

/* The hash keys times x, for the reflected domain. */
static inline __m512i times_x(__m512i h)
{
	const __m512i carry =
		_mm512_broadcast_i32x4(_mm_set_epi64x((long long)0xc200000000000001, 1));
	__m512i tops = _mm512_srai_epi32(_mm512_shuffle_epi32(h, 0xd3), 31);

	return _mm512_xor_si512(_mm512_add_epi64(h, h), _mm512_and_si512(tops, carry));
}

static inline void power_store(struct group *g, unsigned power, __m512i h)
{
	g->powers[0][POWERS - power] = _mm512_castsi512_si128(h);
	g->powers[1][POWERS - power] = _mm512_extracti32x4_epi32(h, 1);
	g->powers[2][POWERS - power] = _mm512_extracti32x4_epi32(h, 2);
	g->powers[3][POWERS - power] = _mm512_extracti32x4_epi32(h, 3);
}

static inline void powers_make(struct group *g, __m512i hash_keys)
{
	__m512i h[POWERS + 1];

	h[1] = times_x(reflected(hash_keys));
	h[2] = times(h[1], h[1]);
	h[3] = times(h[2], h[1]);
	h[4] = times(h[2], h[2]);
	for (unsigned i = 1; i <= LANES; i++)
		h[LANES + i] = times(h[LANES], h[i]);
	for (unsigned i = 1; i <= POWERS; i++)
		power_store(g, i, h[i]);
	for (unsigned lane = 0; lane < LANES; lane++)
		for (unsigned i = 0; i < LANES; i++) /* read, and multiplied by zero */
			g->powers[lane][POWERS + i] = _mm_setzero_si128();
}

/* ---- an event's nonce ---- */

/* Direction and sequence, and a counter of 0. */
static inline __m128i nonce_of(const uint8_t *image)
{
	uint64_t sequence;

	memcpy(&sequence, image + SEQUENCE_OFF, sizeof(sequence)); /* big-endian here and there */
	return _mm_set_epi32(0, (int)(sequence >> 32), (int)sequence,
			     (int)__builtin_bswap32(FAN_DIRECTION_DELIVER));
}

static inline __m512i four_nonces(uint8_t *const *images)
{
	__m512i all = _mm512_castsi128_si512(nonce_of(images[0]));

	all = _mm512_inserti32x4(all, nonce_of(images[1]), 1);
	all = _mm512_inserti32x4(all, nonce_of(images[2]), 2);
	return _mm512_inserti32x4(all, nonce_of(images[3]), 3);
}

static inline void group_begin(struct group *g, uint8_t *const *images, const uint8_t *const *keys)
{
	__m512i mask = _mm512_or_si512(four_nonces(images),
				       _mm512_broadcast_i32x4(_mm_set_epi32(1 << 24, 0, 0, 0)));
	__m512i hash_key;

	keys_expand(g, keys);
	hash_key = g->rounds[0]; /* of a block of zeros */
	mask = _mm512_xor_si512(mask, g->rounds[0]);
#pragma GCC unroll 14
	for (int i = 1; i < ROUNDS; i++) {
		hash_key = _mm512_aesenc_epi128(hash_key, g->rounds[i]);
		mask = _mm512_aesenc_epi128(mask, g->rounds[i]);
	}
	g->masks = _mm512_aesenclast_epi128(mask, g->rounds[ROUNDS]);
	powers_make(g, _mm512_aesenclast_epi128(hash_key, g->rounds[ROUNDS]));
}

/* ---- an event's payload ---- */

static inline __mmask64 bytes_left(uint32_t left)
{
	return left >= WIDE ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
}

static inline __m512i round_of(const struct group *g, unsigned lane, unsigned i)
{
	return _mm512_broadcast_i32x4(((const __m128i *)&g->rounds[i])[lane]);
}

/* Counters of four blocks each, from `from` on. */
static inline __m512i counters(__m128i nonce, uint32_t from)
{
	const __m512i order = _mm512_broadcast_i32x4(
		_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
	const __m512i steps = _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
	__m512i all = _mm512_or_si512(_mm512_broadcast_i32x4(nonce), steps);

	all = _mm512_add_epi32(all, _mm512_broadcast_i32x4(_mm_set_epi32((int)from, 0, 0, 0)));
	return _mm512_shuffle_epi8(all, order);
}

/* Up to 256 bytes: four registers pass through the rounds together. */
static inline void payload_part(const struct group *g, unsigned lane, __m128i nonce, uint8_t *bytes,
				uint32_t left, uint32_t counter)
{
	__m512i state[4], key = round_of(g, lane, 0);

#pragma GCC unroll 4
	for (unsigned n = 0; n < 4; n++)
		state[n] = _mm512_xor_si512(counters(nonce, counter + n * LANES), key);
#pragma GCC unroll 14
	for (unsigned i = 1; i < ROUNDS; i++) {
		key = round_of(g, lane, i);
#pragma GCC unroll 4
		for (unsigned n = 0; n < 4; n++)
			state[n] = _mm512_aesenc_epi128(state[n], key);
	}
	key = round_of(g, lane, ROUNDS);
#pragma GCC unroll 4
	for (unsigned n = 0; n < 4; n++) {
		__mmask64 mask = bytes_left(left > n * WIDE ? left - n * WIDE : 0);
		__m512i text = _mm512_maskz_loadu_epi8(mask, bytes + n * WIDE);

		text = _mm512_xor_si512(text, _mm512_aesenclast_epi128(state[n], key));
		_mm512_mask_storeu_epi8(bytes + n * WIDE, mask, text);
	}
}

static inline void payload_seal(const struct group *g, unsigned lane, uint8_t *image, uint32_t len)
{
	__m128i nonce = nonce_of(image);

	for (uint32_t at = 0; at < len; at += 4 * WIDE) /* the first block's counter is 2 */
		payload_part(g, lane, nonce, image + FAN_DELIVERY_LEN + at, len - at,
			     2 + at / BLOCK);
}

/* ---- an event's tag ---- */

static inline __m512i power(const struct group *g, unsigned lane, unsigned n)
{
	return _mm512_broadcast_i32x4(g->powers[lane][POWERS - n]);
}

static inline __m512i text_at(const uint8_t *bytes, uint32_t left)
{
	return reflected(_mm512_maskz_loadu_epi8(bytes_left(left), bytes));
}

/* The first block in the last quarter, then four: the hash so far, not yet multiplied. */
static inline __m512i header_hash(const struct group *g, unsigned lane, const uint8_t *image)
{
	__m128i block = _mm_loadu_si128((const __m128i_u *)image);
	__m512i first = _mm512_inserti32x4(_mm512_setzero_si512(), block, 3);

	first = times(reflected(first), power(g, lane, LANES));
	return _mm512_xor_si512(first, text_at(image + BLOCK, HEADER - BLOCK));
}

/* The last blocks, fewer than four, and the lengths; every quarter by the power that it is due. */
static inline __m512i hash_end(const struct group *g, unsigned lane, __m512i hash, __m512i last,
			       unsigned last_cnt, uint32_t len)
{
	const __m512i lengths = _mm512_broadcast_i32x4(_mm_set_epi64x(HEADER * 8, len * 8));
	unsigned cnt = last_cnt + 1;

	last = _mm512_mask_mov_epi64(last, (__mmask8)(3u << 2 * last_cnt), lengths);
	return reduce(
		sum(multiply(hash, _mm512_loadu_si512(&g->powers[lane][POWERS - LANES - cnt])),
		    multiply(last, _mm512_loadu_si512(&g->powers[lane][POWERS - cnt]))));
}

static inline __m512i payload_hash(const struct group *g, unsigned lane, __m512i hash,
				   const uint8_t *bytes, uint32_t len)
{
	uint32_t blocks = (len + BLOCK - 1) / BLOCK, at = 0;

	for (; blocks >= 2 * LANES; blocks -= 2 * LANES, at += 2 * WIDE) {
		struct product first = multiply(text_at(bytes + at, len - at), power(g, lane, 4));

		hash = reduce(sum(multiply(hash, power(g, lane, 8)), first));
		hash = _mm512_xor_si512(hash, text_at(bytes + at + WIDE, len - at - WIDE));
	}
	if (blocks >= LANES) {
		hash = times(hash, power(g, lane, 4));
		hash = _mm512_xor_si512(hash, text_at(bytes + at, len - at));
		blocks -= LANES;
		at += WIDE;
	}
	return hash_end(g, lane, hash, text_at(bytes + at, blocks ? len - at : 0), blocks, len);
}

static inline void tag_write(const struct group *g, unsigned lane, uint8_t *image, __m512i hash)
{
	__m256i halves =
		_mm256_xor_si256(_mm512_castsi512_si256(hash), _mm512_extracti64x4_epi64(hash, 1));
	__m128i tag =
		_mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));

	tag = _mm512_castsi512_si128(reflected(_mm512_castsi128_si512(tag)));
	tag = _mm_xor_si128(tag, ((const __m128i *)&g->masks)[lane]);
	_mm_storeu_si128((__m128i_u *)(image + HEADER), tag);
}

static inline uint32_t length_of(const uint8_t *image)
{
	return (uint32_t)image[LENGTH_OFF] << 8 | image[LENGTH_OFF + 1];
}

static inline void event_seal(const struct group *g, unsigned lane, uint8_t *image)
{
	uint32_t len = length_of(image);
	__m512i hash;

	payload_seal(g, lane, image, len);
	hash = header_hash(g, lane, image);
	hash = payload_hash(g, lane, hash, image + FAN_DELIVERY_LEN, len);
	tag_write(g, lane, image, hash);
}

/* Where there are fewer than four, the last one's key stands for the others'. */
void seal_vaes(uint8_t *const *images, const uint8_t *const *keys, unsigned cnt)
{
	for (unsigned done = 0; done < cnt; done += LANES) {
		unsigned now = cnt - done < LANES ? cnt - done : LANES;
		const uint8_t *key[LANES];
		uint8_t *image[LANES];
		struct group g;

		for (unsigned i = 0; i < LANES; i++) {
			key[i] = keys[done + (i < now ? i : now - 1)];
			image[i] = images[done + (i < now ? i : now - 1)];
		}
		group_begin(&g, image, key);
		for (unsigned i = 0; i < now; i++)
			event_seal(&g, i, image[i]);
	}
}
