/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/agent.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "control/agent/pool.h"
#include "control/agent/scope/pins.h"
#include "control/agent/state.h"

#define FOREIGN_A_SECOND 1024 /* aggregated drops taken out of the kernel each second, at most */

uint64_t agent_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- walls ---- */

static void tell_walls(struct agent *agent, bool failed, const char *why)
{
	struct message message = {.type = MESSAGE_AGENT_STATUS};

	if (failed == agent->wall_failed)
		return;
	agent->wall_failed = failed;
	if (failed) {
		message.error = MESSAGE_ERROR_WALL_FAILED;
		fan_log(FAN_LOG_ERROR, "walls", "%s; no socket is granted until it stands again",
			why);
	} else {
		fan_log(FAN_LOG_INFO, "walls", "all stand again");
	}
	snprintf(message.reason, sizeof(message.reason), "%s", why);
	link_to_engine(agent->link, &message);
}

bool agent_wall_known_failed(const struct agent *agent, char why[MESSAGE_REASON_MAX])
{
	const struct scope_walls *walls = &agent->walls;
	bool failed = walls->filter == WALL_FAILED || walls->guard == WALL_FAILED;

	why[0] = 0;
	if (failed)
		snprintf(why, MESSAGE_REASON_MAX, "the %.16s has failed: %.220s",
			 walls->filter == WALL_FAILED ? "scope filter" : "port guard",
			 walls->filter == WALL_FAILED ? walls->filter_why : walls->guard_why);
	return failed;
}

bool agent_wall_failed(struct agent *agent, char why[MESSAGE_REASON_MAX])
{
	bool failed;

	scope_walls_check(agent->maps, &agent->walls);
	failed = agent_wall_known_failed(agent, why);
	tell_walls(agent, failed, why);
	return failed;
}

/* ---- families ---- */

const struct fan_address *agent_engine_address(const struct agent *agent, unsigned family)
{
	for (unsigned i = 0; i < agent->config->engine_address_cnt; i++)
		if (agent->config->engine_address[i].family == family)
			return &agent->config->engine_address[i];
	return NULL;
}

unsigned agent_family(const struct agent *agent, unsigned wanted, unsigned tried)
{
	const struct fan_config *config = agent->config;

	for (unsigned i = 0; i < config->receiver_address_cnt; i++) {
		unsigned family = config->receiver_address[i].family;

		if ((!wanted || family == wanted) && family != tried &&
		    agent_engine_address(agent, family))
			return family;
	}
	return 0;
}

/* ---- requests of clients ---- */

void agent_refuse(struct client *client, enum message_error error, const char *reason)
{
	if (client->descriptor >= 0)
		close(client->descriptor);
	client->descriptor = -1;
	client->op = 0;
	client->holder = NULL;
	client->state = CLIENT_NEW;
	client_refuse(client, 0, error, reason);
}

/* Whether the request fits what the client is: NULL, or what to tell it. */
static const char *misplaced(const struct client *client, enum request_op op)
{
	if (client->state == CLIENT_ENDED)
		return "this connection's registration has ended; connect again";
	if (op == REQUEST_RENEW)
		return client->state == CLIENT_SUBSCRIBER
			       ? NULL
			       : "nothing to renew: subscribe or attach first";
	return client->state == CLIENT_NEW
		       ? NULL
		       : "this connection serves one subscription or session already; open another";
}

/*
 * Whether a wall stands in the way. Who comes back has his socket already, and thousands come back
 * in one instant: for them the last look will do.
 */
static bool walled_off(struct agent *agent, enum request_op op, char why[MESSAGE_REASON_MAX])
{
	if (op == REQUEST_RENEW)
		return false;
	if (op == REQUEST_ATTACH || op == REQUEST_PUBLISH_ATTACH)
		return agent_wall_known_failed(agent, why);
	return agent_wall_failed(agent, why);
}

