/* SPDX-License-Identifier: BSD-3-Clause */
/* Vouched connections: import, list, remove. */
#include <event2/buffer.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/engine/vouched.h"

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX     10000

static bool refused(struct http_call *call, const struct vouched_answer *answer)
{
	if (answer->error)
		http_refuse(call, answer->status, answer->error, "%s", answer->message);
	return answer->error;
}

static void on_imported(void *arg, const struct vouched_answer *answer)
{
	struct http_call *call = arg;
	struct vouched_status status;

	if (refused(call, answer))
		return;
	vouched_status(call->engine->vouched, &status);
	http_reply(call, 200,
		   json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "batch",
			     answer->batch ? json_integer((json_int_t)answer->batch) : json_null(),
			     "added", (json_int_t)answer->added, "replaced",
			     (json_int_t)answer->replaced, "unchanged",
			     (json_int_t)answer->unchanged, "waiting", (json_int_t)answer->waiting,
			     "total", (json_int_t)status.total));
}

/* The body is the request's, which stays until it is answered. */
void http_vouched_import(struct http_call *call)
{
	struct evbuffer *input = evhttp_request_get_input_buffer(call->request);
	size_t len = evbuffer_get_length(input);

	vouched_import(call->engine->vouched, len ? (char *)evbuffer_pullup(input, -1) : NULL, len,
		       call->uid, on_imported, call);
}

void http_vouched_list(struct http_call *call)
{
	uint64_t after = 0, limit = LIMIT_DEFAULT, next;
	const char *user;
	json_t *list;

	if (!http_query_string(call, "user", false, &user) ||
	    !http_query_number(call, "after", 0, UINT32_MAX, &after) ||
	    !http_query_number(call, "limit", 1, LIMIT_MAX, &limit))
		return;
	list = vouched_list(call->engine->vouched, user, after, (unsigned)limit, &next);
	http_reply(call, 200,
		   json_pack("{s:o, s:o}", "vouched", list, "next",
			     next ? json_integer((json_int_t)next) : json_null()));
}

static void on_removed(void *arg, const struct vouched_answer *answer)
{
	struct http_call *call = arg;

	if (!refused(call, answer))
		http_reply(call, 200,
			   json_pack("{s:I, s:b}", "removed", (json_int_t)answer->removed, "more",
				     (int)answer->more));
}

void http_vouched_remove(struct http_call *call)
{
	const char *id = evhttp_find_header(&call->query, "id");
	struct vouched_selection selection = {0};
	unsigned given;

	if (!http_query_string(call, "user", false, &selection.user) ||
	    !http_query_number(call, "batch", 1, INT64_MAX, &selection.batch) ||
	    !http_query_number(call, "row", 1, UINT32_MAX, &selection.row))
		return;
	if (id && (fan_id_parse(&selection.id, id) || !selection.id)) {
		http_refuse(call, 400, "bad_request", "id must be 16 lowercase hex digits");
		return;
	}
	given = (id != NULL) + (selection.user != NULL) + (selection.batch != 0) +
		(selection.row != 0);
	if (given != 1) {
		http_refuse(call, 400, "bad_request", "give one of id, user, batch and row");
		return;
	}
	vouched_remove(call->engine->vouched, &selection, call->uid, on_removed, call);
}
