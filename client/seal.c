/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/seal.h"

#include <errno.h>
#include <openssl/evp.h>

int seal_init(struct seal *seal, const uint8_t key[FAN_KEY_LEN])
{
	seal->encrypt = EVP_CIPHER_CTX_new();
	seal->decrypt = EVP_CIPHER_CTX_new();
	if (!seal->encrypt || !seal->decrypt ||
	    !EVP_EncryptInit_ex(seal->encrypt, EVP_aes_256_gcm(), NULL, key, NULL) ||
	    !EVP_DecryptInit_ex(seal->decrypt, EVP_aes_256_gcm(), NULL, key, NULL)) {
		seal_fini(seal);
		return -ENOMEM;
	}
	return 0;
}

void seal_fini(struct seal *seal)
{
	EVP_CIPHER_CTX_free(seal->encrypt);
	EVP_CIPHER_CTX_free(seal->decrypt);
	seal->encrypt = seal->decrypt = NULL;
}

int seal_close(struct seal *seal, uint32_t direction, uint64_t counter, const uint8_t *header,
	       size_t header_len, const void *plain, size_t len, uint8_t *out)
{
	uint8_t nonce[FAN_NONCE_LEN];
	EVP_CIPHER_CTX *ctx = seal->encrypt;
	int n;

	fan_nonce(nonce, direction, counter);
	if (!EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) ||
	    !EVP_EncryptUpdate(ctx, NULL, &n, header, (int)header_len) ||
	    (len && !EVP_EncryptUpdate(ctx, out, &n, plain, (int)len)) ||
	    !EVP_EncryptFinal_ex(ctx, out + len, &n) ||
	    !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, FAN_TAG_LEN, out + len))
		return -EIO;
	return 0;
}

int seal_open_with(EVP_CIPHER_CTX *ctx, uint32_t direction, uint64_t counter, const uint8_t *header,
		   size_t header_len, const uint8_t *in, size_t len, const uint8_t tag[FAN_TAG_LEN],
		   uint8_t *plain)
{
	uint8_t nonce[FAN_NONCE_LEN];
	int n;

	fan_nonce(nonce, direction, counter);
	if (!EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) ||
	    !EVP_DecryptUpdate(ctx, NULL, &n, header, (int)header_len) ||
	    (len && !EVP_DecryptUpdate(ctx, plain, &n, in, (int)len)) ||
	    !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, FAN_TAG_LEN, (void *)tag) ||
	    EVP_DecryptFinal_ex(ctx, plain + len, &n) <= 0)
		return -EBADMSG;
	return 0;
}

int seal_open(struct seal *seal, uint32_t direction, uint64_t counter, const uint8_t *header,
	      size_t header_len, const uint8_t *in, size_t len, uint8_t *plain)
{
	return seal_open_with(seal->decrypt, direction, counter, header, header_len, in, len,
			      in + len, plain);
}
