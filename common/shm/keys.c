/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/shm/keys.h"

#include <sodium.h>
#include <string.h>

static void words_copy(uint8_t *to, const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(fan_key_word)) {
		/* acquire: the generation is looked at again after all of them */
		fan_key_word word =
			__atomic_load_n((const fan_key_word *)(from + i), __ATOMIC_ACQUIRE);

		memcpy(to + i, &word, sizeof(word));
	}
}

bool fan_roots_copy(struct fan_key_roots *copy, const struct fan_registry *registry,
		    uint32_t generation)
{
	const struct fan_key_roots *roots = fan_root_of(registry, generation);
	struct fan_key_roots read = {.generation = generation};
	bool whole;

	if (!roots)
		return false;
	words_copy(read.tag_root, roots->tag_root, sizeof(read.tag_root));
	words_copy(read.seal_root, roots->seal_root, sizeof(read.seal_root));
	whole = __atomic_load_n(&roots->generation, __ATOMIC_RELAXED) == generation;
	if (whole)
		*copy = read;
	sodium_memzero(&read, sizeof(read));
	return whole;
}
