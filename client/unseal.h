/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens sealed deliveries: the user's keys as fanwired gave them, and the streams' keys that come
 * from them (common/wire/handle.h), the latest used kept ready. Belongs to one subscription.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"
#include "common/wire/wire.h"

#define UNSEAL_GIVEN   2  /* generations that hold: the present one, another while keys rotate */
#define UNSEAL_KEYS    4  /* and retired ones, which what waits in the socket is sealed under */
#define UNSEAL_STREAMS 72 /* of the latest used ones, kept ready: a connection has up to 66 */

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;

struct unseal_key {
	uint8_t generation; /* 0: none */
	bool retired;
	uint8_t key[FAN_KEY_LEN];
};

struct unseal_stream {
	EVP_CIPHER_CTX *ctx; /* NULL: free */
	uint64_t channel, epoch;
	uint8_t generation;
	uint64_t used; /* when, in openings */
};

struct unseal {
	struct unseal_key keys[UNSEAL_KEYS];
	struct unseal_stream streams[UNSEAL_STREAMS];
	unsigned last; /* of the streams, the one used last */
	uint64_t clock;
};

/* A zeroed one has no keys. Keys are overwritten. */
void unseal_fini(struct unseal *unseal);

/*
 * The keys that hold from now on, at most UNSEAL_GIVEN. Those of other generations are retired:
 * they open what came before, until the socket has been found empty or others take their room.
 */
void unseal_set_keys(struct unseal *unseal, const struct unseal_key *keys, unsigned cnt);
/* Nothing waits any more that came before now: retired keys are forgotten. */
void unseal_drained(struct unseal *unseal);
bool unseal_knows(const struct unseal *unseal, uint8_t generation);

/*
 * Opens a whole delivery, its header decoded, in place: its payload is the plain text then. 0;
 * -ENOKEY no key of its generation, the packet is untouched; -EBADMSG it is not what was sealed,
 * and the payload is not to be used; -ENOMEM.
 */
int unseal_open(struct unseal *unseal, const struct fan_delivery *delivery, uint8_t *packet);
