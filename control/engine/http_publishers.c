/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishers' credentials. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/engine/publishers.h"
#include "control/engine/sessions.h"

static json_t *json_user_or_null(const char *user)
{
	return user && user[0] ? json_string(user) : json_null();
}

void http_publishers_list(struct http_call *call)
{
	const struct publisher *p = publishers_first(call->engine->publishers);
	json_t *list = json_array();

	for (; p; p = p->next)
		if (p->durable)
			json_array_append_new(
				list, json_pack("{s:s, s:o, s:I, s:i, s:I}", "name", p->name,
						"user", json_user_or_null(p->user), "created",
						(json_int_t)p->created_s, "sessions",
						(int)sessions_count(call->engine->sessions, p->id),
						"over_budget",
						(json_int_t)sessions_over_budget(
							call->engine->sessions, p->id)));
	http_reply(call, 200, json_pack("{s:o}", "publishers", list));
}

void http_publisher_add(struct http_call *call)
{
	char secret[PUBLISHER_SECRET_LEN + 1];
	const char *name, *user;
	json_t *answer;
	int err;

	if (!http_body_string(call, "name", true, &name) ||
	    !http_body_string(call, "user", false, &user))
		return;
	err = publishers_add(call->engine->publishers, name, user, call->now.unix_s, secret);
	if (err == -EEXIST) {
		http_refuse(
			call, 409, "exists",
			"there is a publisher of this name; remove it first, or choose another");
		return;
	}
	if (err == -EDQUOT) {
		http_refuse(call, 409, "limit_overall",
			    "there are %u publishers, which is the limit (max_publishers)",
			    call->engine->config->max_publishers);
		return;
	}
	if (err) {
		http_refuse_store(call, err);
		return;
	}
	http_audit(call, "publisher_add", user, 0, name);
	answer = json_pack("{s:s, s:o, s:s}", "name", name, "user", json_user_or_null(user),
			   "secret", secret);
	sodium_memzero(secret, sizeof(secret));
	http_reply_durable(call, 201, answer);
}

static void on_removed(void *arg, const struct publisher *publisher, int status)
{
	struct http_call *call = arg;
	unsigned ended;

	if (status) {
		http_refuse_store(call, status);
		return;
	}
	ended = sessions_end_publisher(call->engine->sessions, publisher->id);
	http_reply(call, 200, json_pack("{s:b, s:i}", "removed", 1, "sessions_ended", (int)ended));
}

void http_publisher_remove(struct http_call *call)
{
	const struct publisher *publisher = publishers_find(call->engine->publishers, call->param);
	int err = -ENOENT;

	if (publisher && publisher->durable && !publisher->removing) {
		http_audit(call, "publisher_remove", NULL, 0, call->param);
		err = publishers_remove(call->engine->publishers, call->param, on_removed, call);
	}
	if (err == -ENOENT)
		http_refuse(call, 404, "not_found",
			    "there is no publisher of this name; fanwirectl publisher list");
	else if (err)
		http_refuse_store(call, err);
}
