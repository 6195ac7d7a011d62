/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/ports.h"
#include "common/plant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

enum slot_state {
	SLOT_FREE, /* in the free list of its family */
	SLOT_USED,
	SLOT_RESTING, /* in the resting list, oldest first */
	SLOT_OVERDUE, /* rested its time, waits for ports_reusable() alone; in no list */
	SLOT_HELD,    /* in the held list, longest not looked at first: its last user has it open */
};

struct slot {
	uint64_t owner;
	uint64_t released_ns;
	uint8_t handle[16];	   /* present or last user */
	uint8_t before[16];	   /* used: the user who had it last, zero: nobody to blame */
	uint32_t prev, next;	   /* in the list of its state */
	uint32_t id_prev, id_next; /* waiting for ports_reusable(), by owner */
	/* resting: by last user, before and after it is reusable; used and held: by user; free: not
	 * looked at yet */
	uint32_t user_prev, user_next;
	uint8_t state;
	bool reusable;
	bool unseen; /* free, and whether its last user has it open was not looked at yet */
};

struct list {
	uint32_t first, last;
};

struct ports {
	struct slot *slots;
	uint32_t cnt;
	uint32_t port_cnt; /* of one address */
	uint16_t port_first;
	uint64_t quarantine_ns;
	struct fan_address address[FAN_ADDRESSES_MAX];
	unsigned address_cnt;
	struct list free[2]; /* IPv4, IPv6 */
	struct list resting, held, unseen;
	/* hash buckets, bucket_mask + 1 of each */
	struct list *by_id, *by_user, *charged, *settling;
	uint32_t bucket_mask;
	uint8_t seed[crypto_shorthash_KEYBYTES];
	uint32_t used_cnt, free_cnt, held_cnt;
};

static const uint8_t nobody[16];

/* One doubly linked list over slot indices; `off` says which pair of links it uses. */
enum links { LINKS_STATE, LINKS_ID, LINKS_USER };

static uint32_t *prev_of(struct ports *ports, enum links links, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	return links == LINKS_STATE ? &slot->prev
	       : links == LINKS_ID  ? &slot->id_prev
				    : &slot->user_prev;
}

static uint32_t *next_of(struct ports *ports, enum links links, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	return links == LINKS_STATE ? &slot->next
	       : links == LINKS_ID  ? &slot->id_next
				    : &slot->user_next;
}

static void list_add(struct ports *ports, struct list *list, enum links links, uint32_t idx)
{
	*prev_of(ports, links, idx) = list->last;
	*next_of(ports, links, idx) = PORT_NONE;
	if (list->last == PORT_NONE)
		list->first = idx;
	else
		*next_of(ports, links, list->last) = idx;
	list->last = idx;
}

static void list_del(struct ports *ports, struct list *list, enum links links, uint32_t idx)
{
	uint32_t prev = *prev_of(ports, links, idx), next = *next_of(ports, links, idx);

	if (prev == PORT_NONE)
		list->first = next;
	else
		*next_of(ports, links, prev) = next;
	if (next == PORT_NONE)
		list->last = prev;
	else
		*prev_of(ports, links, next) = prev;
}

/* Seeded: clients choose connection ids, and must not choose buckets. */
static struct list *bucket(struct ports *ports, struct list *table, const void *key, size_t len)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t idx;

	crypto_shorthash(hash, key, len, ports->seed);
	memcpy(&idx, hash, sizeof(idx));
	return &table[idx & ports->bucket_mask];
}

static struct list *id_bucket(struct ports *ports, uint64_t owner)
{
	return bucket(ports, ports->by_id, &owner, sizeof(owner));
}

static struct list *user_bucket(struct ports *ports, const uint8_t handle[16])
{
	return bucket(ports, ports->by_user, handle, 16);
}

static struct list *charged_bucket(struct ports *ports, const uint8_t handle[16])
{
	return bucket(ports, ports->charged, handle, 16);
}

static struct list *settling_bucket(struct ports *ports, const uint8_t handle[16])
{
	return bucket(ports, ports->settling, handle, 16);
}

static const struct fan_address *address_of(const struct ports *ports, uint32_t idx)
{
	return &ports->address[idx / ports->port_cnt];
}

static unsigned family_idx(const struct ports *ports, uint32_t idx)
{
	return address_of(ports, idx)->family == 6;
}

