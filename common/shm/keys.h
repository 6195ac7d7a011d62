/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keys in the registry region that change while they are read: a group's tag key and the roots
 * of a key generation. Writer: fanwired, one thread. Readers: any thread, wait-free; what they get
 * is whole, or they are told that it is not there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/shm/registry.h"
#include "common/wire/handle.h"

/* The two words of a key, as they are stored and loaded. */
typedef uint64_t fan_key_word __attribute__((may_alias));
_Static_assert(offsetof(struct fan_group, tag_key) % sizeof(fan_key_word) == 0,
	       "the words of a tag key are stored and loaded whole");

/* Each store comes after those before it, so that a reader of any new word sees the 0, too. */
static inline void fan_group_tag_key_set(struct fan_group *group, uint8_t generation,
					 const uint8_t key[FAN_TAG_KEY_LEN])
{
	fan_key_word *to = (fan_key_word *)group->tag_key;
	fan_key_word words[2];

	memcpy(words, key, sizeof(words));
	__atomic_store_n(&group->key_generation, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&to[0], words[0], __ATOMIC_RELEASE);
	__atomic_store_n(&to[1], words[1], __ATOMIC_RELEASE);
	__atomic_store_n(&group->key_generation, generation, __ATOMIC_RELEASE);
}

/* False: the group has the key of another generation, or is being given one. */
static inline bool fan_group_tag_key(uint8_t key[FAN_TAG_KEY_LEN], const struct fan_group *group,
				     uint32_t generation)
{
	const fan_key_word *from = (const fan_key_word *)group->tag_key;
	fan_key_word words[2];

	/* pairs with the releases in fan_group_tag_key_set() */
	if (__atomic_load_n(&group->key_generation, __ATOMIC_ACQUIRE) != generation)
		return false;
	words[0] = __atomic_load_n(&from[0], __ATOMIC_ACQUIRE);
	words[1] = __atomic_load_n(&from[1], __ATOMIC_ACQUIRE);
	memcpy(key, words, sizeof(words));
	return __atomic_load_n(&group->key_generation, __ATOMIC_RELAXED) == generation;
}

/* The roots of a generation, whole; false, and `copy` as it was: there are none (any more). */
bool fan_roots_copy(struct fan_key_roots *copy, const struct fan_registry *registry,
		    uint32_t generation);
