/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Events that prove themselves: every byte follows from whom an event is for, on which of his
 * channels, from which publisher and the how many-th of it. So a receiver that knows what it is
 * needs nobody to tell whether an event is its own, exact, in order and the next one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define CONTENT_MAX 6000

struct content {
	uint32_t user, channel, publisher, len; /* len: of the whole payload */
	uint64_t index; /* from 0, without a gap, of (user, channel, publisher) */
};

static inline uint64_t content_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static inline uint64_t content_seed(const struct content *c)
{
	return content_mix(c->index + content_mix(((uint64_t)c->user << 32 | c->channel) +
						  content_mix(c->publisher + 1)));
}

/* Fills in len and the payload of CONTENT_MAX bytes; fragments: one in so many takes several
 * datagrams (0: none). */
static inline size_t content_make(struct content *c, uint8_t *payload, unsigned fragments)
{
	uint64_t seed = content_seed(c), word;

	c->len = (uint32_t)(sizeof(*c) + seed % 200);
	if (fragments && (seed >> 32) % fragments == 0)
		c->len = (uint32_t)(CONTENT_MAX - seed % 3000);
	memcpy(payload, c, sizeof(*c));
	for (size_t i = sizeof(*c); i < c->len; i += sizeof(word)) {
		word = content_mix(seed + i);
		memcpy(payload + i, &word, c->len - i < sizeof(word) ? c->len - i : sizeof(word));
	}
	return c->len;
}

/* Whether the payload is, byte for byte, what its first words say. */
static inline bool content_is_exact(struct content *c, const void *payload, size_t len,
				    unsigned fragments)
{
	uint8_t whole[CONTENT_MAX];

	if (len < sizeof(*c) || len > CONTENT_MAX)
		return false;
	memcpy(c, payload, sizeof(*c));
	return content_make(c, whole, fragments) == len && memcmp(whole, payload, len) == 0;
}

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
