/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a bound socket to the table: record, challenge, activation. Nobody can aim the engine at a
 * third party, for an address that has not echoed stands in no group.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/nexthop.h"
#include "control/engine/registrations_private.h"
#include "control/link.h"
#include "control/registry/registry.h"

#define CHALLENGES_MAX 3 /* in total: an address that does not want us hears no more of us */
#define CHANNELS_MAX   (MESSAGE_THREADS_MAX + 1)

static bool is_vouched(const struct fan_config *config, const struct message_address *address)
{
	for (unsigned i = 0; i < config->vouched_cnt; i++) {
		const struct fan_address *prefix = &config->vouched[i].address;
		unsigned bits = config->vouched[i].prefix_len + (prefix->family == 4 ? 96u : 0u);
		unsigned whole = bits / 8, rest = bits % 8;

		if (prefix->family != address->family ||
		    memcmp(prefix->bytes, address->bytes, whole) != 0)
			continue;
		if (!rest || ((prefix->bytes[whole] ^ address->bytes[whole]) >> (8 - rest)) == 0)
			return true;
	}
	return false;
}

static int add_record(struct registrations *all, struct registration *r, struct moment now)
{
	const struct fan_connection *record;
	struct fan_connection spec = {.id = r->id,
				      .cookie = r->cookie,
				      .lease_ns = r->end_ns,
				      .token_expiry_s = r->token_expiry_s,
				      .since_s = now.unix_s,
				      .generation = r->generation,
				      .nexthop = r->nexthop,
				      .user_generation = r->user_generation,
				      .port = r->address.port,
				      .family = r->address.family};
	int err;

	memcpy(spec.handle, r->user->handle, FAN_HANDLE_LEN);
	memcpy(spec.address, r->address.bytes, sizeof(spec.address));
	err = registry_connection_add(all->engine->registry, &spec, &record);
	if (!err)
		r->generation = record->generation;
	return err;
}

static void end_unrecorded(struct registrations *all, struct registration *r, const char *why)
{
	char reason[MESSAGE_REASON_MAX];

	snprintf(reason, sizeof(reason), "the registration could not be made: %.200s", why);
	r->phase = REGISTRATION_BOUND;
	registrations_end(all, r, MESSAGE_END_ENGINE, r->uid, reason);
}

static void record_and_go_on(struct registrations *all, struct registration *r, struct moment now)
{
	int err = add_record(all, r, now);

	if (err == -EEXIST) { /* the id's last record rests a grace period: look again soon */
		r->phase = REGISTRATION_BOUND;
		registrations_set_due(all, r, now.mono_ns + ENGINE_NS_PER_S / 100);
		return;
	}
	if (err) {
		end_unrecorded(all, r, registry_why(all->engine->registry));
		return;
	}
	r->phase = REGISTRATION_CHALLENGED;
	if (is_vouched(all->engine->config, &r->address))
		challenge_activate(all, r, now);
	else
		challenge_continue(all, r, now);
}

void challenge_on_bound(struct registrations *all, const struct message *message, struct moment now)
{
	struct registration *r = registrations_find(all, message->id);
	char why[MESSAGE_REASON_MAX];

	if (!r || r->ref != message->ref || r->phase != REGISTRATION_GRANTED) {
		registrations_rest_port(all, message->id); /* it ended meanwhile, and was told so */
		return;
	}
	r->address = message->u.bound.address;
	r->cookie = message->u.bound.cookie;
	if (nexthops_get(all->engine->nexthops, &r->address, &r->nexthop, why))
		end_unrecorded(all, r, why);
	else
		record_and_go_on(all, r, now);
}

/* Sends a challenge where the next hop is known; true when it is under way. */
static bool send_challenge(struct registrations *all, struct registration *r)
{
	struct fan_request request = {.type = FAN_REQUEST_CHALLENGE,
				      .nexthop = r->nexthop,
				      .connection = r->id,
				      .port = r->address.port,
				      .family = r->address.family};
	struct message_scope scope;

	if (!nexthops_resolved(all->engine->nexthops, r->nexthop) ||
	    !registry_dataplane_alive(all->engine->registry))
		return false;
	while (!r->salt)
		randombytes_buf(&r->salt, sizeof(r->salt));
	registration_scope(all, r->user, &scope);
	request.salt = r->salt;
	request.user_generation = scope.user_generation;
	request.key_generation = scope.key_generation;
	memcpy(request.handle, scope.handle, sizeof(request.handle));
	memcpy(request.address, r->address.bytes, sizeof(request.address));
	memcpy(request.tag_key, scope.tag_key, sizeof(request.tag_key));
	return registry_request(all->engine->registry, &request);
}

void challenge_continue(struct registrations *all, struct registration *r, struct moment now)
{
	uint64_t timeout_ns = all->engine->config->challenge_timeout_s * ENGINE_NS_PER_S;
	uint64_t wait_ns = ENGINE_NS_PER_S / 50;

	if (r->phase == REGISTRATION_BOUND) {
		record_and_go_on(all, r, now);
		return;
	}
	if (r->challenges < CHALLENGES_MAX && send_challenge(all, r))
		r->challenges++;
	if (r->challenges == CHALLENGES_MAX)
		wait_ns = timeout_ns;
	else if (r->challenges) /* after a sixteenth of the time, then after a quarter */
		wait_ns = r->challenges == 1 ? timeout_ns / 16 : timeout_ns / 4;
	wait_ns += now.mono_ns;
	registrations_set_due(all, r, wait_ns < r->end_ns ? wait_ns : r->end_ns);
}

static void audit_register(struct registrations *all, const struct registration *r)
{
	char source[64], address[46];
	struct audit_record record = {.event = "register",
				      .user = r->user->name,
				      .connection = r->id,
				      .uid = r->uid,
				      .source = source};

	fan_address_format(address, r->address.bytes, r->address.family);
	snprintf(source, sizeof(source), r->address.family == 6 ? "[%s]:%u" : "%s:%u", address,
		 r->address.port);
	audit_add(all->engine->audit, &record);
}

void challenge_activate(struct registrations *all, struct registration *r, struct moment now)
{
	struct message active = {.type = MESSAGE_ACTIVE, .ref = r->ref, .id = r->id};
	uint64_t channels[CHANNELS_MAX];
	struct registry_user_keys keys;
	struct message_scope scope;
	char reason[MESSAGE_REASON_MAX];
	int err;

	registration_scope(all, r->user, &scope);
	keys = (struct registry_user_keys){.user_generation = scope.user_generation,
					   .key_generation = scope.key_generation};
	memcpy(keys.tag_key, scope.tag_key, sizeof(keys.tag_key));
	for (unsigned i = 0; i < r->channel_cnt; i++)
		channels[i] = r->channels[i].channel;
	r->end_ns = registration_lease_ns(all, r->token_expiry_s, now);
	registry_connection_renew(all->engine->registry, r->id, r->end_ns, r->token_expiry_s);
	err = registry_connection_activate(all->engine->registry, r->id, &keys, channels,
					   r->channel_cnt);
	if (err) {
		snprintf(reason, sizeof(reason), "the registration could not be made: %.200s",
			 registry_why(all->engine->registry));
		registrations_end(all, r, MESSAGE_END_ENGINE, r->uid, reason);
		return;
	}
	r->phase = REGISTRATION_ACTIVE;
	registrations_set_due(all, r, r->end_ns);
	link_to_agent(all->engine->link, &active);
	audit_register(all, r);
}
