/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One thread rotates keys in a registry root and a group, over and over, as fanwired does; others
 * read them, as workers do. What they get is whole and of the generation that they asked for.
 * Usage: stress-keys SECONDS
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/shm/keys.h"

#define READERS	    3
#define GENERATIONS 255

static struct fan_registry registry;
static struct fan_group group;
static int ended; /* __atomic */

static struct reader {
	pthread_t thread;
	uint64_t turns; /* __atomic */
	uint64_t keys, roots, absent, wrong;
} readers[READERS];

static void root_store(uint8_t *root, uint8_t byte)
{
	uint64_t word;

	memset(&word, byte, sizeof(word));
	for (unsigned i = 0; i < FAN_KEY_LEN / sizeof(word); i++)
		__atomic_store_n((fan_key_word *)root + i, word, __ATOMIC_RELEASE);
}

/* The slot is nobody's while it is written. */
static void roots_store(struct fan_key_roots *roots, uint8_t generation)
{
	__atomic_store_n(&roots->generation, 0, __ATOMIC_RELEASE);
	root_store(roots->tag_root, generation);
	root_store(roots->seal_root, (uint8_t)~generation);
	__atomic_store_n(&roots->generation, generation, __ATOMIC_RELEASE);
}

/* A generation comes round only after every reader has ended what it was reading. */
static void readers_wait(void)
{
	for (unsigned i = 0; i < READERS; i++) {
		uint64_t turns = __atomic_load_n(&readers[i].turns, __ATOMIC_RELAXED);

		while (__atomic_load_n(&readers[i].turns, __ATOMIC_RELAXED) < turns + 2 &&
		       !__atomic_load_n(&ended, __ATOMIC_RELAXED))
			sched_yield();
	}
}

static void *write_keys(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !__atomic_load_n(&ended, __ATOMIC_RELAXED); i++) {
		uint8_t generation = (uint8_t)(1 + i % GENERATIONS), key[FAN_TAG_KEY_LEN];

		if (generation == 1)
			readers_wait();
		roots_store(&registry.key_roots[i % 2], generation);
		__atomic_store_n(&registry.key_generation, generation, __ATOMIC_RELEASE);
		memset(key, generation, sizeof(key));
		fan_group_tag_key_set(&group, generation, key);
	}
	return NULL;
}

static int all_are(const uint8_t *bytes, size_t len, unsigned byte)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != byte)
			return 0;
	return 1;
}

static void *read_keys(void *arg)
{
	struct reader *r = arg;

	while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
		uint32_t generation = __atomic_load_n(&registry.key_generation, __ATOMIC_ACQUIRE);
		struct fan_key_roots roots;
		uint8_t key[FAN_TAG_KEY_LEN];

		__atomic_fetch_add(&r->turns, 1, __ATOMIC_RELAXED);
		if (generation == 0)
			continue;
		if (fan_group_tag_key(key, &group, generation)) {
			r->keys++;
			r->wrong += !all_are(key, sizeof(key), generation);
		} else {
			r->absent++;
		}
		if (fan_roots_copy(&roots, &registry, generation)) {
			r->roots++;
			r->wrong += roots.generation != generation ||
				    !all_are(roots.tag_root, FAN_KEY_LEN, generation) ||
				    !all_are(roots.seal_root, FAN_KEY_LEN, (uint8_t)~generation);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct timespec duration = {argc > 1 ? atoi(argv[1]) : 1, 0};
	struct reader all = {0};
	pthread_t writer;

	pthread_create(&writer, NULL, write_keys, NULL);
	for (unsigned i = 0; i < READERS; i++)
		pthread_create(&readers[i].thread, NULL, read_keys, &readers[i]);
	nanosleep(&duration, NULL);
	__atomic_store_n(&ended, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		all.keys += readers[i].keys;
		all.roots += readers[i].roots;
		all.absent += readers[i].absent;
		all.wrong += readers[i].wrong;
	}
	printf("%llu tag keys and %llu roots read, %llu times none was there, %llu wrong\n",
	       (unsigned long long)all.keys, (unsigned long long)all.roots,
	       (unsigned long long)all.absent, (unsigned long long)all.wrong);
	return all.wrong || all.keys == 0 || all.roots == 0;
}
