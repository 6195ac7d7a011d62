/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/send.h"

#include "dataplane/frame.h"

#define TX_RETRIES 64 /* in a row, without the port taking a packet */

struct rte_mbuf *send_alloc(struct worker *w)
{
	if (w->spare_cnt == 0) {
		if (rte_pktmbuf_alloc_bulk(w->plane->pool, w->spare, SPARE_MAX))
			return rte_pktmbuf_alloc(w->plane->pool); /* the last few, one by one */
		w->spare_cnt = SPARE_MAX;
	}
	return w->spare[--w->spare_cnt];
}

void send_datagram(struct worker *w, const struct destination *to, const uint8_t *bytes,
		   uint16_t len, uint16_t sum, uint16_t kind)
{
	const struct frame_template *template;
	struct rte_mbuf *mbuf;
	uint8_t *frame;

	if (unlikely(to->nexthop >= w->plane->table.nexthop_cnt)) {
		COUNT(w, drop_endpoint_range);
		return;
	}
	template = frame_template_get(w, to->nexthop);
	if (unlikely(!template->usable || template->family != to->family)) {
		w->counters[template->usable ? FAN_COUNTER_drop_endpoint_range
					     : template->reason]++;
		return;
	}
	if (unlikely(template->len - RTE_ETHER_HDR_LEN + len > template->mtu)) {
		COUNT(w, drop_mtu);
		return;
	}
	mbuf = send_alloc(w);
	if (unlikely(!mbuf || rte_pktmbuf_tailroom(mbuf) < template->len + len)) {
		COUNT(w, drop_no_mbuf);
		rte_pktmbuf_free(mbuf);
		return;
	}
	frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
	frame_build(frame, template, to->address, to->port, len, sum);
	rte_memcpy(frame + template->len, bytes, len);
	mbuf->data_len = (uint16_t)(template->len + len);
	mbuf->pkt_len = mbuf->data_len;
	send_queue(w, mbuf, kind);
}

void send_queue(struct worker *w, struct rte_mbuf *mbuf, uint16_t kind)
{
	w->tx[w->tx_cnt] = mbuf;
	w->tx_kind[w->tx_cnt] = kind;
	if (++w->tx_cnt == TX_BURST)
		send_flush(w);
}

/* A worker without a transmit queue has acknowledgements only: the queue's owner sends them. */
static void flush_through_other(struct worker *w)
{
	unsigned to = w->idx % w->plane->tx_queue_cnt;
	struct rte_ring *ring = w->plane->rings[HANDOVER_TRANSMIT][w->idx][to];
	unsigned sent = rte_ring_sp_enqueue_burst(ring, (void **)w->tx, w->tx_cnt, NULL);

	if (sent < w->tx_cnt) {
		COUNT_N(w, drop_tx_full, w->tx_cnt - sent);
		rte_pktmbuf_free_bulk(w->tx + sent, w->tx_cnt - sent);
	}
	w->tx_cnt = 0;
}

void send_flush(struct worker *w)
{
	unsigned sent = 0, retries = 0;
	uint16_t lens[TX_BURST];
	uint64_t bytes = 0;

	if (w->tx_cnt == 0)
		return;
	if (unlikely(w->idx >= w->plane->tx_queue_cnt)) {
		flush_through_other(w);
		return;
	}
	for (unsigned i = 0; i < w->tx_cnt; i++) /* sent mbufs are no longer ours to read */
		lens[i] = w->tx[i]->data_len;
	while (sent < w->tx_cnt && retries < TX_RETRIES) {
		uint16_t n = rte_eth_tx_burst(w->plane->port_id, (uint16_t)w->idx, w->tx + sent,
					      (uint16_t)(w->tx_cnt - sent));

		sent += n;
		retries = n ? 0 : retries + 1;
	}
	for (unsigned i = 0; i < sent; i++) {
		w->tx_sent[w->tx_kind[i]]++;
		bytes += lens[i];
	}
	COUNT_N(w, tx_packets, sent);
	COUNT_N(w, tx_bytes, bytes);
	if (unlikely(sent < w->tx_cnt)) {
		COUNT_N(w, drop_tx_full, w->tx_cnt - sent);
		rte_pktmbuf_free_bulk(w->tx + sent, w->tx_cnt - sent);
	}
	w->tx_cnt = 0;
}

void send_fini(struct worker *w)
{
	if (w->spare_cnt)
		rte_pktmbuf_free_bulk(w->spare, w->spare_cnt);
	w->spare_cnt = 0;
}
