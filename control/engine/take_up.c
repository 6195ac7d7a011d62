/* SPDX-License-Identifier: BSD-3-Clause */
/* At start: what the registry region holds of the last run goes on, and the agent is told of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/audit.h"
#include "control/engine/registrations_private.h"
#include "control/engine/users.h"
#include "control/link.h"
#include "control/registry/registry.h"

static void hold(struct registrations *all, const struct registry_connection *c, bool ends)
{
	struct message held = {.type = MESSAGE_HOLD, .id = c->id};

	memcpy(held.u.bound.address.bytes, c->address, sizeof(c->address));
	memcpy(held.u.bound.handle, c->handle, sizeof(c->handle));
	held.u.bound.address.port = c->port;
	held.u.bound.address.family = c->family;
	held.u.bound.cookie = c->cookie;
	if (ends)
		held.end = MESSAGE_END_ABSENT;
	link_to_agent(all->engine->link, &held);
}

/* An active record of the last run: its lease goes on, and never ended while we were down. */
static int take_up(struct registrations *all, const struct registry_connection *c,
		   struct user *user)
{
	uint64_t reattach_s = all->engine->config->reattach_s, end_ns = c->lease_ns;
	uint64_t reattach_ns = all->started_ns + reattach_s * ENGINE_NS_PER_S;
	struct registration *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	if (end_ns < reattach_ns)
		end_ns = reattach_ns;
	*r = (struct registration){.phase = REGISTRATION_ACTIVE,
				   .due_ns = reattach_ns,
				   .end_ns = end_ns,
				   .id = c->id,
				   .user = user,
				   .generation = c->generation,
				   .user_generation = c->user_generation,
				   .token_expiry_s = c->token_expiry_s,
				   .cookie = c->cookie,
				   .nexthop = c->nexthop,
				   .absent_ns = reattach_ns,
				   .uid = AUDIT_NO_UID};
	memcpy(r->address.bytes, c->address, sizeof(c->address));
	r->address.port = c->port;
	r->address.family = c->family;
	registrations_insert(all, r);
	user->recorded++;
	return registry_connection_renew(all->engine->registry, c->id, end_ns, c->token_expiry_s);
}

/* Pending ones are forgotten by a restart; so is one whose user the database does not know so. */
static int take_up_or_end(struct registrations *all, const struct registry_connection *c)
{
	struct user *user = users_find(all->engine->users, c->handle);

	if (c->state == FAN_CONNECTION_ACTIVE && user && user->generation == c->user_generation) {
		hold(all, c, false);
		return take_up(all, c, user);
	}
	hold(all, c, true);
	if (c->state == FAN_CONNECTION_ENDING)
		return 0;
	return registry_connection_del(all->engine->registry, c->id, c->generation);
}

int registrations_take_up(struct registrations *all)
{
	struct message hello = {.type = MESSAGE_HELLO};
	struct registry_connection c;
	uint32_t cursor = 0;
	int err = 0;

	while (!err && registry_socket_next(all->engine->registry, &cursor, &c))
		err = take_up_or_end(all, &c);
	link_to_agent(all->engine->link, &hello);
	return err;
}
