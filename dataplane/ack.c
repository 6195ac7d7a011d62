/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Acknowledgements: one a session and burst (more only where one cannot hold all results), sealed
 * under the session's key and sent to the session's registered address, never to where a packet
 * claims to come from.
 */
#include "dataplane/send.h"
#include "dataplane/session.h"

#define CUMULATIVE_LEN 8
#define ACK_MAX \
	(FAN_ACK_LEN + CUMULATIVE_LEN + FAN_ACK_RESULT_MAX * FAN_ACK_RESULT_LEN + FAN_TAG_LEN)

/* An acknowledgement in the making. */
struct ack {
	const struct fan_session *session;
	uint64_t id; /* of the session */
	struct fan_session_state *state;
	unsigned cnt;
	uint32_t wait_ms; /* something was held back for so long; 0: nothing was */
	uint8_t bytes[ACK_MAX + KERNEL_SLACK];
};

/* The counter is stored before anything is sealed under it: no nonce is used twice, whatever dies.
 */
static void ack_send(struct worker *w, struct ack *ack)
{
	unsigned body_len = CUMULATIVE_LEN + ack->cnt * FAN_ACK_RESULT_LEN;
	uint8_t *body = ack->bytes + FAN_ACK_LEN;
	uint16_t len = (uint16_t)(FAN_ACK_LEN + body_len + FAN_TAG_LEN);
	uint64_t cumulative = rte_cpu_to_be_64(ack->state->accepted);
	struct gcm_context_data context;
	uint8_t nonce[FAN_NONCE_LEN];
	const struct fan_ack header = {
		.count = (uint8_t)ack->cnt,
		.flags = ack->wait_ms ? FAN_ACK_OVER_BUDGET : 0,
		.wait_ms = ack->wait_ms,
		.session = ack->id,
		.counter = ack->state->ack_counter + 1,
	};
	const struct destination to = {
		.address = ack->session->address,
		.nexthop = ack->session->nexthop,
		.port = ack->session->port,
		.family = ack->session->family,
	};

	__atomic_store_n(&ack->state->ack_counter, header.counter, __ATOMIC_SEQ_CST);
	fan_ack_encode(ack->bytes, &header);
	memcpy(body, &cumulative, sizeof(cumulative));
	fan_nonce(nonce, FAN_DIRECTION_ACK, header.counter);
	IMB_AES256_GCM_ENC(w->crypto, session_key(w, ack->session, ack->id), &context, body, body,
			   body_len, nonce, ack->bytes, FAN_ACK_LEN, body + body_len, FAN_TAG_LEN);
	send_datagram(w, &to, ack->bytes, len, w->plane->kernels->sum(ack->bytes, len), SENT_ACK);
	ack->cnt = 0;
}

/*
 * A slot's chain may be of several sessions, of which at most one is open; the others were closed.
 * Index + 1 of the first packet of the open one, or 0.
 */
static unsigned ack_begin(struct worker *w, struct ack *ack, unsigned first)
{
	for (unsigned i = first + 1; i; i = w->ack_next[i - 1]) {
		ack->id = packet_of(w->done[i - 1])->publish.session;
		ack->session = session_get(w, ack->id);
		if (!ack->session) {
			COUNT(w, drop_session_closed);
			continue;
		}
		ack->state = session_state(w, ack->id);
		ack->cnt = 0;
		ack->wait_ms = 0;
		return i;
	}
	return 0;
}

/* All of one slot's done packets, in the order in which they came. */
static void session_ack(struct worker *w, unsigned first)
{
	struct ack ack;
	unsigned begin = ack_begin(w, &ack, first);
	bool told = false;

	if (!begin)
		return;
	for (unsigned i = begin; i; i = w->ack_next[i - 1]) {
		const struct packet *packet = packet_of(w->done[i - 1]);

		if (packet->publish.session != ack.id)
			COUNT(w, drop_session_closed);
		if (packet->publish.session == ack.id && packet->wait_ms)
			ack.wait_ms = packet->wait_ms;
		if (packet->publish.session != ack.id || !packet->answered)
			continue;
		fan_result_encode(ack.bytes + FAN_ACK_LEN + CUMULATIVE_LEN +
					  ack.cnt * FAN_ACK_RESULT_LEN,
				  &packet->result);
		told = true;
		if (++ack.cnt == FAN_ACK_RESULT_MAX)
			ack_send(w, &ack);
	}
	if (ack.cnt || !told)
		ack_send(w, &ack);
}

void ack_burst(struct worker *w)
{
	uint32_t mask = w->plane->table.session_mask;

	/* From the last to the first, so that each chain begins with its first. */
	for (unsigned i = w->done_cnt; i-- > 0;) {
		uint32_t slot = (uint32_t)packet_of(w->done[i])->publish.session & mask;

		w->ack_next[i] = w->ack_first[slot];
		w->ack_first[slot] = (uint16_t)(i + 1);
	}
	for (unsigned i = 0; i < w->done_cnt; i++) {
		uint32_t slot = (uint32_t)packet_of(w->done[i])->publish.session & mask;

		if (w->ack_first[slot] != i + 1)
			continue;
		w->ack_first[slot] = 0;
		session_ack(w, i);
	}
	send_flush(w);
	COUNT_N(w, acks_sent, w->tx_sent[SENT_ACK]); /* those of workers without a queue included */
	w->tx_sent[SENT_ACK] = 0;
	if (w->done_cnt)
		rte_pktmbuf_free_bulk(w->done, w->done_cnt);
	w->done_cnt = 0;
}
