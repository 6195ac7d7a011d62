/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/send.h"

#include "dataplane/frame.h"
#include "dataplane/shim.h"

#define TX_RETRIES 64 /* in a row, without the port taking a packet */

/* The last few, one by one. */
static void room_scrape(struct worker *w)
{
	while (w->tx_ready < TX_BURST) {
		struct rte_mbuf *mbuf = rte_mbuf_raw_alloc(w->plane->tx_pool);

		if (!mbuf)
			return;
		w->tx[w->tx_ready++] = mbuf;
	}
}

unsigned send_room(struct worker *w)
{
	if (w->tx_cnt == TX_BURST)
		send_flush(w);
	if (w->tx_ready == w->tx_cnt) {
		if (likely(rte_mempool_get_bulk(w->plane->tx_pool, (void **)w->tx + w->tx_cnt,
						TX_BURST - w->tx_cnt) == 0))
			w->tx_ready = TX_BURST;
		else
			room_scrape(w);
	}
	return w->tx_ready - w->tx_cnt;
}

void send_made(struct worker *w, unsigned cnt, uint16_t len, uint16_t kind)
{
	struct tx_run *run = &w->tx_runs[w->tx_run_cnt++];

	run->kind = kind;
	run->cnt = (uint16_t)cnt;
	run->len = len;
	w->tx_cnt += cnt;
}

void send_datagram(struct worker *w, const struct destination *to, const uint8_t *bytes,
		   uint16_t len, uint16_t sum, uint16_t kind)
{
	const struct frame_template *template = frame_template_get(w, to->nexthop, to->family, len);
	struct rte_mbuf *mbuf;
	uint8_t *frame;

	if (!template)
		return;
	if (unlikely(send_room(w) == 0)) {
		COUNT(w, drop_no_mbuf);
		return;
	}
	mbuf = w->tx[w->tx_cnt];
	rte_pktmbuf_reset(mbuf);
	RTE_VERIFY(rte_pktmbuf_tailroom(mbuf) >= template->len + len);
	frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
	frame_build(frame, template, to->address, to->port, len, sum);
	rte_memcpy(frame + template->len, bytes, len);
	mbuf->data_len = (uint16_t)(template->len + len);
	mbuf->pkt_len = mbuf->data_len;
	send_made(w, 1, mbuf->data_len, kind);
}

void send_queue(struct worker *w, struct rte_mbuf *mbuf, uint16_t kind)
{
	if (w->tx_cnt == TX_BURST)
		send_flush(w);
	if (w->tx_ready == TX_BURST) /* its place is taken by an empty one */
		rte_mbuf_raw_free(w->tx[--w->tx_ready]);
	w->tx[w->tx_ready++] = w->tx[w->tx_cnt];
	w->tx[w->tx_cnt] = mbuf;
	send_made(w, 1, mbuf->data_len, kind);
}

/* A worker without a transmit queue has acknowledgements only: the queue's owner sends them. */
static unsigned flush_through_other(struct worker *w)
{
	unsigned to = w->idx % w->plane->tx_queue_cnt;
	struct rte_ring *ring = w->plane->rings[HANDOVER_TRANSMIT][w->idx][to];

	return rte_ring_sp_enqueue_burst(ring, (void **)w->tx, w->tx_cnt, NULL);
}

static unsigned flush_to_port(struct worker *w)
{
	unsigned sent = 0, retries = 0;

	while (sent < w->tx_cnt && retries < TX_RETRIES) {
		uint16_t n = shim_transmit(w->plane->port_id, (uint16_t)w->idx, w->tx + sent,
					   (uint16_t)(w->tx_cnt - sent));

		sent += n;
		retries = n ? 0 : retries + 1;
	}
	return sent;
}

/* What the port took, by kind. Sent mbufs are no longer ours to read: the runs tell. */
static void runs_count(struct worker *w, unsigned sent)
{
	uint64_t bytes = 0;

	COUNT_N(w, tx_packets, sent);
	for (unsigned i = 0; sent; i++) {
		const struct tx_run *run = &w->tx_runs[i];
		unsigned cnt = RTE_MIN(sent, (unsigned)run->cnt);

		w->tx_sent[run->kind] += cnt;
		bytes += (uint64_t)cnt * run->len;
		sent -= cnt;
	}
	COUNT_N(w, tx_bytes, bytes);
}

void send_flush(struct worker *w)
{
	bool own_queue = w->idx < w->plane->tx_queue_cnt;
	unsigned empty = w->tx_ready - w->tx_cnt, sent;

	if (w->tx_cnt == 0)
		return;
	sent = likely(own_queue) ? flush_to_port(w) : flush_through_other(w);
	if (likely(own_queue)) /* the others' are counted by who sends them */
		runs_count(w, sent);
	if (unlikely(sent < w->tx_cnt)) {
		COUNT_N(w, drop_tx_full, w->tx_cnt - sent);
		rte_pktmbuf_free_bulk(w->tx + sent, w->tx_cnt - sent);
	}
	memmove(w->tx, w->tx + w->tx_cnt, empty * sizeof(w->tx[0]));
	w->tx_ready = empty;
	w->tx_cnt = w->tx_run_cnt = 0;
}

void send_fini(struct worker *w)
{
	for (unsigned i = w->tx_cnt; i < w->tx_ready; i++)
		rte_mbuf_raw_free(w->tx[i]);
	w->tx_ready = w->tx_cnt;
}
