/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/messages.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const error_names[MESSAGE_ERROR_CNT] = {
	[MESSAGE_ERROR_NONE] = "none",
	[MESSAGE_ERROR_BAD_REQUEST] = "bad_request",
	[MESSAGE_ERROR_TOKEN_INVALID] = "token_invalid",
	[MESSAGE_ERROR_TOKEN_EXPIRED] = "token_expired",
	[MESSAGE_ERROR_TOKEN_AUDIENCE] = "token_audience",
	[MESSAGE_ERROR_TOKEN_USER] = "token_user",
	[MESSAGE_ERROR_CONNECTION_FOREIGN] = "connection_foreign",
	[MESSAGE_ERROR_CONNECTION_UNKNOWN] = "connection_unknown",
	[MESSAGE_ERROR_LIMIT_USER] = "limit_user",
	[MESSAGE_ERROR_LIMIT_OVERALL] = "limit_overall",
	[MESSAGE_ERROR_HANDLE_TAKEN] = "handle_taken",
	[MESSAGE_ERROR_NO_PORT] = "no_port",
	[MESSAGE_ERROR_SOCKET] = "socket",
	[MESSAGE_ERROR_WALL_FAILED] = "wall_failed",
	[MESSAGE_ERROR_CREDENTIAL] = "credential",
	[MESSAGE_ERROR_NO_DATAPLANE] = "no_dataplane",
	[MESSAGE_ERROR_BUSY] = "busy",
	[MESSAGE_ERROR_INTERNAL] = "internal",
};

static const char *const end_names[MESSAGE_END_CNT] = {
	[MESSAGE_END_NONE] = "none",
	[MESSAGE_END_CLOSED] = "closed",
	[MESSAGE_END_LEASE] = "lease",
	[MESSAGE_END_TOKEN] = "token",
	[MESSAGE_END_REPLACED] = "replaced",
	[MESSAGE_END_REVOKED] = "revoked",
	[MESSAGE_END_DISCONNECTED] = "disconnected",
	[MESSAGE_END_CHALLENGE] = "challenge",
	[MESSAGE_END_ABSENT] = "absent",
	[MESSAGE_END_SOCKET] = "socket",
	[MESSAGE_END_ENGINE] = "engine",
};

const char *message_error_name(enum message_error error)
{
	/* An unknown number is a bug of the sender; the client still gets a word of the protocol.
	 */
	if ((unsigned)error >= MESSAGE_ERROR_CNT)
		return error_names[MESSAGE_ERROR_INTERNAL];
	return error_names[error];
}

const char *message_end_name(enum message_end end)
{
	if ((unsigned)end >= MESSAGE_END_CNT)
		return end_names[MESSAGE_END_ENGINE];
	return end_names[end];
}

#define UNION_LEN(member) sizeof(((struct message *)0)->u.member)

/* Bytes of the union that a message of this type uses. */
static size_t union_len(enum message_type type)
{
	switch (type) {
	case MESSAGE_REGISTER:
	case MESSAGE_RENEW:
	case MESSAGE_ATTACH:
		return UNION_LEN(client);
	case MESSAGE_BOUND:
	case MESSAGE_HOLD:
		return UNION_LEN(bound);
	case MESSAGE_GRANT:
	case MESSAGE_ATTACHED:
	case MESSAGE_RENEWED:
	case MESSAGE_KEYS:
		return UNION_LEN(grant);
	case MESSAGE_ACTIVE:
		return UNION_LEN(active);
	case MESSAGE_SESSION_OPEN:
	case MESSAGE_SESSION_ATTACH:
		return UNION_LEN(session_open);
	case MESSAGE_SESSION_GRANT:
	case MESSAGE_SESSION_ATTACHED:
		return UNION_LEN(session);
	case MESSAGE_FOREIGN_DROP:
		return UNION_LEN(foreign);
	case MESSAGE_DETACH:
	case MESSAGE_END:
	case MESSAGE_SESSION_DETACH:
	case MESSAGE_SESSION_END:
	case MESSAGE_AGENT_STATUS:
	case MESSAGE_MARKED:
	case MESSAGE_HELLO:
	case MESSAGE_REFUSE:
	case MESSAGE_ENDED:
	case MESSAGE_REUSABLE:
	case MESSAGE_SESSION_ENDED:
	case MESSAGE_MARK:
		return 0;
	}
	fprintf(stderr, "message of unknown type %d\n", (int)type);
	abort();
}

size_t message_len(enum message_type type)
{
	return offsetof(struct message, u) + union_len(type);
}
