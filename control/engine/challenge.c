/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a bound socket to the table: record, challenge, activation. Nobody can aim the engine at a
 * third party, for an address that has not echoed stands in no group.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config/config.h"
#include "common/plant.h"
#include "control/engine/audit.h"
#include "control/engine/nexthop.h"
#include "control/engine/registrations_private.h"
#include "control/link.h"
#include "control/registry/registry.h"

#define CHALLENGES_MAX 3 /* in total: an address that does not want us hears no more of us */
#define CHANNELS_MAX   (MESSAGE_THREADS_MAX + 1)

static bool is_vouched(const struct fan_config *config, const struct message_address *address)
{
	struct fan_address bound = {.family = address->family};

	memcpy(bound.bytes, address->bytes, sizeof(bound.bytes));
	return fan_config_vouches(config, &bound);
}

static int add_record(struct registrations *all, struct registration *r, struct moment now)
{
	struct registry_connection record = {.id = r->id,
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

	memcpy(record.handle, r->user->handle, FAN_HANDLE_LEN);
	memcpy(record.address, r->address.bytes, sizeof(record.address));
	err = registry_connection_add(all->engine->registry, &record, &record);
	if (!err)
		r->generation = record.generation;
	return err;
}

static void end_unrecorded(struct registrations *all, struct registration *r, const char *why)
{
	char reason[MESSAGE_REASON_MAX];

	snprintf(reason, sizeof(reason), "the registration could not be made: %.200s", why);
	r->phase = REGISTRATION_BOUND;
	registrations_end(all, r, MESSAGE_END_ENGINE, r->uid, reason);
}

/* No room, but something rests that will make some: tried again while the challenge's time lasts.
 */
static bool wait_for_room(struct registrations *all, struct registration *r, int err,
			  struct moment now)
{
	struct registry_counts counts;

	registry_counts(all->engine->registry, &counts);
	if (err != -ENOSPC || !counts.retired)
		return false;
	registrations_set_due(all, r, now.mono_ns + ENGINE_NS_PER_S / 20);
	return true;
}

static void record_and_go_on(struct registrations *all, struct registration *r, struct moment now)
{
	int err = add_record(all, r, now);

	if (err == -EEXIST) { /* the id's last record rests a grace period: look again soon */
		r->phase = REGISTRATION_BOUND;
		registrations_set_due(all, r, now.mono_ns + ENGINE_NS_PER_S / 100);
		return;
	}
	r->phase = REGISTRATION_BOUND;
	if (wait_for_room(all, r, err, now))
		return;
	if (err) {
		end_unrecorded(all, r, registry_why(all->engine->registry));
		return;
	}
	r->phase = REGISTRATION_CHALLENGED;
	r->user->recorded++;
	/* the prefix is vouched for, not that whoever names an address in it receives there */
	r->echoed = !r->named && is_vouched(all->engine->config, &r->address);
	challenge_continue(all, r, now);
}

void challenge_on_bound(struct registrations *all, const struct message *message, struct moment now)
{
	struct registration *r = registrations_find(all, message->id);
	char why[MESSAGE_REASON_MAX];

	if (!r || r->ref != message->ref || r->phase != REGISTRATION_GRANTED) {
		/* it ended meanwhile, and was told so; no table ever knew it */
		registrations_reusable(all, message->id, message->ref);
		return;
	}
	r->bound_ref = message->ref;
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

static void activate(struct registrations *all, struct registration *r, struct moment now)
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
	/* before it is in the table: what comes after them is the subscriber's, all of it */
	registration_tails_before(all, r, &active.u.active.tails);
	err = registry_connection_activate(all->engine->registry, r->id, &keys, channels,
					   r->channel_cnt);
	if (fan_planted(PLANT_TAILS_AFTER_TABLE))
		registration_tails_before(all, r, &active.u.active.tails);
	if (wait_for_room(all, r, err, now))
		return;
	if (err) {
		snprintf(reason, sizeof(reason), "the registration could not be made: %.200s",
			 registry_why(all->engine->registry));
		registrations_end(all, r, MESSAGE_END_ENGINE, r->uid, reason);
		return;
	}
	r->phase = REGISTRATION_ACTIVE;
	r->end_ns = registration_lease_ns(all, r->token_expiry_s, now);
	registry_connection_renew(all->engine->registry, r->id, r->end_ns, r->token_expiry_s);
	registrations_set_due(all, r, r->end_ns);
	link_to_agent(all->engine->link, &active);
	audit_register(all, r);
}

void challenge_continue(struct registrations *all, struct registration *r, struct moment now)
{
	uint64_t timeout_ns = all->engine->config->challenge_timeout_s * ENGINE_NS_PER_S;
	uint64_t wait_ns = ENGINE_NS_PER_S / 50;

	if (r->phase == REGISTRATION_BOUND) {
		record_and_go_on(all, r, now);
		return;
	}
	if (r->echoed) {
		activate(all, r, now);
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
