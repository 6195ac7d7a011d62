/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/wire/handle.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

static const char THREAD_LABEL[] = "fanwire thread"; /* hashed with its NUL */

static void put_be(uint8_t *p, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		p[i] = (uint8_t)(value >> (8 * (len - 1 - i)));
}

static bool name_ok(const char *name, size_t name_len)
{
	return name && name_len >= 1 && name_len <= FAN_NAME_MAX;
}

int fan_handle(uint8_t handle[FAN_HANDLE_LEN], const char *name, size_t name_len)
{
	if (!name_ok(name, name_len))
		return -EINVAL;
	crypto_generichash(handle, FAN_HANDLE_LEN, (const uint8_t *)name, name_len, NULL, 0);
	return 0;
}

int fan_thread_channel(uint64_t *channel, const char *name, size_t name_len)
{
	uint8_t text[sizeof(THREAD_LABEL) + FAN_NAME_MAX];
	uint8_t hash[16];
	uint64_t top = 0;

	if (!name_ok(name, name_len))
		return -EINVAL;
	memcpy(text, THREAD_LABEL, sizeof(THREAD_LABEL));
	memcpy(text + sizeof(THREAD_LABEL), name, name_len);
	crypto_generichash(hash, sizeof(hash), text, sizeof(THREAD_LABEL) + name_len, NULL, 0);
	for (unsigned i = 0; i < 8; i++)
		top = top << 8 | hash[i];
	*channel = FAN_CHANNEL_THREAD | top >> 2;
	return 0;
}

/* What a key is derived from: a label, then fields. */
struct derivation {
	uint8_t text[64];
	unsigned len;
};

static struct derivation derive(const char *label)
{
	struct derivation d = {.len = (unsigned)strlen(label)};

	memcpy(d.text, label, d.len);
	return d;
}

static void add_number(struct derivation *d, uint64_t value, unsigned len)
{
	put_be(d->text + d->len, value, len);
	d->len += len;
}

static void add_user(struct derivation *d, uint32_t user_generation,
		     const uint8_t handle[FAN_HANDLE_LEN])
{
	add_number(d, user_generation, 4);
	memcpy(d->text + d->len, handle, FAN_HANDLE_LEN);
	d->len += FAN_HANDLE_LEN;
}

static void derive_end(const struct derivation *d, uint8_t *key, size_t key_len,
		       const uint8_t above[FAN_KEY_LEN])
{
	crypto_generichash(key, key_len, d->text, d->len, above, FAN_KEY_LEN);
}

void fan_tag_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		  uint8_t key_generation, uint64_t registry_epoch)
{
	struct derivation d = derive("fanwire tag root 2");

	add_number(&d, key_generation, 1);
	add_number(&d, registry_epoch, 8);
	derive_end(&d, root, FAN_KEY_LEN, master);
}

void fan_tag_key(uint8_t key[FAN_TAG_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		 uint32_t user_generation, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct derivation d = derive("fanwire tag 2");

	add_user(&d, user_generation, handle);
	derive_end(&d, key, FAN_TAG_KEY_LEN, root);
}

void fan_seal_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		   uint8_t key_generation, uint64_t registry_epoch)
{
	struct derivation d = derive("fanwire seal root 1");

	add_number(&d, key_generation, 1);
	add_number(&d, registry_epoch, 8);
	derive_end(&d, root, FAN_KEY_LEN, master);
}

void fan_user_key(uint8_t key[FAN_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		  uint32_t user_generation, const uint8_t handle[FAN_HANDLE_LEN])
{
	struct derivation d = derive("fanwire seal 1");

	add_user(&d, user_generation, handle);
	derive_end(&d, key, FAN_KEY_LEN, root);
}

void fan_stream_key(uint8_t key[FAN_KEY_LEN], const uint8_t user_key[FAN_KEY_LEN], uint64_t channel,
		    uint64_t epoch)
{
	struct derivation d = derive("fanwire stream 1");

	add_number(&d, channel, 8);
	add_number(&d, epoch, 8);
	derive_end(&d, key, FAN_KEY_LEN, user_key);
}

void fan_replay_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		     uint64_t registry_epoch)
{
	struct derivation d = derive("fanwire replay root 2");

	add_number(&d, registry_epoch, 8);
	derive_end(&d, root, FAN_KEY_LEN, master);
}

void fan_replay_key(uint8_t key[FAN_TAG_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		    uint64_t connection, uint32_t generation, uint32_t user_generation,
		    const uint8_t handle[FAN_HANDLE_LEN])
{
	struct derivation d = derive("fanwire replay 2");

	add_number(&d, connection, 8);
	add_number(&d, generation, 4);
	add_user(&d, user_generation, handle);
	derive_end(&d, key, FAN_TAG_KEY_LEN, root);
}

uint64_t fan_challenge_proof(const uint8_t key[16], uint64_t connection, uint64_t salt,
			     const uint8_t address[16], uint16_t port)
{
	uint8_t text[8 + 8 + 16 + 2];
	uint8_t tag[8];
	uint64_t proof = 0;

	put_be(text, connection, 8);
	put_be(text + 8, salt, 8);
	memcpy(text + 16, address, 16);
	put_be(text + 32, port, 2);
	crypto_shorthash_siphash24(tag, text, sizeof(text), key);
	for (unsigned i = 0; i < 8; i++)
		proof |= (uint64_t)tag[i] << (8 * i);
	return proof;
}

void fan_id_format(char text[17], uint64_t id)
{
	uint8_t bytes[8];

	put_be(bytes, id, 8);
	fan_hex(text, bytes, sizeof(bytes));
}

int fan_id_parse(uint64_t *id, const char *text)
{
	uint8_t bytes[8];
	uint64_t value = 0;
	int rc = fan_unhex(bytes, sizeof(bytes), text);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < 8; i++)
		value = value << 8 | bytes[i];
	*id = value;
	return 0;
}

void fan_hex(char *text, const uint8_t *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*text++ = digits[bytes[i] >> 4];
		*text++ = digits[bytes[i] & 15];
	}
	*text = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int fan_unhex(uint8_t *bytes, size_t len, const char *text)
{
	if (!text || strnlen(text, 2 * len + 1) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < 2 * len; i++) {
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	}
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return 0;
}
