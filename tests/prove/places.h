/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who held which port, from when to when: written by churn, which registers, and read by watch,
 * which sees what arrives there. A file that both map: one struct place a port. Times are
 * CLOCK_REALTIME, as a capture stamps its packets.
 */
#pragma once

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PLACE_HOLDINGS 8 /* a port rests a second between two of them: seconds of history */

enum place_way { PLACE_CLOSED = 1, PLACE_KEPT, PLACE_REVOKED };

struct holding {
	uint8_t handle[16];
	uint64_t since_ns;
	_Atomic uint64_t until_ns; /* 0: it holds; released by the end, which `way` precedes */
	_Atomic uint32_t way;	   /* how it ended */
};

struct place {
	_Atomic uint32_t cnt; /* holdings so far; released once the newest is filled in */
	struct holding holdings[PLACE_HOLDINGS];
};

static inline uint64_t place_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* NULL with errno set. The mapping lasts as long as the process. */
static inline struct place *places_map(const char *path, uint32_t cnt)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *map = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)(cnt * sizeof(struct place))) == 0)
		map = mmap(NULL, cnt * sizeof(struct place), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   0);
	if (fd >= 0)
		close(fd);
	return map == MAP_FAILED ? NULL : map;
}

static inline struct holding *place_holding(struct place *place, uint32_t number)
{
	return &place->holdings[number % PLACE_HOLDINGS];
}

static inline void place_begin(struct place *place, const uint8_t handle[16])
{
	uint32_t number = atomic_load_explicit(&place->cnt, memory_order_relaxed);
	struct holding *h = place_holding(place, number);

	memcpy(h->handle, handle, 16);
	h->since_ns = place_now_ns();
	atomic_store_explicit(&h->until_ns, 0, memory_order_relaxed);
	/* pairs with the acquire of whoever judges a packet */
	atomic_store_explicit(&place->cnt, number + 1, memory_order_release);
}

static inline void place_end(struct place *place, enum place_way way)
{
	uint32_t cnt = atomic_load_explicit(&place->cnt, memory_order_relaxed);
	struct holding *h = place_holding(place, cnt - 1);

	atomic_store_explicit(&h->way, way, memory_order_relaxed);
	atomic_store_explicit(&h->until_ns, place_now_ns(), memory_order_release);
}
