/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Registrations: from a token to an endpoint in the table, and out of it again.
 *
 *   GRANTING   the user's row is being made durable
 *   GRANTED    the agent makes the socket
 *   BOUND      the socket is there; the table still holds the last record of this id
 *   CHALLENGED recorded as pending; the address must echo
 *   ACTIVE     in the table
 *
 * One deadline each, in one heap; what is due is ended by registrations_tick(). Event-loop thread
 * only. Time comes from the caller, so that tests can turn the clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/engine/engine.h"
#include "control/engine/users.h"
#include "control/messages.h"

enum registration_phase {
	REGISTRATION_GRANTING,
	REGISTRATION_GRANTED,
	REGISTRATION_BOUND,
	REGISTRATION_CHALLENGED,
	REGISTRATION_ACTIVE,
};

struct registration_channel {
	uint64_t channel;
	char *name; /* of a thread; NULL: the connection's own (single) */
};

struct registration {
	struct registration *next;		      /* of its hash chain */
	struct registration *of_user, **of_user_link; /* the user's next; what points at this one */
	uint32_t heap_idx;
	enum registration_phase phase;
	uint64_t due_ns;	  /* when it has to be looked at next */
	uint64_t end_ns;	  /* when the present phase is over (ACTIVE: the lease) */
	uint64_t id, ref;	  /* ref: of the REGISTER or ATTACH that its client came with */
	uint64_t bound_ref;	  /* of its BOUND; 0: of the last run */
	struct user *user;	  /* pinned by user->connections */
	uint32_t generation;	  /* of the connection; 0 before there is a record */
	uint32_t user_generation; /* it was granted in */
	uint64_t token_expiry_s;
	uint64_t cookie, salt;
	struct message_address address;
	uint32_t nexthop, uid;
	unsigned challenges; /* sent */
	bool named;	     /* its client chose the address: no socket of ours is bound to it */
	bool echoed;	     /* the address is proved; what it lacks is room in the table */
	bool attached;	     /* its subscriber is there; false after a restart until it is back */
	bool returned;	     /* it was back once, in this run */
	uint64_t absent_ns;  /* not attached: how long it is waited for */
	unsigned channel_cnt;
	struct registration_channel *channels; /* joined besides ALL; of this run only */
};

/* Takes up what the registry region holds, and tells the agent (HOLD, HELLO). */
int registrations_open(struct registrations **registrations, struct engine *engine,
		       struct moment now, char why[1024]);
void registrations_close(struct registrations *registrations);

/* A message of the agent about a connection. */
void registrations_on_message(struct registrations *registrations, const struct message *message,
			      struct moment now);
/* The dataplane says that the challenged address echoed. */
void registrations_on_echo(struct registrations *registrations, uint64_t connection, uint64_t salt,
			   struct moment now);
/* Ends and continues what is due. Call each 20 ms or so. */
void registrations_tick(struct registrations *registrations, struct moment now);

/* The calendar jumped ahead: who is registered under a token that has expired by it ends, but for
 * the second in which a renewal with a fresh one may come. */
void registrations_expire(struct registrations *registrations, struct moment now);

/* We were paused for so long: every deadline is put off, but no lease beyond its token. */
void registrations_extend(struct registrations *registrations, uint64_t gap_ns, struct moment now);

struct registration *registrations_find(const struct registrations *registrations, uint64_t id);
/* Ends one: out of the table, the agent told, audited. The pointer is gone. */
void registrations_end(struct registrations *registrations, struct registration *registration,
		       enum message_end end, uint32_t uid, const char *reason);
/* Ends all of a user; returns how many. */
unsigned registrations_end_user(struct registrations *registrations, const struct user *user,
				enum message_end end, uint32_t uid, const char *reason);
/* Next registration at or after *cursor (start: 0), NULL at the end; none may end meanwhile. */
const struct registration *registrations_next(const struct registrations *registrations,
					      uint32_t *cursor);
/*
 * Tells the agent the keys of some of those whose scope it was told before, at or after *cursor
 * (start: 0). True when all have been told. Others may come and go meanwhile.
 */
bool registrations_tell_keys(struct registrations *registrations, uint32_t *cursor, unsigned cnt);
const char *registration_phase_reason(const struct registration *registration);
uint32_t registrations_count(const struct registrations *registrations);
