/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Subscriptions: subscribe, attach, renew, and every way they end. A holder in agent->connections
 * owns a scope in the kernel and a port of the pool; all three come and go together.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/agent/pool.h"
#include "control/agent/state.h"

void subscriber_ask(struct agent *agent, struct client *client, enum message_type type,
		    const struct client_request *request, uint64_t id)
{
	struct message message = {.type = type, .ref = client->ref, .id = id};

	memcpy(message.u.client.token, request->token, sizeof(message.u.client.token));
	memcpy(message.u.client.threads, request->threads,
	       request->thread_cnt * sizeof(request->threads[0]));
	message.u.client.thread_cnt = request->thread_cnt;
	message.u.client.single = request->single;
	message.u.client.address = request->address;
	message.u.client.uid = client->uid;
	message.u.client.pid = client->pid;
	client->op = request->op;
	link_to_engine(agent->link, &message);
}

static void send_end(struct agent *agent, uint64_t id, uint64_t ref, enum message_end end,
		     const char *reason)
{
	struct message message = {.type = MESSAGE_END, .id = id, .ref = ref, .end = end};

	snprintf(message.reason, sizeof(message.reason), "%s", reason);
	link_to_engine(agent->link, &message);
}

/* The client that waits for the engine's word on its claim to this connection. */
static struct client *claimant(struct agent *agent, const struct holder *holder)
{
	struct client *client = client_find(agent->clients, holder->attaching);

	return client && client->op == REQUEST_ATTACH && client->holder == holder ? client : NULL;
}

/*
 * What a port is taken and freed under: the ref of its BOUND, or, where it was held at the start,
 * its connection's id under a mark that no ref reaches.
 */
#define OWNER_HELD (UINT64_C(1) << 63)

static uint64_t port_owner(const struct message *message)
{
	return message->ref ? message->ref : message->id | OWNER_HELD;
}

/* From here on the socket is nobody's: it receives nothing, and its port rests. */
static void end_holder(struct agent *agent, struct holder *holder)
{
	int err = fan_planted(PLANT_SCOPE_OUTLIVES_REVOCATION)
			  ? 0
			  : scope_del(agent->maps, holder->cookie);
	struct client *waiting = claimant(agent, holder);
	uint64_t now_ns = agent_now_ns();

	if (err && err != -ENOENT)
		fan_log(FAN_LOG_ERROR, "agent", "cannot delete the scope of connection %016llx: %s",
			(unsigned long long)holder->id, strerror(-err));
	if (holder->port_idx != PORT_NONE) {
		rest_log_add(agent->rest_log, holder->port_idx, holder->handle, now_ns);
		ports_release(agent->ports, holder->port_idx, true, now_ns);
	}
	if (holder->client)
		holder->client->holder = NULL;
	if (waiting)
		waiting->holder = NULL;
	holders_del(holder);
}

void subscriber_hold(struct client *client, struct holder *holder)
{
	holder->client = client;
	client->holder = holder;
	client->state = CLIENT_SUBSCRIBER;
	client->op = 0;
	client_complete(client);
}

/* ---- subscribe ---- */

void subscriber_subscribe(struct agent *agent, struct client *client,
			  const struct client_request *request)
{
	if (!agent_family(agent, request->family, 0)) {
		client_refuse(client, 0, MESSAGE_ERROR_NO_PORT,
			      "this host has no receiver address of that family that the engine "
			      "reaches; leave \"family\" out");
		return;
	}
	client->family = request->family;
	client->state = CLIENT_WAITING;
	subscriber_ask(agent, client, MESSAGE_REGISTER, request, request->connection);
}

static void send_bound(struct agent *agent, struct client *client, uint64_t id,
		       const struct pool_socket *made)
{
	struct message message = {.type = MESSAGE_BOUND, .ref = client->ref, .id = id};

	memcpy(message.u.bound.address.bytes, made->port.address.bytes, 16);
	message.u.bound.address.family = made->port.address.family;
	message.u.bound.address.port = made->port.port;
	message.u.bound.cookie = made->socket.cookie;
	link_to_engine(agent->link, &message);
}

struct holder *subscriber_holder_renew(struct agent *agent, const struct message *grant)
{
	struct holder *holder = holders_find(agent->connections, grant->id);

	if (holder)
		end_holder(agent, holder);
	holder = holders_add(agent->connections, grant->id);
	memcpy(holder->handle, grant->u.grant.scope.handle, sizeof(holder->handle));
	return holder;
}

