/* SPDX-License-Identifier: BSD-3-Clause */
/* A packet of client.sock: whatever comes, a request that is taken is within its bounds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/agent/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_taken(const struct client_request *request)
{
	require(request->op >= REQUEST_SUBSCRIBE && request->op <= REQUEST_PUBLISH_ATTACH);
	require(!(request->connection & FAN_CHANNEL_KIND_MASK));
	require(request->family == 0 || request->family == 4 || request->family == 6);
	require(request->thread_cnt <= MESSAGE_THREADS_MAX);
	for (unsigned i = 0; i < request->thread_cnt; i++) {
		size_t len = strnlen(request->threads[i], sizeof(request->threads[i]));

		require(len >= 1 && len <= FAN_NAME_MAX);
	}
	require(strnlen(request->token, sizeof(request->token)) < sizeof(request->token));
	require(strnlen(request->name, sizeof(request->name)) < sizeof(request->name));
	require(strnlen(request->secret, sizeof(request->secret)) < sizeof(request->secret));
	if (request->op == REQUEST_SUBSCRIBE || request->op == REQUEST_ATTACH)
		require(request->token[0]);
	if (request->op == REQUEST_ATTACH)
		require(request->connection);
	if (request->op == REQUEST_PUBLISH_ATTACH)
		require(request->session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct client_request request;
	char why[MESSAGE_REASON_MAX];
	int err = client_request_parse(&request, (const char *)data, len, why);

	if (!err) {
		check_taken(&request);
	} else {
		require(err == -EINVAL);
		require(strnlen(why, sizeof(why)) < sizeof(why) && why[0]);
	}
	return 0;
}
