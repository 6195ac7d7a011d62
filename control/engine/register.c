/* SPDX-License-Identifier: BSD-3-Clause */
/* Lets subscribers in: tokens, ids, limits, grants, renewals, and those who come back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/plant.h"
#include "control/engine/audit.h"
#include "control/engine/bypass.h"
#include "control/engine/registrations_private.h"
#include "control/engine/store.h"
#include "control/engine/token.h"
#include "control/engine/vouched.h"
#include "control/link.h"
#include "control/registry/registry.h"

struct refusal {
	enum message_error error;
	char reason[MESSAGE_REASON_MAX];
};

__attribute__((format(printf, 3, 4))) static bool
refuse(struct refusal *refusal, enum message_error error, const char *format, ...)
{
	va_list args;

	refusal->error = error;
	va_start(args, format);
	vsnprintf(refusal->reason, sizeof(refusal->reason), format, args);
	va_end(args);
	return false;
}

static void audit_foreign_id(struct registrations *all, uint64_t id, const uint8_t *owner,
			     const uint8_t *asker, const char *asker_name, uint32_t uid)
{
	struct audit_record record = {.event = "connection_foreign",
				      .victim = owner,
				      .foreign = asker,
				      .user = asker_name,
				      .connection = id,
				      .uid = uid,
				      .detail = "asked for another user's connection"};

	audit_add(all->engine->audit, &record);
}

static bool check_host(const struct registrations *all, struct moment now, struct refusal *refusal)
{
	const struct engine *engine = all->engine;
	const char *failed = engine_wall_failed(engine);

	if (failed)
		return refuse(refusal, MESSAGE_ERROR_WALL_FAILED,
			      "nothing is granted while a wall has failed: %.200s", failed);
	switch (engine_dataplane_state(engine, now)) {
	case DATAPLANE_RUNNING:
		return true;
	case DATAPLANE_STALLED:
		return refuse(refusal, MESSAGE_ERROR_NO_DATAPLANE,
			      "the dataplane does not move; see fanwirectl doctor");
	case DATAPLANE_STOPPED:
		break;
	}
	return refuse(refusal, MESSAGE_ERROR_NO_DATAPLANE,
		      "the dataplane is not running, or still starting; start it: ./dev up, or "
		      "fanwire-dataplane --config FILE");
}

static bool check_token(const struct registrations *all, const char *text, struct moment now,
			struct token_claims *claims, struct refusal *refusal)
{
	uint8_t handle[FAN_HANDLE_LEN];

	refusal->error = token_verify(claims, TOKEN_SUBSCRIBE, all->engine->config->token_audience,
				      text, now.unix_s, all->engine->keys.token, refusal->reason);
	if (refusal->error && refusal->error != MESSAGE_ERROR_TOKEN_EXPIRED)
		return false;
	fan_handle(handle, claims->user, claims->user_len);
	if (claims->generation != users_generation(all->engine->users, handle) &&
	    !fan_planted(PLANT_TOKEN_GENERATION_IGNORED))
		return refuse(
			refusal, MESSAGE_ERROR_TOKEN_INVALID,
			"the user was revoked after this token was made; ask for a fresh one");
	return !refusal->error;
}

/* One that an administrator vouches for is his alone to change. */
static bool check_vouched_id(struct registrations *all, const struct message *message,
			     const struct registry_connection *record,
			     const struct token_claims *claims, const uint8_t *handle,
			     struct refusal *refusal)
{
	if (memcmp(record->handle, handle, FAN_HANDLE_LEN) != 0)
		audit_foreign_id(all, message->id, record->handle, handle, claims->user,
				 message->u.client.uid);
	return refuse(refusal, MESSAGE_ERROR_CONNECTION_FOREIGN,
		      "this connection id is one that an administrator vouches for; ask for "
		      "another one");
}

