/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SipHash-2-4 (Aumasson and Bernstein, 2012) of eight headers side by side: included once by each
 * tags_v*.c, which is compiled for its level and names the result TAGS.
 */
#include <string.h>

#include "common/wire/tags.h"

typedef uint64_t lanes_t __attribute__((vector_size(64)));

#define TAG_WORDS (FAN_TAGS_COVERED / 8 + 1) /* the last one: 4 bytes, zeros, the length */
#define TAG_END	  ((uint64_t)FAN_TAGS_COVERED << 56)

struct sip {
	lanes_t v0, v1, v2, v3;
};

/* A function would have to return a vector: no ABI says how, below AVX-512. */
#define ROTATE(v, by) ((v) << (by) | (v) >> (64 - (by)))

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = ROTATE(s->v1, 13) ^ s->v0;
	s->v3 = ROTATE(s->v3, 16) ^ s->v2;
	s->v0 = ROTATE(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = ROTATE(s->v1, 17) ^ s->v2;
	s->v3 = ROTATE(s->v3, 21) ^ s->v0;
	s->v2 = ROTATE(s->v2, 32);
}

/* One word of each header a row: what stood one behind the other stands side by side. */
static inline void tag_load(uint64_t words[TAG_WORDS + 2][FAN_TAGS_LANES],
			    const uint8_t *const *headers, const uint8_t *const *keys, unsigned cnt)
{
	for (unsigned lane = 0; lane < FAN_TAGS_LANES; lane++) {
		unsigned from = lane < cnt ? lane : 0;
		uint32_t rest;

		for (unsigned i = 0; i < TAG_WORDS - 1; i++)
			memcpy(&words[i][lane], headers[from] + 8 * i, 8);
		memcpy(&rest, headers[from] + FAN_TAGS_COVERED - 4, sizeof(rest));
		words[TAG_WORDS - 1][lane] = TAG_END | rest;
		memcpy(&words[TAG_WORDS][lane], keys[from], 8);
		memcpy(&words[TAG_WORDS + 1][lane], keys[from] + 8, 8);
	}
}

void TAGS(uint64_t *tags, const uint8_t *const *headers, const uint8_t *const *keys, unsigned cnt)
{
	union {
		uint64_t words[TAG_WORDS + 2][FAN_TAGS_LANES];
		lanes_t rows[TAG_WORDS + 2];
	} in;
	union {
		lanes_t row;
		uint64_t words[FAN_TAGS_LANES];
	} out;
	struct sip s;

	tag_load(in.words, headers, keys, cnt);
	s.v0 = in.rows[TAG_WORDS] ^ UINT64_C(0x736f6d6570736575);
	s.v1 = in.rows[TAG_WORDS + 1] ^ UINT64_C(0x646f72616e646f6d);
	s.v2 = in.rows[TAG_WORDS] ^ UINT64_C(0x6c7967656e657261);
	s.v3 = in.rows[TAG_WORDS + 1] ^ UINT64_C(0x7465646279746573);
	for (unsigned i = 0; i < TAG_WORDS; i++) {
		s.v3 ^= in.rows[i];
		sip_round(&s);
		sip_round(&s);
		s.v0 ^= in.rows[i];
	}
	s.v2 ^= 0xff;
	for (unsigned i = 0; i < 4; i++)
		sip_round(&s);
	out.row = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	for (unsigned i = 0; i < cnt; i++)
		tags[i] = out.words[i];
}
