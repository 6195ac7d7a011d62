/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The baseline: how DPDK's own sample, examples/ipv4_multicast of 22.11, replicates a packet,
 * behind a lookup in rte_hash, one event at a time. It opens, sequences and tags nothing. Each copy
 * has its own Ethernet, IPv4 and UDP header with its own destination and right checksums.
 *
 *   clone      mcast_out_pkt() with use_clone: a header mbuf and a clone of the payload a copy; the
 *              last copy takes the packet itself
 *   reference  without: a header mbuf a copy before the payload, whose reference count says how
 * many
 */
#pragma once

#include <rte_hash.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>
#include <stdbool.h>

#define MULTICAST_KEY_LEN   24 /* handle and channel */
#define MULTICAST_HEADERS   (14 + 20 + 8)
#define MULTICAST_BURST_MAX 256

struct multicast_target {
	uint32_t address; /* as on the wire */
	uint16_t port;	  /* likewise */
	uint8_t mac[6];
	uint32_t unused; /* four to a cache line */
};

struct multicast {
	struct rte_hash *hash; /* key -> first target << 32 | number */
	struct multicast_target *targets;
	struct rte_mempool *header_pool, *clone_pool;
	uint16_t port_id;
	bool clone;
	unsigned tx_burst;
	uint8_t template[MULTICAST_HEADERS];
	uint32_t ip_sum, udp_sum; /* partial sums of the constant words */
	struct rte_mbuf *tx[MULTICAST_BURST_MAX];
	unsigned tx_cnt;
	uint64_t sent, missed;
};

/* users × fanout targets, the hash and the pools, in EAL's memory. 0 or -errno. */
int multicast_init(struct multicast *m, uint32_t users, uint32_t fanout, uint16_t port_id,
		   bool clone, unsigned tx_burst);
void multicast_fini(struct multicast *m);
/* MiB of EAL's memory that this takes. */
unsigned multicast_memory_mb(uint32_t users, uint32_t fanout);

/* Key of a user, as the registry's: handle, then channel ALL. */
void multicast_key(uint8_t key[MULTICAST_KEY_LEN], uint32_t user);

/*
 * Looks each event up and replicates it; the key is the first bytes of its data. Takes the mbufs.
 * The lcore that owns m.
 */
void multicast_burst(struct multicast *m, struct rte_mbuf **events, unsigned cnt);
void multicast_flush(struct multicast *m);
