/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BIND_ATTEMPTS 64 /* ports that turn out to be held are passed over */
#define LOOKS_RESTED  32 /* of a turn; some 20 us each */
#define LOOKS_HELD    4
#define SETTLING_MIN  16 /* of a user at a time, or as many as he may have connections */

/* A bind said that somebody has it. Known to the next fanwired too: it rests, and is looked at. */
static void port_busy(struct agent *agent, uint32_t idx)
{
	static const uint8_t nobody[16];
	const uint8_t *handle = ports_busy(agent->ports, idx);

	if (memcmp(handle, nobody, sizeof(nobody)) != 0)
		rest_log_add(agent->rest_log, idx, handle, agent_now_ns());
}

/* Whoever comes and goes faster than the grace period would get ports that nobody counts. */
static int user_check(struct agent *agent, const uint8_t handle[16])
{
	unsigned limit = agent->config->max_connections_per_user;
	unsigned settling = limit > SETTLING_MIN ? limit : SETTLING_MIN;

	if (ports_charged(agent->ports, handle) >= limit)
		return -EDQUOT;
	if (ports_charged(agent->ports, handle) + ports_settling(agent->ports, handle) >=
	    limit + settling)
		return -EBUSY;
	return 0;
}

static int open_socket(struct agent *agent, unsigned family, const struct message *grant,
		       uint64_t owner, struct pool_socket *made, char why[256])
{
	struct scope scope;
	int err = -EADDRINUSE, refused;

	scope_fill(&scope, &grant->u.grant.scope, grant->id);
	for (unsigned n = 0; n < BIND_ATTEMPTS && err == -EADDRINUSE; n++) {
		refused = user_check(agent, scope.handle);
		if (refused)
			return refused;
		if (ports_take(agent->ports, family, scope.handle, owner, agent_now_ns(),
			       &made->port))
			return -ENOSPC;
		err = scoped_socket_open(agent->maps, &scope, &made->port.address, made->port.port,
					 &made->socket, why);
		if (err == -EADDRINUSE)
			port_busy(agent, made->port.idx);
		else if (err)
			ports_release(agent->ports, made->port.idx, false, agent_now_ns());
	}
	return err == -EADDRINUSE ? -ENOSPC : err;
}

enum message_error pool_open(struct agent *agent, unsigned wanted, const struct message *grant,
			     uint64_t owner, struct pool_socket *made, char why[256])
{
	unsigned family = agent_family(agent, wanted, 0);
	int err = open_socket(agent, family, grant, owner, made, why);

	family = agent_family(agent, wanted, family);
	if (err == -ENOSPC && family)
		err = open_socket(agent, family, grant, owner, made, why);
	if (err == -EDQUOT) {
		snprintf(why, 256,
			 "the user has %u sockets open, those of ended connections too; the limit "
			 "is %u (max_connections_per_user): close the sockets of connections that "
			 "have ended, and try again in some seconds",
			 ports_charged(agent->ports, grant->u.grant.scope.handle),
			 agent->config->max_connections_per_user);
		return MESSAGE_ERROR_LIMIT_USER;
	}
	if (err == -EBUSY) {
		snprintf(why, 256,
			 "the ports of this user's connections that have just ended are not free "
			 "yet; try again in a moment");
		return MESSAGE_ERROR_BUSY;
	}
	if (err == -ENOSPC) {
		snprintf(why, 256,
			 "every port of the receivers' pool is in use or resting; try again in %u "
			 "s, or let the administrator widen network.port_first..port_last",
			 agent->config->quarantine_s);
		return MESSAGE_ERROR_NO_PORT;
	}
	return err ? MESSAGE_ERROR_SOCKET : MESSAGE_ERROR_NONE;
}

/* Binds it for an instant, with a scope that fits nobody. false: nothing was learnt. */
static bool look_at(struct agent *agent, const struct port *port)
{
	const struct scope scope = {.previous_key_generation = 0};
	struct scoped_socket made;
	char why[256];
	int err = scoped_socket_open(agent->maps, &scope, &port->address, port->port, &made, why);

	if (err == -EADDRINUSE) {
		port_busy(agent, port->idx);
		return true;
	}
	if (err)
		return false;
	scope_del(agent->maps, made.cookie);
	close(made.fd);
	ports_idle(agent->ports, port->idx, agent_now_ns());
	return true;
}

static void look(struct agent *agent, bool held, unsigned most)
{
	struct port port;

	while (most-- && ports_suspect(agent->ports, held, agent_now_ns(), &port))
		if (!look_at(agent, &port))
			return;
}

void pool_look(struct agent *agent)
{
	struct ports_counts counts;

	ports_count(agent->ports, agent_now_ns(), &counts);
	look(agent, true, counts.held < LOOKS_HELD ? counts.held : LOOKS_HELD);
	look(agent, false, LOOKS_RESTED);
}
