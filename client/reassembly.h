/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Puts fragmented events together again, per group, by (publisher session, contiguous publisher
 * sequence). Bounded: so many at a time, so many bytes each, so long. What cannot be completed is
 * given back as the ranges of sequences that were taken in for it. One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/wire.h"

#define REASSEMBLY_CNT 32
/*
 * Of nothing new from the publisher. Long, for he may be waiting for a dataplane that starts again,
 * and an event that he goes on with afterwards must not have been given up.
 */
#define REASSEMBLY_EXPIRY_NS UINT64_C(30000000000)

struct reassembly_range {
	uint64_t channel, epoch, first, last;
};

/* Ranges that are lost, oldest first; a queue that its owner empties from `head`. */
struct reassembly_lost {
	struct reassembly_range *ranges;
	size_t cnt, head, room;
	bool dropped; /* out of memory: some are not there, and nobody has been told of them */
};

struct assembly {
	bool used;
	bool broken;	/* cannot be completed; its further fragments are counted as lost */
	bool silent;	/* began before we joined: not ours to miss */
	bool recovered; /* some of it came by replay */
	uint64_t channel, epoch, session;
	uint64_t next;	     /* publisher sequence of the next fragment */
	uint64_t touched_ns; /* the latest fragment came */
	uint8_t *bytes;
	size_t len, room;
	struct reassembly_range *runs; /* sequences taken in */
	size_t run_cnt, run_room;
};

struct reassembly {
	struct assembly assemblies[REASSEMBLY_CNT];
	unsigned used_cnt;
	uint8_t *complete; /* the event given out last */
	struct reassembly_lost lost;
	bool muted; /* what is given up now has been told before */
};

void reassembly_fini(struct reassembly *reassembly);

struct reassembled {
	const uint8_t *bytes; /* valid until the next call; a whole event's is `payload` itself */
	size_t len;
	bool recovered;
	uint64_t first; /* sequence of its first fragment */
};

/*
 * Takes in any delivery, whole events too: they tell that an earlier one of the session is
 * abandoned. A stream's come in order, each once. `followed`: what came before it is not from
 * before our time, so a missing begin is a loss. 1: *event is complete; 0: not yet, or lost;
 * -ENOMEM.
 */
int reassembly_add(struct reassembly *reassembly, const struct fan_delivery *delivery,
		   const uint8_t *payload, bool followed, uint64_t now_ns,
		   struct reassembled *event);

/* Gives up what has waited for REASSEMBLY_EXPIRY_NS; everything of a stream; everything; and when
 * the first is due next. */
void reassembly_expire(struct reassembly *reassembly, uint64_t now_ns);
void reassembly_drop_stream(struct reassembly *reassembly, uint64_t channel, uint64_t epoch);
void reassembly_drop_all(struct reassembly *reassembly);
uint64_t reassembly_deadline(const struct reassembly *reassembly);

/* The lowest sequence of a stream that is taken in, or lost, and not yet told; 0: none. */
uint64_t reassembly_unfinished(const struct reassembly *reassembly, uint64_t channel,
			       uint64_t epoch);

/* Appends to the lost ranges; joins the last one where they touch. */
void reassembly_lose(struct reassembly_lost *lost, const struct reassembly_range *range);
/* The oldest lost range; false: none. */
bool reassembly_next_lost(struct reassembly_lost *lost, struct reassembly_range *range);
