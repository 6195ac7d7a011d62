/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memif link of a process: DPDK's environment and port, frames in and out, and which receiver a
 * datagram is for. A receiver gets only what its scope lets through. One thread.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>

#include "client/bypass/fanwire_bypass.h"
#include "client/bypass/scope.h"

#define RECEIVER_QUEUE 2048 /* datagrams that wait for their subscription; power of two */
#define LINK_BURST     64

struct receiver_datagram {
	struct rte_mbuf *mbuf;
	const uint8_t *packet; /* UDP payload, in the mbuf */
	uint32_t len;
};

/* One UDP port of ours, and who reads it. */
struct receiver {
	struct fan_bypass *link;
	uint16_t port;
	bool scoped;			       /* before that nothing is accepted */
	bool ready;			       /* in the link's list */
	struct fan_subscription *subscription; /* whose it is, once that is known */
	struct bypass_scope scope;
	uint32_t head, tail; /* of the queue; they only grow */
	struct receiver_datagram queue[RECEIVER_QUEUE];
};

struct fan_bypass {
	uint16_t port_id;
	struct rte_mempool *pool;
	uint8_t address[16]; /* v4-mapped for IPv4 */
	uint8_t family;
	uint16_t port_first, port_last;
	uint8_t mac[6], peer_mac[6];
	struct receiver **receivers; /* by port - port_first */
	struct receiver **ready;     /* those that may have something waiting */
	unsigned ready_cnt;
	uint64_t now_ns; /* of the last look at the link by fan_bypass_poll() */
	bool polled;	 /* by fan_bypass_poll(): a subscription does not look at the link itself */
	struct fan_bypass_counts counts;
	/* Sees what is not ours before it is dropped; NULL: nobody. Does not keep the mbuf. */
	void (*stranger)(void *arg, struct rte_mbuf *mbuf);
	void *stranger_arg;
};

/* A receiver at a free port, not scoped yet; NULL: every port is taken, or no memory. */
struct receiver *link_receiver_add(struct fan_bypass *link);
void link_receiver_del(struct receiver *receiver);

/* Takes a burst off the link and gives each datagram to its receiver. How many frames there were.
 */
unsigned link_poll(struct fan_bypass *link);

/* Sends one UDP datagram from a receiver's port; to: v4-mapped for IPv4. It may get lost. */
void link_send(struct fan_bypass *link, uint16_t from_port, const uint8_t to[16], uint16_t to_port,
	       const uint8_t *payload, size_t len);

/* ---- frames (frame.c) ---- */

/* Where a frame's UDP datagram goes, and its payload. */
struct frame_datagram {
	uint8_t address[16]; /* destination; v4-mapped for IPv4 */
	uint16_t port;
	const uint8_t *payload;
	uint32_t len;
};
enum frame_verdict { FRAME_OK, FRAME_STRANGE, FRAME_MALFORMED };
/* Every length is checked against the bytes that are there; a fragment is no datagram. */
enum frame_verdict frame_parse(const uint8_t *frame, size_t frame_len, struct frame_datagram *out);
