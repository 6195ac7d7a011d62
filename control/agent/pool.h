/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pool at work: a subscriber's socket on a port of it; and who keeps ports of ended connections
 * open. A socket is its holder's, so nobody can take its port away from him: it counts as one of
 * his connections until he closes it.
 *
 * Owner: the agent. Event-loop thread only.
 */
#pragma once

#include "control/agent/state.h"

struct pool_socket {
	struct port port;
	struct scoped_socket socket;
};

/*
 * Makes the socket of this GRANT in the family that was asked for (0: in one that has a port).
 * owner: as for ports_take(). Otherwise the error for the subscriber, and `why` in words.
 */
enum message_error pool_open(struct agent *agent, unsigned family, const struct message *grant,
			     uint64_t owner, struct pool_socket *made, char why[256]);
/* Looks at some of the ports that an ended user may have open still. Call each 100 ms. */
void pool_look(struct agent *agent);
