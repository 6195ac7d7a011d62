/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/registrations.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/engine/audit.h"
#include "control/engine/registrations_private.h"
#include "control/engine/users.h"
#include "control/engine/vouched.h"
#include "control/link.h"
#include "control/registry/registry.h"

/* ---- map and heap ---------------------------------------------------------------------------- */

static struct registration **chain_in(const struct registrations *all, struct registration **chains,
				      uint64_t id)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t idx;

	/* ids may be chosen by subscribers: a keyed hash, so that nobody can pile them up */
	crypto_shorthash(hash, (const uint8_t *)&id, sizeof(id), all->hash_key);
	memcpy(&idx, hash, sizeof(idx));
	return &chains[idx & all->chain_mask];
}

static struct registration **chain_of(const struct registrations *all, uint64_t id)
{
	return chain_in(all, all->chains, id);
}

struct registration *registrations_find(const struct registrations *all, uint64_t id)
{
	struct registration *r = *chain_of(all, id);

	while (r && r->id != id)
		r = r->next;
	return r;
}

static void heap_place(struct registrations *all, struct registration *r, uint32_t idx)
{
	all->heap[idx] = r;
	r->heap_idx = idx;
}

static void heap_up(struct registrations *all, struct registration *r)
{
	uint32_t idx = r->heap_idx;

	while (idx && all->heap[(idx - 1) / 2]->due_ns > r->due_ns) {
		heap_place(all, all->heap[(idx - 1) / 2], idx);
		idx = (idx - 1) / 2;
	}
	heap_place(all, r, idx);
}

static void heap_down(struct registrations *all, struct registration *r)
{
	uint32_t idx = r->heap_idx, child;

	while ((child = 2 * idx + 1) < all->cnt) {
		if (child + 1 < all->cnt && all->heap[child + 1]->due_ns < all->heap[child]->due_ns)
			child++;
		if (all->heap[child]->due_ns >= r->due_ns)
			break;
		heap_place(all, all->heap[child], idx);
		idx = child;
	}
	heap_place(all, r, idx);
}

void registrations_set_due(struct registrations *all, struct registration *r, uint64_t due_ns)
{
	r->due_ns = due_ns;
	heap_up(all, r);
	heap_down(all, r);
}

void registrations_insert(struct registrations *all, struct registration *r)
{
	struct registration **chain = chain_of(all, r->id);

	r->next = *chain;
	*chain = r;
	heap_place(all, r, all->cnt++);
	heap_up(all, r);
	r->of_user = r->user->registrations;
	r->of_user_link = &r->user->registrations;
	if (r->of_user)
		r->of_user->of_user_link = &r->of_user;
	r->user->registrations = r;
	r->user->connections++;
}

static void registration_free(struct registration *r)
{
	for (unsigned i = 0; i < r->channel_cnt; i++)
		free(r->channels[i].name);
	free(r->channels);
	free(r);
}

/* Takes it out of map, heap and its user's count. */
static void registration_remove(struct registrations *all, struct registration *r)
{
	struct registration **link = chain_of(all, r->id);
	struct registration *last = all->heap[--all->cnt];

	while (*link != r)
		link = &(*link)->next;
	*link = r->next;
	if (last != r) {
		heap_place(all, last, r->heap_idx);
		heap_up(all, last);
		heap_down(all, last);
	}
	*r->of_user_link = r->of_user;
	if (r->of_user)
		r->of_user->of_user_link = r->of_user_link;
	r->user->connections--;
	r->user->recorded -= r->phase >= REGISTRATION_CHALLENGED;
}

void registrations_drop(struct registrations *all, struct registration *r)
{
	registration_remove(all, r);
	registration_free(r);
}

/* Its record is on its way out of the table: it keeps nothing but the ref of its port. */
static void registration_leave(struct registrations *all, struct registration *r)
{
	struct registration **chain = chain_in(all, all->leaving, r->id);

	registration_remove(all, r);
	vouched_rest_place(all->engine->vouched, &r->address, r->id);
	r->user = NULL;
	r->next = *chain;
	*chain = r;
}

const struct registration *registrations_next(const struct registrations *all, uint32_t *cursor)
{
	return *cursor < all->cnt ? all->heap[(*cursor)++] : NULL;
}

uint32_t registrations_count(const struct registrations *all)
{
	return all->cnt;
}

/* ---- shared by the steps --------------------------------------------------------------------- */

