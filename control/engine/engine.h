/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine: decides who is registered, writes the table through control/registry, answers
 * administrators. This header joins its parts; each part has a header of its own. Everything here
 * belongs to the event-loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"
#include "common/shm/state.h"
#include "control/agent/agent.h"
#include "control/engine/keys.h"

struct audit;
struct event;
struct event_base;
struct http;
struct link;
struct marks;
struct message;
struct metrics;
struct nexthops;
struct publishers;
struct registrations;
struct registry;
struct rotation;
struct sessions;
struct store;
struct top;
struct users;
struct vouched;

/* One reading of both clocks. Deadlines are judged on mono_ns alone; unix_s dates things. */
struct moment {
	uint64_t mono_ns; /* CLOCK_MONOTONIC */
	uint64_t unix_s;
};
struct moment moment_now(void);

#define ENGINE_NS_PER_S	  UINT64_C(1000000000)
#define ENGINE_STALLED_NS (10 * ENGINE_NS_PER_S) /* a worker's heartbeat older than this */

enum wall {
	WALL_REGISTRATION,
	WALL_TABLE,
	WALL_KERNEL,
	WALL_LIVENESS,
	WALL_CRYPTOGRAPHY,
	WALL_CNT
};
struct walls {
	enum wall_state state[WALL_CNT];
	char why[WALL_CNT][640]; /* of those that are not on */
};
const char *wall_name(enum wall wall);
const char *wall_state_name(enum wall_state state);

enum dataplane_state { DATAPLANE_STOPPED, DATAPLANE_STALLED, DATAPLANE_RUNNING };
struct dataplane_watch {
	enum dataplane_state state;
	uint64_t since_ns; /* of the present state */
	bool alarmed;	   /* this outage was told */
};

struct log_watch { /* log_watch.c */
	uint64_t at_ns, logged;
	double bytes_per_s;
};

struct engine {
	const struct fan_config *config;
	struct event_base *base;
	struct keys keys;
	struct store *store;
	struct audit *audit;
	struct users *users;
	struct publishers *publishers;
	struct registry *registry;
	struct rotation *rotation;
	struct link *link;
	struct agent *agent;
	struct marks *marks;
	struct nexthops *nexthops;
	struct registrations *registrations;
	struct vouched *vouched;
	struct sessions *sessions;
	struct http *http;
	struct metrics *metrics;
	struct top *top;
	struct event *tick;
	struct moment started;
	uint64_t ticked_ns, ticked_unix_s; /* the last tick */
	uint64_t returned_ns;		   /* when one of the last run came back last */
	struct agent_status agent_status;  /* at most a second old */
	uint64_t agent_status_ns;
	struct walls walls;
	struct dataplane_watch watch;
	struct log_watch log_watch;
};

/* Builds every part in order and starts to serve. On failure `why` says what and what to do. */
int engine_create(struct engine **engine, struct event_base *base, const struct fan_config *config,
		  char why[4096]);
/* Registrations stay in the registry region, for the next start. */
void engine_destroy(struct engine *engine);

/* Asks the agent afresh and judges the walls; audits a wall that has just failed. */
void engine_walls_refresh(struct engine *engine, struct moment now);
/* The first wall that has failed, or NULL: nothing is granted while there is one. */
const char *engine_wall_failed(const struct engine *engine);

/*
 * Whether one that should have been back by absent_ns has stayed away: not while others still come
 * back, for then it may stand in their queue. Each comes back once, so that nobody can draw it out.
 */
bool engine_is_absent(const struct engine *engine, uint64_t absent_ns, struct moment now);

/* State of the dataplane by its lock and its workers' heartbeats. */
enum dataplane_state engine_dataplane_state(const struct engine *engine, struct moment now);
const char *dataplane_state_name(enum dataplane_state state);
/* Worker `idx` of the dataplane's present run, NULL where there is none. */
const struct fan_worker_state *engine_worker(const struct engine *engine, unsigned idx);
/* Sum of a counter over the workers. */
uint64_t engine_counter(const struct engine *engine, unsigned counter);
