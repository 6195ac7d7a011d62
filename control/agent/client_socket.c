/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/client_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/log.h"
#include "control/agent/listener.h"
#include "control/agent/packet.h"
#include "control/agent/uid_counts.h"

#define SUBJECT		 "client.sock"
#define HALF_OPEN_S	 10 /* a client that has been granted nothing by then is cut off */
#define BAD_REQUESTS_MAX 16 /* malformed, or for what is others'; then it is cut off */
#define PACKETS_A_TURN	 4  /* of one client, before others are read */
#define ACCEPTS_A_TURN	 64
#define PAUSE_S		 1 /* of the listener, without descriptors */

struct entry {
	struct client client; /* first: the agent's pointer is ours */
	struct client_socket *owner;
	TAILQ_ENTRY(entry) link; /* in half_open, oldest first, or in complete */
	struct event *event;
	int fd;
	uint32_t idx;
	uint64_t since_s;
	unsigned bad_requests;
	bool half_open, doomed;
};
TAILQ_HEAD(entry_list, entry);

struct client_socket {
	struct event_base *base;
	const struct client_socket_ops *ops;
	void *arg;
	struct listener listener;
	struct event *accept, *tick, *resume;
	int reserve_fd; /* given up for a moment to refuse a client when there are no descriptors */
	struct entry **entries; /* by idx */
	uint32_t *free_idx;	/* stack */
	uint32_t max, cnt;
	uint64_t generation; /* of refs */
	struct entry_list half_open, complete;
	struct uid_counts half_open_of; /* each uid */
};

static uint64_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- clients ---- */

static void leave_half_open(struct entry *entry)
{
	struct client_socket *clients = entry->owner;

	if (!entry->half_open)
		return;
	entry->half_open = false;
	uid_counts_put(&clients->half_open_of, entry->client.uid);
	TAILQ_REMOVE(&clients->half_open, entry, link);
	TAILQ_INSERT_TAIL(&clients->complete, entry, link);
}

static void entry_destroy(struct entry *entry)
{
	struct client_socket *clients = entry->owner;

	leave_half_open(entry);
	TAILQ_REMOVE(&clients->complete, entry, link);
	event_free(entry->event);
	packet_close(entry->fd);
	if (entry->client.descriptor >= 0)
		close(entry->client.descriptor);
	clients->entries[entry->idx] = NULL;
	clients->free_idx[--clients->cnt] = entry->idx;
	free(entry);
}

static void entry_gone(struct entry *entry)
{
	entry->owner->ops->on_gone(entry->owner->arg, &entry->client);
	entry_destroy(entry);
}

/* The event loop closes it: whoever calls may be in the midst of a change for this client. */
static void doom(struct entry *entry)
{
	entry->doomed = true;
	event_active(entry->event, EV_READ, 0);
}

static void count_bad(struct entry *entry)
{
	if (++entry->bad_requests >= BAD_REQUESTS_MAX)
		doom(entry);
}

static void on_bad_packet(struct entry *entry, const char *why)
{
	client_refuse(&entry->client, 0, MESSAGE_ERROR_BAD_REQUEST, why);
	count_bad(entry);
}

static void on_packet(struct entry *entry, const struct packet *packet)
{
	struct client_request request;
	char why[MESSAGE_REASON_MAX];
	int descriptor = packet->descriptor;

	if (packet->fault) {
		on_bad_packet(entry, packet->fault);
		return;
	}
	if (client_request_parse(&request, packet->text, packet->len, why)) {
		on_bad_packet(entry, why);
		goto close;
	}
	if (client_request_has_descriptor(request.op) != (descriptor >= 0)) {
		snprintf(why, sizeof(why), "a \"%s\" request comes %s descriptor",
			 client_request_op_name(request.op),
			 descriptor >= 0 ? "without a" : "with exactly one");
		on_bad_packet(entry, why);
		goto close;
	}
	entry->owner->ops->on_request(entry->owner->arg, &entry->client, &request, descriptor);
	return;
close:
	if (descriptor >= 0)
		close(descriptor);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct entry *entry = arg;
	struct packet packet;

	for (unsigned n = 0; n < PACKETS_A_TURN && !entry->doomed; n++) {
		int got = packet_receive(fd, &packet);

		if (got == -EAGAIN)
			return;
		if (got <= 0) {
			entry->doomed = true;
			break;
		}
		on_packet(entry, &packet);
	}
	if (entry->doomed)
		entry_gone(entry);
}

