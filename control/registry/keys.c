/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keys in the region, and their rotation: the roots of another generation, the one store that puts
 * it in force, the groups' tag keys in place after it, the end of the old roots. A worker needs
 * none of this to be finished: what it does not find, it derives. So a kill between any two stores
 * leaves a table that delivers, and the rewriting goes on from the next start.
 */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "common/shm/keys.h"
#include "control/registry/internal.h"

/* A housekeeping: some 1 ms of work at most. */
#define LOOKED_AT_ONCE	65536 /* groups */
#define DERIVED_AT_ONCE 1024  /* keys */

void registry_secrets_set(struct registry *r, const uint8_t replay_root[32], bool seal)
{
	memcpy(r->root->replay_root, replay_root, sizeof(r->root->replay_root));
	r->root->seal = seal;
}

/* ---- roots ---- */

static struct fan_key_roots *slot_of(const struct registry *r, uint8_t generation)
{
	for (unsigned i = 0; generation && i < 2; i++) {
		if (r->root->key_roots[i].generation == generation)
			return &r->root->key_roots[i];
	}
	return NULL;
}

uint8_t registry_other_generation(const struct registry *r)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t generation = r->root->key_roots[i].generation;

		if (generation && generation != r->root->key_generation)
			return (uint8_t)generation;
	}
	return 0;
}

/* Each store comes after those before it: pairs with the acquires in fan_roots_copy(). */
static void words_store(const struct registry *r, uint8_t *to, const uint8_t *from, size_t len)
{
	fan_key_word word = 0;

	for (size_t i = 0; i < len; i += sizeof(word)) {
		step(r, "roots word");
		if (from)
			memcpy(&word, from + i, sizeof(word));
		__atomic_store_n((fan_key_word *)(to + i), word, __ATOMIC_RELEASE);
	}
}

/* generation 0: none. */
static void roots_store(const struct registry *r, struct fan_key_roots *roots, uint8_t generation,
			const uint8_t *tag_root, const uint8_t *seal_root)
{
	step(r, "roots none");
	__atomic_store_n(&roots->generation, 0, __ATOMIC_RELEASE);
	words_store(r, roots->tag_root, tag_root, sizeof(roots->tag_root));
	words_store(r, roots->seal_root, seal_root, sizeof(roots->seal_root));
	step(r, "roots there");
	__atomic_store_n(&roots->generation, generation, __ATOMIC_RELEASE);
}

int registry_roots_set(struct registry *r, uint8_t generation, const uint8_t tag_root[32],
		       const uint8_t seal_root[32])
{
	struct fan_key_roots *roots = slot_of(r, generation);

	if (roots && sodium_memcmp(roots->tag_root, tag_root, 32) == 0 &&
	    sodium_memcmp(roots->seal_root, seal_root, 32) == 0)
		return 0; /* a worker may be reading them */
	if (roots && generation == r->root->key_generation)
		return registry_fail(r, -ESTALE,
				     "%s was made under another master key; stop fanwired and "
				     "fanwire-dataplane, delete the file and start again "
				     "(registrations end with it), or put the file keys back",
				     r->path);
	if (!roots) {
		roots = &r->root->key_roots[0];
		if (roots->generation && roots->generation == r->root->key_generation)
			roots = &r->root->key_roots[1];
	}
	roots_store(r, roots, generation, tag_root, seal_root);
	return 0;
}

void registry_roots_retire(struct registry *r)
{
	for (unsigned i = 0; i < 2; i++) {
		struct fan_key_roots *roots = &r->root->key_roots[i];

		if (roots->generation != r->root->key_generation)
			roots_store(r, roots, 0, NULL, NULL);
	}
}

/* ---- the switch ---- */

int registry_generation_switch(struct registry *r, uint8_t generation)
{
	if (!slot_of(r, generation))
		return registry_fail(r, -ENOENT, "key generation %u has no roots", generation);
	step(r, "key generation");
	/* Release: its roots are there. Pairs with the acquire in the dataplane's
	 * tag_generation(). */
	__atomic_store_n(&r->root->key_generation, generation, __ATOMIC_RELEASE);
	r->rewritten = 0;
	return 0;
}

/* ---- the groups' tag keys ---- */

static bool rewrite_one(struct registry *r, struct fan_group *group)
{
	uint8_t generation = (uint8_t)r->root->key_generation, key[FAN_TAG_KEY_LEN];

	if (!group->incarnation || group->key_generation == generation)
		return false;
	fan_tag_key(key, slot_of(r, generation)->tag_root, group->user_generation, group->handle);
	step(r, "tag key");
	fan_group_tag_key_set(group, generation, key);
	sodium_memzero(key, sizeof(key));
	return true;
}

void keys_rewrite(struct registry *r)
{
	unsigned looked = 0, derived = 0;

	if (!slot_of(r, (uint8_t)r->root->key_generation))
		return;
	while (r->rewritten < r->root->group_cnt && looked++ < LOOKED_AT_ONCE &&
	       derived < DERIVED_AT_ONCE)
		derived += rewrite_one(r, &r->groups[r->rewritten++]);
}

bool registry_keys_rewritten(const struct registry *r)
{
	return r->rewritten >= r->root->group_cnt;
}
