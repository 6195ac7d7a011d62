/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012) over the 92 bytes that
 * a filter tag covers. Little-endian words; BPF of a little-endian machine only.
 */
#ifndef FANWIRE_BPF_SIPHASH_H
#define FANWIRE_BPF_SIPHASH_H

#define SIPHASH_TAGGED_LEN 92

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "siphash.bpf.h reads words in little-endian order"
#endif

#define SIPHASH_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

#define SIPHASH_ROUND(v0, v1, v2, v3)      \
	do {                               \
		v0 += v1;                  \
		v1 = SIPHASH_ROTL(v1, 13); \
		v1 ^= v0;                  \
		v0 = SIPHASH_ROTL(v0, 32); \
		v2 += v3;                  \
		v3 = SIPHASH_ROTL(v3, 16); \
		v3 ^= v2;                  \
		v0 += v3;                  \
		v3 = SIPHASH_ROTL(v3, 21); \
		v3 ^= v0;                  \
		v2 += v1;                  \
		v1 = SIPHASH_ROTL(v1, 17); \
		v1 ^= v2;                  \
		v2 = SIPHASH_ROTL(v2, 32); \
	} while (0)

/*
 * words: the header, 8-byte aligned, 12 words of which the first 92 bytes count; the last word is
 * changed. Loops, though unrolled code is no longer in cycles: it is nine times as long, and on the
 * receive path it is not in the instruction cache when a packet comes.
 */
static __always_inline __u64 siphash_header(__u64 *words, __u64 k0, __u64 k1)
{
	__u64 v0 = 0x736f6d6570736575ULL ^ k0;
	__u64 v1 = 0x646f72616e646f6dULL ^ k1;
	__u64 v2 = 0x6c7967656e657261ULL ^ k0;
	__u64 v3 = 0x7465646279746573ULL ^ k1;

	/* the last 4 bytes, and the length in the top byte */
	words[11] = (words[11] & 0xffffffffULL) | ((__u64)SIPHASH_TAGGED_LEN << 56);
#pragma clang loop unroll(disable)
	for (int i = 0; i < 12; i++) {
		v3 ^= words[i];
		SIPHASH_ROUND(v0, v1, v2, v3);
		SIPHASH_ROUND(v0, v1, v2, v3);
		v0 ^= words[i];
	}
	v2 ^= 0xff;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 4; i++)
		SIPHASH_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
