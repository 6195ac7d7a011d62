/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sequence: each event gets its place, (stream epoch, sequence), from the group's record in the
 * state region. The sequence is stored before the first copy leaves, so that a dataplane that dies
 * and is restarted never gives one twice. A group has one owner, so nothing here needs an atomic
 * but for fanwired's eyes.
 */
#include <sodium.h>

#include "dataplane/log.h"

#define SEQUENCE_MOST (UINT64_C(1) << 62)

/*
 * Random, never 0, without a system call: ChaCha20 (RFC 8439) under a key drawn at the start, many
 * at a time, since the first event of each group needs one.
 */
static uint64_t epoch_draw(struct worker *w)
{
	uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
	uint64_t epoch;

	_Static_assert(sizeof(nonce) == sizeof(w->epoch_counter), "the nonce is a counter");
	do {
		if (w->epoch_left == 0) {
			w->epoch_counter++;
			memcpy(nonce, &w->epoch_counter, sizeof(nonce));
			crypto_stream_chacha20((uint8_t *)w->epochs, sizeof(w->epochs), nonce,
					       w->epoch_key);
			w->epoch_left = EPOCHS_DRAWN;
		}
		epoch = w->epochs[--w->epoch_left];
	} while (epoch == 0);
	return epoch;
}

/* A new incarnation is a new stream. Incarnation last: until then the record is nobody's. */
static void stream_begin(struct worker *w, struct fan_group_state *state, uint64_t incarnation)
{
	__atomic_store_n(&state->incarnation, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&state->epoch, epoch_draw(w), __ATOMIC_RELAXED);
	__atomic_store_n(&state->sequence, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&state->copies, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&state->log_tail, 0, __ATOMIC_RELAXED);
	/* pairs with fanwired's acquire when it shows the stream, and with our own restart */
	__atomic_store_n(&state->incarnation, incarnation, __ATOMIC_RELEASE);
}

static void sequence_one(struct worker *w, const struct fan_group *group, struct packet *packet)
{
	struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	uint64_t sequence;

	if (unlikely(state->incarnation != group->incarnation ||
		     state->sequence >= SEQUENCE_MOST)) /* a damaged record: never to be wrapped */
		stream_begin(w, state, group->incarnation);
	sequence = state->sequence + 1;
	__atomic_store_n(&state->sequence, sequence, __ATOMIC_RELEASE);
	packet->result.epoch = state->epoch;
	packet->result.sequence = sequence;
	log_prefetch(w, state);
	COUNT(w, events_sequenced);
}

void sequence_burst(struct worker *w)
{
	for (unsigned i = 0; i < w->event_cnt; i++) {
		struct packet *packet = packet_of(w->events[i]);

		if (w->groups[i]) {
			sequence_one(w, w->groups[i], packet);
		} else {
			packet->result.status = FAN_RESULT_NO_GROUP;
			COUNT(w, events_no_group);
		}
	}
}
