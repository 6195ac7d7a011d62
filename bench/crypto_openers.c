/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/crypto_openers.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "dataplane/open.h"

/* ---- ipsec-mb, as the dataplane does ---- */

struct mb_opener {
	IMB_MGR *manager;
	struct mb_schedule {
		struct gcm_key_data gcm __attribute__((aligned(64)));
		uint64_t session;
	} schedules[];
};

static void *mb_create(const uint8_t *keys, uint32_t sessions)
{
	struct mb_opener *mb =
		aligned_alloc(64, sizeof(*mb) + sessions * sizeof(struct mb_schedule));

	if (!mb)
		return NULL;
	mb->manager = alloc_mb_mgr(0);
	if (!mb->manager) {
		free(mb);
		return NULL;
	}
	init_mb_mgr_auto(mb->manager, NULL);
	for (uint32_t i = 0; i < sessions; i++)
		IMB_AES256_GCM_PRE(mb->manager, keys + (size_t)i * KEY_LEN, &mb->schedules[i].gcm);
	return mb;
}

static void mb_destroy(void *opener, uint32_t sessions)
{
	struct mb_opener *mb = opener;

	free_mb_mgr(mb->manager);
	free(mb);
}

static bool mb_open(void *opener, uint32_t session, uint8_t *wire, uint16_t len, uint64_t sequence)
{
	struct mb_opener *mb = opener;

	return publish_open(mb->manager, &mb->schedules[session].gcm, wire, len, sequence);
}

/* ---- OpenSSL: one context a session keeps its key schedule ---- */

static void evp_destroy(void *opener, uint32_t sessions)
{
	EVP_CIPHER_CTX **contexts = opener;

	for (uint32_t i = 0; i < sessions; i++)
		EVP_CIPHER_CTX_free(contexts[i]);
	free(contexts);
}

static void *evp_create(const uint8_t *keys, uint32_t sessions)
{
	EVP_CIPHER_CTX **contexts = calloc(sessions, sizeof(*contexts));
	bool ok = contexts;

	for (uint32_t i = 0; ok && i < sessions; i++) {
		contexts[i] = EVP_CIPHER_CTX_new();
		ok = contexts[i] && EVP_DecryptInit_ex(contexts[i], EVP_aes_256_gcm(), NULL,
						       keys + (size_t)i * KEY_LEN, NULL) == 1;
	}
	if (!ok && contexts)
		evp_destroy(contexts, sessions);
	return ok ? contexts : NULL;
}

static bool evp_open(void *opener, uint32_t session, uint8_t *wire, uint16_t len, uint64_t sequence)
{
	EVP_CIPHER_CTX *context = ((EVP_CIPHER_CTX **)opener)[session];
	uint8_t *sealed = wire + FAN_PUBLISH_LEN;
	uint8_t nonce[FAN_NONCE_LEN];
	int out;

	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, sequence);
	return EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_DecryptUpdate(context, NULL, &out, wire, FAN_PUBLISH_LEN) == 1 &&
	       EVP_DecryptUpdate(context, sealed, &out, sealed, len) == 1 &&
	       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, FAN_TAG_LEN, sealed + len) ==
		       1 &&
	       EVP_DecryptFinal_ex(context, sealed + len, &out) == 1;
}

/* ---- libsodium ---- */

static void *sodium_create(const uint8_t *keys, uint32_t sessions)
{
	crypto_aead_aes256gcm_state *states;

	if (!crypto_aead_aes256gcm_is_available())
		return NULL;
	states = aligned_alloc(64, (sessions * sizeof(*states) + 63) / 64 * 64);
	for (uint32_t i = 0; states && i < sessions; i++)
		crypto_aead_aes256gcm_beforenm(&states[i], keys + (size_t)i * KEY_LEN);
	return states;
}

static void sodium_destroy(void *opener, uint32_t sessions)
{
	free(opener);
}

static bool sodium_open(void *opener, uint32_t session, uint8_t *wire, uint16_t len,
			uint64_t sequence)
{
	crypto_aead_aes256gcm_state *states = opener;
	uint8_t *sealed = wire + FAN_PUBLISH_LEN;
	uint8_t nonce[FAN_NONCE_LEN];

	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, sequence);
	return crypto_aead_aes256gcm_decrypt_detached_afternm(sealed, NULL, sealed, len,
							      sealed + len, wire, FAN_PUBLISH_LEN,
							      nonce, &states[session]) == 0;
}

/* ---- by name ---- */

static const struct opener openers[] = {
	{"ipsec-mb", mb_create, mb_destroy, mb_open},
	{"openssl", evp_create, evp_destroy, evp_open},
	{"libsodium", sodium_create, sodium_destroy, sodium_open},
};

const struct opener *opener_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(openers) / sizeof(openers[0]); i++)
		if (strcmp(openers[i].name, name) == 0)
			return &openers[i];
	return NULL;
}

const char *opener_version(const struct opener *opener)
{
	if (opener->open == mb_open)
		return imb_get_version_str();
	return opener->open == evp_open ? OpenSSL_version(OPENSSL_VERSION_STRING)
					: sodium_version_string();
}
