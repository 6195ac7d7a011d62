/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the agent's files share: its state, and the two flows (subscriber.c, publisher.c) that
 * agent.c hands requests of clients and messages of the engine to. Event-loop thread only.
 */
#pragma once

#include "common/config/config.h"
#include "control/agent/agent.h"
#include "control/agent/client_socket.h"
#include "control/agent/holders.h"
#include "control/agent/ports.h"
#include "control/agent/rest_log.h"
#include "control/agent/scope/scope_maps.h"
#include "control/agent/scope/scoped_socket.h"
#include "control/link.h"

struct event;

struct agent {
	const struct fan_config *config;
	struct link *link;
	struct scope_maps *maps;
	struct ports *ports;
	struct rest_log *rest_log; /* of `ports`, for the next start */
	struct client_socket *clients;
	struct holders *connections, *sessions;
	struct event *tick;	  /* each second */
	struct event *look;	  /* each 100 ms, at ports */
	struct event *sweep;	  /* once, reattach_s after HELLO */
	struct scope_walls walls; /* as last looked at */
	bool wall_failed;	  /* what the engine was last told */
};

uint64_t agent_now_ns(void);
/* Looks at the walls afresh: some 75 system calls. true: one has failed; `why` names it. */
bool agent_wall_failed(struct agent *agent, char why[MESSAGE_REASON_MAX]);
/* By the last look, which is at most a second old. */
bool agent_wall_known_failed(const struct agent *agent, char why[MESSAGE_REASON_MAX]);
/* The engine's address of this family, or NULL. */
const struct fan_address *agent_engine_address(const struct agent *agent, unsigned family);
/*
 * The first family of the pool that the engine reaches too, for a client that asked for `wanted`
 * (0: any), but not `tried` (0: none). 0: there is none.
 */
unsigned agent_family(const struct agent *agent, unsigned wanted, unsigned tried);
/* Hands the client an error and lets it ask again. */
void agent_refuse(struct client *client, enum message_error error, const char *reason);

/* ---- subscriber.c ---- */
void subscriber_subscribe(struct agent *agent, struct client *client,
			  const struct client_request *request);
void subscriber_renew(struct agent *agent, struct client *client,
		      const struct client_request *request);
void subscriber_attach(struct agent *agent, struct client *client,
		       const struct client_request *request, int descriptor);
void subscriber_gone(struct agent *agent, struct client *client);
void subscriber_on_hold(struct agent *agent, const struct message *message);
void subscriber_on_grant(struct agent *agent, const struct message *message);
void subscriber_on_active(struct agent *agent, const struct message *message);
void subscriber_on_attached(struct agent *agent, const struct message *message);
/* The engine's REFUSE of a claim: another client may claim this connection from now on. */
void subscriber_on_refused(struct agent *agent, const struct message *message);
void subscriber_on_renewed(struct agent *agent, const struct message *message);
void subscriber_on_keys(struct agent *agent, const struct message *message);
void subscriber_on_ended(struct agent *agent, const struct message *message);
void subscriber_on_reusable(struct agent *agent, const struct message *message);
/* Deletes the scopes that no registration owns. */
void subscriber_sweep(struct agent *agent);

/* Asks the engine on the client's behalf. */
void subscriber_ask(struct agent *agent, struct client *client, enum message_type type,
		    const struct client_request *request, uint64_t id);
/* A holder of the granted connection, of its user; one of the same id ends. Cookie and port are the
 * caller's to set. */
struct holder *subscriber_holder_renew(struct agent *agent, const struct message *grant);
/* The client has it from here on. */
void subscriber_hold(struct client *client, struct holder *holder);

/* ---- granted.c ---- */
json_t *subscriber_granted(const struct agent *agent, const struct message *message,
			   const struct fan_address *address, uint16_t port, const char *state);
void subscriber_tails_add(json_t *packet, const struct message_tails *tails);
/* These keys in place of those before, in the scope of a connection that has one. */
void subscriber_scope_refresh(struct agent *agent, const struct holder *holder,
			      const struct message_scope *told);

/* ---- bypass.c ---- */
/* In place of a socket's cookie, which is a small number: this never is one. */
#define BYPASS_COOKIE (UINT64_C(1) << 63)
static inline bool holder_bypasses(const struct holder *holder)
{
	return holder->cookie & BYPASS_COOKIE;
}
void bypass_subscribe(struct agent *agent, struct client *client,
		      const struct client_request *request);
void bypass_on_grant(struct agent *agent, struct client *client, const struct message *message);
json_t *bypass_scope(const struct message_scope *scope);

/* ---- publisher.c ---- */
void publisher_open(struct agent *agent, struct client *client,
		    const struct client_request *request);
void publisher_attach(struct agent *agent, struct client *client,
		      const struct client_request *request, int descriptor);
void publisher_gone(struct agent *agent, struct client *client);
void publisher_on_grant(struct agent *agent, const struct message *message);
void publisher_on_attached(struct agent *agent, const struct message *message);
void publisher_on_ended(struct agent *agent, const struct message *message);
