/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publisher sessions: a credential or a grant buys an id and a key, for one address and port.
 * A session ends with its UNIX connection, with its credential, and with the dataplane's state
 * region, which remembers where it was. Event-loop thread only.
 */
#pragma once

#include <stdint.h>

#include "control/engine/engine.h"
#include "control/messages.h"

struct sessions;

int sessions_open(struct sessions **sessions, struct engine *engine, struct moment now);
void sessions_close(struct sessions *sessions);
/* A message of the agent about a publisher's session. */
void sessions_on_message(struct sessions *sessions, const struct message *message,
			 struct moment now);
/* Ends those whose publisher did not come back, and all when the state region is another. */
void sessions_tick(struct sessions *sessions, struct moment now);
/* We were paused for so long: who is to come back has that much longer. */
void sessions_extend(struct sessions *sessions, uint64_t gap_ns);
/* Ends all of one publisher; returns how many. */
unsigned sessions_end_publisher(struct sessions *sessions, uint64_t publisher);
/* Ends those of grants for this one user: he was revoked. */
unsigned sessions_end_user(struct sessions *sessions, const uint8_t user[FAN_HANDLE_LEN]);
/* Open sessions of a publisher; 0: of all. */
unsigned sessions_count(const struct sessions *sessions, uint64_t publisher);
/* Publishes of its open sessions that were held back, since its budget was spent. */
uint64_t sessions_over_budget(const struct sessions *sessions, uint64_t publisher);
