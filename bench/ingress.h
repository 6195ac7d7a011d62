/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receive queue without a wire: datagrams that were sealed beforehand arrive when their time has
 * come, wait in a queue as long as a port's, and are lost where it is full. And the publishers that
 * send into it, each one session, which as the real ones go back to the gap when something was
 * lost. The worker's lcore, but for init and fini.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/rig.h"

#define INGRESS_CNT 2048 /* as many descriptors as dataplane/port.c asks for; power of two */

struct ingress {
	const uint8_t *frames[INGRESS_CNT];
	uint32_t head, tail;
	uint16_t frame_len;
	uint64_t lost;
};

void ingress_push(struct ingress *ingress, const uint8_t *frame);
/* Up to cnt frames, in the order of their arrival, as a port gives them. */
unsigned ingress_take(struct ingress *ingress, struct rte_mempool *pool, struct rte_mbuf **mbufs,
		      unsigned cnt);

struct publisher {
	struct rig *rig;
	uint32_t slot;	/* of its session */
	uint32_t cnt;	/* publishes that are sealed */
	uint32_t sent;	/* of these, in this round */
	uint32_t moved; /* what was accepted when that last changed */
	uint64_t moved_tsc;
	uint8_t *frames;
};

/* Seals cnt publishes, for users drawn from first..first + users - 1. 0 or -ENOMEM. */
int publisher_init(struct publisher *p, struct rig *rig, uint32_t slot, uint32_t cnt,
		   uint32_t first, uint32_t users);
void publisher_fini(struct publisher *p);
/* How many of this round the worker has accepted. */
uint32_t publisher_accepted(const struct publisher *p);
/* The same publishes can be sent again: to the worker the session is a fresh one. */
void publisher_restart(struct publisher *p);
void publisher_send(struct publisher *p, struct ingress *ingress); /* the next one */
/* What is sent but not accepted will be sent again. */
void publisher_go_back(struct publisher *p);
/* Goes back where nothing more was accepted for rto_tsc cycles though something is under way. */
bool publisher_timeout(struct publisher *p, uint64_t now_tsc, uint64_t rto_tsc);
