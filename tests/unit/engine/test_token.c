/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <jansson.h>
#include <jwt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/token.h"

#define NOW_S 1700000000u

static const uint8_t key[FAN_KEY_LEN] = "the key of a test, 32 bytes long";
static const uint8_t other_key[FAN_KEY_LEN] = "another key of a test, 32 bytes.";

static void encode(char *out, size_t size, const void *bytes, size_t len)
{
	sodium_bin2base64(out, size, bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* A JWT of these very bytes, signed with HMAC-SHA-256, whatever the header claims. */
static void forge(char text[8192], const char *header, const char *payload, const uint8_t *with)
{
	uint8_t mac[crypto_auth_hmacsha256_BYTES];
	size_t at;

	encode(text, 8192, header, strlen(header));
	strcat(text, ".");
	at = strlen(text);
	encode(text + at, 8192 - at, payload, strlen(payload));
	crypto_auth_hmacsha256(mac, (const uint8_t *)text, strlen(text), with);
	strcat(text, ".");
	at = strlen(text);
	encode(text + at, 8192 - at, mac, sizeof(mac));
}

static enum message_error verify(const char *text, struct token_claims *claims)
{
	char why[MESSAGE_REASON_MAX] = "";
	enum message_error error =
		token_verify(claims, TOKEN_SUBSCRIBE, "fanwire", text, NOW_S, key, why);

	if (error)
		cr_expect_gt(strlen(why), 10, "a refusal without a sentence");
	return error;
}

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define REST   "\"aud\":\"fanwire\",\"exp\":1700000100"

struct row {
	char payload[128];
	enum message_error error;
};

ParameterizedTestParameters(token, claims)
{
	static struct row rows[] = {
		{"{\"sub\":\"alice\"," REST "}", MESSAGE_ERROR_NONE},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":1700000001}", MESSAGE_ERROR_NONE},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":1700000000}",
		 MESSAGE_ERROR_TOKEN_EXPIRED},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":1}", MESSAGE_ERROR_TOKEN_EXPIRED},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\"}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":\"1700000100\"}",
		 MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":1700000100.5}",
		 MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire\",\"exp\":-5}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"aud\":\"other\",\"exp\":1700000100}",
		 MESSAGE_ERROR_TOKEN_AUDIENCE},
		{"{\"sub\":\"alice\",\"exp\":1700000100}", MESSAGE_ERROR_TOKEN_AUDIENCE},
		{"{\"sub\":\"alice\",\"aud\":[\"fanwire\"],\"exp\":1700000100}",
		 MESSAGE_ERROR_TOKEN_AUDIENCE},
		{"{\"sub\":\"alice\",\"aud\":\"fanwire-publish\",\"exp\":1700000100}",
		 MESSAGE_ERROR_TOKEN_AUDIENCE},
		{"{\"sub\":\"alice\",\"aud\":\"fan\",\"exp\":1700000100}",
		 MESSAGE_ERROR_TOKEN_AUDIENCE},
		{"{" REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":7," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"\"," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"al\\u0000ice\"," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"sub\":\"bob\"," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"nbf\":1700000001," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"{\"sub\":\"alice\",\"gen\":0," REST "}", MESSAGE_ERROR_TOKEN_INVALID},
		{"[\"fanwire\"]", MESSAGE_ERROR_TOKEN_INVALID},
		{"not JSON", MESSAGE_ERROR_TOKEN_INVALID},
	};

	return cr_make_param_array(struct row, rows, sizeof(rows) / sizeof(rows[0]));
}

ParameterizedTest(struct row *row, token, claims)
{
	struct token_claims claims;
	char text[8192];

	forge(text, HEADER, row->payload, key);
	cr_assert_eq(verify(text, &claims), row->error, "%s: %s", row->payload,
		     message_error_name(verify(text, &claims)));
	if (!row->error)
		cr_assert_str_eq(claims.user, "alice");
}

Test(token, made_here_is_accepted_here)
{
	struct token_claims made = {.user = "alice",
				    .user_len = 5,
				    .expires_s = NOW_S + 60,
				    .generation = 3},
			    claims;
	char text[MESSAGE_TOKEN_MAX];

	cr_assert_eq(token_make(text, TOKEN_SUBSCRIBE, "fanwire", &made, NOW_S, key), 0);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_NONE);
	cr_assert_str_eq(claims.user, "alice");
	cr_assert_eq(claims.user_len, 5);
	cr_assert_eq(claims.expires_s, NOW_S + 60);
	cr_assert_eq(claims.generation, 3);
}

Test(token, names_of_1_and_255_bytes_pass_and_256_does_not)
{
	char name[300], payload[512], text[8192];
	struct token_claims claims;

	for (size_t len = 254; len <= 257; len++) {
		memset(name, 'x', len);
		name[len] = '\0';
		snprintf(payload, sizeof(payload), "{\"sub\":\"%s\"," REST "}", name);
		forge(text, HEADER, payload, key);
		cr_assert_eq(verify(text, &claims),
			     len <= 255 ? MESSAGE_ERROR_NONE : MESSAGE_ERROR_TOKEN_INVALID);
	}
	forge(text, HEADER, "{\"sub\":\"x\"," REST "}", key);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_NONE);
	cr_assert_eq(claims.user_len, 1);
}

