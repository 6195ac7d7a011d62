/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request of client.sock: JSON text to a checked struct. Pure (no socket, no clock), so that the
 * fuzz target feeds it anything. docs/client-socket.md states the fields.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/messages.h"

#define CLIENT_PACKET_MAX 16384 /* bytes of one packet */

enum request_op {
	REQUEST_SUBSCRIBE = 1,
	REQUEST_RENEW,
	REQUEST_ATTACH,
	REQUEST_PUBLISH_OPEN,
	REQUEST_PUBLISH_ATTACH,
	REQUEST_BYPASS,
};

struct client_request {
	enum request_op op;
	uint64_t connection; /* 0: none asked for */
	uint64_t session;
	unsigned family;		/* 4, 6 or 0 */
	struct message_address address; /* BYPASS */
	bool single;
	uint16_t thread_cnt;
	char threads[MESSAGE_THREADS_MAX][FAN_NAME_MAX + 1];
	char token[MESSAGE_TOKEN_MAX]; /* token, or a publisher's grant; "" where there is none */
	char name[FAN_NAME_MAX + 1];
	char secret[128];
};

/*
 * 0 and *request, or -EINVAL and in `why` (MESSAGE_REASON_MAX bytes) what was wrong and what to
 * send instead; *request is then undefined.
 */
int client_request_parse(struct client_request *request, const char *text, size_t text_len,
			 char why[MESSAGE_REASON_MAX]);
const char *client_request_op_name(enum request_op op);
/* Whether this request comes with a descriptor. */
bool client_request_has_descriptor(enum request_op op);
