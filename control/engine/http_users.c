/* SPDX-License-Identifier: BSD-3-Clause */
/* Tokens, grants and revocations: what an administrator does about users. */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/http.h"
#include "control/engine/registrations.h"
#include "control/engine/sessions.h"
#include "control/engine/token.h"
#include "control/engine/vouched.h"
#include "control/registry/registry.h"

#define TOKEN_TTL_MAX (10 * 365 * 24 * 3600ull)
#define GRANT_TTL_S   60
#define GRANT_TTL_MAX 3600

/* Signs the claims; an answer has been given where that fails. */
static bool sign(struct http_call *call, enum token_kind kind, const char *audience,
		 const struct token_claims *claims, char text[MESSAGE_TOKEN_MAX])
{
	int err = token_make(text, kind, audience, claims, call->now.unix_s,
			     call->engine->keys.token);

	if (!err)
		return true;
	http_refuse(call, 500, "internal", "the token could not be made: %s", strerror(-err));
	return false;
}

static uint32_t generation_of(const struct engine *engine, const char *name)
{
	uint8_t handle[FAN_HANDLE_LEN];

	fan_handle(handle, name, strlen(name));
	return users_generation(engine->users, handle);
}

void http_token_make(struct http_call *call)
{
	const struct fan_config *config = call->engine->config;
	uint64_t ttl_s = config->token_ttl_s;
	char text[MESSAGE_TOKEN_MAX];
	struct token_claims claims = {0};
	const char *user;

	if (!http_body_string(call, "user", true, &user) ||
	    !http_body_number(call, "ttl_seconds", 1, TOKEN_TTL_MAX, &ttl_s))
		return;
	strcpy(claims.user, user);
	claims.user_len = strlen(user);
	claims.generation = generation_of(call->engine, user);
	claims.expires_s = call->now.unix_s + ttl_s;
	if (!sign(call, TOKEN_SUBSCRIBE, config->token_audience, &claims, text))
		return;
	http_audit(call, "token", user, 0, NULL);
	http_reply_durable(call, 200,
			   json_pack("{s:s, s:s, s:I}", "token", text, "user", user, "expires",
				     (json_int_t)claims.expires_s));
}

void http_grant_make(struct http_call *call)
{
	char text[MESSAGE_TOKEN_MAX];
	struct token_claims claims = {0};
	uint64_t ttl_s = GRANT_TTL_S;
	const char *user;

	if (!http_body_string(call, "user", false, &user) ||
	    !http_body_number(call, "ttl_seconds", 1, GRANT_TTL_MAX, &ttl_s))
		return;
	if (user) {
		strcpy(claims.user, user);
		claims.user_len = strlen(user);
		claims.generation = generation_of(call->engine, user);
	}
	randombytes_buf(&claims.number, sizeof(claims.number));
	claims.number &= ~(UINT64_C(1) << 63);
	claims.expires_s = call->now.unix_s + ttl_s;
	if (!sign(call, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, &claims, text))
		return;
	http_audit(call, "grant", user, 0, user ? "one user" : "any user");
	http_reply_durable(
		call, 200,
		json_pack("{s:s, s:I}", "grant", text, "expires", (json_int_t)claims.expires_s));
}

/* The new generation is durable: end what stands on the old one, and answer. */
static void on_revoked(void *arg, struct user *user, int status)
{
	struct http_call *call = arg;
	struct engine *engine = call->engine;
	unsigned ended, sessions;
	unsigned vouched = vouched_on_revoked(engine->vouched, user->handle, status);
	int err;

	if (status) {
		http_refuse_store(call, status);
		return;
	}
	sessions = sessions_end_user(engine->sessions, user->handle);
	ended = registrations_end_user(engine->registrations, user, MESSAGE_END_REVOKED, call->uid,
				       "the user was revoked");
	/* lingering groups too, so that the next registration begins a new stream */
	err = registry_user_revoke(engine->registry, user->handle);
	if (err && err != -ENOENT)
		fan_log(FAN_LOG_WARNING, "revoke", "the user's groups were not all taken out: %s",
			registry_why(engine->registry));
	vouched_revoke_done(engine->vouched);
	/* whoever hears "revoked" may rely on it: the sockets' scopes are gone by then */
	http_reply_confirmed(call, 200,
			     json_pack("{s:o, s:I, s:i, s:i}", "user", http_json_user(user),
				       "user_generation", (json_int_t)user->generation,
				       "connections_ended", (int)(ended + vouched),
				       "sessions_ended", (int)sessions));
}

void http_revoke(struct http_call *call)
{
	const char *name;
	struct user *user;
	int err;

	if (!http_body_string(call, "user", true, &name))
		return;
	err = users_get(call->engine->users, name, strlen(name), &user);
	if (err == -EEXIST) {
		http_refuse(call, 409, "handle_taken",
			    "another user's name has the same handle; nothing was changed");
		return;
	}
	if (err == -EDQUOT) {
		http_refuse(call, 409, "limit_overall",
			    "max_users users are connected; disconnect some, or raise the limit");
		return;
	}
	if (!err) {
		http_audit(call, "revoke", name, 0, NULL);
		err = users_revoke(call->engine->users, user, on_revoked, call);
		if (!err) /* in the same transaction; and void by their generation anyway */
			vouched_revoke_rows(call->engine->vouched, user->handle);
	}
	if (err)
		http_refuse_store(call, err);
}
