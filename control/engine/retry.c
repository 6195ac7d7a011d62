/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/retry.h"

#include <event2/event.h>
#include <stdlib.h>
#include <time.h>

#define REMOVED_MS 20
#define SILENT_MS  100
#define LONGEST_MS 30000

struct retry {
	uint64_t due_ns; /* 0: none */
	uint32_t wait_ms;
};

struct retries {
	struct event *timer;
	void (*on_due)(void *arg, uint32_t idx);
	void *arg;
	uint32_t cnt;
	struct retry of[];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void arm(struct retries *retries)
{
	uint64_t now = now_ns(), due = UINT64_MAX, wait_us;
	struct timeval delay;

	for (uint32_t i = 0; i < retries->cnt; i++)
		if (retries->of[i].due_ns && retries->of[i].due_ns < due)
			due = retries->of[i].due_ns;
	if (due == UINT64_MAX)
		return;
	wait_us = due > now ? (due - now) / 1000 + 1 : 0;
	delay.tv_sec = (time_t)(wait_us / 1000000);
	delay.tv_usec = (suseconds_t)(wait_us % 1000000);
	evtimer_add(retries->timer, &delay);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct retries *retries = arg;
	uint64_t now = now_ns();

	for (uint32_t i = 0; i < retries->cnt; i++) {
		if (!retries->of[i].due_ns || retries->of[i].due_ns > now)
			continue;
		retries->of[i].due_ns = 0;
		retries->on_due(retries->arg, i);
	}
	arm(retries);
}

struct retries *retries_create(struct event_base *base, uint32_t cnt,
			       void (*on_due)(void *arg, uint32_t idx), void *arg)
{
	struct retries *retries = calloc(1, sizeof(*retries) + cnt * sizeof(retries->of[0]));

	if (!retries)
		return NULL;
	retries->cnt = cnt;
	retries->on_due = on_due;
	retries->arg = arg;
	retries->timer = evtimer_new(base, on_timer, retries);
	if (!retries->timer) {
		free(retries);
		return NULL;
	}
	return retries;
}

void retries_destroy(struct retries *retries)
{
	if (!retries)
		return;
	event_free(retries->timer);
	free(retries);
}

void retries_plan(struct retries *retries, uint32_t idx, enum retry_news news)
{
	struct retry *retry = &retries->of[idx];

	switch (news) {
	case RETRY_FOUND:
		*retry = (struct retry){0};
		return;
	case RETRY_REMOVED:
		retry->wait_ms = REMOVED_MS;
		break;
	case RETRY_SILENT:
		retry->wait_ms = retry->wait_ms < SILENT_MS ? SILENT_MS : 2 * retry->wait_ms;
		if (retry->wait_ms > LONGEST_MS)
			retry->wait_ms = LONGEST_MS;
		break;
	}
	retry->due_ns = now_ns() + retry->wait_ms * UINT64_C(1000000);
	arm(retries);
}
