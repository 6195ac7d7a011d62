/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sending: frames are built from a next hop's template and go out in bursts that are filled across
 * events. The worker's lcore only.
 */
#pragma once

#include "dataplane/worker.h"

/* Where one datagram goes. */
struct destination {
	const uint8_t *address; /* 16 bytes */
	uint32_t nexthop;
	uint16_t port; /* host byte order */
	uint8_t family;
};

/*
 * Empty mbufs for the next frames, at w->tx + w->tx_cnt: how many there are, at most TX_BURST, 0
 * where buffers are exhausted (the caller counts drop_no_mbuf). Only their buffers are set up: the
 * caller fills in the rest, and says how many it used with send_made().
 */
unsigned send_room(struct worker *w);
/* The next cnt of them are frames of len bytes now. kind: index of tx_sent. */
void send_made(struct worker *w, unsigned cnt, uint16_t len, uint16_t kind);

/*
 * Queues one datagram to `to`, copied into a new mbuf; sum = partial checksum of its bytes
 * (rte_raw_cksum). kind: index of tx_sent. Counts the reason where it cannot be sent.
 */
void send_datagram(struct worker *w, const struct destination *to, const uint8_t *bytes,
		   uint16_t len, uint16_t sum, uint16_t kind);
/* Queues a finished frame that another worker made. */
void send_queue(struct worker *w, struct rte_mbuf *mbuf, uint16_t kind);
/* Gives the port all that is queued; what it does not take in a bounded time is dropped. */
void send_flush(struct worker *w);
/* Frees what is kept for sending. */
void send_fini(struct worker *w);
