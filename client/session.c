/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/error.h"
#include "client/publisher.h"
#include "common/wire/handle.h"

#define OPEN_MS 5000

static int keep_credential(struct fan_publisher *p, const struct fan_credential *credential)
{
	if (!credential || (!credential->grant && (!credential->name || !credential->secret)))
		return client_error(-EINVAL, "a publisher needs a name and a secret, or a grant");
	p->grant = credential->grant ? strdup(credential->grant) : NULL;
	p->name = credential->grant ? NULL : strdup(credential->name);
	p->secret = credential->grant ? NULL : strdup(credential->secret);
	if (!p->grant && (!p->name || !p->secret))
		return client_error(-ENOMEM, "out of memory");
	return 0;
}

static json_t *session_request(const struct fan_publisher *p, const char *op)
{
	json_t *request = json_pack("{s:s, s:s*, s:s*, s:s*}", "op", op, "name", p->name, "secret",
				    p->secret, "grant", p->grant);
	char id[17];

	if (p->session) {
		fan_id_format(id, p->session);
		json_object_set_new(request, "session", json_string(id));
	}
	return request;
}

static int take_session(struct fan_publisher *p, const json_t *answer)
{
	const char *key_text = json_string_value(json_object_get(answer, "key"));
	uint8_t key[FAN_KEY_LEN];
	uint64_t limit;
	int status;

	if (p->udp < 0 || !key_text || fan_unhex(key, sizeof(key), key_text) < 0 ||
	    !client_socket_id(answer, "session", &p->session) || p->session == 0 ||
	    !client_socket_number(answer, "payload_limit", FAN_PAYLOAD_MAX, &limit) || limit == 0)
		return client_error(-EPROTO, "fanwired's answer lacks a session, key, limit or "
					     "socket; are both of the same version?");
	p->payload_limit = (uint32_t)limit;
	status = seal_init(&p->seal, key);
	sodium_memzero(key, sizeof(key));
	if (status == 0)
		status = window_init(p);
	if (status < 0)
		return client_error(status, "out of memory for the session's window");
	return client_socket_engine(answer, p->udp, &p->engine, &p->engine_len);
}

static int watch(struct fan_publisher *p)
{
	struct epoll_event event = {.events = EPOLLIN};

	event.data.fd = p->timer.fd;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->timer.fd, &event) < 0)
		return client_error(-errno, "cannot watch the timer: %s", strerror(errno));
	event.data.fd = p->udp;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->udp, &event) < 0)
		return client_error(-errno, "cannot watch the socket: %s", strerror(errno));
	return 0;
}

int fan_publisher_open(struct fan_publisher **publisher, const char *client_socket,
		       const struct fan_credential *credential)
{
	struct fan_publisher *p = calloc(1, sizeof(*p));
	json_t *request = NULL, *answer = NULL;
	int status = -ENOMEM;

	if (!p || sodium_init() < 0) {
		free(p);
		return client_error(-ENOMEM, "out of memory for a publisher");
	}
	p->udp = p->timer.fd = p->uplink.fd = -1;
	p->ticket_next = p->ticket_first = 1;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll_fd < 0 || clock_timer_open(&p->timer) < 0) {
		status = client_error(-errno, "cannot make descriptors: %s", strerror(errno));
		goto fail;
	}
	status = keep_credential(p, credential);
	if (status < 0)
		goto fail;
	request = session_request(p, "publish_open");
	status = uplink_open(&p->uplink, p->epoll_fd, client_socket, request, &answer, &p->udp,
			     clock_deadline(OPEN_MS));
	if (status < 0)
		goto fail;
	status = take_session(p, answer);
	if (status == 0)
		status = watch(p);
	if (status < 0)
		goto fail;
	json_decref(request);
	json_decref(answer);
	*publisher = p;
	return 0;
fail:
	json_decref(request);
	json_decref(answer);
	fan_publisher_close(p);
	/* a limit of sessions passes by itself; the header promises the one number for it */
	return status == -EDQUOT ? -EAGAIN : status;
}

void fan_publisher_close(struct fan_publisher *p)
{
	if (!p)
		return;
	uplink_close(&p->uplink);
	clock_timer_close(&p->timer);
	if (p->udp >= 0)
		close(p->udp);
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	window_fini(p);
	seal_fini(&p->seal);
	free(p->cut.payload);
	if (p->secret)
		sodium_memzero(p->secret, strlen(p->secret));
	free(p->name);
	free(p->secret);
	free(p->grant);
	sodium_memzero(p, sizeof(*p));
	free(p);
}

int fan_publisher_fd(const struct fan_publisher *p)
{
	return p->epoll_fd;
}

int fan_publisher_socket(const struct fan_publisher *p)
{
	return p->udp;
}

void session_end(struct fan_publisher *p, const char *why)
{
	p->ended = true;
	snprintf(p->ended_why, sizeof(p->ended_why), "%s", why);
	publisher_fail(p, -EPIPE);
	window_forget(p);
}

static void on_message(struct fan_publisher *p, const json_t *message, uint64_t now_ns)
{
	const char *event = json_string_value(json_object_get(message, "event"));
	const char *error = json_string_value(json_object_get(message, "error"));
	const char *text = json_string_value(json_object_get(message, "message"));

	if (event && strcmp(event, "ended") == 0) {
		session_end(p, text ? text : "the engine ended the session");
	} else if (p->uplink.state == UPLINK_ATTACHING) {
		if (json_is_true(json_object_get(message, "ok")))
			uplink_set_up(&p->uplink);
		else if (error &&
			 (strcmp(error, "connection_unknown") == 0 ||
			  strcmp(error, "credential") == 0 || strncmp(error, "token_", 6) == 0))
			session_end(p, text ? text : error);
		else /* busy, or failing in a way that may pass */
			uplink_set_down(&p->uplink, now_ns);
	}
}

int session_service(struct fan_publisher *p)
{
	uint64_t now_ns = clock_now_ns();
	json_t *message;

	window_enter(p, now_ns);
	window_receive(p, now_ns);
	while ((message = uplink_recv(&p->uplink, now_ns))) {
		on_message(p, message, now_ns);
		json_decref(message);
	}
	if (p->ended) {
		uplink_close(&p->uplink);
		return 0;
	}
	if (uplink_attach_due(&p->uplink, now_ns)) {
		json_t *request = session_request(p, "publish_attach");

		uplink_attach(&p->uplink, request, p->udp, now_ns);
		json_decref(request);
	}
	recovery_expire(p, now_ns);
	return window_pump(p, now_ns);
}