static struct entry *entry_create(struct client_socket *clients, int fd, const struct ucred *peer)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->event = event_new(clients->base, fd, EV_READ | EV_PERSIST, on_readable, entry);
	if (!entry->event || event_add(entry->event, NULL)) {
		if (entry->event)
			event_free(entry->event);
		free(entry);
		return NULL;
	}
	entry->owner = clients;
	entry->fd = fd;
	entry->since_s = now_s();
	entry->half_open = true;
	entry->idx = clients->free_idx[clients->cnt++];
	entry->client = (struct client){
		.ref = ++clients->generation << 32 | entry->idx,
		.uid = peer->uid,
		.pid = (uint32_t)peer->pid,
		.descriptor = -1,
	};
	clients->entries[entry->idx] = entry;
	TAILQ_INSERT_TAIL(&clients->half_open, entry, link);
	return entry;
}

/* ---- the listener ---- */

static void refuse_and_close(int fd, enum message_error error, const char *reason)
{
	packet_send(fd,
		    json_pack("{s:b,s:s,s:s}", "ok", 0, "error", message_error_name(error),
			      "message", reason),
		    -1);
	packet_close(fd);
}

static void on_connected(struct client_socket *clients, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)) {
		close(fd);
		return;
	}
	if (clients->cnt >= clients->max) {
		refuse_and_close(fd, MESSAGE_ERROR_LIMIT_OVERALL,
				 "too many clients are connected; raise limits.max_connections "
				 "or max_sessions, or close some");
		return;
	}
	if (!uid_counts_get(&clients->half_open_of, peer.uid)) {
		refuse_and_close(fd, MESSAGE_ERROR_BUSY,
				 "too many unfinished requests of this uid; try again in a moment");
		return;
	}
	if (!entry_create(clients, fd, &peer)) {
		uid_counts_put(&clients->half_open_of, peer.uid);
		refuse_and_close(fd, MESSAGE_ERROR_INTERNAL, "fanwired is out of memory");
	}
}

/*
 * No descriptor left. The connection that waits would make the listener readable for ever: it is
 * taken with the reserve and closed, and the listener rests, so that the loop does not spin.
 */