void subscriber_on_grant(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);
	struct holder *holder;
	char why[256] = "";
	struct pool_socket made;
	enum message_error error;

	if (client && client->op == REQUEST_BYPASS) {
		bypass_on_grant(agent, client, message);
		return;
	}
	if (!client || client->op != REQUEST_SUBSCRIBE) {
		send_end(agent, message->id, message->ref, MESSAGE_END_CLOSED,
			 "the subscriber left before its socket was made");
		return;
	}
	error = pool_open(agent, client->family, message, port_owner(message), &made, why);
	if (error) {
		send_end(agent, message->id, message->ref, MESSAGE_END_SOCKET, why);
		agent_refuse(client, error, why);
		return;
	}
	holder = subscriber_holder_renew(agent, message);
	holder->cookie = made.socket.cookie;
	holder->port_idx = made.port.idx;
	rest_log_del(agent->rest_log, made.port.idx);
	subscriber_hold(client, holder);
	send_bound(agent, client, message->id, &made);
	client_send(
		client,
		subscriber_granted(agent, message, &made.port.address, made.port.port, "pending"),
		made.socket.fd);
	close(made.socket.fd);
}

void subscriber_on_active(struct agent *agent, const struct message *message)
{
	struct holder *holder = holders_find(agent->connections, message->id);
	json_t *packet;
	char id[17];

	if (!holder || !holder->client)
		return;
	fan_id_format(id, message->id);
	packet = json_pack("{s:s,s:s}", "event", "active", "connection", id);
	subscriber_tails_add(packet, &message->u.active.tails);
	client_send(holder->client, packet, -1);
}

/* ---- attach ---- */

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? -1 : value;
}

/* Whether the descriptor is the very socket of this connection: its cookie's scope says so. */
static enum message_error check_descriptor(struct agent *agent, int fd, uint64_t id,
					   uint64_t *cookie, struct scope *scope, const char **why)
{
	int domain = option(fd, SO_DOMAIN);

	*why = "the descriptor is not a scoped UDP socket; send the one that subscribe gave";
	if ((domain != AF_INET && domain != AF_INET6) || option(fd, SO_TYPE) != SOCK_DGRAM ||
	    option(fd, SO_PROTOCOL) != IPPROTO_UDP || socket_cookie(fd, cookie))
		return MESSAGE_ERROR_BAD_REQUEST;
	if (scope_get(agent->maps, *cookie, scope)) {
		*why = "the descriptor's socket has no scope (any more): the registration has "
		       "ended; subscribe again";
		return MESSAGE_ERROR_CONNECTION_UNKNOWN;
	}
	if (scope->connection != id) {
		*why = "the descriptor is the socket of another connection";
		return MESSAGE_ERROR_BAD_REQUEST;
	}
	return MESSAGE_ERROR_NONE;
}

void subscriber_attach(struct agent *agent, struct client *client,
		       const struct client_request *request, int descriptor)
{
	struct holder *holder = holders_find(agent->connections, request->connection);
	struct message message = {.type = MESSAGE_ATTACH, .ref = client->ref};
	enum message_error error;
	struct scope scope;
	const char *why;
	uint64_t cookie;

	error = check_descriptor(agent, descriptor, request->connection, &cookie, &scope, &why);
	if (!error && (!holder || holder->cookie != cookie)) {
		error = MESSAGE_ERROR_CONNECTION_UNKNOWN;
		why = "no such registration (any more); subscribe again";
	} else if (!error && (holder->client || holder->attaching)) {
		error = MESSAGE_ERROR_BUSY;
		why = "another client holds this connection; close that one first";
	}
	if (error) {
		client_refuse(client, 0, error, why);
		return;
	}
	message.id = request->connection;
	memcpy(message.u.client.token, request->token, sizeof(message.u.client.token));
	message.u.client.cookie = cookie;
	memcpy(message.u.client.handle, scope.handle, sizeof(message.u.client.handle));
	message.u.client.uid = client->uid;
	message.u.client.pid = client->pid;
	holder->attaching = client->ref;
	client->holder = holder;
	client->op = REQUEST_ATTACH;
	client->state = CLIENT_WAITING;
	link_to_engine(agent->link, &message);
}

void subscriber_on_refused(struct agent *agent, const struct message *message)
{
	struct holder *holder = holders_find(agent->connections, message->id);

	if (holder && holder->attaching == message->ref)
		holder->attaching = 0;
}