/* The id asked for: free, or this user's own. */
static bool check_id(struct registrations *all, const struct message *message,
		     const struct token_claims *claims, struct refusal *refusal)
{
	struct registry_connection record;
	const struct registration *r;
	uint8_t handle[FAN_HANDLE_LEN];

	if (message->id == 0)
		return true;
	if (message->id & FAN_CHANNEL_KIND_MASK)
		return refuse(refusal, MESSAGE_ERROR_BAD_REQUEST,
			      "a connection id is 1 to 2^62-1: leave its two top bits zero");
	fan_handle(handle, claims->user, claims->user_len);
	r = registrations_find(all, message->id);
	if (r && memcmp(r->user->handle, handle, FAN_HANDLE_LEN) != 0 &&
	    !fan_planted(PLANT_FOREIGN_ID_TAKEN)) {
		audit_foreign_id(all, message->id, r->user->handle, handle, claims->user,
				 message->u.client.uid);
		return refuse(refusal, MESSAGE_ERROR_CONNECTION_FOREIGN,
			      "this connection id belongs to another user; ask for another one");
	}
	if (vouched_is_loading(all->engine->vouched))
		return refuse(refusal, MESSAGE_ERROR_BUSY,
			      "the vouched connections are being loaded, and this id may be one of "
			      "theirs; try again in a moment or ask for no id");
	if (r || !registry_connection(all->engine->registry, message->id, &record))
		return true;
	if (record.vouched && record.state == FAN_CONNECTION_ACTIVE)
		return check_vouched_id(all, message, &record, claims, handle, refusal);
	if (memcmp(record.handle, handle, FAN_HANDLE_LEN) != 0)
		return refuse(refusal, MESSAGE_ERROR_BUSY,
			      "this connection id was just let go by another user; try again "
			      "in a moment or ask for another one");
	return true;
}

/* With a record or not yet; and those that an administrator vouches for. */
static uint32_t own_connections(const struct registrations *all, const struct user *user,
				const uint8_t handle[FAN_HANDLE_LEN])
{
	uint32_t recorded = registry_user_connections(all->engine->registry, handle, NULL, 0);

	return recorded + (user ? user->connections - user->recorded : 0);
}

static bool check_limits(const struct registrations *all, const struct message *message,
			 const struct user *user, const uint8_t handle[FAN_HANDLE_LEN],
			 const struct registration *replaced, struct refusal *refusal)
{
	const struct fan_config *config = all->engine->config;
	uint32_t vouched = vouched_count(all->engine->vouched);
	uint32_t own = own_connections(all, user, handle);
	struct registry_counts counts;

	if (message->u.client.thread_cnt > config->max_threads_per_connection ||
	    message->u.client.thread_cnt > MESSAGE_THREADS_MAX)
		return refuse(refusal, MESSAGE_ERROR_BAD_REQUEST,
			      "%u threads; a connection may join %u (max_threads_per_connection)",
			      message->u.client.thread_cnt, config->max_threads_per_connection);
	if (own - (replaced ? 1 : 0) >= config->max_connections_per_user)
		return refuse(refusal, MESSAGE_ERROR_LIMIT_USER,
			      "the user has %u connections, the limit is %u "
			      "(max_connections_per_user); close one first",
			      own, config->max_connections_per_user);
	registry_counts(all->engine->registry, &counts);
	if (all->cnt + vouched - (replaced ? 1 : 0) + counts.connections_ending >= all->max)
		return refuse(refusal, MESSAGE_ERROR_LIMIT_OVERALL,
			      "%u connections stand or are just leaving, the limit is %u "
			      "(max_connections); try again later or raise it",
			      all->cnt + vouched + counts.connections_ending, all->max);
	return true;
}

/* Threads and, where asked for, the connection's own channel; equal names once. */
static bool take_channels(struct registration *r, const struct message *message,
			  struct refusal *refusal)
{
	unsigned max = message->u.client.thread_cnt + message->u.client.single;

	r->channels = max ? calloc(max, sizeof(*r->channels)) : NULL;
	if (max && !r->channels)
		return refuse(refusal, MESSAGE_ERROR_INTERNAL, "out of memory");
	for (unsigned i = 0; i < message->u.client.thread_cnt; i++) {
		const char *name = message->u.client.threads[i];
		uint64_t channel;
		bool known = false;

		if (fan_thread_channel(&channel, name, strnlen(name, FAN_NAME_MAX + 1)))
			return refuse(refusal, MESSAGE_ERROR_BAD_REQUEST,
				      "a thread's name is 1 to 255 bytes");
		for (unsigned j = 0; j < r->channel_cnt; j++)
			known |= r->channels[j].channel == channel;
		if (known)
			continue;
		r->channels[r->channel_cnt].channel = channel;
		r->channels[r->channel_cnt++].name = strdup(name);
	}
	if (message->u.client.single)
		r->channels[r->channel_cnt++].channel = FAN_CHANNEL_SINGLE | r->id;
	return true;
}

