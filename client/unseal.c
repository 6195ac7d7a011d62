/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/unseal.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <string.h>

#include "client/seal.h"

static const struct unseal_key *key_of(const struct unseal *u, uint8_t generation)
{
	for (unsigned i = 0; generation && i < UNSEAL_KEYS; i++) {
		if (u->keys[i].generation == generation)
			return &u->keys[i];
	}
	return NULL;
}

bool unseal_knows(const struct unseal *u, uint8_t generation)
{
	return key_of(u, generation);
}

static void stream_forget(struct unseal_stream *stream)
{
	EVP_CIPHER_CTX_free(stream->ctx); /* which overwrites its key schedule */
	memset(stream, 0, sizeof(*stream));
}

void unseal_fini(struct unseal *u)
{
	for (unsigned i = 0; i < UNSEAL_STREAMS; i++)
		stream_forget(&u->streams[i]);
	sodium_memzero(u, sizeof(*u));
}

/* Streams whose key is not to be had any more, or is another one. */
static void forget_streams(struct unseal *u, const struct unseal_key former[UNSEAL_KEYS])
{
	for (unsigned i = 0; i < UNSEAL_STREAMS; i++) {
		struct unseal_stream *stream = &u->streams[i];
		const struct unseal_key *now = key_of(u, stream->generation);

		for (unsigned k = 0; k < UNSEAL_KEYS; k++) {
			if (stream->ctx && former[k].generation == stream->generation &&
			    (!now || memcmp(now->key, former[k].key, FAN_KEY_LEN) != 0))
				stream_forget(stream);
		}
	}
}

void unseal_set_keys(struct unseal *u, const struct unseal_key *keys, unsigned cnt)
{
	struct unseal_key former[UNSEAL_KEYS];
	unsigned used = cnt < UNSEAL_GIVEN ? cnt : UNSEAL_GIVEN;

	memcpy(former, u->keys, sizeof(former));
	sodium_memzero(u->keys, sizeof(u->keys));
	memcpy(u->keys, keys, used * sizeof(*keys));
	for (unsigned k = 0; k < UNSEAL_KEYS && used < UNSEAL_KEYS; k++) {
		if (!former[k].generation || unseal_knows(u, former[k].generation))
			continue;
		u->keys[used] = former[k];
		u->keys[used++].retired = true;
	}
	forget_streams(u, former);
	sodium_memzero(former, sizeof(former));
}

void unseal_drained(struct unseal *u)
{
	struct unseal_key former[UNSEAL_KEYS];
	bool any = false;

	for (unsigned k = 0; k < UNSEAL_KEYS; k++)
		any |= u->keys[k].retired;
	if (!any)
		return;
	memcpy(former, u->keys, sizeof(former));
	for (unsigned k = 0; k < UNSEAL_KEYS; k++) {
		if (u->keys[k].retired)
			sodium_memzero(&u->keys[k], sizeof(u->keys[k]));
	}
	forget_streams(u, former);
	sodium_memzero(former, sizeof(former));
}

/* In the place of the one that was not used for the longest. */
static struct unseal_stream *stream_make(struct unseal *u, const struct unseal_key *user,
					 const struct fan_delivery *d)
{
	struct unseal_stream *stream = &u->streams[0];
	uint8_t key[FAN_KEY_LEN];
	int done;

	for (unsigned i = 1; i < UNSEAL_STREAMS; i++) {
		if (u->streams[i].used < stream->used)
			stream = &u->streams[i];
	}
	stream_forget(stream);
	stream->ctx = EVP_CIPHER_CTX_new();
	fan_stream_key(key, user->key, d->channel, d->epoch);
	done = stream->ctx && EVP_DecryptInit_ex(stream->ctx, EVP_aes_256_gcm(), NULL, key, NULL);
	sodium_memzero(key, sizeof(key));
	if (!done) {
		stream_forget(stream);
		return NULL;
	}
	stream->channel = d->channel;
	stream->epoch = d->epoch;
	stream->generation = d->key_generation;
	return stream;
}

static struct unseal_stream *stream_of(struct unseal *u, const struct unseal_key *user,
				       const struct fan_delivery *d)
{
	struct unseal_stream *stream = NULL;

	for (unsigned n = 0; n < UNSEAL_STREAMS; n++) {
		struct unseal_stream *at = &u->streams[(u->last + n) % UNSEAL_STREAMS];

		if (at->ctx && at->channel == d->channel && at->epoch == d->epoch &&
		    at->generation == d->key_generation) {
			stream = at;
			break;
		}
	}
	if (!stream)
		stream = stream_make(u, user, d);
	if (!stream)
		return NULL;
	stream->used = ++u->clock;
	u->last = (unsigned)(stream - u->streams);
	return stream;
}

int unseal_open(struct unseal *u, const struct fan_delivery *d, uint8_t *packet)
{
	const struct unseal_key *user = key_of(u, d->key_generation);
	uint8_t header[FAN_SEALED_HEADER_LEN];
	uint8_t *payload = packet + FAN_DELIVERY_LEN;
	struct unseal_stream *stream;

	if (!user)
		return -ENOKEY;
	stream = stream_of(u, user, d);
	if (!stream)
		return -ENOMEM;
	fan_sealed_header(header, packet);
	return seal_open_with(stream->ctx, FAN_DIRECTION_DELIVER, d->sequence, header,
			      sizeof(header), payload, d->payload_len, d->seal_tag, payload);
}
