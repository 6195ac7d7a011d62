/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control API: HTTP/JSON on control.sock. docs/openapi.yaml is normative. One table of routes;
 * handlers by subject in http_*.c. Event-loop thread only.
 */
#pragma once

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/engine/engine.h"
#include "control/engine/users.h"

struct http;

int http_open(struct http **http, struct engine *engine, char why[1024]);
void http_close(struct http *http);
/* METHOD and path of each route, a line each, on standard output. */
void http_print_routes(void);

/* ---- for handlers ---------------------------------------------------------------------------- */

/* One request. Answered exactly once, by http_reply(), http_refuse() or the like. */
struct http_call {
	struct engine *engine;
	struct evhttp_request *request;
	struct moment now;
	uint32_t uid;		/* of the peer, SO_PEERCRED */
	json_t *body;		/* an object; {} where there was none */
	struct evkeyvalq query; /* decoded */
	char *param;		/* decoded {…} of the path, or NULL */
	size_t param_len;
	int status; /* of an answer that waits for database or agent */
	json_t *answer;
};

/* Answers and frees the call; the answer's reference is taken. */
void http_reply(struct http_call *call, int status, json_t *answer);
void http_refuse(struct http_call *call, int status, const char *error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Answers once everything written so far is durable; refuses where it could not be. */
void http_reply_durable(struct http_call *call, int status, json_t *answer);
/* Answers once the agent has acted upon everything that it was told so far. */
void http_reply_confirmed(struct http_call *call, int status, json_t *answer);
/* The refusal for an error of the store. */
void http_refuse_store(struct http_call *call, int err);

/*
 * Readers of parameters: false where the value was bad, and then the call has been answered.
 * A string is 1 to 255 bytes; *text stays NULL where it is absent and not required.
 */
bool http_body_string(struct http_call *call, const char *key, bool required, const char **text);
bool http_body_number(struct http_call *call, const char *key, uint64_t least, uint64_t most,
		      uint64_t *number);
bool http_query_number(struct http_call *call, const char *key, uint64_t least, uint64_t most,
		       uint64_t *number);
bool http_query_string(struct http_call *call, const char *key, bool required, const char **text);

/* Audits a change of an administrator. */
void http_audit(struct http_call *call, const char *event, const char *user, uint64_t connection,
		const char *detail);

json_t *http_json_id(uint64_t id);
json_t *http_json_user(const struct user *user);

typedef void (*http_handler)(struct http_call *call);

void http_status(struct http_call *call);
void http_doctor(struct http_call *call);
void http_token_make(struct http_call *call);
void http_grant_make(struct http_call *call);
void http_revoke(struct http_call *call);
void http_publishers_list(struct http_call *call);
void http_publisher_add(struct http_call *call);
void http_publisher_remove(struct http_call *call);
void http_connections_list(struct http_call *call);
void http_connection_end(struct http_call *call);
void http_vouched_import(struct http_call *call);
void http_vouched_list(struct http_call *call);
void http_vouched_remove(struct http_call *call);
void http_keys(struct http_call *call);
void http_keys_rotate(struct http_call *call);
/* The generation in force and the rotation under way. */
json_t *http_json_keys(const struct http_call *call);
void http_explain(struct http_call *call);
void http_audit_list(struct http_call *call);
void http_top(struct http_call *call);
