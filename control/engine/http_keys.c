/* SPDX-License-Identifier: BSD-3-Clause */
/* The key generation in force, and its rotation. */
#include <errno.h>

#include "control/engine/http.h"
#include "control/engine/rotation.h"
#include "control/registry/registry.h"

static json_t *json_rotation(const struct rotation_status *status)
{
	if (status->stage == ROTATION_NONE)
		return json_null();
	return json_pack("{s:i, s:i, s:s, s:I}", "from", (int)status->from, "to", (int)status->to,
			 "stage", rotation_stage_name(status->stage), "overlap_seconds",
			 (json_int_t)status->overlap_s);
}

json_t *http_json_keys(const struct http_call *call)
{
	const struct engine *engine = call->engine;
	struct rotation_status status;

	rotation_status(engine->rotation, call->now, &status);
	return json_pack("{s:i, s:o, s:b, s:o}", "generation", (int)status.generation, "since",
			 status.since_s ? json_integer((json_int_t)status.since_s) : json_null(),
			 "seal", (int)registry_root(engine->registry)->seal, "rotation",
			 json_rotation(&status));
}

void http_keys(struct http_call *call)
{
	http_reply(call, 200, http_json_keys(call));
}

void http_keys_rotate(struct http_call *call)
{
	int err = rotation_begin(call->engine->rotation);

	if (err == -EBUSY) {
		http_refuse(call, 409, "busy",
			    "a rotation is under way; wait for its end: GET /v1/keys tells it");
		return;
	}
	if (err) {
		http_refuse_store(call, err);
		return;
	}
	http_audit(call, "keys_rotate", NULL, 0, NULL);
	http_reply_durable(call, 200, http_json_keys(call));
}