static void on_no_descriptor(struct client_socket *clients, int err)
{
	const struct timeval pause = {.tv_sec = PAUSE_S};

	fan_log(FAN_LOG_ERROR, SUBJECT,
		"cannot accept a client: %s; raise the limit of open files (LimitNOFILE) above %u; "
		"trying again in %d s",
		strerror(err), clients->max + 256, PAUSE_S);
	if (clients->reserve_fd >= 0) {
		close(clients->reserve_fd);
		int fd = accept4(clients->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0)
			refuse_and_close(fd, MESSAGE_ERROR_BUSY,
					 "fanwired has no descriptor left; try again in a moment");
		clients->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	event_del(clients->accept);
	event_add(clients->resume, &pause);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct client_socket *clients = arg;

	for (unsigned n = 0; n < ACCEPTS_A_TURN; n++) {
		int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (client >= 0) {
			on_connected(clients, client);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			on_no_descriptor(clients, errno);
		else if (errno == ECONNABORTED || errno == EINTR)
			continue;
		return;
	}
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct client_socket *clients = arg;

	event_add(clients->accept, NULL);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct client_socket *clients = arg;
	uint64_t now = now_s();
	struct entry *entry;

	while ((entry = TAILQ_FIRST(&clients->half_open)) && now - entry->since_s >= HALF_OPEN_S) {
		/* It waits for us: after a restart many come back at once, and all take turns. */
		if (entry->client.op == REQUEST_ATTACH ||
		    entry->client.op == REQUEST_PUBLISH_ATTACH) {
			entry->since_s = now;
			TAILQ_REMOVE(&clients->half_open, entry, link);
			TAILQ_INSERT_TAIL(&clients->half_open, entry, link);
			continue;
		}
		client_refuse(&entry->client, 0, MESSAGE_ERROR_BUSY,
			      "no request was granted within 10 s; connect again");
		entry_gone(entry);
	}
}

/* Each client holds a descriptor of fanwired. Where the hard limit stands fast: up to that. */
static void raise_descriptor_limit(uint32_t wanted)
{
	struct rlimit now, raised;

	if (getrlimit(RLIMIT_NOFILE, &now) || now.rlim_cur >= wanted)
		return;
	raised.rlim_cur = wanted;
	raised.rlim_max = now.rlim_max > wanted ? now.rlim_max : wanted;
	if (!setrlimit(RLIMIT_NOFILE, &raised))
		return;
	now.rlim_cur = now.rlim_max;
	setrlimit(RLIMIT_NOFILE, &now);
	fan_log(FAN_LOG_WARNING, SUBJECT,
		"open files are limited to %llu, %u are needed for all clients that the "
		"configuration allows; raise the hard limit (LimitNOFILE), or lower "
		"limits.max_connections",
		(unsigned long long)now.rlim_cur, wanted);
}

static int add_events(struct client_socket *clients)
{
	const struct timeval second = {.tv_sec = 1};

	clients->accept = event_new(clients->base, clients->listener.fd, EV_READ | EV_PERSIST,
				    on_acceptable, clients);
	clients->resume = evtimer_new(clients->base, on_resume, clients);
	clients->tick = event_new(clients->base, -1, EV_PERSIST, on_tick, clients);
	if (!clients->accept || !clients->resume || !clients->tick ||
	    event_add(clients->tick, &second))
		return -ENOMEM;
	return 0;
}

static int alloc(struct client_socket *clients, const struct fan_config *config)
{
	clients->max = config->max_connections + config->max_sessions + 64;
	/* One uid cannot keep all others out with connections that ask for nothing. */
	clients->half_open_of.limit = clients->max / 8 > 64 ? clients->max / 8 : 64;
	if (clients->half_open_of.limit > clients->max / 2)
		clients->half_open_of.limit = clients->max / 2;
	clients->entries = calloc(clients->max, sizeof(struct entry *));
	clients->free_idx = calloc(clients->max, sizeof(*clients->free_idx));
	if (!clients->entries || !clients->free_idx)
		return -ENOMEM;
	for (uint32_t i = 0; i < clients->max; i++)
		clients->free_idx[i] = i;
	return 0;
}

int client_socket_open(struct client_socket **out, struct event_base *base,
		       const struct fan_config *config, const struct client_socket_ops *ops,
		       void *arg, char why[1024])
{
	struct client_socket *clients = calloc(1, sizeof(*clients));
	int err = -ENOMEM;

	if (!clients)
		goto no_memory;
	clients->base = base;
	clients->ops = ops;
	clients->arg = arg;
	clients->listener.fd = clients->reserve_fd = -1;
	TAILQ_INIT(&clients->half_open);
	TAILQ_INIT(&clients->complete);
	if (alloc(clients, config))
		goto no_memory;
	raise_descriptor_limit(clients->max + 256);
	clients->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	err = listener_open(&clients->listener, config, why);
	if (err)
		goto fail;
	err = add_events(clients);
	if (err)
		goto no_memory;
	*out = clients;
	return 0;
no_memory:
	snprintf(why, 1024, "client.sock: out of memory; lower limits.max_connections");
fail:
	client_socket_close(clients);
	return err;
}

void client_socket_accept(struct client_socket *clients)
{
	event_add(clients->accept, NULL);
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

void client_socket_close(struct client_socket *clients)
{
	struct entry *entry;

	if (!clients)
		return;
	while ((entry = TAILQ_FIRST(&clients->half_open)))
		entry_destroy(entry);
	while ((entry = TAILQ_FIRST(&clients->complete)))
		entry_destroy(entry);
	free_event(clients->accept);
	free_event(clients->resume);
	free_event(clients->tick);
	listener_close(&clients->listener);
	if (clients->reserve_fd >= 0)
		close(clients->reserve_fd);
	free(clients->entries);
	free(clients->free_idx);
	free(clients);
}

struct client *client_find(struct client_socket *clients, uint64_t ref)
{
	uint32_t idx = (uint32_t)ref;
	struct entry *entry = idx < clients->max ? clients->entries[idx] : NULL;

	return entry && entry->client.ref == ref && !entry->doomed ? &entry->client : NULL;
}

uint32_t client_cnt(const struct client_socket *clients)
{
	return clients->cnt;
}

void client_send(struct client *client, json_t *packet, int descriptor)
{
	struct entry *entry = (struct entry *)client;
	int err;

	if (entry->doomed) {
		json_decref(packet);
		return;
	}
	err = packet_send(entry->fd, packet, descriptor);
	if (!err)
		return;
	if (err == -EAGAIN)
		fan_log(FAN_LOG_WARNING, SUBJECT, "pid %u (uid %u) does not read; cut off",
			client->pid, client->uid);
	doom(entry);
}

void client_refuse(struct client *client, enum request_op op, enum message_error error,
		   const char *reason)
{
	json_t *packet = json_pack("{s:b,s:s,s:s}", "ok", 0, "error", message_error_name(error),
				   "message", reason);

	if (packet && op)
		json_object_set_new(packet, "op", json_string(client_request_op_name(op)));
	client_send(client, packet, -1);
	if (error == MESSAGE_ERROR_CONNECTION_FOREIGN)
		count_bad((struct entry *)client);
}

void client_complete(struct client *client)
{
	leave_half_open((struct entry *)client);
}

void client_end(struct client *client)
{
	doom((struct entry *)client);
}