static void send_detach(struct agent *agent, const struct message *attached)
{
	struct message message = {.type = MESSAGE_DETACH, .id = attached->id, .ref = attached->ref};

	link_to_engine(agent->link, &message);
}

void subscriber_on_attached(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);
	struct holder *holder = holders_find(agent->connections, message->id);
	const struct message_address *from = &message->u.grant.address;
	struct fan_address address = {.family = from->family};
	json_t *answer;

	if (!holder || holder->attaching != message->ref)
		return; /* ended meanwhile; whoever asked was told */
	holder->attaching = 0;
	if (!client) { /* it gave up, and will come again: nothing ends by that */
		send_detach(agent, message);
		return;
	}
	memcpy(address.bytes, from->bytes, sizeof(address.bytes));
	/* Keys may have changed while fanwired was down. */
	subscriber_scope_refresh(agent, holder, &message->u.grant.scope);
	subscriber_hold(client, holder);
	answer = subscriber_granted(agent, message, &address, from->port, "active");
	subscriber_tails_add(answer, &message->u.grant.tails);
	client_send(client, answer, -1);
}

/* ---- renew ---- */

void subscriber_renew(struct agent *agent, struct client *client,
		      const struct client_request *request)
{
	subscriber_ask(agent, client, MESSAGE_RENEW, request, client->holder->id);
}

void subscriber_on_renewed(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);
	json_t *packet;

	if (!client || client->op != REQUEST_RENEW)
		return;
	client->op = 0;
	packet = json_pack("{s:b,s:s,s:I}", "ok", 1, "op", "renew", "lease_seconds",
			   (json_int_t)message->u.grant.lease_s);
	subscriber_tails_add(packet, &message->u.grant.tails);
	client_send(client, packet, -1);
}

/* ---- end ---- */

void subscriber_gone(struct agent *agent, struct client *client)
{
	uint64_t id = client->holder->id;

	if (fan_planted(PLANT_DEATH_IGNORED)) { /* as if it were still to come back */
		client->holder->client = NULL;
		return;
	}
	end_holder(agent, client->holder);
	send_end(agent, id, client->ref, MESSAGE_END_CLOSED,
		 "the subscriber closed its connection or died");
}

void subscriber_on_ended(struct agent *agent, const struct message *message)
{
	struct holder *holder = holders_find(agent->connections, message->id);
	struct client *client = holder ? holder->client : NULL;
	char id[17];

	if (!holder)
		return; /* our own END, confirmed */
	if (!client)
		client = claimant(agent, holder);
	end_holder(agent, holder);
	if (!client)
		return;
	fan_id_format(id, message->id);
	client->state = CLIENT_ENDED;
	client->op = 0;
	client_send(client,
		    json_pack("{s:s,s:s,s:s,s:s}", "event", "ended", "connection", id, "reason",
			      message_end_name(message->end), "message", message->reason),
		    -1);
	client_end(client);
}

void subscriber_on_reusable(struct agent *agent, const struct message *message)
{
	ports_reusable(agent->ports, port_owner(message));
}

/* ---- after a restart ---- */

void subscriber_on_hold(struct agent *agent, const struct message *message)
{
	const struct message_address *bound = &message->u.bound.address;
	struct fan_address address = {.family = bound->family};
	struct holder *holder;
	struct port port;

	if (holders_find(agent->connections, message->id))
		return;
	memcpy(address.bytes, bound->bytes, sizeof(address.bytes));
	holder = holders_add(agent->connections, message->id);
	holder->cookie = message->u.bound.cookie;
	memcpy(holder->handle, message->u.bound.handle, sizeof(holder->handle));
	if (!ports_hold(agent->ports, &address, bound->port, message->u.bound.handle,
			port_owner(message), &port))
		holder->port_idx = port.idx;
	if (message->end)
		end_holder(agent, holder);
}

static void sweep_scope(void *arg, uint64_t cookie, const struct scope *scope)
{
	struct agent *agent = arg;
	struct holder *holder = holders_find(agent->connections, scope->connection);

	if (!holder || holder->cookie != cookie)
		scope_del(agent->maps, cookie);
}

void subscriber_sweep(struct agent *agent)
{
	int cnt = scope_each(agent->maps, sweep_scope, agent);

	if (cnt < 0)
		fan_log(FAN_LOG_WARNING, "agent", "cannot sweep stale scopes: %s", strerror(-cnt));
}
