/* SPDX-License-Identifier: BSD-3-Clause */
/* The vectors of docs/wire-format.md, read from the page: code and page cannot part. */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/handle.h"
#include "common/wire/wire.h"
#include "tests/unit/common/page.h"

static void init(void)
{
	cr_assert_geq(sodium_init(), 0);
}
TestSuite(vectors, .init = init);

static void expect_bytes(const uint8_t *got, size_t len, const char *vector, const char *field)
{
	struct bytes wanted = vector_bytes(vector, field);

	cr_assert_eq(len, wanted.len, "%s.%s: %zu bytes, the page has %zu", vector, field, len,
		     wanted.len);
	cr_expect_arr_eq(got, wanted.at, len, "%s.%s differs from the page", vector, field);
}

Test(vectors, handles)
{
	for (unsigned i = 1; i <= 5; i++) {
		uint8_t handle[FAN_HANDLE_LEN];
		struct bytes name;
		char vector[16];

		snprintf(vector, sizeof(vector), "handle-%u", i);
		name = vector_bytes(vector, "name");
		cr_assert_eq(fan_handle(handle, (const char *)name.at, name.len), 0);
		expect_bytes(handle, sizeof(handle), vector, "handle");
	}
}

Test(vectors, thread)
{
	struct bytes name = vector_bytes("thread", "name");
	uint64_t channel;

	cr_assert_eq(fan_thread_channel(&channel, (const char *)name.at, name.len), 0);
	cr_expect_eq(channel, vector_number("thread", "channel"));
}

Test(vectors, tag_key)
{
	uint8_t key[FAN_TAG_KEY_LEN], root[FAN_KEY_LEN];

	fan_tag_root(root, vector_bytes("tag-key", "master").at,
		     (uint8_t)vector_number("tag-key", "key_generation"),
		     vector_number("tag-key", "registry_epoch"));
	fan_tag_key(key, root, (uint32_t)vector_number("tag-key", "user_generation"),
		    vector_bytes("tag-key", "handle").at);
	expect_bytes(key, sizeof(key), "tag-key", "key");
}

Test(vectors, siphash)
{
	struct bytes message = vector_bytes("siphash", "message");
	uint8_t tag[8];

	crypto_shorthash_siphash24(tag, message.at, message.len, vector_bytes("siphash", "key").at);
	expect_bytes(tag, sizeof(tag), "siphash", "tag");
}

Test(vectors, proof)
{
	cr_expect_eq(fan_challenge_proof(
			     vector_bytes("proof", "key").at, vector_number("proof", "connection"),
			     vector_number("proof", "salt"), vector_bytes("proof", "address").at,
			     (uint16_t)vector_number("proof", "port")),
		     vector_number("proof", "proof"));
}

/* Delivery, challenge and status: encoded and tagged, and decoded again. */
static void check_delivery(const char *vector)
{
	struct bytes payload = vector_bytes(vector, "payload");
	uint8_t packet[2048];
	struct fan_delivery back,
		d = {
			.type = (uint8_t)vector_number(vector, "type"),
			.flags = (uint8_t)vector_number(vector, "flags"),
			.key_generation = (uint8_t)vector_number(vector, "key_generation"),
			.payload_len = (uint16_t)payload.len,
			.kind = (uint16_t)vector_number(vector, "kind"),
			.channel = vector_number(vector, "channel"),
			.epoch = vector_number(vector, "epoch"),
			.sequence = vector_number(vector, "sequence"),
			.time_ns = vector_number(vector, "time_ns"),
			.user_generation = (uint32_t)vector_number(vector, "user_generation"),
			.session = vector_number(vector, "session"),
			.publisher_sequence = vector_number(vector, "publisher_sequence"),
		};

	memcpy(d.handle, vector_bytes(vector, "handle").at, sizeof(d.handle));
	fan_delivery_encode(packet, &d);
	fan_filter_tag(packet, vector_bytes(vector, "tag_key").at);
	memcpy(packet + FAN_DELIVERY_LEN, payload.at, payload.len);
	expect_bytes(packet, FAN_DELIVERY_LEN + payload.len, vector, "packet");
	cr_assert_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN + payload.len, &back),
		     FAN_WIRE_OK);
	cr_expect_eq(back.type, d.type);
	cr_expect_eq(back.sequence, d.sequence);
	cr_expect(fan_filter_tag_ok(packet, vector_bytes(vector, "tag_key").at));
}

