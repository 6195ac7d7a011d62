/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the registrations: their map, their heap, and what the steps of a registration share.
 * registrations.c keeps them, register.c lets them in, challenge.c makes them active,
 * granted.c computes what they are given, take_up.c takes over those of the last run.
 */
#pragma once

#include <sodium.h>

#include "control/engine/registrations.h"

struct registry_user_keys;

struct registrations {
	struct engine *engine;
	struct registration **chains;
	struct registration **leaving; /* chains of those that only wait for their record's end */
	uint32_t chain_mask, cnt, max;
	struct registration **heap;
	uint64_t started_ns;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
};

/* Adds it to map, heap and its user's count. */
void registrations_insert(struct registrations *all, struct registration *registration);
/* Takes it out of all three and frees it. */
void registrations_drop(struct registrations *all, struct registration *registration);
void registrations_set_due(struct registrations *all, struct registration *registration,
			   uint64_t due_ns);
/* Tells the agent that nothing can reach the address of this BOUND (ref 0: HOLD) any more. */
void registrations_reusable(struct registrations *all, uint64_t id, uint64_t bound_ref);

/* take_up.c: HOLD for each record, then HELLO. */
int registrations_take_up(struct registrations *all);

/* register.c */
void register_on_message(struct registrations *all, const struct message *message,
			 struct moment now);
void register_on_attach(struct registrations *all, const struct message *message,
			struct moment now);
void register_on_renew(struct registrations *all, const struct message *message, struct moment now);

/* challenge.c */
void challenge_on_bound(struct registrations *all, const struct message *message,
			struct moment now);
/* Continues one that is BOUND or CHALLENGED and due, or has echoed, but is not over. */
void challenge_continue(struct registrations *all, struct registration *registration,
			struct moment now);

/* Lease deadline: lease_s from now, never beyond the token's. */
uint64_t registration_lease_ns(const struct registrations *all, uint64_t token_expiry_s,
			       struct moment now);

/* granted.c: zero what they wrote once it is told. */
void registration_scope(const struct registrations *all, const struct user *user,
			struct message_scope *scope);
void registration_keys(const struct registrations *all, const struct registration *registration,
		       struct message_keys *keys);
/* Of the groups that it is about to enter, and of those that it is in. */
void registration_tails_before(const struct registrations *all,
			       const struct registration *registration,
			       struct message_tails *tails);
void registration_tails(const struct registrations *all, const struct registration *registration,
			struct message_tails *tails);
void registration_refuse(struct registrations *all, uint64_t ref, uint64_t id,
			 enum message_error error, const char *reason);
