/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whose copies are charged where: the sessions of one publisher share one meter of the dataplane,
 * so that its budget is the same however many it opens (dataplane/budget.h). A publisher that has
 * closed all of them finds its meter as it left it; a meter is another's only when as many others
 * as there are meters have come since. Event-loop thread only.
 */
#pragma once

#include <stdint.h>

#include "common/wire/wire.h"

/* A credential or a grant by its number, the user all zeros; of one-user grants the user alone. */
struct meter_owner {
	uint64_t publisher;
	uint8_t user[FAN_HANDLE_LEN];
};

struct meter {
	struct meter_owner owner;
	uint64_t id;   /* its place in the low bits, above them random bits of its owner; 0: none */
	uint64_t used; /* when it was last closed, in the order of closings */
	uint32_t open_cnt;
};

struct meters {
	struct meter *items;
	uint32_t cnt; /* power of two */
	uint64_t closings;
};

/* As many as there can be sessions: one is always free. 0 or -ENOMEM. */
int meters_init(struct meters *meters, uint32_t cnt);
void meters_fini(struct meters *meters);
/* The owner's meter, for one session more. */
uint64_t meters_open(struct meters *meters, const struct meter_owner *owner);
/* The same, of a session of an earlier run that has this one; 0: it had none. */
uint64_t meters_adopt(struct meters *meters, const struct meter_owner *owner, uint64_t id);
/* One session less. */
void meters_close(struct meters *meters, uint64_t id);
