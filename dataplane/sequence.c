/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sequence: each event gets its place, (stream epoch, sequence), from the group's record in the
 * state region. The sequence is stored before the first copy leaves, so that a dataplane that dies
 * and is restarted never gives one twice. A group has one owner, so nothing here needs an atomic
 * but for fanwired's eyes.
 */
#include <sodium.h>

#include "dataplane/worker.h"

/* Random, never 0, without a system call: BLAKE2b of a counter under a key drawn at the start. */
static uint64_t epoch_draw(struct worker *w)
{
	uint64_t epoch;

	do {
		uint8_t out[crypto_generichash_BYTES_MIN];

		w->epoch_counter++;
		crypto_generichash(out, sizeof(out), (const uint8_t *)&w->epoch_counter,
				   sizeof(w->epoch_counter), w->epoch_key, sizeof(w->epoch_key));
		memcpy(&epoch, out, sizeof(epoch));
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
	/* pairs with fanwired's acquire when it shows the stream, and with our own restart */
	__atomic_store_n(&state->incarnation, incarnation, __ATOMIC_RELEASE);
}

static void sequence_one(struct worker *w, const struct fan_group *group, struct packet *packet)
{
	struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	uint64_t sequence;

	if (unlikely(state->incarnation != group->incarnation))
		stream_begin(w, state, group->incarnation);
	sequence = state->sequence + 1;
	__atomic_store_n(&state->sequence, sequence, __ATOMIC_RELEASE);
	packet->result.epoch = state->epoch;
	packet->result.sequence = sequence;
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
