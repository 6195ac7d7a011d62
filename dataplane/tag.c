/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/tag.h"

#include <sodium.h>

#include "dataplane/fanout.h"

#define KEY_GENERATION_OFF 3 /* of a delivery header */

void tag_generation(struct worker *w)
{
	const struct fan_registry *registry = w->plane->table.registry;
	uint32_t generation = __atomic_load_n(&registry->key_generation, __ATOMIC_ACQUIRE);

	/* Without roots it would be a generation that nobody was told of: the last one goes on. */
	if (unlikely(generation != w->roots.generation))
		fan_roots_copy(&w->roots, registry, generation);
}

/* In the middle of a rotation, and of what was logged before one: slow, and never wrong. */
static bool key_derive(const struct worker *w, uint8_t key[FAN_TAG_KEY_LEN],
		       const struct fan_group *group, uint32_t generation)
{
	struct fan_key_roots roots = w->roots;
	bool known = generation && (roots.generation == generation ||
				    fan_roots_copy(&roots, w->plane->table.registry, generation));

	if (known)
		fan_tag_key(key, roots.tag_root, group->user_generation, group->handle);
	sodium_memzero(&roots, sizeof(roots));
	return known;
}

bool tag_key(const struct worker *w, uint8_t key[FAN_TAG_KEY_LEN], const struct fan_group *group,
	     uint32_t generation)
{
	if (fan_planted(PLANT_TAG_KEY_STALE)) {
		memcpy(key, group->tag_key, FAN_TAG_KEY_LEN);
		return true;
	}
	return likely(fan_group_tag_key(key, group, generation)) ||
	       key_derive(w, key, group, generation);
}

bool tag_image(const struct worker *w, uint8_t *image, const struct fan_group *group)
{
	uint8_t bytes[FAN_TAG_KEY_LEN];
	const uint8_t *key = bytes;

	if (!tag_key(w, bytes, group, image[KEY_GENERATION_OFF]))
		return false;
	w->plane->kernels->tag(&image, &key, 1);
	return true;
}

/* So many at a time as the kernel makes side by side. */
void tag_burst(struct worker *w)
{
	uint8_t bytes[KERNEL_LANES][FAN_TAG_KEY_LEN];
	const uint8_t *keys[KERNEL_LANES];
	uint8_t *images[KERNEL_LANES];
	unsigned cnt = 0;

	for (unsigned i = 0; i < w->event_cnt; i++) {
		const struct fan_group *group = w->groups[i];

		if (!group)
			continue;
		tag_key(w, bytes[cnt], group, w->roots.generation); /* the worker has the roots */
		images[cnt] = fanout_image(packet_of(w->events[i]));
		keys[cnt] = bytes[cnt];
		if (++cnt == KERNEL_LANES) {
			w->plane->kernels->tag(images, keys, cnt);
			cnt = 0;
		}
	}
	if (cnt)
		w->plane->kernels->tag(images, keys, cnt);
}