Test(vectors, delivery)
{
	check_delivery("delivery");
}

Test(vectors, challenge)
{
	check_delivery("challenge");
	cr_expect_eq(vector_number("challenge", "sequence"), vector_number("proof", "proof"));
}

Test(vectors, status)
{
	check_delivery("status");
}

Test(vectors, echo)
{
	struct fan_echo echo = {vector_number("echo", "connection"), vector_number("echo", "salt"),
				vector_number("echo", "proof")};
	uint8_t packet[FAN_ECHO_LEN];

	fan_echo_encode(packet, &echo);
	expect_bytes(packet, sizeof(packet), "echo", "packet");
	cr_expect_eq(vector_number("challenge", "channel"), FAN_CHANNEL_SINGLE | echo.connection);
	cr_expect_eq(vector_number("challenge", "epoch"), echo.salt);
	cr_expect_eq(vector_number("challenge", "sequence"), echo.proof);
}

Test(vectors, lost)
{
	check_delivery("lost");
}

/* AES-256-GCM by OpenSSL: header as additional data, ciphertext and tag behind it. */
static size_t seal(uint8_t *packet, size_t header_len, const struct bytes *key,
		   const uint8_t nonce[FAN_NONCE_LEN], const struct bytes *plain)
{
	EVP_CIPHER_CTX *gcm = EVP_CIPHER_CTX_new();
	uint8_t *out = packet + header_len;
	int len = 0, end = 0;

	cr_assert_not_null(gcm);
	cr_assert_eq(EVP_EncryptInit_ex(gcm, EVP_aes_256_gcm(), NULL, key->at, nonce), 1);
	cr_assert_eq(EVP_EncryptUpdate(gcm, NULL, &len, packet, (int)header_len), 1);
	cr_assert_eq(EVP_EncryptUpdate(gcm, out, &len, plain->at, (int)plain->len), 1);
	cr_assert_eq(EVP_EncryptFinal_ex(gcm, out + len, &end), 1);
	cr_assert_eq(EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_GCM_GET_TAG, FAN_TAG_LEN, out + plain->len),
		     1);
	EVP_CIPHER_CTX_free(gcm);
	return header_len + plain->len + FAN_TAG_LEN;
}

Test(vectors, publish)
{
	struct bytes key = vector_bytes("publish", "session_key");
	struct bytes plain = vector_bytes("publish", "plaintext");
	struct fan_publish p =
				   {
					   .flags = (uint8_t)vector_number("publish", "flags"),
					   .payload_len = (uint16_t)plain.len,
					   .kind = (uint16_t)vector_number("publish", "kind"),
					   .session = vector_number("publish", "session"),
					   .publisher_sequence =
						   vector_number("publish", "publisher_sequence"),
					   .channel = vector_number("publish", "channel"),
				   },
			   back;
	uint8_t packet[2048], nonce[FAN_NONCE_LEN];
	size_t len;

	memcpy(p.handle, vector_bytes("publish", "handle").at, sizeof(p.handle));
	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, p.publisher_sequence);
	expect_bytes(nonce, sizeof(nonce), "publish", "nonce");
	len = seal(packet, fan_publish_encode(packet, &p), &key, nonce, &plain);
	expect_bytes(packet, len, "publish", "packet");
	cr_assert_eq(fan_publish_decode(packet, len, &back), FAN_WIRE_OK);
	cr_expect_eq(back.publisher_sequence, p.publisher_sequence);
}

Test(vectors, ack)
{
	struct bytes key = vector_bytes("ack", "session_key");
	struct bytes wanted = vector_bytes("ack", "body"), body = {.len = 8};
	struct fan_ack ack =
			       {
				       .count = (uint8_t)vector_number("ack", "count"),
				       .session = vector_number("ack", "session"),
				       .counter = vector_number("ack", "counter"),
			       },
		       back;
	uint8_t packet[2048], nonce[FAN_NONCE_LEN];
	size_t len;

	memcpy(body.at, wanted.at, 8);
	for (unsigned i = 0; i < ack.count; i++) {
		struct fan_result result;

		fan_result_decode(wanted.at, i, &result);
		body.len += fan_result_encode(body.at + body.len, &result);
	}
	expect_bytes(body.at, body.len, "ack", "body");
	fan_nonce(nonce, FAN_DIRECTION_ACK, ack.counter);
	expect_bytes(nonce, sizeof(nonce), "ack", "nonce");
	len = seal(packet, fan_ack_encode(packet, &ack), &key, nonce, &body);
	expect_bytes(packet, len, "ack", "packet");
	cr_assert_eq(fan_ack_decode(packet, len, &back), FAN_WIRE_OK);
	cr_expect_eq(back.counter, ack.counter);
}

