/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/token.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <jwt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/plant.h"

static int claims_add(jwt_t *jwt, enum token_kind kind, const char *audience,
		      const struct token_claims *claims, uint64_t now_s)
{
	char number[17];

	if (jwt_add_grant(jwt, "aud", audience) ||
	    jwt_add_grant_int(jwt, "exp", (long)claims->expires_s) ||
	    jwt_add_grant_int(jwt, "iat", (long)now_s))
		return -ENOMEM;
	if (kind == TOKEN_SUBSCRIBE)
		return jwt_add_grant(jwt, "sub", claims->user) ||
				       jwt_add_grant_int(jwt, "gen", claims->generation)
			       ? -EINVAL
			       : 0;
	fan_id_format(number, claims->number);
	if (jwt_add_grant(jwt, "jti", number))
		return -ENOMEM;
	if (!claims->user_len)
		return 0;
	return jwt_add_grant(jwt, "one", claims->user) ||
			       (claims->generation &&
				jwt_add_grant_int(jwt, "gen", claims->generation))
		       ? -EINVAL
		       : 0;
}

int token_make(char text[MESSAGE_TOKEN_MAX], enum token_kind kind, const char *audience,
	       const struct token_claims *claims, uint64_t now_s, const uint8_t key[FAN_KEY_LEN])
{
	char *encoded = NULL;
	jwt_t *jwt = NULL;
	int err;

	if (jwt_new(&jwt))
		return -ENOMEM;
	err = claims_add(jwt, kind, audience, claims, now_s);
	if (err)
		goto out;
	err = -ENOMEM;
	if (jwt_set_alg(jwt, JWT_ALG_HS256, key, FAN_KEY_LEN))
		goto out;
	encoded = jwt_encode_str(jwt);
	if (!encoded)
		goto out;
	err = -EMSGSIZE;
	if (strlen(encoded) >= MESSAGE_TOKEN_MAX)
		goto out;
	strcpy(text, encoded);
	err = 0;
out:
	free(encoded);
	jwt_free(jwt);
	return err;
}

/* Part of a token, from `text` to `end`: an object without a key that stands there twice. */
static json_t *part_parse(const char *text, const char *end)
{
	uint8_t json[MESSAGE_TOKEN_MAX];
	json_t *part;
	size_t len;

	if (sodium_base642bin(json, sizeof(json), text, (size_t)(end - text), NULL, &len, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING))
		return NULL;
	part = json_loadb((const char *)json, len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(part)) {
		json_decref(part);
		return NULL;
	}
	return part;
}

/*
 * The claims, read by ourselves: libjwt 1.10 reads an array `aud` as none at all and takes the last
 * of two equal keys. The signature over these bytes has been verified before.
 */
static json_t *payload_parse(const char *text)
{
	const char *first = strchr(text, '.');
	const char *second = first ? strchr(first + 1, '.') : NULL;

	return second ? part_parse(first + 1, second) : NULL;
}

/* The header says HS256, once and so written: libjwt takes "hs256" and the last of two as well. */
static bool header_ok(const char *text)
{
	const char *end = strchr(text, '.');
	json_t *header = end ? part_parse(text, end) : NULL;
	const char *alg = json_string_value(json_object_get(header, "alg"));
	bool ok = alg && strcmp(alg, "HS256") == 0;

	json_decref(header);
	return ok;
}

/* True where libjwt accepts the signature and the header says HS256 and nothing else. */
static bool signature_ok(const char *text, const uint8_t key[FAN_KEY_LEN])
{
	jwt_t *jwt = NULL;
	bool ok;

	if (fan_planted(PLANT_TOKEN_NOT_VERIFIED))
		return true;
	if (!header_ok(text) || jwt_decode(&jwt, text, key, FAN_KEY_LEN))
		return false;
	ok = jwt_get_alg(jwt) == JWT_ALG_HS256;
	jwt_free(jwt);
	return ok;
}

static enum message_error refuse(enum message_error error, char why[MESSAGE_REASON_MAX],
				 const char *sentence)
{
	snprintf(why, MESSAGE_REASON_MAX, "%s", sentence);
	return error;
}

static enum message_error user_read(struct token_claims *claims, const json_t *payload,
				    enum token_kind kind, char why[MESSAGE_REASON_MAX])
{
	const json_t *user = json_object_get(payload, kind == TOKEN_SUBSCRIBE ? "sub" : "one");
	size_t len;

