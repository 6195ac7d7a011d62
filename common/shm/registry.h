/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry region: who is connected. Written by fanwired only, read by the dataplane, which
 * maps it read-only. docs/shared-memory.md is normative; sizes and offsets are asserted below.
 *
 * W: fanwired (control/registry). R: dataplane workers (common/shm/table.h), fanwirectl never.
 * Everything that a worker reads while it can change is one naturally aligned word read with
 * acquire, or is immutable between publication and a full grace period after it was unlinked.
 */
#pragma once

#include <stdint.h>

#include "common/shm/region.h"

#define FAN_REGISTRY_FILE     "registry"
#define FAN_CACHE_LINE	      64
#define FAN_BUCKET_SLOTS      10
#define FAN_CHAIN_NEXT	      UINT32_C(0x00ffffff) /* of a bucket's `chain` */
#define FAN_OVERFLOW_MAX      FAN_CHAIN_NEXT
#define FAN_NEXTHOPS_MAX      4096
#define FAN_REQUEST_CNT	      1024 /* to the dataplane; power of two */
#define FAN_ENDPOINT_CNT_BITS 24
#define FAN_ENDPOINT_CNT_MAX  ((1u << FAN_ENDPOINT_CNT_BITS) - 1)

/*
 * One cache line. Slot i holds fingerprint fp[i] and group[i] = group index + 1, 0 when empty.
 * Write order on add: fp, then group (release); on delete: group = 0 (release), then fp = 0. A
 * reader that sees a stale fingerprint with a new group compares the whole key and is right.
 *
 * chain: bits 0-23 the next bucket's number among the overflow buckets + 1, 0 at the chain's end;
 * bits 24-31 say of which hashes a group may stand in a bucket behind this one: both bits of
 * fan_chain_mark() are set for each that does. Set before such a group appears, cleared after it
 * has gone, so that most lookups that find nothing end in the first bucket.
 */
struct fan_bucket {
	uint16_t fp[FAN_BUCKET_SLOTS];
	uint32_t chain;
	uint32_t group[FAN_BUCKET_SLOTS];
};
_Static_assert(sizeof(struct fan_bucket) == 64, "bucket is one cache line");

/*
 * A (user, channel). One cache line. All but `endpoints` and the tag key is constant from
 * publication to reclamation: a change of the user generation is another group with another
 * incarnation. A rotation writes the tag key in place: key_generation = 0 (release), tag_key,
 * key_generation (release). A reader that does not find the generation in force, before and after,
 * derives the key from the roots (common/shm/keys.h).
 * endpoints = first << FAN_ENDPOINT_CNT_BITS | count, one word, so that block and count change
 * together; count 0 while the group lingers.
 */
struct fan_group {
	uint8_t handle[16];
	uint64_t channel;
	uint64_t incarnation; /* never 0, never reused: tells the state region's record apart */
	uint64_t endpoints;   /* __atomic: release by W, acquire by R */
	uint8_t tag_key[16];
	uint32_t user_generation;
	uint8_t key_generation;
	uint8_t pad[3];
};
_Static_assert(sizeof(struct fan_group) == 64, "group is one cache line");

/*
 * A next hop and an address family in 16 bits, of endpoints and connections: bits 0-11 the next
 * hop's index, bit 15 set for IPv6.
 */
#define FAN_HOP_NEXTHOP UINT16_C(0x0fff)
#define FAN_HOP_IPV6	UINT16_C(0x8000)
_Static_assert(FAN_NEXTHOPS_MAX - 1 == FAN_HOP_NEXTHOP, "every next hop has its index in a hop");

static inline uint16_t fan_hop(uint32_t nexthop, uint8_t family)
{
	return (uint16_t)((nexthop & FAN_HOP_NEXTHOP) | (family == 6 ? FAN_HOP_IPV6 : 0));
}

/*
 * One copy's destination. 48 bytes, so that four stand on three cache lines; immutable while its
 * block is published. It repeats the user's handle: the worker compares before it sends.
 */
