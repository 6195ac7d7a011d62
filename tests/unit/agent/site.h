/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An agent for one test: the real one, with the real kernel parts in namespaces of the test
 * process, an engine played by the test at the other end of the link, and peers that speak raw
 * packets on client.sock. All of it runs in one thread: waiting turns the agent's event loop.
 * Needs root and a real kernel.
 */
#pragma once

#include <jansson.h>

#include "control/agent/agent.h"
#include "control/link.h"
#include "tests/unit/bpf/host.h"

#define SITE_REGISTRATIONS 1024

/* What the played engine knows. Tokens are "user:NAME"; others are refused. */
struct site_registration {
	uint64_t id, ref, cookie;
	struct message_address address;
	char user[64];
	bool bound;
};

struct site {
	struct host host;
	struct event_base *base;
	struct link *link;
	struct agent *agent;
	struct site_registration registrations[SITE_REGISTRATIONS];
	uint64_t next_id;
	bool mute;	   /* the engine takes requests and does not answer */
	unsigned got[128]; /* messages by type */
	struct message last[128];
};

void site_init(struct site *site, uint16_t port_first, uint16_t port_last);
void site_start(struct site *site); /* the agent; the engine tells it what it knows */
void site_stop(struct site *site);  /* the agent only, as a crash would: nothing ends */
void site_fini(struct site *site);

/* Turns the event loop for that long, or until *counter has reached `least`. */
void site_run(struct site *site, unsigned ms);
bool site_wait(struct site *site, const unsigned *counter, unsigned least, unsigned ms);
struct agent_status site_status(struct site *site);
struct site_registration *site_find(struct site *site, uint64_t id);
void site_end(struct site *site, uint64_t id, enum message_end end);
/* Nothing reaches the address of this BOUND any more; ref 0: of this HOLD. */
void site_reusable(struct site *site, uint64_t id, uint64_t bound_ref);

int peer_connect(struct site *site);
/* Connects without the loop; for a descriptor that was made beforehand. */
void peer_connect_to(int fd);
/* Sends one packet, with `cnt` descriptors. 0 or -errno. */
int peer_send(int fd, const void *bytes, size_t len, const int *descriptors, unsigned cnt);
int peer_say(int fd, const char *text, int descriptor);
/*
 * The next packet, or NULL at the end of the connection. *descriptor (may be NULL: none is
 * expected): -1 or the one that came. No packet within 2 s fails the test.
 */
json_t *peer_hear(struct site *site, int fd, int *descriptor);
/* Hears an error of this name. */
void peer_hear_error(struct site *site, int fd, const char *name);
void peer_hear_end(struct site *site, int fd);
/* Says and hears a whole subscription of "user:NAME". Returns its id. */
uint64_t peer_subscribe(struct site *site, int fd, const char *user, int *descriptor);
uint64_t json_id(const json_t *packet, const char *field);
const char *json_text(const json_t *packet, const char *field);

unsigned descriptors_open(void); /* of this process */
