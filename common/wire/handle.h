/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handles, channel numbers, ids and keys: everything that is computed from a name or a secret.
 * Pure functions over libsodium (call sodium_init() once per process); any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/wire.h"

#define FAN_NAME_MAX	255 /* bytes of a user's, thread's or publisher's name; at least 1 */
#define FAN_KEY_LEN	32
#define FAN_TAG_KEY_LEN 16

/* BLAKE2b-128 of the name (RFC 7693, unkeyed, 16 bytes out). -EINVAL: length not 1..255. */
int fan_handle(uint8_t handle[FAN_HANDLE_LEN], const char *name, size_t name_len);

/* FAN_CHANNEL_THREAD | top 62 bits (big-endian) of BLAKE2b-128("fanwire thread" 0x00 name). */
int fan_thread_channel(uint64_t *channel, const char *name, size_t name_len);

/*
 * Keys, from the master key downwards. All BLAKE2b (RFC 7693), keyed with the key above, of a label
 * without its NUL and of fields, integers big-endian.
 *
 *   master[32] -- tag root[32]    "fanwire tag root 2" | key_generation u8 | registry_epoch u64
 *              |    `- tag key[16]     "fanwire tag 2" | user_generation u32 | handle[16]
 *              |- seal root[32]   "fanwire seal root 1" | key_generation u8 | registry_epoch u64
 *              |    `- user key[32]    "fanwire seal 1" | user_generation u32 | handle[16]
 *              |         `- stream key[32]  "fanwire stream 1" | channel u64 | epoch u64
 *              `- replay root[32] "fanwire replay root 2" | registry_epoch u64
 *                   `- replay key[16]  "fanwire replay 2" | connection u64 | generation u32 |
 *                                      user_generation u32 | handle[16]
 *
 * fanwired has the master key; the dataplane the roots; a subscriber its user key and its own
 * replay key; the kernel's filter the user's tag key. registry_epoch is the creation epoch of the
 * registry region, so that a region that was lost takes all keys with it: what was tagged or sealed
 * before passes no filter and opens nowhere. generation: the connection's, of this registration, so
 * that what was signed in an earlier one is void.
 */
void fan_tag_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		  uint8_t key_generation, uint64_t registry_epoch);
void fan_tag_key(uint8_t key[FAN_TAG_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		 uint32_t user_generation, const uint8_t handle[FAN_HANDLE_LEN]);
void fan_seal_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		   uint8_t key_generation, uint64_t registry_epoch);
void fan_user_key(uint8_t key[FAN_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		  uint32_t user_generation, const uint8_t handle[FAN_HANDLE_LEN]);
void fan_stream_key(uint8_t key[FAN_KEY_LEN], const uint8_t user_key[FAN_KEY_LEN], uint64_t channel,
		    uint64_t epoch);
void fan_replay_root(uint8_t root[FAN_KEY_LEN], const uint8_t master[FAN_KEY_LEN],
		     uint64_t registry_epoch);
void fan_replay_key(uint8_t key[FAN_TAG_KEY_LEN], const uint8_t root[FAN_KEY_LEN],
		    uint64_t connection, uint32_t generation, uint32_t user_generation,
		    const uint8_t handle[FAN_HANDLE_LEN]);

/*
 * Proof in a challenge: SipHash-2-4 under key of connection u64 | salt u64 | address[16] | port u16
 * (big-endian; IPv4 as v4-mapped IPv6). The dataplane makes and checks it without any state.
 */
uint64_t fan_challenge_proof(const uint8_t key[16], uint64_t connection, uint64_t salt,
			     const uint8_t address[16], uint16_t port);

/* 16 lowercase hex digits and a NUL, and back. -EINVAL where it is not exactly that. */
void fan_id_format(char text[17], uint64_t id);
int fan_id_parse(uint64_t *id, const char *text);
/* 2 * len lowercase hex digits and a NUL. */
void fan_hex(char *text, const uint8_t *bytes, size_t len);
int fan_unhex(uint8_t *bytes, size_t len, const char *text);
