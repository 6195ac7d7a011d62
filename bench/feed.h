/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealed publishes as frames, made outside the timed part: sequences must advance, so each is
 * sealed for this one use. One thread.
 */
#pragma once

#include "dataplane/worker.h"

struct feed {
	struct rte_mempool *pool;
	MB_MGR *crypto;
	uint32_t users, sessions;
	uint16_t payload_len;
	uint64_t *ids, *sequences; /* by session slot */
	struct gcm_key_data *keys;
	uint64_t random;
	uint64_t produced;
};

int feed_init(struct feed *feed, struct rte_mempool *pool, uint32_t users, uint32_t sessions,
	      uint16_t payload_len);
void feed_fini(struct feed *feed);
/* cnt publishes for users drawn at random, sessions in turn. 0 or -ENOMEM. */
int feed_make(struct feed *feed, struct rte_mbuf **mbufs, unsigned cnt);
/* One publish of that session for that user, feed_frame_len() bytes into memory of the caller's. */
void feed_seal(struct feed *feed, uint8_t *frame, uint32_t slot, uint32_t user);
uint16_t feed_frame_len(const struct feed *feed);
