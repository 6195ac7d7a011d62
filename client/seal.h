/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AES-256-GCM under a publisher session's key: publishes are sealed, acknowledgements opened.
 * Nonces are {direction, counter} of common/wire; a counter is never used twice, which is the
 * caller's duty. A seal belongs to one thread at a time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;

struct seal {
	EVP_CIPHER_CTX *encrypt;
	EVP_CIPHER_CTX *decrypt;
};

/* 0 or -ENOMEM. seal_fini() may be called on a zeroed or failed one. */
int seal_init(struct seal *seal, const uint8_t key[FAN_KEY_LEN]);
void seal_fini(struct seal *seal);

/* out: len bytes of ciphertext, then the tag. 0 or -EIO. */
int seal_close(struct seal *seal, uint32_t direction, uint64_t counter, const uint8_t *header,
	       size_t header_len, const void *plain, size_t len, uint8_t *out);

/*
 * Opens len bytes of ciphertext under the key that ctx was made for; plain may be where they are.
 * 0, or -EBADMSG and what is there is not to be used.
 */
int seal_open_with(EVP_CIPHER_CTX *ctx, uint32_t direction, uint64_t counter, const uint8_t *header,
		   size_t header_len, const uint8_t *in, size_t len, const uint8_t tag[FAN_TAG_LEN],
		   uint8_t *plain);

/* in: len bytes of ciphertext, then the tag. 0, or -EBADMSG and `plain` is not to be used. */
int seal_open(struct seal *seal, uint32_t direction, uint64_t counter, const uint8_t *header,
	      size_t header_len, const uint8_t *in, size_t len, uint8_t *plain);
