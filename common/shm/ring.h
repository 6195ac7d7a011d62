/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Single-producer single-consumer ring between two processes that can each write one region only:
 * slots and head lie in the producer's region, the tail in the consumer's.
 * Head and tail are free-running 32-bit counts; the slot is count & (cnt - 1), cnt a power of two.
 *
 * Either region may be made anew while the other goes on, at any instant. A dataplane that makes
 * its region sets its ends to where the registry's stand; where that and the other end's last steps
 * cross, the counts no longer fit, and the consumer skips to the head: nothing is stuck for ever.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Producer: false when full. Pairs: head release/acquire; tail release/acquire (slot is free). */
static inline bool fan_ring_try_push(void *slots, uint32_t cnt, uint32_t slot_len, uint32_t *head,
				     const uint32_t *tail, const void *item)
{
	uint32_t h = __atomic_load_n(head, __ATOMIC_RELAXED);
	uint32_t t = __atomic_load_n(tail, __ATOMIC_ACQUIRE); /* pairs with try_pop's release */

	if (h - t >= cnt)
		return false;
	memcpy((char *)slots + (size_t)(h & (cnt - 1)) * slot_len, item, slot_len);
	__atomic_store_n(head, h + 1, __ATOMIC_RELEASE); /* pairs with try_pop's acquire */
	return true;
}

/* Consumer: false when empty. What an impossible head promises is skipped, never read. */
static inline bool fan_ring_try_pop(const void *slots, uint32_t cnt, uint32_t slot_len,
				    const uint32_t *head, uint32_t *tail, void *item)
{
	uint32_t t = __atomic_load_n(tail, __ATOMIC_RELAXED);
	uint32_t h = __atomic_load_n(head, __ATOMIC_ACQUIRE); /* pairs with try_push's release */

	if (h - t > cnt)
		__atomic_store_n(tail, h, __ATOMIC_RELEASE); /* pairs with try_push's acquire */
	if (h == t || h - t > cnt)
		return false;
	memcpy(item, (const char *)slots + (size_t)(t & (cnt - 1)) * slot_len, slot_len);
	__atomic_store_n(tail, t + 1, __ATOMIC_RELEASE); /* pairs with try_push's acquire */
	return true;
}