static void on_request(void *arg, struct client *client, const struct client_request *request,
		       int descriptor)
{
	struct agent *agent = arg;
	char why[MESSAGE_REASON_MAX];
	const char *fault = misplaced(client, request->op);

	if (client->op)
		client_refuse(client, 0, MESSAGE_ERROR_BUSY,
			      "the previous request is not answered yet; wait for its answer");
	else if (fault)
		client_refuse(client, request->op == REQUEST_RENEW ? REQUEST_RENEW : 0,
			      MESSAGE_ERROR_BAD_REQUEST, fault);
	else if (walled_off(agent, request->op, why))
		client_refuse(client, 0, MESSAGE_ERROR_WALL_FAILED, why);
	else if (request->op == REQUEST_SUBSCRIBE)
		subscriber_subscribe(agent, client, request);
	else if (request->op == REQUEST_BYPASS)
		bypass_subscribe(agent, client, request);
	else if (request->op == REQUEST_RENEW)
		subscriber_renew(agent, client, request);
	else if (request->op == REQUEST_ATTACH)
		subscriber_attach(agent, client, request, descriptor);
	else if (request->op == REQUEST_PUBLISH_OPEN)
		publisher_open(agent, client, request);
	else if (request->op == REQUEST_PUBLISH_ATTACH)
		publisher_attach(agent, client, request, descriptor);
	if (descriptor >= 0)
		close(descriptor);
}

static void on_gone(void *arg, struct client *client)
{
	/* A request that the engine still works on is answered into nothing, and undone then. */
	if (client->state == CLIENT_SUBSCRIBER)
		subscriber_gone(arg, client);
	else if (client->state == CLIENT_PUBLISHER)
		publisher_gone(arg, client);
}

/* ---- messages of the engine ---- */

static void on_refuse(struct agent *agent, const struct message *message)
{
	struct client *client = client_find(agent->clients, message->ref);

	subscriber_on_refused(agent, message);
	if (!client || !client->op)
		return;
	if (client->op == REQUEST_RENEW) {
		client->op = 0;
		client_refuse(client, REQUEST_RENEW, message->error, message->reason);
	} else {
		agent_refuse(client, message->error, message->reason);
	}
}

static void on_hello(struct agent *agent)
{
	const struct timeval wait = {.tv_sec = agent->config->reattach_s};
	char why[MESSAGE_REASON_MAX];

	agent_wall_failed(agent, why); /* before the first who comes back */
	event_add(agent->sweep, &wait);
	/* Not before: who comes back must find its registration held. */
	client_socket_accept(agent->clients);
}

static void on_mark(struct agent *agent, const struct message *message)
{
	struct message answer = {.type = MESSAGE_MARKED, .ref = message->ref};

	link_to_engine(agent->link, &answer);
}

static void on_message(void *arg, const struct message *message)
{
	struct agent *agent = arg;

	switch (message->type) {
	case MESSAGE_HOLD:
		subscriber_on_hold(agent, message);
		return;
	case MESSAGE_HELLO:
		on_hello(agent);
		return;
	case MESSAGE_GRANT:
		subscriber_on_grant(agent, message);
		return;
	case MESSAGE_REFUSE:
		on_refuse(agent, message);
		return;
	case MESSAGE_ACTIVE:
		subscriber_on_active(agent, message);
		return;
	case MESSAGE_ATTACHED:
		subscriber_on_attached(agent, message);
		return;
	case MESSAGE_RENEWED:
		subscriber_on_renewed(agent, message);
		return;
	case MESSAGE_KEYS:
		subscriber_on_keys(agent, message);
		return;
	case MESSAGE_ENDED:
		subscriber_on_ended(agent, message);
		return;
	case MESSAGE_REUSABLE:
		subscriber_on_reusable(agent, message);
		return;
	case MESSAGE_MARK:
		on_mark(agent, message);
		return;
	case MESSAGE_SESSION_GRANT:
		publisher_on_grant(agent, message);
		return;
	case MESSAGE_SESSION_ATTACHED:
		publisher_on_attached(agent, message);
		return;
	case MESSAGE_SESSION_ENDED:
		publisher_on_ended(agent, message);
		return;
	default:
		fan_log(FAN_LOG_ERROR, "agent", "message %d is not for an agent; ignored",
			(int)message->type);
	}
}

