/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening a publish under a session's key schedule. The pipeline opens by it, and bench/ measures
 * it beside other libraries. Any thread; the manager is the caller's own.
 */
#pragma once

#define LINUX
#include <intel-ipsec-mb.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/wire/wire.h"

/* In a time that does not depend on where they differ. */
static inline bool tag_equal(const uint8_t *a, const uint8_t *b)
{
	uint64_t x[2], y[2];

	_Static_assert(sizeof(x) == FAN_TAG_LEN, "a tag is two words");
	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

/*
 * Opens in place a publish of payload_len bytes that begins at wire: the plaintext takes the
 * ciphertext's bytes. False: it is not authentic.
 */
static inline bool publish_open(IMB_MGR *crypto, const struct gcm_key_data *key, uint8_t *wire,
				uint16_t payload_len, uint64_t sequence)
{
	uint8_t *sealed = wire + FAN_PUBLISH_LEN;
	uint8_t nonce[FAN_NONCE_LEN], tag[FAN_TAG_LEN];
	struct gcm_context_data context;

	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, sequence);
	IMB_AES256_GCM_DEC(crypto, key, &context, sealed, sealed, payload_len, nonce, wire,
			   FAN_PUBLISH_LEN, tag, sizeof(tag));
	return tag_equal(tag, sealed + payload_len);
}