static void add_free(struct ports *ports, uint32_t idx)
{
	ports->slots[idx].state = SLOT_FREE;
	list_add(ports, &ports->free[family_idx(ports, idx)], LINKS_STATE, idx);
	ports->free_cnt++;
}

/* From a rest: its last user may have it open still. */
static void add_unseen(struct ports *ports, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	add_free(ports, idx);
	slot->unseen = memcmp(slot->handle, nobody, sizeof(nobody)) != 0;
	if (slot->unseen)
		list_add(ports, &ports->unseen, LINKS_USER, idx);
}

static void set_seen(struct ports *ports, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	if (!slot->unseen)
		return;
	list_del(ports, &ports->unseen, LINKS_USER, idx);
	slot->unseen = false;
}

/* Interleaved over the addresses, so that the first connections spread over the pool. */
static void fill(struct ports *ports)
{
	for (uint32_t port = 0; port < ports->port_cnt; port++)
		for (uint32_t address = 0; address < ports->address_cnt; address++)
			add_free(ports, address * ports->port_cnt + port);
}

struct ports *ports_create(const struct fan_config *config, uint64_t quarantine_ns)
{
	struct ports *ports;
	uint32_t bucket_cnt = 16;

	if (!config->receiver_address_cnt || config->port_last < config->port_first)
		return NULL;
	ports = calloc(1, sizeof(*ports));
	if (!ports)
		return NULL;
	ports->port_first = config->port_first;
	ports->port_cnt = config->port_last - config->port_first + 1U;
	ports->address_cnt = config->receiver_address_cnt;
	ports->cnt = ports->port_cnt * ports->address_cnt;
	ports->quarantine_ns = quarantine_ns;
	memcpy(ports->address, config->receiver_address, sizeof(ports->address));
	while (bucket_cnt < ports->cnt)
		bucket_cnt *= 2;
	ports->bucket_mask = bucket_cnt - 1;
	randombytes_buf(ports->seed, sizeof(ports->seed));
	ports->slots = calloc(ports->cnt, sizeof(*ports->slots));
	ports->by_id = malloc(bucket_cnt * sizeof(*ports->by_id));
	ports->by_user = malloc(bucket_cnt * sizeof(*ports->by_user));
	ports->charged = malloc(bucket_cnt * sizeof(*ports->charged));
	ports->settling = malloc(bucket_cnt * sizeof(*ports->settling));
	if (!ports->slots || !ports->by_id || !ports->by_user || !ports->charged ||
	    !ports->settling) {
		ports_destroy(ports);
		return NULL;
	}
	memset(ports->by_id, 0xff, bucket_cnt * sizeof(*ports->by_id)); /* PORT_NONE */
	memset(ports->by_user, 0xff, bucket_cnt * sizeof(*ports->by_user));
	memset(ports->charged, 0xff, bucket_cnt * sizeof(*ports->charged));
	memset(ports->settling, 0xff, bucket_cnt * sizeof(*ports->settling));
	memset(ports->free, 0xff, sizeof(ports->free));
	ports->resting = ports->held = ports->unseen = (struct list){PORT_NONE, PORT_NONE};
	fill(ports);
	return ports;
}

void ports_destroy(struct ports *ports)
{
	if (!ports)
		return;
	free(ports->slots);
	free(ports->by_id);
	free(ports->by_user);
	free(ports->charged);
	free(ports->settling);
	free(ports);
}

static struct port port_of(const struct ports *ports, uint32_t idx)
{
	return (struct port){
		.idx = idx,
		.address = *address_of(ports, idx),
		.port = (uint16_t)(ports->port_first + idx % ports->port_cnt),
	};
}

static void set_used(struct ports *ports, uint32_t idx, const uint8_t handle[16], uint64_t owner,
		     struct port *port)
{
	struct slot *slot = &ports->slots[idx];

	slot->state = SLOT_USED;
	slot->owner = owner;
	memcpy(slot->before, slot->handle, sizeof(slot->before));
	memcpy(slot->handle, handle, sizeof(slot->handle));
	list_add(ports, charged_bucket(ports, handle), LINKS_USER, idx);
	ports->used_cnt++;
	*port = port_of(ports, idx);
}

