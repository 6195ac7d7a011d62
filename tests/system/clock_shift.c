/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For LD_PRELOAD, in tests alone: the calendar's clock, and the monotonic one, run ahead by what a
 * file says, which may change at any time. $FANWIRE_TEST_CLOCK names it: two 64-bit numbers of
 * seconds, of CLOCK_REALTIME and of CLOCK_MONOTONIC.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift; /* NULL: none */

__attribute__((constructor)) static void map_shift(void)
{
	const char *path = getenv("FANWIRE_TEST_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *mapped;

	if (fd < 0)
		return;
	mapped = mmap(NULL, 2 * sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED)
		shift = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, now);

	if (rc || !shift)
		return rc;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		now->tv_sec += shift[0];
	if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ||
	    clock == CLOCK_MONOTONIC_RAW)
		now->tv_sec += shift[1];
	return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec exact;

	if (clock_gettime(CLOCK_REALTIME, &exact))
		return -1;
	*now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *out)
{
	struct timespec exact;

	if (clock_gettime(CLOCK_REALTIME, &exact))
		return -1;
	if (out)
		*out = exact.tv_sec;
	return exact.tv_sec;
}
