/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The innermost loops, compiled once for each level of the x86-64 instruction set and chosen at
 * run time, so that one binary runs everywhere and is fast where it can be. All levels write the
 * same bytes; tests/unit/dataplane/test_kernels.c compares them. No state; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/shm/registry.h"
#include "common/wire/tags.h"

struct rte_mbuf;

/* What a kernel may read and write beyond the end of a frame: it moves whole blocks. */
#define KERNEL_SLACK 64
/* Events whose filter tags are made side by side. */
#define KERNEL_LANES FAN_TAGS_LANES

/* The bytes of struct rte_mbuf that a new packet differs in: from rearm_data to the RSS hash. */
#define KERNEL_MBUF_LEN 32

/* One event's way to one next hop; valid while its frame stands in the event's buffer. */
struct kernel_emit {
	uint8_t mbuf[KERNEL_MBUF_LEN];	/* fields of every copy's mbuf */
	uint8_t handle[16];		/* whose event it is: endpoints of others are not served */
	const struct fan_endpoint *end; /* of the block: nothing behind it is asked for ahead */
	const uint8_t *frame; /* all headers and the payload, KERNEL_SLACK readable behind */
	uint32_t len;	      /* of the frame, bytes */
	uint32_t ip_sum;      /* IPv4: partial sum of the header without destination and checksum */
	uint32_t udp_sum; /* partial sum of all that UDP's checksum covers but the destination */
	uint16_t hop;	  /* family and next hop, as endpoints state them */
};

struct kernels {
	const char *name; /* "x86-64-v4" */
	/*
	 * A copy for each endpoint into the mbufs, which are empty ones with room for len +
	 * KERNEL_SLACK behind their headroom. Stops before an endpoint of another user or next hop.
	 * Returns the number of copies made.
	 */
	unsigned (*emit)(const struct kernel_emit *event, const struct fan_endpoint *endpoints,
			 unsigned cnt, struct rte_mbuf **mbufs);
	/*
	 * Filter tags (wire.h) of cnt delivery headers, 1..KERNEL_LANES, each under its own key of
	 * 16 bytes, written to where they belong.
	 */
	void (*tag)(uint8_t *const *headers, const uint8_t *const *keys, unsigned cnt);
	/* Partial Internet checksum (RFC 1071) of the bytes, folded; KERNEL_SLACK readable behind.
	 */
	uint16_t (*sum)(const uint8_t *bytes, uint32_t len);
};

/* x86-64-v2, -v3 (AVX2), -v4 (AVX-512); NULL where this CPU lacks what it needs. level: 2..4 */
const struct kernels *kernels_level(unsigned level);
/* The fastest that this CPU can run. */
const struct kernels *kernels_best(void);
