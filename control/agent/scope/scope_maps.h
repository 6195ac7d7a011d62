/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel side of one receiving host: the scope filter, the port guard and the maps they read.
 * Maps, programs and guard links are pinned under config bpf_dir, so that they outlive fanwired:
 * sockets that were handed out stay scoped while it is down, and it takes everything up again.
 * One fanwired an instance: the pin directory is locked while it is open.
 *
 * Owner: the agent. Event-loop thread only.
 */
#pragma once

#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/scope.h"
#include "common/config/config.h"
#include "control/agent/agent.h"
#include "control/messages.h"

struct scope_maps;

/*
 * Checks what the walls stand on (bpffs, cgroup v2, port range against the receivers' sysctls,
 * receiver addresses), loads or takes up the pinned objects and attaches the guard (not where
 * config says port_guard = false). `config` must stay valid until scope_maps_close().
 * -errno, and `why` says what is wrong and what to do.
 */
int scope_maps_open(struct scope_maps **maps, const struct fan_config *config, char why[1024]);
/* Pinned objects and live sockets stay as they are. NULL is allowed. */
void scope_maps_close(struct scope_maps *maps);
/*
 * Takes the instance's objects out of the kernel for good: every scope, the guard, the pins.
 * For uninstalling and tests, with no fanwired running. -EBUSY: one is.
 */
int scope_maps_remove(const struct fan_config *config, char why[1024]);

/* The kernel's form of a scope. */
void scope_fill(struct scope *scope, const struct message_scope *from, uint64_t connection);

/* Adds or replaces the scope of the socket with this cookie. -E2BIG: the map is full. */
int scope_set(struct scope_maps *maps, uint64_t cookie, const struct scope *scope);
/* From here on the socket receives and sends nothing. -ENOENT. */
int scope_del(struct scope_maps *maps, uint64_t cookie);
/* -ENOENT: the socket has none. */
int scope_get(struct scope_maps *maps, uint64_t cookie, struct scope *scope);
/* Entries of the map. */
uint32_t scope_cnt(const struct scope_maps *maps);
/* Calls on_scope for every scope; it may delete or change any. Returns their number or -errno. */
typedef void (*scope_on_each)(void *arg, uint64_t cookie, const struct scope *scope);
int scope_each(struct scope_maps *maps, scope_on_each on_scope, void *arg);

/* Sums over all CPUs since the objects were first loaded; they go on over a restart. */
int scope_counters(struct scope_maps *maps, uint64_t verdicts[SCOPE_VERDICT_CNT],
		   uint64_t guards[GUARD_VERDICT_CNT]);

/* Takes up to `max` aggregated cross-user drops out of the kernel. Returns their number or -errno.
 */
typedef void (*scope_on_foreign)(void *arg, const struct foreign_key *key, uint64_t cnt);
int scope_foreign_drain(struct scope_maps *maps, unsigned max, scope_on_foreign on_foreign,
			void *arg);

/*
 * Looks at the kernel afresh: programs loaded, links attached to the cgroup root with our programs,
 * guard configured as we set it (other values are set back), pins in place (a removed pin is put
 * back). What cannot be looked at for want of descriptors is as it was last seen, and `why` says
 * so.
 */
struct scope_walls {
	enum wall_state filter, guard;
	char filter_why[256], guard_why[256]; /* "" when on and seen to be */
};
void scope_walls_check(struct scope_maps *maps, struct scope_walls *walls);

/* For scoped_socket.c. */
int scope_filter_fd(const struct scope_maps *maps);
const struct fan_config *scope_config(const struct scope_maps *maps);
struct netns *scope_netns(const struct scope_maps *maps); /* NULL: fanwired's own */
