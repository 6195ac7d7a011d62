/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealed deliveries. Keys are derived here by libsodium from what docs/wire-format.md says, and
 * deliveries opened by OpenSSL: nothing is checked with the code under test.
 */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/fanout.h"
#include "dataplane/kernels/kernels.h"
#include "dataplane/seal.h"
#include "dataplane/tag.h"
#include "tests/unit/dataplane/pipeline.h"

#define PORT	   20000
#define THREAD	   (FAN_CHANNEL_THREAD | 5)
#define HEADER_LEN 100
#define TAG_OFF	   76

static struct pipeline p;

/* ---- an independent subscriber ---- */

static void put_be(uint8_t *at, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		at[i] = (uint8_t)(value >> 8 * (len - 1 - i));
}

static uint64_t get_be(const uint8_t *at, unsigned len)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < len; i++)
		value = value << 8 | at[i];
	return value;
}

/* BLAKE2b under `above` of label, a number of a_len bytes, and then b. */
static void derive(uint8_t *key, size_t key_len, const uint8_t above[32], const char *label,
		   uint64_t a, unsigned a_len, const uint8_t *b, size_t b_len)
{
	uint8_t text[128];
	size_t len = strlen(label);

	memcpy(text, label, len);
	put_be(text + len, a, a_len);
	memcpy(text + len + a_len, b, b_len);
	crypto_generichash(key, key_len, text, len + a_len + b_len, above, 32);
}

/* What a subscriber would be told, then what he computes from a header: root -> user -> stream. */
static void stream_key(uint8_t key[32], const uint8_t *header)
{
	uint8_t root[32], user[32], epoch[8];

	memset(root, 0x80 + header[3], sizeof(root));
	derive(user, 32, root, "fanwire seal 1", get_be(header + 56, 4), 4, header + 8, 16);
	memcpy(epoch, header + 32, sizeof(epoch));
	derive(key, 32, user, "fanwire stream 1", get_be(header + 24, 8), 8, epoch, 8);
}

static bool opens_with(const uint8_t key[32], const uint8_t *wire, uint16_t len, uint8_t *text)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t nonce[12] = {0, 0, 0, 3}, header[TAG_OFF], tag[16];
	int done, ok = 1;

	memcpy(header, wire, sizeof(header));
	header[2] &= (uint8_t)~4;
	memcpy(nonce + 4, wire + 40, 8);
	memcpy(tag, wire + TAG_OFF, sizeof(tag));
	ok &= EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce);
	ok &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, 16, tag);
	ok &= EVP_DecryptUpdate(context, NULL, &done, header, TAG_OFF);
	ok &= EVP_DecryptUpdate(context, text, &done, wire + HEADER_LEN, len - HEADER_LEN);
	ok &= EVP_DecryptFinal_ex(context, text + done, &done);
	EVP_CIPHER_CTX_free(context);
	return ok == 1;
}

/* Opened by what its header says alone. */
static bool opens(const uint8_t *wire, uint16_t len, uint8_t *text)
{
	uint8_t key[32];

	stream_key(key, wire);
	return opens_with(key, wire, len, text);
}

/* ---- set-up ---- */

static void open_sealing(unsigned workers)
{
	pipeline_open(&p, workers);
	p.regions.root->seal = 1;
	pipeline_restart(&p); /* whether deliveries are sealed is read at the start */
}

static void close_all(void)
{
	pipeline_close(&p);
}

static uint64_t sequence;

/* Publishes to a user and takes the one copy. */
static void send_to(const char *user, const char *text, uint16_t len, struct frame *copy)
{
	struct publish_spec spec = {
		.sequence = ++sequence, .user = user, .payload = text, .payload_len = len};
	struct frame frame;
	bool found = false;

	publish(&p, &spec);
	while (take(&p, &frame))
		if (frame.wire[1] == FAN_TYPE_DELIVERY) {
			*copy = frame;
			copy->wire = copy->bytes + (frame.wire - frame.bytes);
			found = true;
		}
	cr_assert(found, "no delivery");
}

static void expect_opens(const struct frame *f, const char *text, uint16_t len)
{
	uint8_t opened[2048] = {0};

	cr_expect_eq(f->wire_len, HEADER_LEN + len);
	cr_expect(opens(f->wire, f->wire_len, opened), "does not open");
	cr_expect_arr_eq(opened, text, len);
}

/* With each of the instruction sets that this CPU has, and with a few bytes as with many. */
static void every_length_opens(unsigned level)
{
	char text[FAN_PAYLOAD_DEFAULT];
	struct frame f;

	p.plane.kernels = kernels_level(level);
	for (uint16_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7 + level);
	for (uint16_t len = 0; len <= 300; len++) {
		send_to("alice", text, len, &f);
		expect_opens(&f, text, len);
	}
	for (uint16_t len = 1100; len <= FAN_PAYLOAD_DEFAULT; len++) {
		send_to("alice", text, len, &f);
		expect_opens(&f, text, len);
	}
}

Test(seal, every_length_opens_at_every_level, .fini = close_all)
{
	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	for (unsigned level = 2; level <= 4; level++)
		if (kernels_level(level))
			every_length_opens(level);
}