/* Before a socket is made: groups that the table could not take. One that replaces makes room. */
static bool check_groups(struct registrations *all, const struct registration *r,
			 const struct token_claims *claims, struct refusal *refusal)
{
	uint64_t channels[MESSAGE_THREADS_MAX + 1];
	uint8_t handle[FAN_HANDLE_LEN];

	fan_handle(handle, claims->user, claims->user_len);
	for (unsigned i = 0; i < r->channel_cnt; i++)
		channels[i] = r->channels[i].channel;
	if (!registry_groups_check(all->engine->registry, handle, channels, r->channel_cnt))
		return true;
	return refuse(refusal, MESSAGE_ERROR_LIMIT_OVERALL, "%.200s",
		      registry_why(all->engine->registry));
}

static uint64_t draw_id(const struct registrations *all)
{
	struct registry_connection taken;
	uint64_t id;

	do {
		randombytes_buf(&id, sizeof(id));
		id &= FAN_CONNECTION_ID_MASK;
	} while (!id || registrations_find(all, id) ||
		 registry_connection(all->engine->registry, id, &taken));
	return id;
}

static bool take_user(struct registrations *all, const struct token_claims *claims,
		      struct user **user, struct refusal *refusal)
{
	switch (users_get(all->engine->users, claims->user, claims->user_len, user)) {
	case 0:
		return true;
	case -EEXIST:
		return refuse(refusal, MESSAGE_ERROR_HANDLE_TAKEN,
			      "another user's name has the same handle; rename one of them");
	case -EDQUOT:
		return refuse(refusal, MESSAGE_ERROR_LIMIT_OVERALL,
			      "%u users are connected, which is the limit (max_users)",
			      all->engine->config->max_users);
	case -EINVAL:
		return refuse(refusal, MESSAGE_ERROR_TOKEN_INVALID,
			      "a user's name is 1 to 255 bytes");
	default:
		return refuse(refusal, MESSAGE_ERROR_INTERNAL,
			      "the user could not be written to the database: %.150s",
			      store_why(all->engine->store));
	}
}

static void grant(struct registrations *all, struct registration *r, struct moment now)
{
	struct message answer = {.type = MESSAGE_GRANT, .ref = r->ref, .id = r->id};

	r->phase = REGISTRATION_GRANTED;
	r->user_generation = r->user->generation;
	r->generation = registry_generation_draw(all->engine->registry);
	snprintf(answer.u.grant.user, sizeof(answer.u.grant.user), "%s", r->user->name);
	registration_scope(all, r->user, &answer.u.grant.scope);
	registration_keys(all, r, &answer.u.grant.keys);
	answer.u.grant.generation = r->generation;
	answer.u.grant.lease_s = all->engine->config->lease_s;
	link_to_agent(all->engine->link, &answer);
	sodium_memzero(&answer.u.grant, sizeof(answer.u.grant));
}

struct waiting {
	struct registrations *all;
	uint64_t id, ref;
};

static void on_user_durable(void *arg, int status)
{
	struct waiting *waiting = arg;
	struct registrations *all = waiting->all;
	struct registration *r = registrations_find(all, waiting->id);

	if (r && r->ref == waiting->ref && r->phase == REGISTRATION_GRANTING) {
		if (!status) {
			grant(all, r, moment_now());
		} else {
			registration_refuse(all, r->ref, r->id, MESSAGE_ERROR_INTERNAL,
					    "the user could not be written to the database; "
					    "see fanwired's log");
			registrations_drop(all, r);
		}
	}
	free(waiting);
}