/* ---- each second ---- */

static void on_foreign(void *arg, const struct foreign_key *key, uint64_t cnt)
{
	struct agent *agent = arg;
	struct message message = {.type = MESSAGE_FOREIGN_DROP};

	memcpy(message.u.foreign.victim, key->victim, sizeof(message.u.foreign.victim));
	memcpy(message.u.foreign.foreign, key->owner, sizeof(message.u.foreign.foreign));
	memcpy(message.u.foreign.source, key->source, sizeof(message.u.foreign.source));
	message.u.foreign.cnt = cnt;
	link_to_engine(agent->link, &message);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct agent *agent = arg;
	char why[MESSAGE_REASON_MAX];
	int got = scope_foreign_drain(agent->maps, FOREIGN_A_SECOND, on_foreign, agent);

	if (got < 0)
		fan_log(FAN_LOG_WARNING, "agent", "cannot read the cross-user drops: %s",
			strerror(-got));
	agent_wall_failed(agent, why);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	pool_look(arg);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	subscriber_sweep(arg);
}

/* ---- life ---- */

static const struct client_socket_ops client_ops = {.on_request = on_request, .on_gone = on_gone};

static int add_events(struct agent *agent, struct event_base *base)
{
	const struct timeval second = {.tv_sec = 1}, tenth = {.tv_usec = 100000};

	agent->look = event_new(base, -1, EV_PERSIST, on_look, agent);
	agent->tick = event_new(base, -1, EV_PERSIST, on_tick, agent);
	agent->sweep = evtimer_new(base, on_sweep, agent);
	if (!agent->tick || !agent->look || !agent->sweep || event_add(agent->tick, &second) ||
	    event_add(agent->look, &tenth))
		return -ENOMEM;
	return 0;
}

static uint64_t quarantine_ns(const struct fan_config *config)
{
	return (uint64_t)config->quarantine_s * 1000000000u;
}

static int alloc(struct agent *agent, struct event_base *base)
{
	const struct fan_config *config = agent->config;

	agent->ports = ports_create(config, quarantine_ns(config));
	agent->connections = holders_create(config->max_connections);
	agent->sessions = holders_create(config->max_sessions);
	if (!agent->ports || !agent->connections || !agent->sessions)
		return -ENOMEM;
	return add_events(agent, base);
}

static void on_rest(void *arg, uint32_t idx, const uint8_t handle[16], uint64_t released_ns)
{
	ports_rest(arg, idx, handle, released_ns);
}

/* Ports that were released shortly before a restart rest on. */
static int take_up_rests(struct agent *agent, char why[1024])
{
	int err = rest_log_open(&agent->rest_log, agent->config, why);

	if (err)
		return err;
	err = rest_log_each(agent->rest_log, agent_now_ns(), quarantine_ns(agent->config), on_rest,
			    agent->ports);
	if (err)
		snprintf(why, 1024, "the agent is out of memory for its ports");
	return err;
}

