/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A registry region made by hand, so that the dataplane is tested against the layout that is
 * documented and not against the code that usually writes it. One thread.
 */
#pragma once

#include "common/shm/table.h"

struct region_fixture {
	struct fan_region region;
	struct fan_registry *root;
	struct fan_bucket *buckets;
	struct fan_group *groups;
	struct fan_endpoint *endpoints;
	struct fan_connection *connections; /* a record for each endpoint, of its index */
	struct fan_session *sessions;
	struct fan_nexthop *nexthops;
	struct fan_request *requests;
	char path[256];
	uint32_t group_next, endpoint_next;
};

#define TEST_KEY_GENERATION 1 /* in force at first */

/* Makes `dir`/registry, where nothing is sealed. Aborts on an error. */
void region_fixture_init(struct region_fixture *f, const char *dir);
void region_fixture_fini(struct region_fixture *f); /* and removes the file */

/* Roots of a key generation: bytes 0x40 + generation (tags) and 0x80 + generation (seals). */
void region_set_roots(struct region_fixture *f, unsigned slot, uint8_t generation);
/* Next hop idx: family 4 or 6, MTU, resolved to MAC 02:00:00:00:00:(idx + 1). */
void region_add_nexthop(struct region_fixture *f, uint32_t idx, uint8_t family,
			const uint8_t source[16], uint16_t mtu);
/* Group of a user's name and channel with endpoints 198.18.0.2 (or fd00:f1::2), ports from port. */
struct fan_group *region_add_group(struct region_fixture *f, const char *user, uint64_t channel,
				   unsigned cnt, uint8_t family, uint32_t nexthop, uint16_t port);
/* Session of slot: any user, from address and port; key bytes = slot + 1. Returns its id. */
uint64_t region_add_session(struct region_fixture *f, uint32_t slot, uint64_t state_epoch,
			    const uint8_t address[16], uint16_t port, uint8_t family,
			    uint32_t nexthop);
