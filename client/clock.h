/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deadlines of the library: CLOCK_MONOTONIC in nanoseconds, CLOCK_NEVER for none, and the one timer
 * descriptor that makes them visible to whoever polls. A clock_timer belongs to its owner's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_NEVER UINT64_MAX
#define CLOCK_MS_NS UINT64_C(1000000)
#define CLOCK_S_NS  UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * CLOCK_S_NS + (uint64_t)ts.tv_nsec;
}

static inline uint64_t clock_earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Deadline `timeout_ms` from now; negative: never. */
uint64_t clock_deadline(int timeout_ms);

struct clock_timer {
	int fd;
	uint64_t armed_ns; /* CLOCK_NEVER: disarmed */
};

int clock_timer_open(struct clock_timer *timer);
/* Readable from `deadline_ns` on; 0: at once. Does nothing where that is so already. */
void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns);
void clock_timer_close(struct clock_timer *timer);

/* Waits until `fd` is readable or the deadline is over: true where it is readable. */
bool clock_poll(int fd, uint64_t deadline_ns);
