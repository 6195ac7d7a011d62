/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What brings a subscription its datagrams: a scoped socket (socket_transport.c) or a DPDK link
 * (bypass/). Everything above it, streams, losses, leases, is the same. The subscription's thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fan_subscription;

struct transport {
	/* Adds to the request what this way of receiving needs besides. May be NULL. */
	void (*ask)(const struct fan_subscription *subscription, json_t *request);
	/* The registration is granted: ready to receive. 0 or -errno with fan_error(). */
	int (*open)(struct fan_subscription *subscription, const json_t *answer,
		    uint32_t payload_limit);
	/*
	 * Fills subscription->batch, which is used up, with whole datagrams; they stay where they
	 * are until the next call. false: none is at hand.
	 */
	bool (*fill)(struct fan_subscription *subscription);
	/* One datagram to the engine, or not: an echo that gets lost is asked for again. */
	void (*send)(struct fan_subscription *subscription, const uint8_t *packet, size_t len);
	/* Until something may be at hand or the deadline is over. */
	void (*wait)(struct fan_subscription *subscription, uint64_t deadline_ns);
	/* What time it is, CLOCK_MONOTONIC; as of the last look at the link where that will do. */
	uint64_t (*now)(const struct fan_subscription *subscription);
	/*
	 * It is read by polling, far more often than a socket is: what costs a system call, a look
	 * at fanwired's socket and the timer of events that wait, is not done for each batch.
	 */
	bool polled;
	/* Whether a broken connection to fanwired can be mended: else the registration has ended.
	 */
	bool attaches;
	void (*close)(struct fan_subscription *subscription);
};

extern const struct transport socket_transport;
