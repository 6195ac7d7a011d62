/* SPDX-License-Identifier: BSD-3-Clause */
/* Publisher sessions, next hops, and the random numbers that ids are drawn from. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "control/registry/internal.h"

/* A system call for 32 numbers, not for each. Numbers given out are not kept. */
uint64_t draw_random(struct registry *r)
{
	uint64_t value;

	if (r->random_left == 0) {
		/* 256 bytes are always given whole once the kernel's generator is ready. */
		while (getrandom(r->random, sizeof(r->random), 0) != sizeof(r->random))
			;
		r->random_left = sizeof(r->random) / sizeof(r->random[0]);
	}
	value = r->random[--r->random_left];
	r->random[r->random_left] = 0;
	return value;
}

/* ---- sessions ---- */

int registry_session_open(struct registry *r, const struct fan_session *spec, uint64_t *id)
{
	uint64_t mask = r->root->session_cnt - 1;
	struct fan_session *session;
	uint64_t high;
	uint32_t slot;

	dataplane_refresh(r, !dataplane_alive(r));
	if (!r->state)
		return registry_fail(r, -ENOTCONN,
				     "no dataplane has been started yet; start fanwire-dataplane");
	slot = take_index(r, &r->free_sessions);
	if (slot == NONE)
		return registry_no_space(r, "publisher sessions", "limits.max_sessions");
	do {
		high = draw_random(r) & ~mask;
	} while (high == 0);
	session = &r->sessions[slot];
	step(r, "session fill");
	*session = *spec;
	session->id = 0;
	session->state_epoch = r->state->header.creation_epoch;
	step(r, "session open");
	/* Release: key, scope and address are written. Pairs with the acquire in
	 * fan_table_session(). */
	__atomic_store_n(&session->id, high | slot, __ATOMIC_RELEASE);
	*id = high | slot;
	r->counts.sessions++;
	return 0;
}

int registry_session_close(struct registry *r, uint64_t id)
{
	uint32_t slot = (uint32_t)id & r->table.session_mask;

	if (!fan_table_session(&r->table, id))
		return registry_fail(r, -ENOENT, "no such publisher session");
	step(r, "session close");
	/* Release: nothing is learnt from a 0; who still holds the session is waited for. */
	__atomic_store_n(&r->sessions[slot].id, 0, __ATOMIC_RELEASE);
	retire(r, RETIRED_SESSION, slot, 1);
	r->counts.sessions--;
	return 0;
}

int registry_session_budget(struct registry *r, uint64_t id, uint64_t meter,
			    uint64_t bytes_per_second)
{
	struct fan_session *session = &r->sessions[(uint32_t)id & r->table.session_mask];

	if (!fan_table_session(&r->table, id))
		return registry_fail(r, -ENOENT, "no such publisher session");
	step(r, "session meter");
	__atomic_store_n(&session->meter, meter, __ATOMIC_RELAXED);
	step(r, "session budget");
	/* Release: with a budget comes a meter. Pairs with the acquire in dataplane/session.c. */
	__atomic_store_n(&session->budget, bytes_per_second, __ATOMIC_RELEASE);
	return 0;
}

const struct fan_session *registry_session_next(const struct registry *r, uint32_t *cursor)
{
	while (*cursor < r->root->session_cnt) {
		const struct fan_session *session = &r->sessions[(*cursor)++];

		if (session->id)
			return session;
	}
	return NULL;
}

/* ---- next hops ---- */

static bool nexthop_is(const struct fan_nexthop *hop, uint8_t family, const uint8_t address[16],
		       uint32_t ifindex, const uint8_t source[16])
{
	return hop->family == family && hop->ifindex == ifindex &&
	       memcmp(hop->address, address, 16) == 0 && memcmp(hop->source, source, 16) == 0;
}

int registry_nexthop_get(struct registry *r, uint8_t family, const uint8_t address[16],
			 uint32_t ifindex, const uint8_t source[16], uint16_t mtu, uint32_t *idx)
{
	struct fan_nexthop *hop = NULL;

	for (uint32_t i = 0; i < r->counts.nexthops; i++) {
		if (!nexthop_is(&r->nexthops[i], family, address, ifindex, source))
			continue;
		__atomic_store_n(&r->nexthops[i].mtu, mtu, __ATOMIC_RELAXED);
		*idx = i;
		return 0;
	}
	if (family != 4 && family != 6)
		return registry_fail(r, -EINVAL, "next hop of family %u; 4 or 6 is meant", family);
	if (r->counts.nexthops == r->root->nexthop_cnt)
		return registry_fail(r, -ENOSPC,
				     "next hops full: %u neighbours; aggregate receivers behind "
				     "routers, or restart with a new registry region",
				     r->root->nexthop_cnt);
	hop = &r->nexthops[r->counts.nexthops];
	step(r, "nexthop fill");
	*hop = (struct fan_nexthop){.ifindex = ifindex, .mtu = mtu};
	memcpy(hop->source, source, 16);
	memcpy(hop->address, address, 16);
	step(r, "nexthop publish");
	/* Release: for sweep() of the next fanwired. A worker comes here from an endpoint only,
	 * which is published later. */
	__atomic_store_n(&hop->family, family, __ATOMIC_RELEASE);
	*idx = r->counts.nexthops++;
	return 0;
}

void registry_nexthop_set_mac(struct registry *r, uint32_t idx, const uint8_t *mac)
{
	uint64_t word = 0;

	if (idx >= r->counts.nexthops)
		return;
	if (mac) {
		for (unsigned i = 0; i < 6; i++)
			word |= (uint64_t)mac[i] << (8 * i);
		word |= FAN_NEXTHOP_RESOLVED;
	}
	/* Release by habit: the word is all there is. Pairs with the worker's acquire of `mac`. */
	__atomic_store_n(&r->nexthops[idx].mac, word, __ATOMIC_RELEASE);
}
