/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The map `scope_slots` in this process's memory: scopes that the kernel finds without a call. The
 * map `scopes` is the truth: a scope is put into it before it is put into its slot, and taken out
 * of its slot before it is taken out of `scopes` or changed there. So whatever a kill interrupts, a
 * slot never has what `scopes` has not.
 *
 * Owner: scope_maps. One writer; programs in the kernel read at any time.
 */
#pragma once

#include <linux/types.h>
#include <stdint.h>

#include "bpf/scope.h"

struct slots {
	struct scope_entry *entries; /* SCOPE_SLOT_CNT of them, or NULL */
};

/* Maps the array of this descriptor, which may be closed. -errno. */
int slots_open(struct slots *slots, int map_fd);
void slots_close(struct slots *slots);

/* The cookie has its slot from here on; whose it was is found in `scopes`. */
void slots_set(struct slots *slots, uint64_t cookie, const struct scope *scope);
/* Nothing where the slot is another's. */
void slots_del(struct slots *slots, uint64_t cookie);
void slots_clear(struct slots *slots);
