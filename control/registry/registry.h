/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one writer of the registry region: connections, groups, endpoint blocks, next hops, sessions.
 *
 * Each change is written as an intent before its first store and is redone by registry_open() after
 * a crash, so a connection stands in all of its groups or in none. Free lists and reverse indices
 * are private memory, rebuilt by a sweep of the region at registry_open(). What was unlinked is
 * reused only after every running worker passed a quiescent point; a dataplane whose lock on the
 * state region is released holds nothing. One thread (fanwired's event loop) calls all of this.
 *
 * Functions return 0 or -errno; a refused change changes nothing. -ENOSPC names what is full in
 * registry_why().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"
#include "common/shm/registry.h"
#include "common/shm/state.h"
#include "common/shm/table.h"

struct registry;

/*
 * Creates the region, or takes over the existing one: sweep, redo; everything unlinked rests a
 * grace period. `why` (1024 bytes) gets a sentence for a person. -EBUSY another fanwired has it;
 * -EPROTO, -ENODATA corrupt, of another ABI or of other limits.
 */
int registry_open(struct registry **registry, const struct fan_config *config, char why[1024]);
void registry_close(struct registry *registry); /* the region stays */
const char *registry_why(const struct registry *registry);
const struct fan_table *registry_table(const struct registry *registry);
const struct fan_registry *registry_root(const struct registry *registry);

/* ---- housekeeping: call each 10 ms or when something is pending ---- */

/*
 * Opens or re-opens the state region where there is a new one, advances reclamation, ends groups
 * whose linger is over, and publishes the heartbeat. now_ns: CLOCK_MONOTONIC.
 */
void registry_housekeeping(struct registry *registry, uint64_t now_ns);
/* The dataplane's state region, NULL before there is one. Valid until the next housekeeping. */
const struct fan_state *registry_state(const struct registry *registry);
/*
 * Its arrays, of which idx lies within what the region holds; NULL: beyond it, or no region. Its
 * root is the dataplane's to write, so nothing but these leads into it.
 */
const struct fan_worker_state *registry_worker(const struct registry *registry, uint32_t idx);
const struct fan_group_state *registry_group_state(const struct registry *registry, uint32_t idx);
bool registry_dataplane_alive(const struct registry *registry);

/*
 * The same; *dead_ns: the latest heartbeat (CLOCK_MONOTONIC) that a look without a process met, 0:
 * no such look. Heartbeats up to it are a dead dataplane's: its successor holds the region before
 * it has cleared them.
 */
bool registry_dataplane_look(struct registry *registry, uint64_t *dead_ns);

/*
 * Where the streams of a user's channels stand at this moment: epoch and sequence of the last event
 * that was given a place; zeros where there is none. For one that is about to enter these groups:
 * whatever comes after them is his.
 */
struct registry_tail {
	uint64_t channel, epoch, sequence;
};
void registry_tails(const struct registry *registry, const uint8_t handle[16],
		    const uint64_t *channels, unsigned cnt, struct registry_tail *tails);

/* ---- connections ---- */

/*
 * A connection, told by value: how a record is packed is the registry's own. Times are as exact as
 * a record holds them: lease_ns is rounded up to a tenth of a second.
 */
struct registry_connection {
	uint64_t id;
	uint8_t handle[16];  /* of the user; zeros: an ENDING one of before a takeover */
	uint8_t address[16]; /* IPv6, or IPv4 as v4-mapped */
	uint64_t cookie;     /* of the scoped socket; 0 where vouched */
	uint64_t lease_ns;   /* CLOCK_MONOTONIC deadline; 0: none */
	uint64_t token_expiry_s, since_s; /* Unix time */
	uint32_t generation, user_generation;
	uint32_t nexthop; /* index */
	uint16_t port;	  /* host byte order */
	uint8_t family;	  /* 4 or 6 */
	uint8_t state;	  /* enum fan_connection_state */
	bool vouched;	  /* an administrator vouches for the address: no socket, no lease */
};

/*
 * Writes a PENDING record (in no group yet). id 0: one is drawn. *made (may be spec) is what was
 * written. -EEXIST: the id is in use (look it up first), also while its connection is ENDING.
 * state, id and generation are given by the registry, the rest is taken from *spec; a generation
 * that registry_generation_draw() gave is kept, for it is told before there is a record.
 */
uint32_t registry_generation_draw(struct registry *registry);
int registry_connection_add(struct registry *registry, const struct registry_connection *spec,
			    struct registry_connection *made);

/*
 * PENDING -> ACTIVE: into group ALL and the given further channels (threads, single), creating
 * groups as needed, as one intent. tag_key and generations go into new groups. Where the table or
 * the user's share of it is full, the longest lingering groups end for it before their time: the
 * user's share is max_connections_per_user * (2 + max_threads_per_connection).
 */
struct registry_user_keys {
	uint32_t user_generation;
	uint8_t key_generation;
	uint8_t tag_key[16];
};
int registry_connection_activate(struct registry *registry, uint64_t id,
				 const struct registry_user_keys *keys, const uint64_t *channels,
				 unsigned channel_cnt);

/*
 * Both in one step, for an address that an administrator vouches for: nobody sees it PENDING, and
 * where it cannot be active there is no record. It has no cookie and no lease, and is marked.
 */
int registry_connection_vouch(struct registry *registry, const struct registry_connection *spec,
			      const struct registry_user_keys *keys, const uint64_t *channels,
			      unsigned channel_cnt, struct registry_connection *made);

/*
 * Whether such an activation would find room for its groups as things stand: groups that linger
 * make room. -ENOSPC. Asked before a socket is made for it; others may still take the room.
 */
int registry_groups_check(struct registry *registry, const uint8_t handle[16],
			  const uint64_t *channels, unsigned channel_cnt);

/*
 * Takes it out of every group (one intent; where memory for that is lacking, at the first
 * housekeeping that has it: never refused for that). `generation` must match or it is -ESTALE and
 * nothing changes. The record is ENDING until its grace period is over, then on_connection_free is
 * called (its port may be reused from then on) and the record is free. A request to the dataplane
 * that was made before is done by then, or never will be.
 */
int registry_connection_del(struct registry *registry, uint64_t id, uint32_t generation);
typedef void (*registry_on_free)(void *arg, uint64_t connection);
void registry_set_on_connection_free(struct registry *registry, registry_on_free on_free,
				     void *arg);

/*
 * Asks for the memory that so many additions (with their users' handles) or deletions will touch,
 * so that who has several at hand waits for it once and not for each: then make the changes, in
 * that order. Changes nothing; ids may be of nobody. Up to REGISTRY_AHEAD_MAX at a time.
 */
#define REGISTRY_AHEAD_MAX 16
void registry_ahead_add(const struct registry *registry, const uint64_t *ids,
			const uint8_t *const *handles, unsigned cnt);
void registry_ahead_del(const struct registry *registry, const uint64_t *ids, unsigned cnt);

/* Lease and token deadline: single words, no intent. */
int registry_connection_renew(struct registry *registry, uint64_t id, uint64_t lease_ns,
			      uint64_t token_expiry_s);
/* False: there is none of that id. */
bool registry_connection(const struct registry *registry, uint64_t id,
			 struct registry_connection *connection);
/* Next record that is not FREE at or after *cursor (start: 0); false at the end. */
bool registry_connection_next(const struct registry *registry, uint32_t *cursor,
			      struct registry_connection *connection);
/* The same of those with a socket of ours: however many are vouched, they are passed quickly. */
bool registry_socket_next(const struct registry *registry, uint32_t *cursor,
			  struct registry_connection *connection);
/* And of the vouched ones, without the user's handle. */
bool registry_vouched_next(const struct registry *registry, uint32_t *cursor,
			   struct registry_connection *connection);
/* Connections of a user, PENDING and ACTIVE: up to max ids, the full count returned. */
unsigned registry_user_connections(const struct registry *registry, const uint8_t handle[16],
				   uint64_t *ids, unsigned max);
/* The same of those that are ENDING, but for those of before a takeover. */
unsigned registry_user_ending(const struct registry *registry, const uint8_t handle[16],
			      uint64_t *ids, unsigned max);
/* Channels that a connection stands in, ALL included: up to max, the full count returned. */
unsigned registry_connection_channels(const struct registry *registry, uint64_t id,
				      uint64_t *channels, unsigned max);

/*
 * Revocation: every group of the user is unlinked and its connections go ENDING, as one intent.
 * What the worker still holds ends with the grace period; the kernel filter is told separately.
 */
int registry_user_revoke(struct registry *registry, const uint8_t handle[16]);

struct registry_counts {
	uint32_t users; /* with a connection */
	uint32_t connections_pending, connections_active, connections_ending;
	uint32_t groups, groups_lingering, endpoints_used, endpoints_free;
	uint32_t sessions, nexthops;
	/* Blocks, groups, records waiting for their grace period; not 0 also while, after a
	 * takeover, all that is free does. 0: no room comes of waiting. */
	uint32_t retired;
};
void registry_counts(const struct registry *registry, struct registry_counts *counts);

/* ---- keys ---- */

/*
 * Roots of a key generation (1..255), for the dataplane to derive keys from: of the one in force
 * where the region has none yet, or of another one, in place of another one's. -ESTALE: the one in
 * force has other ones, of another master key.
 */
int registry_roots_set(struct registry *registry, uint8_t generation, const uint8_t tag_root[32],
		       const uint8_t seal_root[32]);
void registry_secrets_set(struct registry *registry, const uint8_t replay_root[32], bool seal);
/* The generation that has roots beside the one in force; 0: none. */
uint8_t registry_other_generation(const struct registry *registry);
/*
 * Puts a generation in force, for all users, by one store: events have it from the workers' next
 * burst on. -ENOENT: it has no roots. The groups' tag keys follow in place, a part of them each
 * housekeeping, also after a restart; no stream begins anew by it.
 */
int registry_generation_switch(struct registry *registry, uint8_t generation);
/* Whether all groups have tag keys of the generation in force. */
bool registry_keys_rewritten(const struct registry *registry);
/* Wipes the roots that are not those in force: what was sealed under them cannot be had again. */
void registry_roots_retire(struct registry *registry);

/* ---- next hops ---- */

/* Index of the next hop (family, neighbour address, ifindex), made if new. */
int registry_nexthop_get(struct registry *registry, uint8_t family, const uint8_t address[16],
			 uint32_t ifindex, const uint8_t source[16], uint16_t mtu, uint32_t *idx);
/* mac NULL: unresolved. One store. */
void registry_nexthop_set_mac(struct registry *registry, uint32_t idx, const uint8_t *mac);

/* ---- publisher sessions ---- */

/*
 * spec->id and state_epoch are given by the registry (id: random high bits, slot in the low ones,
 * returned in *id). -ENOTCONN: there is no state region yet. A session whose state_epoch is not
 * the present state region's is dead and stays listed until it is closed.
 */
int registry_session_open(struct registry *registry, const struct fan_session *spec, uint64_t *id);
int registry_session_close(struct registry *registry, uint64_t id);
/* Another meter, or another budget, for a session that is open. -ENOENT. */
int registry_session_budget(struct registry *registry, uint64_t id, uint64_t meter,
			    uint64_t bytes_per_second);
const struct fan_session *registry_session_next(const struct registry *registry, uint32_t *cursor);

/* ---- requests and reports ---- */

/*
 * False: the ring is full (the dataplane is stalled); try again later. The registry gives it a
 * deadline of one second.
 */
bool registry_request(struct registry *registry, const struct fan_request *request);
/* Next report of any worker, of the present state region. */
bool registry_report(struct registry *registry, struct fan_report *report);

/* Crash points for tests: called with a step's name before each store of a change. NULL: none. */
typedef void (*registry_step)(void *arg, const char *step);
void registry_set_step(struct registry *registry, registry_step step, void *arg);