uint64_t registration_lease_ns(const struct registrations *all, uint64_t token_expiry_s,
			       struct moment now)
{
	uint64_t lease_s = all->engine->config->lease_s;
	uint64_t token_s = token_expiry_s > now.unix_s ? token_expiry_s - now.unix_s : 0;

	if (fan_planted(PLANT_LEASE_IGNORED))
		return now.mono_ns + UINT32_MAX * ENGINE_NS_PER_S;
	return now.mono_ns + (token_s < lease_s ? token_s : lease_s) * ENGINE_NS_PER_S;
}

void registration_refuse(struct registrations *all, uint64_t ref, uint64_t id,
			 enum message_error error, const char *reason)
{
	struct message answer = {.type = MESSAGE_REFUSE, .ref = ref, .id = id, .error = error};

	snprintf(answer.reason, sizeof(answer.reason), "%s", reason);
	link_to_agent(all->engine->link, &answer);
}

void registrations_reusable(struct registrations *all, uint64_t id, uint64_t bound_ref)
{
	struct message message = {.type = MESSAGE_REUSABLE, .ref = bound_ref, .id = id};

	link_to_agent(all->engine->link, &message);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void audit_end(struct registrations *all, const struct registration *r, enum message_end end,
		      uint32_t uid)
{
	struct audit_record record = {.event = "end",
				      .user = r->user->name,
				      .connection = r->id,
				      .uid = uid,
				      .detail = message_end_name(end)};

	audit_add(all->engine->audit, &record);
}

void registrations_end(struct registrations *all, struct registration *r, enum message_end end,
		       uint32_t uid, const char *reason)
{
	struct message ended = {.type = MESSAGE_ENDED, .ref = r->ref, .id = r->id, .end = end};
	int err = -ENOENT; /* no record yet */

	if (r->phase == REGISTRATION_GRANTING) { /* the agent knows of a request only */
		registration_refuse(all, r->ref, r->id, MESSAGE_ERROR_BUSY, reason);
		registrations_drop(all, r);
		return;
	}
	if (r->phase >= REGISTRATION_CHALLENGED)
		err = registry_connection_del(all->engine->registry, r->id, r->generation);
	if (err && r->phase >= REGISTRATION_CHALLENGED) /* its present owner is untouched */
		fan_log(FAN_LOG_WARNING, "registration",
			"connection %016llx was not in the table as expected: %s",
			(unsigned long long)r->id, strerror(-err));
	snprintf(ended.reason, sizeof(ended.reason), "%s", reason);
	link_to_agent(all->engine->link, &ended);
	audit_end(all, r, end, uid);
	if (!err || err == -EALREADY) { /* on_record_free() tells when the port is free */
		registration_leave(all, r);
		return;
	}
	if (r->phase != REGISTRATION_GRANTED) /* else its BOUND is still to come, or never will */
		registrations_reusable(all, r->id, r->bound_ref);
	registrations_drop(all, r);
}

unsigned registrations_end_user(struct registrations *all, const struct user *user,
				enum message_end end, uint32_t uid, const char *reason)
{
	unsigned ended = 0;

	for (; user->registrations; ended++) /* each end takes it out of the list */
		registrations_end(all, user->registrations, end, uid, reason);
	return ended;
}

static void on_end(struct registrations *all, const struct message *message)
{
	struct registration *r = registrations_find(all, message->id);

	if (!r || r->ref != message->ref || !r->attached)
		return; /* late: the id has another holder, or none */
	registrations_end(all, r, message->end ? message->end : MESSAGE_END_CLOSED, r->uid,
			  message->reason[0] ? message->reason : "closed by the subscriber");
}

/* Its client left while it came back: as before, and with the time of one that is to come back. */
static void on_detach(struct registrations *all, const struct message *message, struct moment now)
{
	struct registration *r = registrations_find(all, message->id);

	if (!r || r->ref != message->ref || !r->attached || r->phase != REGISTRATION_ACTIVE)
		return;
	r->attached = false;
	r->absent_ns = now.mono_ns + all->engine->config->reattach_s * ENGINE_NS_PER_S;
	registrations_set_due(all, r, r->absent_ns);
}

static void end_without_room(struct registrations *all, struct registration *r)
{
	registrations_end(all, r, MESSAGE_END_ENGINE, r->uid,
			  "what has left the table was not let go of in time; look at the "
			  "dataplane with fanwirectl status");
}

static void end_due(struct registrations *all, struct registration *r, struct moment now)
{
	char reason[MESSAGE_REASON_MAX];

	switch (r->phase) {
	case REGISTRATION_GRANTING:
	case REGISTRATION_GRANTED:
		registrations_end(all, r, MESSAGE_END_SOCKET, r->uid,
				  "the socket was not made in time; try again");
		return;
	case REGISTRATION_BOUND:
		end_without_room(all, r);
		return;
	case REGISTRATION_CHALLENGED:
		if (r->echoed) {
			end_without_room(all, r);
			return;
		}
		snprintf(reason, sizeof(reason),
			 "%s within %u s; check the path between the engine and this host",
			 r->challenges ? "the address did not answer the challenge"
				       : "no challenge could be sent",
			 all->engine->config->challenge_timeout_s);
		registrations_end(all, r, MESSAGE_END_CHALLENGE, r->uid, reason);
		return;
	case REGISTRATION_ACTIVE:
		break;
	}
	if (!r->attached)
		registrations_end(all, r, MESSAGE_END_ABSENT, AUDIT_NO_UID,
				  "the subscriber did not come back after fanwired's restart");
	else if (r->token_expiry_s <= now.unix_s)
		registrations_end(all, r, MESSAGE_END_TOKEN, r->uid,
				  "the token expired; renew with a fresh one before it does");
	else
		registrations_end(all, r, MESSAGE_END_LEASE, r->uid,
				  "the lease was not renewed in time");
}

/* ---- time ------------------------------------------------------------------------------------ */

static bool is_over(const struct registrations *all, const struct registration *r,
		    struct moment now)
{
	if (r->phase == REGISTRATION_ACTIVE && !r->attached)
		return engine_is_absent(all->engine, r->absent_ns, now);
	return now.mono_ns >= r->end_ns;
}

/* When one that is not over yet is to be looked at again. */
static uint64_t next_look_ns(const struct registration *r, struct moment now)
{
	uint64_t soon_ns = now.mono_ns + ENGINE_NS_PER_S / 4; /* others still come back */

	if (r->attached)
		return r->end_ns;
	return r->absent_ns > soon_ns ? r->absent_ns : soon_ns;
}

void registrations_tick(struct registrations *all, struct moment now)
{
	while (all->cnt && all->heap[0]->due_ns <= now.mono_ns) {
		struct registration *r = all->heap[0];

		if (is_over(all, r, now))
			end_due(all, r, now);
		else if (r->phase == REGISTRATION_BOUND || r->phase == REGISTRATION_CHALLENGED)
			challenge_continue(all, r, now);
		else
			registrations_set_due(all, r, next_look_ns(r, now));
	}
}

/*
 * A lease that its token bounds is not put off, but for the second in which a renewal with a fresh
 * token is read that came while we were paused.
 */
static uint64_t extended_lease_ns(const struct registration *r, uint64_t gap_ns, struct moment now)
{
	uint64_t left_s = r->token_expiry_s > now.unix_s ? r->token_expiry_s - now.unix_s : 0;
	uint64_t bound_ns = now.mono_ns + (left_s ? left_s : 1) * ENGINE_NS_PER_S;
	uint64_t end_ns = r->end_ns + gap_ns;

	if (end_ns > bound_ns)
		end_ns = bound_ns;
	return end_ns > r->end_ns ? end_ns : r->end_ns;
}

void registrations_extend(struct registrations *all, uint64_t gap_ns, struct moment now)
{
	for (uint32_t i = 0; i < all->cnt; i++) {
		struct registration *r = all->heap[i];

		r->absent_ns += gap_ns;
		if (r->phase != REGISTRATION_ACTIVE) {
			r->end_ns += gap_ns;
			continue;
		}
		r->end_ns = extended_lease_ns(r, gap_ns, now);
		registry_connection_renew(all->engine->registry, r->id, r->end_ns,
					  r->token_expiry_s);
	}
	/* all->heap stays in order: no due_ns was touched; each is looked at when it was due */
}

void registrations_expire(struct registrations *all, struct moment now)
{
	uint64_t soon_ns = now.mono_ns + ENGINE_NS_PER_S;

	/* one that moves ahead in the heap changes places with some that were seen before it */
	for (uint32_t i = 0; i < all->cnt; i++) {
		struct registration *r = all->heap[i];

		if (r->phase != REGISTRATION_ACTIVE || r->token_expiry_s > now.unix_s ||
		    r->end_ns <= soon_ns)
			continue;
		r->end_ns = soon_ns;
		if (r->attached && r->due_ns > soon_ns)
			registrations_set_due(all, r, soon_ns);
	}
}

void registrations_on_message(struct registrations *all, const struct message *message,
			      struct moment now)
{
	switch (message->type) {
	case MESSAGE_REGISTER:
		register_on_message(all, message, now);
		return;
	case MESSAGE_BOUND:
		challenge_on_bound(all, message, now);
		return;
	case MESSAGE_ATTACH:
		register_on_attach(all, message, now);
		return;
	case MESSAGE_DETACH:
		on_detach(all, message, now);
		return;
	case MESSAGE_RENEW:
		register_on_renew(all, message, now);
		return;
	case MESSAGE_END:
		on_end(all, message);
		return;
	default:
		fan_log(FAN_LOG_WARNING, "registration", "the agent sent message %d: ignored",
			message->type);
	}
}

void registrations_on_echo(struct registrations *all, uint64_t connection, uint64_t salt,
			   struct moment now)
{
	struct registration *r = registrations_find(all, connection);

	if (!r || r->phase != REGISTRATION_CHALLENGED || !r->challenges ||
	    (r->salt != salt && !fan_planted(PLANT_CHALLENGE_SALT_IGNORED)))
		return;
	r->echoed = true;
	challenge_continue(all, r, now);
}

/* ---- start ----------------------------------------------------------------------------------- */

static void on_record_free(void *arg, uint64_t id)
{
	struct registrations *all = arg;
	struct registration **link = chain_in(all, all->leaving, id), *r;

	while ((r = *link) && r->id != id)
		link = &r->next;
	if (vouched_on_free(all->engine->vouched, id) && !r)
		return; /* no port of ours */
	if (!r) {	/* it was ending when we started: held, never bound in this run */
		registrations_reusable(all, id, 0);
		return;
	}
	registrations_reusable(all, id, r->bound_ref);
	*link = r->next;
	registration_free(r);
}

int registrations_open(struct registrations **out, struct engine *engine, struct moment now,
		       char why[1024])
{
	struct registrations *all = calloc(1, sizeof(*all));
	int err = -ENOMEM;

	if (!all)
		return err;
	all->engine = engine;
	all->max = engine->config->max_connections;
	all->started_ns = now.mono_ns;
	for (all->chain_mask = 1023; all->chain_mask < all->max;)
		all->chain_mask = 2 * all->chain_mask + 1;
	all->chains = calloc((size_t)all->chain_mask + 1, sizeof(*all->chains));
	all->leaving = calloc((size_t)all->chain_mask + 1, sizeof(*all->leaving));
	/* the region may hold more than a lowered limit allows */
	all->heap = calloc((size_t)all->max + registry_root(engine->registry)->connection_cnt,
			   sizeof(*all->heap));
	randombytes_buf(all->hash_key, sizeof(all->hash_key));
	registry_set_on_connection_free(engine->registry, on_record_free, all);
	if (all->chains && all->leaving && all->heap)
		err = registrations_take_up(all);
	if (err) {
		snprintf(why, 1024, "the registrations of the last run cannot be taken up: %s",
			 strerror(-err));
		registrations_close(all);
		return err;
	}
	*out = all;
	return 0;
}

void registrations_close(struct registrations *all)
{
	if (!all)
		return;
	registry_set_on_connection_free(all->engine->registry, NULL, NULL);
	while (all->heap && all->cnt)
		registrations_drop(all, all->heap[all->cnt - 1]);
	for (uint32_t i = 0; all->leaving && i <= all->chain_mask; i++)
		for (struct registration *r = all->leaving[i], *next; r; r = next) {
			next = r->next;
			registration_free(r);
		}
	free(all->leaving);
	free(all->heap);
	free(all->chains);
	free(all);
}

const char *registration_phase_reason(const struct registration *r)
{
	switch (r->phase) {
	case REGISTRATION_GRANTING:
	case REGISTRATION_GRANTED:
		return "its socket is being made";
	case REGISTRATION_BOUND:
		return "the last registration of its id is still leaving the table";
	case REGISTRATION_CHALLENGED:
		return r->challenges ? "it has not echoed the challenge yet"
				     : "no challenge could be sent yet: next hop not resolved, or "
				       "the dataplane is not running";
	case REGISTRATION_ACTIVE:
		break;
	}
	return r->attached ? "active" : "active; its subscriber is not back since the restart";
}
