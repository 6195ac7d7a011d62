/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a registration is given: its scope for the kernel's filter, the keys that it opens events
 * with, and where its streams stand. All of it is computed when it is asked for, from the roots in
 * the registry region: two generations of them during a rotation.
 */
#include <string.h>
#include <time.h>

#include "control/engine/registrations_private.h"
#include "control/link.h"
#include "control/registry/registry.h"

_Static_assert(sizeof(struct message_tail) == sizeof(struct registry_tail),
	       "a tail is told as it was read");

void registration_scope(const struct registrations *all, const struct user *user,
			struct message_scope *scope)
{
	const struct fan_registry *root = registry_root(all->engine->registry);
	uint8_t present = (uint8_t)root->key_generation;
	uint8_t other = registry_other_generation(all->engine->registry);

	memcpy(scope->handle, user->handle, FAN_HANDLE_LEN);
	scope->user_generation = user->generation;
	scope->key_generation = present;
	scope->previous_key_generation = other ? other : present;
	fan_tag_key(scope->tag_key, fan_root_of(root, present)->tag_root, user->generation,
		    user->handle);
	fan_tag_key(scope->previous_tag_key,
		    fan_root_of(root, scope->previous_key_generation)->tag_root, user->generation,
		    user->handle);
}

static void add_key(const struct fan_registry *root, const struct user *user, uint8_t generation,
		    struct message_keys *keys)
{
	keys->key[keys->cnt].generation = generation;
	fan_user_key(keys->key[keys->cnt].key, fan_root_of(root, generation)->seal_root,
		     user->generation, user->handle);
	keys->cnt++;
}

void registration_keys(const struct registrations *all, const struct registration *r,
		       struct message_keys *keys)
{
	const struct fan_registry *root = registry_root(all->engine->registry);
	uint8_t other = registry_other_generation(all->engine->registry);

	memset(keys, 0, sizeof(*keys));
	keys->seal = root->seal;
	add_key(root, r->user, (uint8_t)root->key_generation, keys);
	if (other)
		add_key(root, r->user, other, keys);
	fan_replay_key(keys->replay_key, root->replay_root, r->id, r->generation,
		       r->user->generation, r->user->handle);
}

static void tell_tails(const struct registrations *all, const struct registration *r,
		       const uint64_t *channels, unsigned cnt, struct message_tails *tails)
{
	struct registry_tail read[MESSAGE_TAILS_MAX];
	struct timespec now; /* the dataplane's clock, too */

	clock_gettime(CLOCK_REALTIME, &now);
	tails->time_ns = (uint64_t)now.tv_sec * ENGINE_NS_PER_S + (uint64_t)now.tv_nsec;
	tails->cnt = (uint16_t)(cnt < MESSAGE_TAILS_MAX ? cnt : MESSAGE_TAILS_MAX);
	registry_tails(all->engine->registry, r->user->handle, channels, tails->cnt, read);
	memcpy(tails->tail, read, tails->cnt * sizeof(read[0]));
}

void registration_tails_before(const struct registrations *all, const struct registration *r,
			       struct message_tails *tails)
{
	uint64_t channels[MESSAGE_TAILS_MAX] = {FAN_CHANNEL_ALL};
	unsigned cnt = 1;

	for (unsigned i = 0; i < r->channel_cnt && cnt < MESSAGE_TAILS_MAX; i++)
		channels[cnt++] = r->channels[i].channel;
	tell_tails(all, r, channels, cnt, tails);
}

void registration_tails(const struct registrations *all, const struct registration *r,
			struct message_tails *tails)
{
	uint64_t channels[MESSAGE_TAILS_MAX];
	unsigned cnt = registry_connection_channels(all->engine->registry, r->id, channels,
						    MESSAGE_TAILS_MAX);

	tell_tails(all, r, channels, cnt, tails);
}

static void tell_keys(const struct registrations *all, const struct registration *r)
{
	struct message message = {.type = MESSAGE_KEYS, .id = r->id};

	if (r->phase == REGISTRATION_GRANTING)
		return; /* its grant is still to come */
	registration_scope(all, r->user, &message.u.grant.scope);
	registration_keys(all, r, &message.u.grant.keys);
	link_to_agent(all->engine->link, &message);
	sodium_memzero(&message.u.grant, sizeof(message.u.grant));
}

/* By the map, in which nobody moves, and not by the heap. */
bool registrations_tell_keys(struct registrations *all, uint32_t *cursor, unsigned cnt)
{
	unsigned told = 0;

	for (; *cursor <= all->chain_mask && told < cnt; (*cursor)++)
		for (const struct registration *r = all->chains[*cursor]; r; r = r->next, told++)
			tell_keys(all, r);
	return *cursor > all->chain_mask;
}
