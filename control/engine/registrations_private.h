/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the registrations: their map, their heap, and what the steps of a registration share.
 * registrations.c keeps them, register.c lets them in, challenge.c makes them active.
 */
#pragma once

#include <sodium.h>

#include "control/engine/registrations.h"

struct registry_user_keys;

struct resting { /* bound, but without a record: its port is reusable when no record has its id */
	struct resting *next;
	uint64_t id, due_ns;
};

struct registrations {
	struct engine *engine;
	struct registration **chains;
	uint32_t chain_mask, cnt, max;
	struct registration **heap;
	uint64_t started_ns;
	struct resting *resting, **resting_last;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
};

/* Adds it to map, heap and its user's count. */
void registrations_insert(struct registrations *all, struct registration *registration);
/* Takes it out of all three and frees it. */
void registrations_drop(struct registrations *all, struct registration *registration);
void registrations_set_due(struct registrations *all, struct registration *registration,
			   uint64_t due_ns);
/* After ENDED has reached the agent: no record of ours will free this port. */
void registrations_rest_port(struct registrations *all, uint64_t id);

/* register.c */
void register_on_message(struct registrations *all, const struct message *message,
			 struct moment now);
void register_on_attach(struct registrations *all, const struct message *message,
			struct moment now);
void register_on_renew(struct registrations *all, const struct message *message, struct moment now);

/* challenge.c */
void challenge_on_bound(struct registrations *all, const struct message *message,
			struct moment now);
/* Continues one that is BOUND or CHALLENGED and due, but not over. */
void challenge_continue(struct registrations *all, struct registration *registration,
			struct moment now);
void challenge_activate(struct registrations *all, struct registration *registration,
			struct moment now);

/* Lease deadline: lease_s from now, never beyond the token's. */
uint64_t registration_lease_ns(const struct registrations *all, uint64_t token_expiry_s,
			       struct moment now);
void registration_scope(const struct registrations *all, const struct user *user,
			struct message_scope *scope);
void registration_refuse(struct registrations *all, uint64_t ref, uint64_t id,
			 enum message_error error, const char *reason);
