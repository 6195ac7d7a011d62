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
	return fan_chain_next(&r->table, r->buckets[bucket].chain);
}

static void fp_store(struct fan_bucket *bucket, unsigned slot, uint16_t fp)
{
	/* Relaxed: a stale fingerprint costs a compare of keys, or misses a group being added. */
	__atomic_store_n(&bucket->fp[slot], fp, __ATOMIC_RELAXED);
}

static void chain_store(struct registry *r, uint32_t bucket, uint32_t chain)
{
	if (r->buckets[bucket].chain == chain)
		return;
	step(r, "chain");
	/* Release: a bucket that it links is filled. Pairs with the acquire of `chain` in
	 * fan_table_lookup(). */
	__atomic_store_n(&r->buckets[bucket].chain, chain, __ATOMIC_RELEASE);
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

/* ---- what a chain says of itself ---- */

/* Marks of the groups in one bucket. */
static uint32_t marks_of(const struct registry *r, const struct fan_bucket *bucket)
{
	uint32_t marks = 0;

	for (unsigned i = 0; i < FAN_BUCKET_SLOTS; i++) {
		if (bucket->group[i])
			marks |= fan_chain_mark(group_hash(r, bucket->group[i] - 1));
	}
	return marks;
}

/* Before a group appears in `last`: the buckets in front of it say so. */
static void marks_add(struct registry *r, uint64_t hash, uint32_t last)
{
	for (uint32_t b = fan_table_bucket_idx(&r->table, hash); b != last; b = next_of(r, b))
		chain_store(r, b, r->buckets[b].chain | fan_chain_mark(hash));
}

/* After groups have gone: nothing is marked but what is there. */
static void marks_renew(struct registry *r, uint32_t first)
{
	for (uint32_t b = first; b != NONE; b = next_of(r, b)) {
		uint32_t marks = 0;

		for (uint32_t behind = next_of(r, b); behind != NONE; behind = next_of(r, behind))
			marks |= marks_of(r, &r->buckets[behind]);
		chain_store(r, b, (r->buckets[b].chain & FAN_CHAIN_NEXT) | marks);
	}
}

/* ---- changes ---- */

/*
 * A new overflow bucket is filled before it is linked, right behind the first-level bucket. A
 * bucket that is being unlinked is never the one that gets the link: first-level ones stay.
 */
static void add_overflow(struct registry *r, uint64_t hash, uint32_t group)
{
	uint32_t first = fan_table_bucket_idx(&r->table, hash);
	uint32_t idx = stack_pop(&r->free_overflow);
	struct fan_bucket *bucket = &r->buckets[idx];

	step(r, "overflow fill");
	memset(bucket, 0, sizeof(*bucket));
	fp_store(bucket, 0, fan_table_fp(hash));
	bucket->group[0] = group + 1;
	bucket->chain = r->buckets[first].chain;
	step(r, "overflow link");
	/* Its group and that group's block are written too. */
	chain_store(r, first,
		    (bucket->chain & ~FAN_CHAIN_NEXT) | fan_chain_mark(hash) |
			    (idx - r->table.bucket_cnt + 1));
}

void bucket_add(struct registry *r, uint64_t hash, uint32_t group)
{
	struct slot slot;

	if (!find_slot(r, hash, 0, &slot)) {
		add_overflow(r, hash, group);
		return;
	}
	marks_add(r, hash, slot.bucket);
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
 * An unlinked bucket keeps its own `chain`: a reader that stands in it goes on to what followed.
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
		/* What follows was published before. */
		chain_store(r, prev,
			    (r->buckets[prev].chain & ~FAN_CHAIN_NEXT) |
				    (r->buckets[b].chain & FAN_CHAIN_NEXT));
		retire(r, RETIRED_BUCKET, b, 1);
	}
	marks_renew(r, first);
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
