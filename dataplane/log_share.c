/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What each user has in ring 0 is known by its records alone, so a successor counts them once: a
 * record leads to the one behind it, and where none stands, over what the predecessor was writing
 * or before the ring's end, each line is looked at.
 */
#include "dataplane/log.h"

/* Bytes of the record at `at`, which would have this position; 0: there is none. */
static uint64_t record_len(const struct log_ring *ring, uint64_t at, uint64_t position, uint64_t to,
			   bool sure)
{
	const struct fan_log_record *record = (const void *)(ring->bytes + at);
	uint64_t len;

	if (record->position != position || record->image_len < FAN_DELIVERY_LEN)
		return 0;
	len = RTE_ALIGN_CEIL(sizeof(*record) + record->image_len, FAN_LOG_ALIGN);
	/* found by chance it might be what somebody published, made to look like one */
	return len <= to - at && (sure || log_is_whole(record)) ? len : 0;
}

/* The part from..to of ring 0, as it was filled in that window; whole records. */
static unsigned charge(struct worker *w, uint64_t window, uint64_t from, uint64_t to, bool present)
{
	const struct log_ring *ring = &w->log->rings[0];
	unsigned cnt = 0;
	bool sure = false;
	uint64_t len;

	for (uint64_t at = from; at < to; at += len) {
		struct log_share *share;

		len = record_len(ring, at, window * ring->size + at, to, sure);
		sure = len;
		if (!len) {
			len = FAN_LOG_ALIGN;
			continue;
		}
		/* records are of one size more often than not */
		__builtin_prefetch(ring->bytes + RTE_MIN(at + 4 * len, ring->size - 1));
		__builtin_prefetch(ring->bytes +
				   RTE_MIN(at + 4 * len + FAN_LOG_ALIGN, ring->size - 1));
		share = log_share_of(w, ring->bytes + at + sizeof(struct fan_log_record) +
						FAN_DELIVERY_HANDLE_OFF);
		*(present ? &share->cnt : &share->last) += (uint32_t)(len / FAN_LOG_ALIGN);
		cnt++;
	}
	return cnt;
}

unsigned log_shares_count(struct worker *w)
{
	const struct log_ring *ring = &w->log->rings[0];
	uint64_t window = ring->head / ring->size;
	unsigned cnt = 0;

	for (unsigned i = 0; i < LOG_SHARES; i++)
		w->log->shares[i].window = (uint32_t)window;
	if (window)
		cnt = charge(w, window - 1, ring->at, ring->size, false);
	return cnt + charge(w, window, 0, ring->at, true);
}
