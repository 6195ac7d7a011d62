/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receivers that bypass the kernel: no socket, no filter, no port of the pool. The client names its
 * place, the engine judges it, and the client gets what a filter would have got: the keys of its
 * own user's tags.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "control/agent/state.h"

void bypass_subscribe(struct agent *agent, struct client *client,
		      const struct client_request *request)
{
	if (!agent_engine_address(agent, request->address.family)) {
		client_refuse(client, 0, MESSAGE_ERROR_BAD_REQUEST,
			      "the engine has no address of that family");
		return;
	}
	client->family = request->address.family;
	client->bypass = request->address;
	client->state = CLIENT_WAITING;
	subscriber_ask(agent, client, MESSAGE_REGISTER, request, request->connection);
}

json_t *bypass_scope(const struct message_scope *scope)
{
	char key[2 * FAN_TAG_KEY_LEN + 1], previous[2 * FAN_TAG_KEY_LEN + 1];
	json_t *told;

	fan_hex(key, scope->tag_key, sizeof(scope->tag_key));
	fan_hex(previous, scope->previous_tag_key, sizeof(scope->previous_tag_key));
	told = json_pack("{s:I,s:i,s:s,s:i,s:s}", "user_generation",
			 (json_int_t)scope->user_generation, "key_generation",
			 (int)scope->key_generation, "tag_key", key, "previous_key_generation",
			 (int)scope->previous_key_generation, "previous_tag_key", previous);
	sodium_memzero(key, sizeof(key));
	sodium_memzero(previous, sizeof(previous));
	return told;
}

void bypass_on_grant(struct agent *agent, struct client *client, const struct message *message)
{
	struct message bound = {.type = MESSAGE_BOUND, .ref = client->ref, .id = message->id};
	struct holder *holder = subscriber_holder_renew(agent, message);
	struct fan_address address = {.family = client->bypass.family};
	json_t *answer;

	holder->cookie = BYPASS_COOKIE | message->id;
	holder->port_idx = PORT_NONE;
	subscriber_hold(client, holder);
	bound.u.bound.address = client->bypass;
	bound.u.bound.cookie = holder->cookie;
	link_to_engine(agent->link, &bound);
	memcpy(address.bytes, client->bypass.bytes, sizeof(address.bytes));
	answer = subscriber_granted(agent, message, &address, client->bypass.port, "pending");
	json_object_set_new(answer, "scope", bypass_scope(&message->u.grant.scope));
	client_send(client, answer, -1);
}
