/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens (who may subscribe) and grants (who may publish): JWT, HS256, made and checked here.
 * Two audiences keep one from being used as the other. Pure functions; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "control/messages.h"

#define TOKEN_AUDIENCE_PUBLISH "fanwire-publish"

struct token_claims {
	char user[FAN_NAME_MAX + 1]; /* "sub" of a token; "one" of a grant, "" = any user */
	size_t user_len;	     /* bytes; no NUL among them */
	uint64_t expires_s;	     /* "exp", Unix time */
	uint32_t generation; /* "gen": user generation it was made in; 1 where it is absent */
	uint64_t number;     /* "jti" of a grant */
};

enum token_kind { TOKEN_SUBSCRIBE, TOKEN_PUBLISH };

/* Writes a signed token into text (MESSAGE_TOKEN_MAX bytes). 0, -EINVAL, -ENOMEM, -EMSGSIZE. */
int token_make(char text[MESSAGE_TOKEN_MAX], enum token_kind kind, const char *audience,
	       const struct token_claims *claims, uint64_t now_s, const uint8_t key[FAN_KEY_LEN]);

/*
 * Checks form, algorithm (HS256 and no other), signature, audience (one string, equal), expiry and
 * the user's name. MESSAGE_ERROR_NONE or the first thing wrong, with a sentence in `why`; *claims
 * is filled also for TOKEN_EXPIRED, which is found last, so that an attach may accept it.
 */
enum message_error token_verify(struct token_claims *claims, enum token_kind kind,
				const char *audience, const char *text, uint64_t now_s,
				const uint8_t key[FAN_KEY_LEN], char why[MESSAGE_REASON_MAX]);