static void grant_when_durable(struct registrations *all, struct registration *r, struct moment now)
{
	struct waiting *waiting;

	if (r->user->durable) {
		grant(all, r, now);
		return;
	}
	waiting = calloc(1, sizeof(*waiting));
	if (!waiting)
		return; /* it ends when its time is over */
	*waiting = (struct waiting){all, r->id, r->ref};
	store_on_durable(all->engine->store, on_user_durable, waiting);
}

static void registration_discard(struct registration *r)
{
	for (unsigned i = 0; i < r->channel_cnt; i++)
		free(r->channels[i].name);
	free(r->channels);
	free(r);
}

static bool admit(struct registrations *all, const struct message *message,
		  const struct token_claims *claims, struct moment now, struct refusal *refusal)
{
	struct registration *replaced = registrations_find(all, message->id);
	struct registration *r = calloc(1, sizeof(*r));

	if (!r)
		return refuse(refusal, MESSAGE_ERROR_INTERNAL, "out of memory");
	r->id = message->id ? message->id : draw_id(all);
	r->ref = message->ref;
	r->uid = message->u.client.uid;
	r->address =
		message->u.client.address; /* of one that bypasses the kernel; taken from now on */
	r->named = r->address.family != 0;
	r->attached = true;
	r->token_expiry_s = claims->expires_s;
	r->end_ns = now.mono_ns + all->engine->config->challenge_timeout_s * ENGINE_NS_PER_S;
	r->due_ns = r->end_ns;
	if (!take_channels(r, message, refusal) ||
	    (!replaced && !check_groups(all, r, claims, refusal)) ||
	    !take_user(all, claims, &r->user, refusal)) {
		registration_discard(r);
		return false;
	}
	if (replaced)
		registrations_end(all, replaced, MESSAGE_END_REPLACED, r->uid,
				  "the same user registered this id again");
	registrations_insert(all, r);
	grant_when_durable(all, r, now);
	return true;
}

void register_on_message(struct registrations *all, const struct message *message,
			 struct moment now)
{
	struct refusal refusal = {.error = MESSAGE_ERROR_NONE};
	struct token_claims claims;
	uint8_t handle[FAN_HANDLE_LEN];
	const struct user *user;

	if (!check_host(all, now, &refusal) ||
	    !check_token(all, message->u.client.token, now, &claims, &refusal) ||
	    !check_id(all, message, &claims, &refusal) ||
	    !bypass_place_check(all, message, &refusal.error, refusal.reason))
		goto refused;
	fan_handle(handle, claims.user, claims.user_len);
	user = users_find(all->engine->users, handle);
	if (!check_limits(all, message, user, handle,
			  message->id ? registrations_find(all, message->id) : NULL, &refusal))
		goto refused;
	if (admit(all, message, &claims, now, &refusal))
		return;
refused:
	registration_refuse(all, message->ref, message->id, refusal.error, refusal.reason);
}

/* ---- renewals -------------------------------------------------------------------------------- */

static bool is_user(const struct user *user, const struct token_claims *claims)
{
	return user->name_len == claims->user_len &&
	       memcmp(user->name, claims->user, claims->user_len) == 0;
}

static void extend(struct registrations *all, struct registration *r, struct moment now)
{
	if (r->phase != REGISTRATION_ACTIVE)
		return; /* its lease begins when it is active */
	r->end_ns = registration_lease_ns(all, r->token_expiry_s, now);
	registrations_set_due(all, r, r->end_ns);
	registry_connection_renew(all->engine->registry, r->id, r->end_ns, r->token_expiry_s);
}

static void answer_grant(struct registrations *all, enum message_type type,
			 const struct registration *r, uint64_t ref, struct moment now)
{
	struct message answer = {.type = type, .ref = ref, .id = r->id};
	uint64_t left_s = r->end_ns > now.mono_ns ? (r->end_ns - now.mono_ns) / ENGINE_NS_PER_S : 0;

	snprintf(answer.u.grant.user, sizeof(answer.u.grant.user), "%s", r->user->name);
	registration_scope(all, r->user, &answer.u.grant.scope);
	answer.u.grant.generation = r->generation;
	answer.u.grant.lease_s =
		r->phase == REGISTRATION_ACTIVE ? (uint32_t)left_s : all->engine->config->lease_s;
	answer.u.grant.address = r->address;
	if (type == MESSAGE_ATTACHED)
		registration_keys(all, r, &answer.u.grant.keys);
	registration_tails(all, r, &answer.u.grant.tails);
	link_to_agent(all->engine->link, &answer);
	sodium_memzero(&answer.u.grant, sizeof(answer.u.grant));
}

