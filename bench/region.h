/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A registry region of a wanted size for benchmarks: `users` users with `fanout` connections each
 * in channel ALL, at the load factor that control/registry uses. Written straight to the documented
 * layout, since 64 million registrations one by one would measure something else. One thread.
 */
#pragma once

#include <stdint.h>

#include "common/shm/region.h"
#include "common/shm/registry.h"

struct bench_region {
	struct fan_region region;
	struct fan_registry *root;
	char path[256];
};

/* Bytes that the region takes. */
uint64_t bench_region_size(uint32_t users, uint32_t fanout, uint32_t sessions);
/* Name of user idx, for its handle. */
void bench_user_handle(uint8_t handle[16], uint32_t idx);

/* 0 or -errno with `why`. */
int bench_region_create(struct bench_region *r, const char *dir, uint32_t users, uint32_t fanout,
			uint32_t sessions, char why[256]);
/* The same, and one more user, number `users`, with `large` connections. */
int bench_region_create_uneven(struct bench_region *r, const char *dir, uint32_t users,
			       uint32_t fanout, uint32_t large, uint32_t sessions, char why[256]);
void bench_region_destroy(struct bench_region *r); /* removes the file */
/* Opens session `slot` (key bytes slot + 1) for the state region of that epoch. */
uint64_t bench_region_session(struct bench_region *r, uint32_t slot, uint64_t state_epoch);

#define BENCH_ENGINE_PORT      7400
#define BENCH_PUBLISHER_PORT   30000		       /* of session slot s: + s */
#define BENCH_PUBLISHER_BUDGET UINT64_C(100000000000)  /* bytes of copies a second */
extern const uint8_t bench_engine[16], bench_peer[16]; /* v4-mapped */
