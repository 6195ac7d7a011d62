/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bad network, for tests only: what is received and what is given to the port is lost, repeated,
 * held back and damaged, as FANWIRE_SHIM says (names and defaults: shim.c), from a seed: what is
 * done to the n-th packet of a worker and direction depends on the seed and n alone. What is held
 * back leaves when that many packets have passed, or when none has come for a while.
 *
 * Only a build with -Dshim=true has it. In every other one these functions are what they wrap, and
 * nothing else is left (tests/model/no_plants.py).
 */
#pragma once

#include <rte_ethdev.h>

#ifdef FAN_SHIM

/* Reads the settings; 0, or -EINVAL and a log line. Main lcore, before workers are launched. */
int shim_start(void);
/* As rte_eth_rx_burst() and rte_eth_tx_burst(), for queue == the worker's number; that lcore. */
uint16_t shim_receive(uint16_t port, uint16_t queue, struct rte_mbuf **to, uint16_t cnt);
uint16_t shim_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t cnt);
/* Tells what was done, and frees what is held. Main lcore, after the workers have left. */
void shim_stop(void);

#else

static inline int shim_start(void)
{
	return 0;
}

static inline uint16_t shim_receive(uint16_t port, uint16_t queue, struct rte_mbuf **to,
				    uint16_t cnt)
{
	return rte_eth_rx_burst(port, queue, to, cnt);
}

static inline uint16_t shim_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **from,
				     uint16_t cnt)
{
	return rte_eth_tx_burst(port, queue, from, cnt);
}

static inline void shim_stop(void)
{
}

#endif
