/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hash table's buckets. A group never moves from one slot to another, so a reader that walks a
 * chain meets each group that stays in the table, whatever is added or deleted meanwhile.
 */
#include <string.h>

#include "control/registry/internal.h"

struct slot {
	uint32_t bucket;
	unsigned idx;
};

uint64_t group_hash(const struct registry *r, uint32_t group)
{
	return fan_table_hash(r->table.seed, r->groups[group].handle, r->groups[group].channel);
}

static uint32_t next_of(const struct registry *r, uint32_t bucket)
{
	return r->buckets[bucket].next ? r->buckets[bucket].next - 1 : NONE;
}

static void fp_store(struct fan_bucket *bucket, unsigned slot, uint16_t fp)
{
	uint64_t *word = &bucket->fp[slot / 4];
	unsigned shift = 16 * (slot % 4);
	uint64_t value = (*word & ~(UINT64_C(0xffff) << shift)) | (uint64_t)fp << shift;

	/* Relaxed: a stale fingerprint costs a compare of keys, or misses a group being added. */
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

uint32_t bucket_find(const struct registry *r, const uint8_t handle[16], uint64_t channel,
		     uint64_t hash)
{
	const struct fan_group *group = fan_table_lookup(&r->table, handle, channel, hash);

	return group ? fan_group_idx(&r->table, group) : NONE;
}

unsigned bucket_room(const struct registry *r, uint64_t hash)
{
	unsigned room = 0;

	for (uint32_t b = fan_table_bucket_idx(&r->table, hash); b != NONE; b = next_of(r, b)) {
		for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++)
			room += r->buckets[b].group[i] == 0;
	}
	return room;
}

/* The slot of a group (+ 1) in the chain of its hash, or an empty one (0). */
static bool find_slot(const struct registry *r, uint64_t hash, uint32_t value, struct slot *slot)
{
	for (uint32_t b = fan_table_bucket_idx(&r->table, hash); b != NONE; b = next_of(r, b)) {
		for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
			if (r->buckets[b].group[i] == value) {
				*slot = (struct slot){b, i};
				return true;
			}
		}
	}
	return false;
}

/*
 * A new overflow bucket is filled before it is linked, right behind the first-level bucket. A
 * bucket that is being unlinked is never the one that gets the link: first-level ones stay.
 */
static void add_overflow(struct registry *r, uint64_t hash, uint32_t group)
{
	struct fan_bucket *first = &r->buckets[fan_table_bucket_idx(&r->table, hash)];
	uint32_t idx = stack_pop(&r->free_overflow);
	struct fan_bucket *bucket = &r->buckets[idx];

	step(r, "overflow fill");
	memset(bucket, 0, sizeof(*bucket));
	fp_store(bucket, 0, fan_table_fp(hash));
	bucket->group[0] = group + 1;
	bucket->next = first->next;
	step(r, "overflow link");
	/* Release: the bucket, its group and that group's block are written. Pairs with the acquire
	 * of `next` in fan_table_lookup(). */
	__atomic_store_n(&first->next, idx + 1, __ATOMIC_RELEASE);
}

void bucket_add(struct registry *r, uint64_t hash, uint32_t group)
{
	struct slot slot;

	if (!find_slot(r, hash, 0, &slot)) {
		add_overflow(r, hash, group);
		return;
	}
	step(r, "slot fingerprint");
	fp_store(&r->buckets[slot.bucket], slot.idx, fan_table_fp(hash));
	step(r, "slot group");
	/* Release: the group and its block are written. Pairs with the acquire of `group` in
	 * fan_table_lookup(). */
	__atomic_store_n(&r->buckets[slot.bucket].group[slot.idx], group + 1, __ATOMIC_RELEASE);
}

void bucket_swap(struct registry *r, uint64_t hash, uint32_t old, uint32_t group)
{
	struct slot slot;

	if (!find_slot(r, hash, old + 1, &slot))
		return;
	step(r, "slot swap");
	/* Release: as in bucket_add(); pairs with the same acquire. The key and so the fingerprint
	 * stay, and a reader finds the old group or the new one, never none. */
	__atomic_store_n(&r->buckets[slot.bucket].group[slot.idx], group + 1, __ATOMIC_RELEASE);
}

static bool is_empty(const struct fan_bucket *bucket)
{
	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
		if (bucket->group[i])
			return false;
	}
	return true;
}

/*
 * An unlinked bucket keeps its own `next`: a reader that stands in it goes on to what followed.
 * What follows may be unlinked too, but rests at least as long as that reader needs.
 */
void bucket_trim(struct registry *r, uint32_t first)
{
	uint32_t prev = first;

	for (uint32_t b = next_of(r, first); b != NONE; b = next_of(r, b)) {
		if (!is_empty(&r->buckets[b])) {
			prev = b;
			continue;
		}
		step(r, "overflow unlink");
		/* Release: what follows was published before. Pairs with the acquire of `next` in
		 * fan_table_lookup(). */
		__atomic_store_n(&r->buckets[prev].next, r->buckets[b].next, __ATOMIC_RELEASE);
		retire(r, RETIRED_BUCKET, b, 1);
	}
}

void bucket_del(struct registry *r, uint64_t hash, uint32_t group)
{
	struct slot slot;

	if (!find_slot(r, hash, group + 1, &slot))
		return;
	step(r, "slot clear");
	/* Release orders it after what the caller did before; no reader learns anything from a 0.
	 * Who still holds the group is waited for by retire_poll(). */
	__atomic_store_n(&r->buckets[slot.bucket].group[slot.idx], 0, __ATOMIC_RELEASE);
	step(r, "slot fingerprint clear");
	fp_store(&r->buckets[slot.bucket], slot.idx, 0);
	if (slot.bucket >= r->table.bucket_cnt)
		bucket_trim(r, fan_table_bucket_idx(&r->table, hash));
}