	if (kind == TOKEN_PUBLISH && !user)
		return MESSAGE_ERROR_NONE;
	if (!json_is_string(user))
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token names no user (claim sub); ask for a fresh one");
	len = json_string_length(user);
	if (len < 1 || len > FAN_NAME_MAX || memchr(json_string_value(user), 0, len))
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token's user must be a name of 1 to 255 bytes without NUL");
	memcpy(claims->user, json_string_value(user), len);
	claims->user_len = len;
	return MESSAGE_ERROR_NONE;
}

static enum message_error extras_read(struct token_claims *claims, const json_t *payload,
				      enum token_kind kind, char why[MESSAGE_REASON_MAX])
{
	const json_t *generation = json_object_get(payload, "gen");
	const json_t *number = json_object_get(payload, "jti");

	claims->generation = 1;
	if (generation) {
		if (!json_is_integer(generation) || json_integer_value(generation) < 1 ||
		    json_integer_value(generation) > UINT32_MAX)
			return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
				      "the token's gen must be a number from 1");
		claims->generation = (uint32_t)json_integer_value(generation);
	}
	if (kind == TOKEN_PUBLISH &&
	    (!json_is_string(number) || fan_id_parse(&claims->number, json_string_value(number))))
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the grant has no number (claim jti); ask for a fresh one");
	return MESSAGE_ERROR_NONE;
}

static enum message_error times_read(struct token_claims *claims, const json_t *payload,
				     uint64_t now_s, char why[MESSAGE_REASON_MAX])
{
	const json_t *expires = json_object_get(payload, "exp");
	const json_t *not_before = json_object_get(payload, "nbf");

	if (!json_is_integer(expires) || json_integer_value(expires) < 1)
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token must say when it expires (claim exp, Unix seconds)");
	claims->expires_s = (uint64_t)json_integer_value(expires);
	if (not_before && (!json_is_integer(not_before) || json_integer_value(not_before) < 0 ||
			   (uint64_t)json_integer_value(not_before) > now_s))
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token is not valid yet (claim nbf); compare the clocks");
	if (claims->expires_s <= now_s && !fan_planted(PLANT_TOKEN_EXPIRY_IGNORED)) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "the token expired %" PRIu64 " s ago; ask for a fresh one",
			 now_s - claims->expires_s);
		return MESSAGE_ERROR_TOKEN_EXPIRED;
	}
	return MESSAGE_ERROR_NONE;
}

static enum message_error payload_check(struct token_claims *claims, const json_t *payload,
					enum token_kind kind, const char *audience, uint64_t now_s,
					char why[MESSAGE_REASON_MAX])
{
	const json_t *aud = json_object_get(payload, "aud");
	enum message_error error;

	if ((!json_is_string(aud) || strlen(audience) != json_string_length(aud) ||
	     strcmp(json_string_value(aud), audience) != 0) &&
	    !fan_planted(PLANT_TOKEN_AUDIENCE_IGNORED)) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "the token is not for this use: its audience must be the string \"%.64s\"",
			 audience);
		return MESSAGE_ERROR_TOKEN_AUDIENCE;
	}
	error = user_read(claims, payload, kind, why);
	if (!error)
		error = extras_read(claims, payload, kind, why);
	return error ? error : times_read(claims, payload, now_s, why);
}

enum message_error token_verify(struct token_claims *claims, enum token_kind kind,
				const char *audience, const char *text, uint64_t now_s,
				const uint8_t key[FAN_KEY_LEN], char why[MESSAGE_REASON_MAX])
{
	enum message_error error;
	json_t *payload;
	size_t len = strnlen(text, MESSAGE_TOKEN_MAX);

	memset(claims, 0, sizeof(*claims));
	if (len == 0 || len == MESSAGE_TOKEN_MAX)
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      len ? "the token is longer than 4,095 bytes"
				  : "there is no token; ask for one");
	if (!signature_ok(text, key))
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token is not one that this instance signed with HS256; "
			      "ask for a fresh one");
	payload = payload_parse(text);
	if (!payload)
		return refuse(MESSAGE_ERROR_TOKEN_INVALID, why,
			      "the token's claims are not a JSON object; ask for a fresh one");
	error = payload_check(claims, payload, kind, audience, now_s, why);
	json_decref(payload);
	return error;
}
