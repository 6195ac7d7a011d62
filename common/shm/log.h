/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event log in the state region: what makes an event an event. Each worker has a log of its
 * own, in which it writes every event of its groups before the first copy leaves; what is not in it
 * (any more) cannot be had again.
 *
 * A worker's part of the log is two rings: ring 0 has three quarters of it and the events of all;
 * ring 1 those of users who have used up their share of ring 0, so that one user evicts the history
 * of others like himself, and nobody else's. A position is a count of bytes ever logged in its
 * ring, a multiple of FAN_LOG_ALIGN, from FAN_LOG_ALIGN on; 0 is none; the top bit names the ring.
 * A record lies at position % ring size, never across the ring's end: what is left there is
 * skipped.
 *
 * W: the worker that owns the group. R: the same worker (replay); fanwired the heads only.
 * Source of the skips: as in a skip list with fixed towers (Pugh, 1990), kept by the record instead
 * of the list, since records never move.
 */
#pragma once

#include <stdint.h>

#define FAN_LOG_ALIGN	  64u
#define FAN_LOG_RING_BIT  (UINT64_C(1) << 63)
#define FAN_LOG_SKIPS	  3 /* levels */
#define FAN_LOG_SKIP_BITS 4 /* each level skips 16 times as far as the one below */

/*
 * Head of a record; the image follows: delivery header and payload as they were first sent, the
 * payload sealed where deliveries are. `position` is stored last (release) and repeats where the
 * record stands: any other value is no record, or one that was torn. `check` is a CRC-32C of
 * the head from `image_len` on and of four more, of every fourth word of the image, whose last line
 * is filled up with zeros. previous: the group's record before; skip[i]: the
 * group's latest record before this one whose sequence is a multiple of 16^(i + 1). Positions.
 */
struct fan_log_record {
	uint64_t position;
	uint32_t check;
	uint16_t image_len; /* bytes */
	uint16_t pad;
	uint64_t incarnation; /* of the group */
	uint64_t sequence;
	uint64_t previous;
	uint64_t skip[FAN_LOG_SKIPS];
};
_Static_assert(sizeof(struct fan_log_record) == 64, "head of a record is one cache line");

/*
 * A position in the 32 bits that a group's state has for it: its ring in the top bit, then its low
 * bits in units of FAN_LOG_ALIGN. Whole again beside the ring's head, as long as less than
 * 2^31 * FAN_LOG_ALIGN bytes were logged since; what was aliased fails the record's own check.
 */
static inline uint32_t fan_log_place(uint64_t position)
{
	return (uint32_t)(position >> 63) << 31 |
	       (uint32_t)(position / FAN_LOG_ALIGN & UINT32_C(0x7fffffff));
}

static inline uint64_t fan_log_position(uint32_t place, const uint64_t heads[2])
{
	uint64_t ring = place >> 31, head = heads[ring] / FAN_LOG_ALIGN;
	uint64_t back = (head - place) & UINT32_C(0x7fffffff);

	return place && back <= head ? (head - back) * FAN_LOG_ALIGN | ring << 63 : 0;
}