Test(token, another_key_is_refused)
{
	struct token_claims claims;
	char text[8192];

	forge(text, HEADER, "{\"sub\":\"alice\"," REST "}", other_key);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
}

Test(token, every_changed_letter_is_refused)
{
	struct token_claims claims;
	char text[8192], changed[8192];

	forge(text, HEADER, "{\"sub\":\"alice\"," REST "}", key);
	/* the last letter carries two bits that mean nothing, so it is left out */
	for (size_t i = 0; i + 1 < strlen(text); i++) {
		strcpy(changed, text);
		changed[i] = changed[i] == 'A' ? 'B' : 'A';
		if (strcmp(changed, text) != 0)
			cr_assert_neq(verify(changed, &claims), MESSAGE_ERROR_NONE, "letter %zu",
				      i);
	}
}

static void sign_with(jwt_alg_t algorithm, char text[8192])
{
	jwt_t *jwt;
	char *encoded;

	cr_assert_eq(jwt_new(&jwt), 0);
	jwt_add_grant(jwt, "sub", "alice");
	jwt_add_grant(jwt, "aud", "fanwire");
	jwt_add_grant_int(jwt, "exp", NOW_S + 100);
	cr_assert_eq(jwt_set_alg(jwt, algorithm, algorithm == JWT_ALG_NONE ? NULL : key,
				 algorithm == JWT_ALG_NONE ? 0 : FAN_KEY_LEN),
		     0);
	encoded = jwt_encode_str(jwt);
	strcpy(text, encoded);
	free(encoded);
	jwt_free(jwt);
}

Test(token, only_hs256_will_do)
{
	struct token_claims claims;
	char text[8192];

	sign_with(JWT_ALG_HS256, text);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_NONE);
	sign_with(JWT_ALG_HS384, text);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
	sign_with(JWT_ALG_HS512, text);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
	sign_with(JWT_ALG_NONE, text);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
	forge(text, "{\"alg\":\"none\"}", "{\"sub\":\"alice\"," REST "}", key);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
}

Test(token, form)
{
	static const char *const bad[] = {"", ".", "..", "...", "a.b.c", "eyJ.eyJ.", "\xff\xfe"};
	struct token_claims claims;
	char text[MESSAGE_TOKEN_MAX + 1];

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(verify(bad[i], &claims), MESSAGE_ERROR_TOKEN_INVALID);
	memset(text, 'a', MESSAGE_TOKEN_MAX);
	text[MESSAGE_TOKEN_MAX] = '\0';
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID);
}

Test(token, grants_and_tokens_do_not_stand_in_for_each_other)
{
	struct token_claims made = {.expires_s = NOW_S + 60, .number = 77}, claims;
	char text[MESSAGE_TOKEN_MAX], why[MESSAGE_REASON_MAX];

	cr_assert_eq(token_make(text, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, &made, NOW_S, key), 0);
	cr_assert_eq(
		token_verify(&claims, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, text, NOW_S, key, why),
		MESSAGE_ERROR_NONE);
	cr_assert_eq(claims.number, 77);
	cr_assert_eq(claims.user_len, 0);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_AUDIENCE);

	strcpy(made.user, "alice");
	made.user_len = 5;
	made.generation = 1;
	cr_assert_eq(token_make(text, TOKEN_SUBSCRIBE, "fanwire", &made, NOW_S, key), 0);
	cr_assert_eq(
		token_verify(&claims, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, text, NOW_S, key, why),
		MESSAGE_ERROR_TOKEN_AUDIENCE);
	cr_assert_eq(token_make(text, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, &made, NOW_S, key), 0);
	cr_assert_eq(
		token_verify(&claims, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, text, NOW_S, key, why),
		MESSAGE_ERROR_NONE);
	cr_assert_str_eq(claims.user, "alice");
}

Test(token, a_header_that_says_it_otherwise_is_refused)
{
	static const char *const headers[] = {"{\"alg\":\"hs256\",\"typ\":\"JWT\"}",
					      "{\"alg\":\"none\",\"alg\":\"HS256\"}",
					      "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
					      "{\"alg\":[\"HS256\"]}",
					      "{\"typ\":\"JWT\"}",
					      "[]"};
	struct token_claims claims;
	char text[8192];

	forge(text, HEADER, "{\"sub\":\"alice\"," REST "}", key);
	cr_assert_eq(verify(text, &claims), MESSAGE_ERROR_NONE);
	for (unsigned i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		forge(text, headers[i], "{\"sub\":\"alice\"," REST "}", key);
		cr_expect_eq(verify(text, &claims), MESSAGE_ERROR_TOKEN_INVALID, "%s", headers[i]);
	}
}