struct fan_endpoint {
	uint8_t handle[16];
	uint8_t address[16]; /* IPv6, or IPv4 as v4-mapped */
	uint64_t connection; /* id */
	uint32_t record;     /* index of the connection's record */
	uint16_t port;	     /* host byte order */
	uint16_t hop;	     /* fan_hop() */
};
_Static_assert(sizeof(struct fan_endpoint) == 48, "four endpoints on three cache lines");

static inline uint32_t fan_endpoint_nexthop(const struct fan_endpoint *endpoint)
{
	return endpoint->hop & FAN_HOP_NEXTHOP;
}

static inline uint8_t fan_endpoint_family(const struct fan_endpoint *endpoint)
{
	return endpoint->hop & FAN_HOP_IPV6 ? 6 : 4;
}

/* mac: bits 0..47 the destination MAC (first byte lowest), bit 63 set while resolved. */
#define FAN_NEXTHOP_RESOLVED (UINT64_C(1) << 63)
struct fan_nexthop {
	uint64_t mac;	     /* __atomic: one MAC change is one write */
	uint8_t source[16];  /* the engine's address to send from; v4-mapped for IPv4 */
	uint8_t address[16]; /* of the neighbour; W's own use */
	uint32_t ifindex;    /* W's own use */
	uint16_t mtu;	     /* bytes of an IP packet */
	uint8_t family;	     /* 4 or 6; 0: slot is free */
	uint8_t pad[17];
};
_Static_assert(sizeof(struct fan_nexthop) == 64, "next hop is one cache line");

/*
 * A publisher session. id's low bits are its slot: slot = id & (session_cnt - 1). On open every
 * field is written and then id (release); on close id = 0, and the slot rests a grace period.
 */
#define FAN_SCOPE_ANY 0
#define FAN_SCOPE_ONE 1
struct fan_session {
	uint64_t id;	      /* __atomic; 0: free */
	uint64_t state_epoch; /* creation epoch of the state region it was opened against */
	uint8_t key[32];
	uint8_t user[16];    /* scope ONE: the only user it may name */
	uint8_t address[16]; /* the only address and port it may send from, and is answered at */
	uint16_t port;	     /* host byte order */
	uint8_t family;
	uint8_t scope; /* FAN_SCOPE_* */
	uint32_t nexthop;
	uint64_t publisher; /* W's own use: row id of the credential */
	uint64_t meter;	    /* __atomic: what its copies are charged to, its publisher's */
	uint64_t budget;    /* __atomic: bytes of copies a second; 0: no limit */
	uint8_t pad[16];
};
_Static_assert(sizeof(struct fan_session) == 128, "session is two cache lines");

/*
 * A connection as fanwired remembers it across its own restarts. The dataplane reads the generation
 * alone, which tells one registration of an id from another; how the rest is packed is
 * control/registry's own, which gives others a struct registry_connection. The user's handle is not
 * in it, but in the connection's endpoints.
 */
enum fan_connection_state {
	FAN_CONNECTION_FREE = 0,
	FAN_CONNECTION_PENDING = 1, /* challenged; in no group; forgotten by a restart */
	FAN_CONNECTION_ACTIVE = 2,
	FAN_CONNECTION_ENDING = 3, /* leaves its groups, then waits for its grace period */
};
#define FAN_HOP_VOUCHED	    UINT16_C(0x1000) /* of a connection's hop: cookie 0, no lease */
#define FAN_HOP_STATE	    UINT16_C(0x6000) /* of a connection's hop */
#define FAN_HOP_STATE_SHIFT 13
struct fan_connection {
	uint64_t id;
	uint64_t cookie;     /* of the scoped socket; 0: vouched, the socket is none of ours */
	uint8_t address[16]; /* IPv6, or IPv4 as v4-mapped */
	uint32_t generation;
	uint32_t user_generation;
	uint32_t lease;		 /* CLOCK_MONOTONIC deadline, tenths of a second; 0: none */
	uint32_t token_expiry_s; /* Unix time; the last second there is: that one or later */
	uint32_t since_s;	 /* Unix time of registration */
	uint16_t port;		 /* host byte order */
	uint16_t hop;		 /* fan_hop(), FAN_HOP_VOUCHED, state; __atomic */
};
_Static_assert(sizeof(struct fan_connection) == 56, "connection");