void register_on_renew(struct registrations *all, const struct message *message, struct moment now)
{
	struct registration *r = registrations_find(all, message->id);
	struct refusal refusal = {.error = MESSAGE_ERROR_NONE};
	struct token_claims claims;

	if (!r) {
		refuse(&refusal, MESSAGE_ERROR_CONNECTION_UNKNOWN, "this registration has ended");
		goto refused;
	}
	if (message->u.client.token[0]) {
		if (!check_token(all, message->u.client.token, now, &claims, &refusal))
			goto refused;
		if (!is_user(r->user, &claims)) {
			refuse(&refusal, MESSAGE_ERROR_TOKEN_USER,
			       "the token is another user's; a connection never changes its user");
			goto refused;
		}
		r->token_expiry_s = claims.expires_s;
	} else if (r->token_expiry_s <= now.unix_s) {
		refuse(&refusal, MESSAGE_ERROR_TOKEN_EXPIRED,
		       "the token has expired; renew with a fresh one");
		goto refused;
	}
	extend(all, r, now);
	answer_grant(all, MESSAGE_RENEWED, r, message->ref, now);
	return;
refused:
	registration_refuse(all, message->ref, message->id, refusal.error, refusal.reason);
}

/* ---- coming back after a restart ------------------------------------------------------------- */

static bool check_attach(struct registrations *all, const struct message *message,
			 const struct registration *r, struct moment now,
			 struct token_claims *claims, struct refusal *refusal)
{
	/* an expired token will do while the registration's own deadline has not passed */
	if (!check_token(all, message->u.client.token, now, claims, refusal) &&
	    refusal->error != MESSAGE_ERROR_TOKEN_EXPIRED)
		return false;
	if (!r || r->phase != REGISTRATION_ACTIVE)
		return refuse(refusal, MESSAGE_ERROR_CONNECTION_UNKNOWN,
			      "there is no such registration (any more); subscribe anew");
	if (!is_user(r->user, claims)) {
		uint8_t handle[FAN_HANDLE_LEN];

		fan_handle(handle, claims->user, claims->user_len);
		audit_foreign_id(all, r->id, r->user->handle, handle, claims->user,
				 message->u.client.uid);
		return refuse(refusal, MESSAGE_ERROR_CONNECTION_FOREIGN,
			      "this connection belongs to another user");
	}
	if (message->u.client.cookie != r->cookie ||
	    memcmp(message->u.client.handle, r->user->handle, FAN_HANDLE_LEN) != 0)
		return refuse(refusal, MESSAGE_ERROR_CONNECTION_UNKNOWN,
			      "the descriptor is not this connection's socket; subscribe anew");
	if (r->attached)
		return refuse(refusal, MESSAGE_ERROR_BUSY,
			      "this connection is attached already; close the other one first");
	return true;
}

void register_on_attach(struct registrations *all, const struct message *message, struct moment now)
{
	struct registration *r = registrations_find(all, message->id);
	struct refusal refusal = {.error = MESSAGE_ERROR_NONE};
	struct token_claims claims;

	if (!check_attach(all, message, r, now, &claims, &refusal)) {
		registration_refuse(all, message->ref, message->id, refusal.error, refusal.reason);
		return;
	}
	r->ref = message->ref;
	r->uid = message->u.client.uid;
	r->attached = true;
	if (!r->returned)
		all->engine->returned_ns = now.mono_ns;
	r->returned = true;
	if (claims.expires_s > r->token_expiry_s)
		r->token_expiry_s = claims.expires_s;
	if (r->token_expiry_s > now.unix_s)
		extend(all, r, now);
	else
		registrations_set_due(all, r, r->end_ns);
	answer_grant(all, MESSAGE_ATTACHED, r, message->ref, now);
}
