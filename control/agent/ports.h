/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has which (address, port) of the receivers' pool. Every pair is free, used by one owner,
 * or resting: after its end it goes to nobody until the engine said that no worker can reach it any
 * more (ports_reusable) and, for another user than its last, until quarantine_ns have passed too.
 * Of the free ones the one that has been free longest goes first. Each call is O(1).
 *
 * Owner: the agent. Pure data structure (the caller brings the clock); one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"

struct ports;

struct port {
	uint32_t idx; /* names the pair to ports_release() and the like */
	struct fan_address address;
	uint16_t port;
};

#define PORT_NONE UINT32_MAX

/* NULL: out of memory, or an empty pool. `config` is read here only. */
struct ports *ports_create(const struct fan_config *config, uint64_t quarantine_ns);
void ports_destroy(struct ports *ports); /* NULL is allowed */

/*
 * Takes a pair for the user with this handle, under a number of the caller's that ports_reusable()
 * names it by. -ENOSPC: each pair of this family (4
 * or 6) is used or resting.
 */
int ports_take(struct ports *ports, unsigned family, const uint8_t handle[16], uint64_t owner,
	       uint64_t now_ns, struct port *port);
/*
 * Takes this very pair (a connection of before a restart has it). -ENOENT: not of the pool, or
 * another's; then *port is untouched.
 */
int ports_hold(struct ports *ports, const struct fan_address *address, uint16_t port_number,
	       const uint8_t handle[16], uint64_t owner, struct port *port);

/*
 * used -> resting. wait_reusable: the table may know the pair; it rests until ports_reusable() too.
 * Without, its owner never got as far as the table, and has no claim to it either.
 */
void ports_release(struct ports *ports, uint32_t idx, bool wait_reusable, uint64_t now_ns);
/*
 * The engine's word that the address of this ended owner can be reached no more. Where several
 * pairs rest under one number, it goes to the one that was released first. false: none rests.
 */
bool ports_reusable(struct ports *ports, uint64_t owner);

/*
 * At start, before anything was taken: this pair was released then, by that user, in the life of
 * the process before this one.
 */
void ports_rest(struct ports *ports, uint32_t idx, const uint8_t handle[16], uint64_t released_ns);

/*
 * A user may keep the socket of an ended connection open for as long as he likes, and with it the
 * pair: then nobody can bind it. Such a pair is held, and counts as one that he uses.
 *
 * ports_suspect: the next pair to find out about by binding it: one that has rested its time, or
 * (held) the held one that was looked at longest ago. false: there is none. The answer is
 * ports_busy(), also for one that was just taken, or ports_idle(), after which a held one rests
 * again. ports_busy returns the handle of who holds it, zero: nobody is known to.
 */
bool ports_suspect(struct ports *ports, bool held, uint64_t now_ns, struct port *port);
const uint8_t *ports_busy(struct ports *ports, uint32_t idx);
void ports_idle(struct ports *ports, uint32_t idx, uint64_t now_ns);
/* Pairs that this user uses or holds. */
unsigned ports_charged(struct ports *ports, const uint8_t handle[16]);
/* Pairs that were this user's and wait for ports_reusable(): nobody can look yet who has them. */
unsigned ports_settling(struct ports *ports, const uint8_t handle[16]);

struct ports_counts {
	uint32_t used, resting, held, free;
};
void ports_count(struct ports *ports, uint64_t now_ns, struct ports_counts *counts);