/* Moves on what has rested its time. Each slot is moved once a rest. */
static void expire(struct ports *ports, uint64_t now_ns)
{
	uint32_t idx;

	while ((idx = ports->resting.first) != PORT_NONE) {
		struct slot *slot = &ports->slots[idx];

		if (now_ns - slot->released_ns < ports->quarantine_ns &&
		    !fan_planted(PLANT_PORT_NOT_RESTED))
			return;
		list_del(ports, &ports->resting, LINKS_STATE, idx);
		if (slot->reusable) {
			list_del(ports, user_bucket(ports, slot->handle), LINKS_USER, idx);
			add_unseen(ports, idx);
		} else {
			slot->state = SLOT_OVERDUE;
		}
	}
}

static bool take_last(struct ports *ports, unsigned family, const uint8_t handle[16], uint32_t *out)
{
	struct list *users = user_bucket(ports, handle);

	for (uint32_t idx = users->first; idx != PORT_NONE; idx = ports->slots[idx].user_next) {
		struct slot *slot = &ports->slots[idx];

		if (memcmp(slot->handle, handle, sizeof(slot->handle)) ||
		    address_of(ports, idx)->family != family)
			continue;
		list_del(ports, users, LINKS_USER, idx);
		list_del(ports, &ports->resting, LINKS_STATE, idx);
		*out = idx;
		return true;
	}
	return false;
}

static void del_free(struct ports *ports, uint32_t idx)
{
	set_seen(ports, idx);
	list_del(ports, &ports->free[family_idx(ports, idx)], LINKS_STATE, idx);
	ports->free_cnt--;
}

int ports_take(struct ports *ports, unsigned family, const uint8_t handle[16], uint64_t owner,
	       uint64_t now_ns, struct port *port)
{
	uint32_t idx;

	expire(ports, now_ns);
	if (!take_last(ports, family, handle, &idx)) {
		idx = ports->free[family == 6].first;
		if (idx == PORT_NONE)
			return -ENOSPC;
		del_free(ports, idx);
	}
	set_used(ports, idx, handle, owner, port);
	return 0;
}

/* A pair that nobody has and that no worker may still send to. */
static bool take_unowned(struct ports *ports, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	if (slot->state == SLOT_FREE) {
		del_free(ports, idx);
	} else if (slot->state == SLOT_RESTING && slot->reusable) {
		list_del(ports, user_bucket(ports, slot->handle), LINKS_USER, idx);
		list_del(ports, &ports->resting, LINKS_STATE, idx);
	} else {
		return false;
	}
	return true;
}

int ports_hold(struct ports *ports, const struct fan_address *address, uint16_t port_number,
	       const uint8_t handle[16], uint64_t owner, struct port *port)
{
	uint32_t off = (uint32_t)port_number - ports->port_first;

	if (port_number < ports->port_first || off >= ports->port_cnt)
		return -ENOENT;
	for (uint32_t i = 0; i < ports->address_cnt; i++) {
		uint32_t idx = i * ports->port_cnt + off;

		if (ports->address[i].family != address->family ||
		    memcmp(ports->address[i].bytes, address->bytes, sizeof(address->bytes)))
			continue;
		if (!take_unowned(ports, idx))
			return -ENOENT;
		set_used(ports, idx, handle, owner, port);
		return 0;
	}
	return -ENOENT;
}

static void set_reusable(struct ports *ports, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	slot->reusable = true;
	if (slot->state == SLOT_OVERDUE)
		add_unseen(ports, idx);
	else
		list_add(ports, user_bucket(ports, slot->handle), LINKS_USER, idx);
}

static void del_used(struct ports *ports, uint32_t idx)
{
	list_del(ports, charged_bucket(ports, ports->slots[idx].handle), LINKS_USER, idx);
	ports->used_cnt--;
}

void ports_release(struct ports *ports, uint32_t idx, bool wait_reusable, uint64_t now_ns)
{
	struct slot *slot = &ports->slots[idx];

	if (idx >= ports->cnt || slot->state != SLOT_USED)
		return;
	del_used(ports, idx);
	slot->state = SLOT_RESTING;
	slot->released_ns = now_ns;
	slot->reusable = false;
	list_add(ports, &ports->resting, LINKS_STATE, idx);
	if (wait_reusable) {
		list_add(ports, id_bucket(ports, slot->owner), LINKS_ID, idx);
		list_add(ports, settling_bucket(ports, slot->handle), LINKS_USER, idx);
		return;
	}
	/* No user has this handle: a bind that failed is not tried again at once. */
	memset(slot->handle, 0, sizeof(slot->handle));
	set_reusable(ports, idx);
}