/* Packets carry keys: they do not stay behind in freed memory. */
static void free_zeroed(void *memory)
{
	if (memory)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

int agent_prepare(const struct fan_config *config, char why[1024])
{
	return pins_prepare(config->bpf_dir, why);
}

int agent_create(struct agent **out, struct event_base *base, struct link *link,
		 const struct fan_config *config, char why[1024])
{
	struct agent *agent = calloc(1, sizeof(*agent));
	int err = -ENOMEM;

	if (!agent)
		goto no_memory;
	agent->config = config;
	agent->link = link;
	json_set_alloc_funcs(malloc, free_zeroed);
	err = alloc(agent, base);
	if (err)
		goto no_memory;
	err = scope_maps_open(&agent->maps, config, why);
	if (!err)
		err = take_up_rests(agent, why);
	if (err)
		goto fail;
	err = client_socket_open(&agent->clients, base, config, &client_ops, agent, why);
	if (err)
		goto fail;
	link_set_agent(link, on_message, agent);
	*out = agent;
	return 0;
no_memory:
	snprintf(why, 1024,
		 "the agent is out of memory; lower limits.max_connections, or the "
		 "pool of receiver addresses and ports");
fail:
	agent_destroy(agent);
	return err;
}

void agent_destroy(struct agent *agent)
{
	if (!agent)
		return;
	if (agent->clients)
		link_set_agent(agent->link, NULL, NULL);
	client_socket_close(agent->clients);
	if (agent->tick)
		event_free(agent->tick);
	if (agent->look)
		event_free(agent->look);
	if (agent->sweep)
		event_free(agent->sweep);
	holders_destroy(agent->connections);
	holders_destroy(agent->sessions);
	ports_destroy(agent->ports);
	rest_log_close(agent->rest_log);
	scope_maps_close(agent->maps);
	free(agent);
}

/* ---- status ---- */

static void count_scope(void *arg, uint64_t cookie, const struct scope *scope)
{
	++*(uint32_t *)arg;
}

static void fill_walls(struct agent *agent, struct agent_status *status)
{
	char why[MESSAGE_REASON_MAX];

	agent_wall_failed(agent, why);
	status->filter = agent->walls.filter;
	status->guard = agent->walls.guard;
	memcpy(status->filter_why, agent->walls.filter_why, sizeof(status->filter_why));
	memcpy(status->guard_why, agent->walls.guard_why, sizeof(status->guard_why));
}

_Static_assert((int)SCOPE_VERDICT_CNT <= 16 && (int)GUARD_VERDICT_CNT <= 8,
	       "agent_status holds every counter");

void agent_status(struct agent *agent, struct agent_status *status)
{
	struct ports_counts ports;

	memset(status, 0, sizeof(*status));
	fill_walls(agent, status);
	scope_counters(agent->maps, status->verdicts, status->guards);
	scope_each(agent->maps, count_scope, &status->scopes);
	status->clients = client_cnt(agent->clients);
	ports_count(agent->ports, agent_now_ns(), &ports);
	status->ports_used = ports.used;
	status->ports_resting = ports.resting;
	status->ports_held = ports.held;
	status->ports_free = ports.free;
}

const char *agent_verdict_name(unsigned verdict)
{
	static const char *const names[SCOPE_VERDICT_CNT] = {
		[SCOPE_ACCEPTED] = "accepted",
		[SCOPE_DROP_NO_SCOPE] = "no_scope",
		[SCOPE_DROP_SUPER_PACKET] = "super_packet",
		[SCOPE_DROP_SHORT] = "short",
		[SCOPE_DROP_LENGTH] = "length",
		[SCOPE_DROP_VERSION] = "version",
		[SCOPE_DROP_TYPE] = "type",
		[SCOPE_DROP_FOREIGN_USER] = "foreign_user",
		[SCOPE_DROP_USER_GENERATION] = "user_generation",
		[SCOPE_DROP_KEY_GENERATION] = "key_generation",
		[SCOPE_DROP_TAG] = "tag",
	};

	return verdict < SCOPE_VERDICT_CNT ? names[verdict] : NULL;
}

const char *agent_guard_name(unsigned guard)
{
	static const char *const names[GUARD_VERDICT_CNT] = {
		[GUARD_BIND_DENIED] = "bind_denied",
		[GUARD_INGRESS_DENIED] = "ingress_denied",
		[GUARD_EGRESS_DENIED] = "egress_denied",
	};

	return guard < GUARD_VERDICT_CNT ? names[guard] : NULL;
}