Test(vectors, user_key)
{
	uint8_t root[FAN_KEY_LEN], key[FAN_KEY_LEN];

	fan_seal_root(root, vector_bytes("user-key", "master").at,
		      (uint8_t)vector_number("user-key", "key_generation"),
		      vector_number("user-key", "registry_epoch"));
	fan_user_key(key, root, (uint32_t)vector_number("user-key", "user_generation"),
		     vector_bytes("user-key", "handle").at);
	expect_bytes(key, sizeof(key), "user-key", "key");
}

static void stream_key(uint8_t key[FAN_KEY_LEN], const char *vector)
{
	fan_stream_key(key, vector_bytes(vector, "user_key").at, vector_number(vector, "channel"),
		       vector_number(vector, "epoch"));
}

Test(vectors, stream_key)
{
	uint8_t key[FAN_KEY_LEN];

	stream_key(key, "stream-key");
	expect_bytes(key, sizeof(key), "stream-key", "key");
}

/* Opened as a subscriber does: the page's bytes, by what fan_sealed_header() and fan_nonce() say.
 */
static void check_sealed(const char *vector)
{
	struct bytes packet = vector_bytes(vector, "packet");
	struct bytes plain = vector_bytes(vector, "plaintext");
	uint8_t key[FAN_KEY_LEN], nonce[FAN_NONCE_LEN], text[2048];
	struct bytes sealing = {.len = FAN_KEY_LEN};
	struct fan_delivery d;

	cr_assert_eq(fan_delivery_decode(packet.at, packet.len, &d), FAN_WIRE_OK);
	cr_assert_eq(d.payload_len, plain.len);
	stream_key(key, vector);
	memcpy(sealing.at, key, sizeof(key));
	fan_nonce(nonce, FAN_DIRECTION_DELIVER, d.sequence);
	fan_sealed_header(text, packet.at);
	cr_expect_eq(text[2] & FAN_FLAG_REPLAY, 0);
	seal(text, FAN_SEALED_HEADER_LEN, &sealing, nonce, &plain);
	cr_expect_arr_eq(text + FAN_SEALED_HEADER_LEN, packet.at + FAN_DELIVERY_LEN, plain.len);
	cr_expect_arr_eq(text + FAN_SEALED_HEADER_LEN + plain.len, d.seal_tag, FAN_TAG_LEN);
	cr_expect(fan_filter_tag_ok(packet.at, vector_bytes(vector, "tag_key").at));
}

Test(vectors, sealed_delivery)
{
	check_sealed("sealed-delivery");
	check_sealed("replayed-delivery");
}

Test(vectors, replay_key)
{
	uint8_t root[FAN_KEY_LEN], key[FAN_TAG_KEY_LEN];

	fan_replay_root(root, vector_bytes("replay-key", "master").at,
			vector_number("replay-key", "registry_epoch"));
	fan_replay_key(key, root, vector_number("replay-key", "connection"),
		       (uint32_t)vector_number("replay-key", "generation"),
		       (uint32_t)vector_number("replay-key", "user_generation"),
		       vector_bytes("replay-key", "handle").at);
	expect_bytes(key, sizeof(key), "replay-key", "key");
}

Test(vectors, replay)
{
	struct fan_replay back, request = {
					.connection = vector_number("replay", "connection"),
					.channel = vector_number("replay", "channel"),
					.epoch = vector_number("replay", "epoch"),
					.first = vector_number("replay", "first"),
					.last = vector_number("replay", "last"),
					.counter = vector_number("replay", "counter"),
				};
	struct bytes key = vector_bytes("replay", "key");
	uint8_t packet[FAN_REPLAY_LEN];

	memcpy(request.handle, vector_bytes("replay", "handle").at, FAN_HANDLE_LEN);
	expect_bytes(packet, fan_replay_encode(packet, &request, key.at), "replay", "packet");
	cr_assert_eq(fan_replay_decode(packet, sizeof(packet), &back), FAN_WIRE_OK);
	cr_expect_eq(back.last, request.last);
	cr_expect(fan_replay_tag_ok(packet, key.at));
}