bool ports_reusable(struct ports *ports, uint64_t owner)
{
	struct list *waiting = id_bucket(ports, owner);

	/* Appended at release: the first match is the oldest. */
	for (uint32_t idx = waiting->first; idx != PORT_NONE; idx = ports->slots[idx].id_next) {
		if (ports->slots[idx].owner != owner)
			continue;
		list_del(ports, waiting, LINKS_ID, idx);
		list_del(ports, settling_bucket(ports, ports->slots[idx].handle), LINKS_USER, idx);
		set_reusable(ports, idx);
		return true;
	}
	return false;
}

void ports_rest(struct ports *ports, uint32_t idx, const uint8_t handle[16], uint64_t released_ns)
{
	struct slot *slot = &ports->slots[idx];

	if (idx >= ports->cnt || slot->state != SLOT_FREE)
		return;
	del_free(ports, idx);
	memcpy(slot->handle, handle, sizeof(slot->handle));
	slot->state = SLOT_RESTING;
	slot->released_ns = released_ns;
	list_add(ports, &ports->resting, LINKS_STATE, idx);
	set_reusable(ports, idx);
}

/* ---- held by who had it last ---- */

static unsigned count_of(const struct ports *ports, const struct list *list,
			 const uint8_t handle[16])
{
	unsigned cnt = 0;

	for (uint32_t idx = list->first; idx != PORT_NONE; idx = ports->slots[idx].user_next)
		cnt += memcmp(ports->slots[idx].handle, handle, 16) == 0;
	return cnt;
}

unsigned ports_charged(struct ports *ports, const uint8_t handle[16])
{
	return count_of(ports, charged_bucket(ports, handle), handle);
}

unsigned ports_settling(struct ports *ports, const uint8_t handle[16])
{
	return count_of(ports, settling_bucket(ports, handle), handle);
}

bool ports_suspect(struct ports *ports, bool held, uint64_t now_ns, struct port *port)
{
	uint32_t idx;

	expire(ports, now_ns);
	idx = held ? ports->held.first : ports->unseen.first;
	if (idx == PORT_NONE)
		return false;
	*port = port_of(ports, idx);
	return true;
}

const uint8_t *ports_busy(struct ports *ports, uint32_t idx)
{
	struct slot *slot = &ports->slots[idx];

	if (slot->state == SLOT_HELD) {
		list_del(ports, &ports->held, LINKS_STATE, idx);
		list_add(ports, &ports->held, LINKS_STATE, idx);
		return slot->handle;
	}
	if (slot->state == SLOT_USED) {
		del_used(ports, idx);
		memcpy(slot->handle, slot->before, sizeof(slot->handle));
	} else {
		del_free(ports, idx);
	}
	slot->state = SLOT_HELD;
	list_add(ports, &ports->held, LINKS_STATE, idx);
	list_add(ports, charged_bucket(ports, slot->handle), LINKS_USER, idx);
	ports->held_cnt++;
	return slot->handle;
}

void ports_idle(struct ports *ports, uint32_t idx, uint64_t now_ns)
{
	struct slot *slot = &ports->slots[idx];

	if (slot->state == SLOT_FREE) {
		set_seen(ports, idx);
		memset(slot->handle, 0, sizeof(slot->handle));
	}
	if (slot->state != SLOT_HELD)
		return;
	list_del(ports, &ports->held, LINKS_STATE, idx);
	list_del(ports, charged_bucket(ports, slot->handle), LINKS_USER, idx);
	ports->held_cnt--;
	slot->state = SLOT_RESTING;
	slot->released_ns = now_ns;
	list_add(ports, &ports->resting, LINKS_STATE, idx);
	set_reusable(ports, idx);
}

void ports_count(struct ports *ports, uint64_t now_ns, struct ports_counts *counts)
{
	expire(ports, now_ns);
	counts->used = ports->used_cnt;
	counts->free = ports->free_cnt;
	counts->held = ports->held_cnt;
	counts->resting = ports->cnt - ports->used_cnt - ports->free_cnt - ports->held_cnt;
}
