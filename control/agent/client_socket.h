/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.sock: the listener, its clients and their packets. It knows limits, time-outs and
 * descriptors, and nothing of users: whole requests go to the agent, which answers with
 * client_send(). docs/client-socket.md is the protocol.
 *
 * Nobody is waited for: a client that does not read is cut off. No call here frees a client that
 * the caller still holds: a cut-off client is closed from the event loop.
 *
 * Owner: the agent. Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "common/config/config.h"
#include "control/agent/request.h"

struct event_base;
struct client_socket;
struct holder;

/* The agent's view of a client: what it has, and which answer of the engine it waits for. */
enum client_state {
	CLIENT_NEW,	/* nothing asked for, or refused: may ask again */
	CLIENT_WAITING, /* `op` says for what */
	CLIENT_SUBSCRIBER,
	CLIENT_PUBLISHER,
	CLIENT_ENDED, /* told so; is being closed */
};

struct client {
	uint64_t ref;	   /* number in messages; never used twice */
	uint32_t uid, pid; /* of the peer when it connected */

	/* the agent's */
	enum client_state state;
	enum request_op op;	       /* asked of the engine, not yet answered; 0: none */
	unsigned family;	       /* asked for; 0: any */
	struct message_address bypass; /* REQUEST_BYPASS: where it receives */
	struct holder *holder;	       /* what it has or, waiting for an attach, claims */
	int descriptor;		       /* made for it, to be passed on; -1 */
};

struct client_socket_ops {
	/* A checked request. descriptor: received with it, or -1; the callee closes it. */
	void (*on_request)(void *arg, struct client *client, const struct client_request *request,
			   int descriptor);
	/* The client has gone, or is being closed; it is freed after this call. */
	void (*on_gone)(void *arg, struct client *client);
};

/* Opens the socket (0666); who connects waits. -errno, and `why` says what to do. */
int client_socket_open(struct client_socket **out, struct event_base *base,
		       const struct fan_config *config, const struct client_socket_ops *ops,
		       void *arg, char why[1024]);
/* From here on clients are served. */
void client_socket_accept(struct client_socket *clients);
/* Closes every client, without on_gone: what they have goes on, as in a crash. */
void client_socket_close(struct client_socket *clients);
/* NULL: it has gone. */
struct client *client_find(struct client_socket *clients, uint64_t ref);
uint32_t client_cnt(const struct client_socket *clients);

/* Sends one packet, and a descriptor with it (-1: none; stays the caller's). Consumes `packet`. */
void client_send(struct client *client, json_t *packet, int descriptor);
/* {"ok":false,...}; `op` 0: not named. */
void client_refuse(struct client *client, enum request_op op, enum message_error error,
		   const char *reason);
/* It has what it came for: the time-out of half-open clients no longer runs. */
void client_complete(struct client *client);
/* Closes it, soon: what was sent before still arrives. */
void client_end(struct client *client);
