/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An engine in directories of its own: the real database, registry and link, a test in the place of
 * the agent, and a state region in the place of the dataplane. Time is the test's.
 */
#pragma once

#include "common/shm/region.h"
#include "control/engine/engine.h"
#include "control/engine/registrations.h"
#include "control/messages.h"

#define FIXTURE_MESSAGES_MAX 256

struct fixture {
	struct fan_config config;
	struct event_base *base;
	struct engine engine;
	struct moment now;
	struct fan_region state; /* of the dataplane's stand-in */
	char dir[64];
	struct message *messages; /* what the agent was told, FIXTURE_MESSAGES_MAX of them */
	unsigned message_cnt;
	bool mute;    /* the agent does not answer marks */
	bool stalled; /* the dataplane's worker stays within its loop */
	uint64_t next_ref, next_cookie;
};

/* Directories and configuration only. */
void fixture_init(struct fixture *f);
void fixture_fini(struct fixture *f);
/* Database, registry, link, registrations, sessions: as fanwired starts, and stops. */
void fixture_start(struct fixture *f);
void fixture_stop(struct fixture *f);
/* The dataplane's stand-in: a state region, and one worker whose loop runs in settle(). */
void dataplane_start(struct fixture *f);
void dataplane_stop(struct fixture *f);
struct fan_worker_state *fixture_worker(struct fixture *f);

/* Runs the event loop until nothing is left to do, with housekeeping, `after_ms` later. */
void settle(struct fixture *f, uint64_t after_ms);

/* A token of this instance for a user. */
void token_for(struct fixture *f, const char *user, uint64_t ttl_s, char text[MESSAGE_TOKEN_MAX]);
/* The agent's REGISTER; returns its ref. id 0: none asked for. */
uint64_t ask(struct fixture *f, const char *user, uint64_t id);
/* The agent's BOUND for the grant of `ref`, with a port of its own; returns the id. */
uint64_t bind_grant(struct fixture *f, uint64_t ref);
/* The echo of the challenge that the dataplane was last asked to send to this connection. */
void echo(struct fixture *f, uint64_t id);
/* All of it, to ACTIVE; returns the id, *ref may be NULL. */
uint64_t subscribe(struct fixture *f, const char *user, uint64_t id, uint64_t *ref);

/* The agent's answer to the last mark. */
void answer_mark(struct fixture *f);

/* The last message of a type to this ref (0: any) and id (0: any), or NULL. */
const struct message *told(const struct fixture *f, enum message_type type, uint64_t ref,
			   uint64_t id);
unsigned told_count(const struct fixture *f, enum message_type type);
/* Connections of the user's group ALL in the table; -1: no group. */
int endpoints(const struct fixture *f, const char *user);
/* Audit records of an event. */
unsigned audited(struct fixture *f, const char *event);
