/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A token: whatever comes, one that is accepted was signed here. The first byte chooses: even, the
 * rest is a token as it stands; odd, the rest is a payload that is signed with the right key, so
 * that the reading of claims is reached.
 */
#include <jwt.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/token.h"

#define NOW_S 1700000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint8_t key[FAN_KEY_LEN] = "the key of a test, 32 bytes long";

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void encode(char *text, size_t size, const uint8_t *bytes, size_t len)
{
	sodium_bin2base64(text, size, bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* RFC 7515, by hand: libjwt would not sign what is not an object. */
static void sign(char text[2 * MESSAGE_TOKEN_MAX], const uint8_t *payload, size_t len)
{
	static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
	uint8_t mac[crypto_auth_hmacsha256_BYTES];
	size_t at;

	encode(text, 2 * MESSAGE_TOKEN_MAX, (const uint8_t *)header, sizeof(header) - 1);
	strcat(text, ".");
	at = strlen(text);
	encode(text + at, 2 * MESSAGE_TOKEN_MAX - at, payload, len);
	crypto_auth_hmacsha256(mac, (const uint8_t *)text, strlen(text), key);
	strcat(text, ".");
	at = strlen(text);
	encode(text + at, 2 * MESSAGE_TOKEN_MAX - at, mac, sizeof(mac));
}

static void check(enum token_kind kind, const char *audience, const char *text, bool ours)
{
	struct token_claims claims;
	char why[MESSAGE_REASON_MAX] = "";
	enum message_error error = token_verify(&claims, kind, audience, text, NOW_S, key, why);

	if (error) {
		require(why[0] && strnlen(why, sizeof(why)) < sizeof(why));
		return;
	}
	require(ours);
	require(claims.user_len <= FAN_NAME_MAX && strlen(claims.user) == claims.user_len);
	require(claims.expires_s > NOW_S);
	require(kind == TOKEN_PUBLISH || claims.user_len);
	require(claims.generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char text[2 * MESSAGE_TOKEN_MAX] = "";
	bool ours = len && (data[0] & 1);

	if (!len || len > MESSAGE_TOKEN_MAX)
		return 0;
	if (ours)
		sign(text, data + 1, len - 1);
	else
		memcpy(text, data + 1, len - 1);
	check(TOKEN_SUBSCRIBE, "fanwire", text, ours);
	check(TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, text, ours);
	return 0;
}