/* Request to the dataplane. */
enum fan_request_type { FAN_REQUEST_CHALLENGE = 1 };
struct fan_request {
	uint32_t type;
	uint32_t nexthop;
	uint64_t connection;
	uint64_t salt;
	uint8_t handle[16];
	uint8_t address[16];
	uint8_t tag_key[16];
	uint32_t user_generation;
	uint16_t port;
	uint8_t family;
	uint8_t key_generation;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC: later than that it is not sent */
	uint8_t pad[40];
};
_Static_assert(sizeof(struct fan_request) == 128, "request is two cache lines");

/*
 * One change in progress. Written whole, then `op` (release) before the first store of the change;
 * op = 0 after the last. A restarted fanwired redoes it: every op is idempotent. What `args` holds
 * is control/registry's own.
 */
struct fan_intent {
	uint32_t op;
	uint32_t pad;
	uint8_t args[1016];
};
_Static_assert(sizeof(struct fan_intent) == 1024, "intent");

/*
 * What the dataplane derives the keys of one key generation from (common/wire/handle.h). Written
 * whole, then `generation` (release), before any user of the generation; generation = 0 first where
 * another one stood here.
 */
struct fan_key_roots {
	uint32_t generation; /* __atomic; 1..255, 0: none */
	uint32_t pad;
	uint8_t tag_root[32];
	uint8_t seal_root[32];
	uint8_t pad2[56];
};
_Static_assert(sizeof(struct fan_key_roots) == 128, "key roots are two cache lines");

struct fan_registry {
	struct fan_region_header header;
	/* Geometry: constant. Offsets in bytes from the region's start, 64-byte aligned. */
	uint64_t hash_seed[2]; /* drawn at creation */
	uint64_t buckets_off;  /* bucket_cnt first-level, then overflow_cnt overflow buckets */
	uint64_t groups_off;
	uint64_t endpoints_off;
	uint64_t connections_off;
	uint64_t sessions_off;
	uint64_t nexthops_off;
	uint64_t requests_off;
	uint32_t bucket_cnt;
	uint32_t overflow_cnt;
	uint32_t group_cnt;
	uint32_t endpoint_cnt;
	uint32_t connection_cnt;
	uint32_t session_cnt; /* power of two */
	uint32_t nexthop_cnt;
	uint32_t request_cnt;	   /* power of two */
	uint8_t challenge_key[16]; /* constant for the region's life */
	uint8_t pad0[8];
	/* Changing. Each on a line of its own where a worker polls it. */
	uint64_t heartbeat_ns __attribute__((aligned(64))); /* W, each second: CLOCK_MONOTONIC */
	uint64_t max_unattended_ns;			    /* 0: never stop delivering */
	uint32_t key_generation; /* __atomic: in force, 1..255; one store switches all users */
	uint32_t seal;		 /* deliveries are sealed; constant while the dataplane runs */
	uint32_t request_head __attribute__((aligned(64))); /* W; tail is in the state region */
	uint32_t report_tail[16]
		__attribute__((aligned(64))); /* W: consumer of the workers' reports */
	/* W's own counters, kept so that nothing is ever reused. */
	uint64_t next_incarnation __attribute__((aligned(64)));
	uint32_t next_generation;
	uint32_t pad1;
	struct fan_key_roots key_roots[2]
		__attribute__((aligned(64))); /* of the present generation and of another */
	uint8_t replay_root[32] __attribute__((aligned(64)));
	struct fan_intent intent __attribute__((aligned(64)));
};

_Static_assert(sizeof(struct fan_registry) % 64 == 0, "root ends on a line");

/* Roots of a key generation, or NULL where it is not known (any more). */
static inline const struct fan_key_roots *fan_root_of(const struct fan_registry *registry,
						      uint32_t generation)
{
	for (unsigned i = 0; generation && i < 2; i++) {
		const struct fan_key_roots *roots = &registry->key_roots[i];

		/* pairs with the release in control/registry after both roots */
		if (__atomic_load_n(&roots->generation, __ATOMIC_ACQUIRE) == generation)
			return roots;
	}
	return NULL;
}

_Static_assert(sizeof(struct fan_registry) == 1792, "registry root");
