/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many of something each uid has, with one limit for all. Owner: client_socket. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define UID_BUCKETS 64

struct uid_count;
LIST_HEAD(uid_list, uid_count);

struct uid_counts {
	uint32_t limit;
	struct uid_list buckets[UID_BUCKETS]; /* zero is empty */
};

/* One more; false: it has as many as it may, or memory is out. */
bool uid_counts_get(struct uid_counts *counts, uint32_t uid);
/* One fewer, of those that it got. */
void uid_counts_put(struct uid_counts *counts, uint32_t uid);
