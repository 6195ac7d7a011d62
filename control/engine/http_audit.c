/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /v1/audit. */
#include "control/engine/audit.h"
#include "control/engine/http.h"

void http_audit_list(struct http_call *call)
{
	uint64_t limit = 100, after = 0;
	const char *event;

	if (!http_query_number(call, "limit", 1, 10000, &limit) ||
	    !http_query_number(call, "after", 0, INT64_MAX, &after) ||
	    !http_query_string(call, "event", false, &event))
		return;
	http_reply(call, 200,
		   json_pack("{s:o}", "records",
			     audit_list(call->engine->audit, event, after, (unsigned)limit)));
}
