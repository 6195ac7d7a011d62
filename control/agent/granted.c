/* SPDX-License-Identifier: BSD-3-Clause */
/* What a subscriber is told of its grant: address, keys, where its streams stand; and new keys. */
#include <sodium.h>
#include <string.h>

#include "common/log.h"
#include "control/agent/state.h"

static json_t *keys_tell(const struct message_keys *keys)
{
	json_t *list = json_array();
	char hex[2 * FAN_KEY_LEN + 1];

	for (unsigned i = 0; i < keys->cnt && i < 2; i++) {
		fan_hex(hex, keys->key[i].key, FAN_KEY_LEN);
		json_array_append_new(list, json_pack("{s:i,s:s}", "generation",
						      (int)keys->key[i].generation, "key", hex));
	}
	sodium_memzero(hex, sizeof(hex));
	return list;
}

static json_t *tails_tell(const struct message_tails *tails)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < tails->cnt && i < MESSAGE_TAILS_MAX; i++) {
		const struct message_tail *tail = &tails->tail[i];
		char channel[17], epoch[17];

		fan_id_format(channel, tail->channel);
		fan_id_format(epoch, tail->epoch);
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:I}", "channel", channel, "epoch", epoch,
						"sequence", (json_int_t)tail->sequence));
	}
	return list;
}

void subscriber_tails_add(json_t *packet, const struct message_tails *tails)
{
	if (!packet)
		return;
	json_object_set_new(packet, "tails", tails_tell(tails));
	json_object_set_new(packet, "time_ns", json_integer((json_int_t)tails->time_ns));
}

static void keys_add(json_t *packet, const struct message_keys *keys)
{
	char replay_key[2 * FAN_TAG_KEY_LEN + 1];

	fan_hex(replay_key, keys->replay_key, FAN_TAG_KEY_LEN);
	json_object_set_new(packet, "seal", json_boolean(keys->seal));
	json_object_set_new(packet, "keys", keys_tell(keys));
	json_object_set_new(packet, "replay_key", json_string(replay_key));
	sodium_memzero(replay_key, sizeof(replay_key));
}

json_t *subscriber_granted(const struct agent *agent, const struct message *message,
			   const struct fan_address *address, uint16_t port, const char *state)
{
	char id[17], text[46], engine[46];
	const struct fan_address *from = agent_engine_address(agent, address->family);

	fan_id_format(id, message->id);
	fan_address_format(text, address->bytes, address->family);
	fan_address_format(engine, from->bytes, from->family);
	json_t *packet =
		json_pack("{s:b,s:s,s:s,s:s,s:i,s:I,s:s,s:i,s:i,s:s}", "ok", 1, "connection", id,
			  "user", message->u.grant.user, "address", text, "port", (int)port,
			  "lease_seconds", (json_int_t)message->u.grant.lease_s, "engine_address",
			  engine, "engine_port", (int)agent->config->engine_port, "payload_limit",
			  (int)agent->config->payload_limit, "state", state);
	/* The registry gives it when the registration is recorded, which may be still to come. */
	if (packet && message->u.grant.generation)
		json_object_set_new(packet, "generation",
				    json_integer(message->u.grant.generation));
	if (packet)
		keys_add(packet, &message->u.grant.keys);
	return packet;
}

void subscriber_scope_refresh(struct agent *agent, const struct holder *holder,
			      const struct message_scope *told)
{
	struct scope scope;

	if (holder_bypasses(holder))
		return;
	scope_fill(&scope, told, holder->id);
	if (scope_set(agent->maps, holder->cookie, &scope))
		fan_log(FAN_LOG_WARNING, "agent", "cannot refresh the scope of connection %016llx",
			(unsigned long long)holder->id);
	sodium_memzero(&scope, sizeof(scope));
}

void subscriber_on_keys(struct agent *agent, const struct message *message)
{
	struct holder *holder = holders_find(agent->connections, message->id);
	json_t *packet;
	char id[17];

	if (!holder)
		return; /* its socket was not made, or it ended meanwhile */
	subscriber_scope_refresh(agent, holder, &message->u.grant.scope);
	if (!holder->client)
		return; /* told when it is back */
	fan_id_format(id, message->id);
	packet = json_pack("{s:s,s:s,s:o}", "event", "keys", "connection", id, "keys",
			   keys_tell(&message->u.grant.keys));
	if (packet && holder_bypasses(holder))
		json_object_set_new(packet, "scope", bypass_scope(&message->u.grant.scope));
	client_send(holder->client, packet, -1);
}
