/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receiving sockets of the UDP transports, plain and scoped alike: those for which something is on
 * its way are read in turn, a batch at a time.
 */
#pragma once

#include "bench/peers/load.h"

struct receivers {
	int *fds; /* of receiver i */
	unsigned cnt;
	unsigned next;	   /* where the next round goes on */
	size_t header_len; /* bytes before the event in each datagram */
	struct receive_batch *batch;
};

int receivers_init(struct receivers *receivers, unsigned cnt, size_t header_len);
/* Closes no descriptor. */
void receivers_fini(struct receivers *receivers);
/* One round over the sockets. */
void receivers_poll(struct load *load, struct receivers *receivers);
