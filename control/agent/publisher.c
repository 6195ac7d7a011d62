/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publisher sessions: a plain socket in the receivers' namespace, whose address the engine ties the
 * session to, and the session key.
 */
#include <netinet/in.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/agent/state.h"

static void ask_engine(struct agent *agent, struct client *client, enum message_type type,
		       const struct client_request *request, const struct fan_address *address,
		       uint16_t port)
{
	struct message message = {.type = type, .ref = client->ref, .id = request->session};

	memcpy(message.u.session_open.name, request->name, sizeof(request->name));
	memcpy(message.u.session_open.secret, request->secret, sizeof(request->secret));
	memcpy(message.u.session_open.token, request->token, sizeof(request->token));
	memcpy(message.u.session_open.address.bytes, address->bytes, sizeof(address->bytes));
	message.u.session_open.address.family = address->family;
	message.u.session_open.address.port = port;
	message.u.session_open.uid = client->uid;
	client->family = address->family;
	client->op = request->op;
	client->state = CLIENT_WAITING;
	link_to_engine(agent->link, &message);
	sodium_memzero(&message, sizeof(message));
}

static const struct fan_address *receiver_address(const struct agent *agent, unsigned family)
{
	for (unsigned i = 0; i < agent->config->receiver_address_cnt; i++)
		if (agent->config->receiver_address[i].family == family)
			return &agent->config->receiver_address[i];
	return NULL;
}

static void send_end(struct agent *agent, uint64_t id, uint64_t ref)
{
	struct message message = {
		.type = MESSAGE_SESSION_END, .id = id, .ref = ref, .end = MESSAGE_END_CLOSED};

	link_to_engine(agent->link, &message);
}

/* The claimant gave up, and will come again: nothing ends by that. */
static void send_detach(struct agent *agent, uint64_t id, uint64_t ref)
{
	struct message message = {.type = MESSAGE_SESSION_DETACH, .id = id, .ref = ref};

	link_to_engine(agent->link, &message);
}

static void hold(struct agent *agent, struct client *client, uint64_t id)
{
	struct holder *holder = holders_find(agent->sessions, id);

	if (!holder)
		holder = holders_add(agent->sessions, id);
	holder->client = client;
	client->holder = holder;
	client->state = CLIENT_PUBLISHER;
	client->op = 0;
	client_complete(client);
}

/* ---- open ---- */

void publisher_open(struct agent *agent, struct client *client,
		    const struct client_request *request)
{
	const struct fan_address *address =
		receiver_address(agent, agent_family(agent, request->family, 0));
	char why[256];
	uint16_t port;

	if (!address) {
		client_refuse(client, 0, MESSAGE_ERROR_NO_PORT,
			      "this host has no receiver address of that family that the engine "
			      "reaches; leave \"family\" out");
		return;
	}
	if (plain_socket_open(agent->maps, address, &client->descriptor, &port, why)) {
		client->descriptor = -1;
		client_refuse(client, 0, MESSAGE_ERROR_SOCKET, why);
		return;
	}
	ask_engine(agent, client, MESSAGE_SESSION_OPEN, request, address, port);
}

static json_t *granted(const struct agent *agent, const struct client *client,
		       const struct message *message)
{
	const struct fan_address *from = agent_engine_address(agent, client->family);
	char id[17], key[2 * FAN_KEY_LEN + 1], engine[46];
	json_t *packet;

	fan_id_format(id, message->id);
	fan_hex(key, message->u.session.key, FAN_KEY_LEN);
	fan_address_format(engine, from->bytes, from->family);
	packet = json_pack("{s:b,s:s,s:s,s:s?,s:s,s:i,s:i}", "ok", 1, "session", id, "key", key,
			   "user", message->u.session.one_user ? message->u.session.user : NULL,
			   "engine_address", engine, "engine_port", (int)agent->config->engine_port,
			   "payload_limit", (int)agent->config->payload_limit);
	sodium_memzero(key, sizeof(key));
	return packet;
}

void publisher_on_grant(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);

	if (!client || client->op != REQUEST_PUBLISH_OPEN) {
		send_end(agent, message->id, message->ref);
		return;
	}
	hold(agent, client, message->id);
	client_send(client, granted(agent, client, message), client->descriptor);
	close(client->descriptor);
	client->descriptor = -1;
}

/* ---- attach ---- */

/* A bound UDP socket that is no subscriber's; the engine compares the address with the session's.
 */
static bool is_publisher_socket(struct agent *agent, int fd, struct fan_address *address,
				uint16_t *port)
{
	int type = 0, protocol = 0;
	socklen_t type_len = sizeof(type), protocol_len = sizeof(protocol);
	struct scope scope;
	uint64_t cookie;

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) && type == SOCK_DGRAM &&
	       !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &protocol_len) &&
	       protocol == IPPROTO_UDP && !socket_address(fd, address, port) && *port &&
	       !socket_cookie(fd, &cookie) && scope_get(agent->maps, cookie, &scope) &&
	       agent_engine_address(agent, address->family);
}

void publisher_attach(struct agent *agent, struct client *client,
		      const struct client_request *request, int descriptor)
{
	struct holder *holder = holders_find(agent->sessions, request->session);
	struct fan_address address;
	uint16_t port;

	if (!is_publisher_socket(agent, descriptor, &address, &port)) {
		client_refuse(client, 0, MESSAGE_ERROR_BAD_REQUEST,
			      "the descriptor is not a publisher's UDP socket; send the one that "
			      "publish_open gave");
		return;
	}
	if (holder) {
		client_refuse(client, 0, MESSAGE_ERROR_BUSY,
			      "another client holds this session; close that one first");
		return;
	}
	ask_engine(agent, client, MESSAGE_SESSION_ATTACH, request, &address, port);
}

void publisher_on_attached(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);
	struct holder *holder = holders_find(agent->sessions, message->id);
	char id[17];

	if (!client || client->op != REQUEST_PUBLISH_ATTACH) {
		send_detach(agent, message->id, message->ref);
		return;
	}
	if (holder) { /* two asked at once; the first one has it */
		agent_refuse(client, MESSAGE_ERROR_BUSY, "another client holds this session");
		return;
	}
	hold(agent, client, message->id);
	fan_id_format(id, message->id);
	client_send(client, json_pack("{s:b,s:s}", "ok", 1, "session", id), -1);
}

/* ---- end ---- */

void publisher_gone(struct agent *agent, struct client *client)
{
	uint64_t id = client->holder->id;

	holders_del(client->holder);
	send_end(agent, id, client->ref);
}

void publisher_on_ended(struct agent *agent, const struct message *message)
{
	struct holder *holder = holders_find(agent->sessions, message->id);
	struct client *client = holder ? holder->client : NULL;
	char id[17];

	if (!holder)
		return; /* our own SESSION_END, confirmed */
	holders_del(holder);
	client->holder = NULL;
	client->state = CLIENT_ENDED;
	fan_id_format(id, message->id);
	client_send(client,
		    json_pack("{s:s,s:s,s:s,s:s}", "event", "ended", "session", id, "reason",
			      message_end_name(message->end), "message", message->reason),
		    -1);
	client_end(client);
}
