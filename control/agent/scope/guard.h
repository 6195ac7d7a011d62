/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The port guard: four programs linked to the root cgroup, so that UDP on a port of the range
 * reaches scoped sockets only, and these send to the engine only. Links are pinned, and outlive
 * fanwired.
 *
 * Owner: scope_maps. Event-loop thread only.
 */
#pragma once

#include <linux/types.h>
#include <stdint.h>

#include "bpf/scope.h"
#include "common/config/config.h"

#define GUARD_HOOK_CNT 4

struct port_guard_bpf;

struct guard {
	struct port_guard_bpf *skel;
	struct guard_config config;
	uint64_t cgroup_id;
	int link_fd[GUARD_HOOK_CNT];
	char dir[FAN_PATH_MAX];
};

/*
 * Loads the programs over the given `scopes` and `scope_slots` maps and links them to the cgroup v2
 * root, or puts them in place of the old ones behind the pinned links, without a gap. `why` says
 * what failed.
 */
int guard_open(struct guard *guard, const struct fan_config *config, int scopes_fd, int slots_fd,
	       char why[1024]);
void guard_close(struct guard *guard); /* the pinned links stay */
/* Unpins and thereby detaches. 0 also where there is none. */
int guard_remove(const char *bpf_dir);
/*
 * 0, or -errno with the reason: the kernel's state is looked at afresh, changed values are set
 * right and removed pins put back.
 */
int guard_check(struct guard *guard, char why[256]);
int guard_counters_fd(const struct guard *guard);
