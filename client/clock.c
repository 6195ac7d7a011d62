/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

uint64_t clock_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? CLOCK_NEVER : clock_now_ns() + (uint64_t)timeout_ms * CLOCK_MS_NS;
}

int clock_timer_open(struct clock_timer *timer)
{
	timer->armed_ns = CLOCK_NEVER;
	timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	return timer->fd < 0 ? -errno : 0;
}

void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns)
{
	struct itimerspec spec = {0};

	if (deadline_ns == timer->armed_ns)
		return;
	if (deadline_ns != CLOCK_NEVER) {
		/* zero would disarm: the first nanosecond of the clock is long past */
		uint64_t at_ns = deadline_ns ? deadline_ns : 1;

		spec.it_value.tv_sec = (time_t)(at_ns / CLOCK_S_NS);
		spec.it_value.tv_nsec = (long)(at_ns % CLOCK_S_NS);
	}
	timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &spec, NULL);
	timer->armed_ns = deadline_ns;
}

void clock_timer_close(struct clock_timer *timer)
{
	if (timer->fd >= 0)
		close(timer->fd);
	timer->fd = -1;
}

bool clock_poll(int fd, uint64_t deadline_ns)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};
	struct timespec left = {0};
	uint64_t now_ns = clock_now_ns();

	if (deadline_ns != CLOCK_NEVER && deadline_ns > now_ns) {
		left.tv_sec = (time_t)((deadline_ns - now_ns) / CLOCK_S_NS);
		left.tv_nsec = (long)((deadline_ns - now_ns) % CLOCK_S_NS);
	}
	return ppoll(&poller, 1, deadline_ns == CLOCK_NEVER ? NULL : &left, NULL) > 0;
}
