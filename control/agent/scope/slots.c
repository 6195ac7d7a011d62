// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/slots.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define WORD_CNT (sizeof(struct scope_entry) / sizeof(__u64))

_Static_assert(sizeof(struct scope_entry) == WORD_CNT * sizeof(__u64), "an entry is whole words");

int slots_open(struct slots *slots, int map_fd)
{
	void *entries = mmap(NULL, SCOPE_SLOT_CNT * sizeof(*slots->entries), PROT_READ | PROT_WRITE,
			     MAP_SHARED, map_fd, 0);

	slots->entries = entries == MAP_FAILED ? NULL : entries;
	return slots->entries ? 0 : -errno;
}

void slots_close(struct slots *slots)
{
	if (slots->entries)
		munmap(slots->entries, SCOPE_SLOT_CNT * sizeof(*slots->entries));
	slots->entries = NULL;
}

static struct scope_entry *slot_of(struct slots *slots, uint64_t cookie)
{
	return &slots->entries[cookie % SCOPE_SLOT_CNT];
}

/* Pairs with the reads of scope_read() in bpf/scope_filter.bpf.c, which are made in this order. */
static void word_store(struct scope_entry *entry, unsigned idx, uint64_t word)
{
	__atomic_store_n((__u64 *)entry + idx, word, __ATOMIC_RELEASE);
}

static void slot_clear(struct scope_entry *slot)
{
	word_store(slot, 0, 0);
	word_store(slot, WORD_CNT - 1, 0);
}

void slots_set(struct slots *slots, uint64_t cookie, const struct scope *scope)
{
	struct scope_entry *slot = slot_of(slots, cookie), entry = {cookie, *scope, cookie};
	__u64 words[WORD_CNT];

	memcpy(words, &entry, sizeof(words));
	slot_clear(slot);
	for (unsigned i = 1; i < WORD_CNT; i++)
		word_store(slot, i, words[i]);
	word_store(slot, 0, words[0]);
}

void slots_del(struct slots *slots, uint64_t cookie)
{
	struct scope_entry *slot = slot_of(slots, cookie);

	if (slot->cookie == cookie)
		slot_clear(slot);
}

void slots_clear(struct slots *slots)
{
	for (unsigned i = 0; i < SCOPE_SLOT_CNT; i++)
		slot_clear(&slots->entries[i]);
}
