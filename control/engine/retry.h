/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * When to ask the kernel again for a neighbour that it has lost: at once where somebody took it
 * out, with growing pauses where it does not answer. One timer for all. Event-loop thread only.
 */
#pragma once

#include <stdint.h>

struct event_base;
struct retries;

enum retry_news {
	RETRY_FOUND,
	RETRY_REMOVED, /* taken out by an administrator: it may well answer */
	RETRY_SILENT,  /* was asked and did not answer */
};

/* For places 0 to cnt - 1. `on_due` may plan anew. NULL where memory is exhausted. */
struct retries *retries_create(struct event_base *base, uint32_t cnt,
			       void (*on_due)(void *arg, uint32_t idx), void *arg);
void retries_destroy(struct retries *retries);
void retries_plan(struct retries *retries, uint32_t idx, enum retry_news news);
