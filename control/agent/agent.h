/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The agent: client.sock, and the scoped sockets, filters, guard and ports of one receiving host.
 * It decides nothing about users: the engine does, and tells it in messages. Event-loop thread
 * only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"

struct event_base;
struct link;
struct agent;

/* As root: mounts a bpffs on bpf_dir where there is none. 0, or -errno and why. */
int agent_prepare(const struct fan_config *config, char why[1024]);

/*
 * Loads or takes up the pinned BPF objects, attaches the guard, opens client.sock, and sets itself
 * as the link's agent. On failure `why` says what and what to do.
 */
int agent_create(struct agent **agent, struct event_base *base, struct link *link,
		 const struct fan_config *config, char why[1024]);
void agent_destroy(struct agent *agent); /* leaves pinned objects and live sockets as they are */

enum wall_state { WALL_ON, WALL_OFF, WALL_FAILED };

struct agent_status {
	enum wall_state filter, guard;
	char filter_why[256], guard_why[256]; /* when failed or off */
	uint64_t verdicts[16]; /* by enum scope_verdict; names from agent_verdict_name() */
	uint64_t guards[8];    /* by enum guard_verdict */
	uint32_t scopes;       /* entries in the kernel map */
	uint32_t clients;      /* connections on client.sock */
	uint32_t ports_used, ports_resting, ports_free;
	uint32_t ports_held; /* ended, and their last users have them open still */
};
/* Checks the kernel afresh (links still attached? maps still there?) and fills *status. */
void agent_status(struct agent *agent, struct agent_status *status);
const char *agent_verdict_name(unsigned verdict);
const char *agent_guard_name(unsigned guard);
