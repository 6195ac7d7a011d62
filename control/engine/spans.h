/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Addresses that share one way: the space between two neighbouring ends of the kernel's route and
 * rule prefixes lies within the same prefixes of every table, so one question to the kernel answers
 * for all of it. So millions of addresses behind a few gateways need a few questions. One family
 * each; no system calls; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPANS_MAX \
	(1u << 20) /* twice the prefixes: more are not kept, and each address is asked for */

enum span_way {
	SPAN_UNKNOWN, /* not asked yet */
	SPAN_GATEWAY, /* all by next hop `hop` */
	SPAN_ON_LINK, /* each address is its own next hop */
};
struct span {
	uint8_t first[16]; /* up to the next one's, or to the end of all addresses */
	uint32_t hop;
	enum span_way way;
};
struct spans {
	struct span *items; /* in order once closed */
	uint32_t cnt, room;
	bool closed;
};

/* Empties them, to be filled anew. */
void spans_clear(struct spans *spans);
void spans_free(struct spans *spans);
/* A prefix of `bits` leading bits of 16 bytes (IPv4: v4-mapped, 96 + its length). -ENOMEM, -E2BIG.
 */
int spans_add(struct spans *spans, const uint8_t prefix[16], unsigned bits);
/* Sorts: from now on they can be searched. */
int spans_close(struct spans *spans);
/* The one an address lies in; never NULL once closed. */
struct span *spans_find(struct spans *spans, const uint8_t address[16]);
