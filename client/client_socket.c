/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/client_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/error.h"
#include "common/wire/handle.h"

int client_socket_path(char out[CLIENT_SOCKET_PATH_MAX], const char *path)
{
	if (!path || !*path)
		path = getenv("FANWIRE_CLIENT_SOCKET");
	if (!path || !*path)
		path = "/run/fanwire/client.sock";
	if (snprintf(out, CLIENT_SOCKET_PATH_MAX, "%s", path) >= CLIENT_SOCKET_PATH_MAX)
		return client_error(
			-ENAMETOOLONG,
			"the socket's path %s is longer than %d bytes; use a shorter one", path,
			CLIENT_SOCKET_PATH_MAX - 1);
	return 0;
}

static int connect_failed(const char *path, int error)
{
	if (error == ENOENT || error == ECONNREFUSED)
		return client_error(-error,
				    "fanwired is not listening on %s; start it, or name the right "
				    "socket in FANWIRE_CLIENT_SOCKET",
				    path);
	return client_error(-error, "cannot connect to %s: %s", path, strerror(error));
}

int client_socket_connect(const char *path, uint64_t deadline_ns)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return connect_failed(path, errno);
	memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = errno;
		/* EAGAIN: the server's backlog is full, and no event tells when it is not */
		if (error == EAGAIN && clock_now_ns() < deadline_ns) {
			usleep(2000);
			continue;
		}
		close(fd);
		return connect_failed(path, error == EAGAIN ? ETIMEDOUT : error);
	}
	return fd;
}

int client_socket_send(int fd, const json_t *request, int descriptor)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char packet[CLIENT_SOCKET_PACKET_MAX];
	size_t len = json_dumpb(request, packet, sizeof(packet), JSON_COMPACT);
	struct iovec iov = {.iov_base = packet, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (len == 0 || len > sizeof(packet))
		return client_error(-EMSGSIZE,
				    "the request is longer than %d bytes; use a shorter "
				    "token or fewer threads",
				    CLIENT_SOCKET_PACKET_MAX);
	if (descriptor >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(int));
	}
	if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return client_error(-errno, "cannot send to fanwired: %s", strerror(errno));
	return 0;
}

/* The one descriptor of a message; more than one is none of ours, and closed. */
static int take_descriptor(struct msghdr *message)
{
	int kept = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t cnt = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < cnt; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (kept < 0)
				kept = fd;
			else
				close(fd);
		}
	}
	return kept;
}

int client_socket_recv(int fd, json_t **out, int *descriptor)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control;
	char packet[CLIENT_SOCKET_PACKET_MAX];
	struct iovec iov = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control.bytes)};
	ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	json_t *object;
	int passed;

	if (len == 0 || (len < 0 && errno == ECONNRESET))
		return client_error(-EPIPE, "fanwired closed the connection");
	if (len < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	passed = take_descriptor(&message);
	object = json_loadb(packet, (size_t)len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		if (passed >= 0)
			close(passed);
		return client_error(-EPROTO, "fanwired sent something that is not a JSON object");
	}
	if (descriptor)
		*descriptor = passed;
	else if (passed >= 0)
		close(passed);
	*out = object;
	return 0;
}

int client_socket_call(int fd, const json_t *request, json_t **answer, int *descriptor,
		       uint64_t deadline_ns)
{
	int status = client_socket_send(fd, request, -1);

	if (status < 0)
		return status;
	while ((status = client_socket_recv(fd, answer, descriptor)) == -EAGAIN) {
		if (!clock_poll(fd, deadline_ns))
			return client_error(-ETIMEDOUT, "fanwired did not answer in time; see "
							"whether it is overloaded or stopped");
	}
	if (status < 0)
		return status;
	if (json_is_true(json_object_get(*answer, "ok")))
		return 0;
	status = client_socket_refusal(*answer);
	json_decref(*answer);
	*answer = NULL;
	if (descriptor && *descriptor >= 0)
		close(*descriptor);
	return status;
}

int client_socket_refusal(const json_t *answer)
{
	static const struct {
		const char *name;
		int error;
	} errors[] = {
		{"bad_request", EINVAL},
		{"token_invalid", EACCES},
		{"token_expired", EACCES},
		{"token_audience", EACCES},
		{"token_user", EACCES},
		{"connection_foreign", EEXIST},
		{"connection_unknown", ENOENT},
		{"limit_user", EDQUOT},
		{"limit_overall", EDQUOT},
		{"handle_taken", EEXIST},
		{"no_port", EAGAIN},
		{"socket", EIO},
		{"wall_failed", ENETDOWN},
		{"credential", EACCES},
		{"no_dataplane", ENETDOWN},
		{"busy", EAGAIN},
	};
	const char *name = json_string_value(json_object_get(answer, "error"));
	const char *text = json_string_value(json_object_get(answer, "message"));
	int error = EIO;

	for (size_t i = 0; name && i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(name, errors[i].name) == 0)
			error = errors[i].error;
	}
	return client_error(-error, "%s (%s)", text ? text : "refused without a reason",
			    name ? name : "no error name");
}

bool client_socket_id(const json_t *object, const char *key, uint64_t *id)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && fan_id_parse(id, text) == 0;
}

bool client_socket_number(const json_t *object, const char *key, uint64_t max, uint64_t *number)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return false;
	*number = (uint64_t)json_integer_value(value);
	return true;
}

int client_socket_engine(const json_t *answer, int udp, struct sockaddr_in6 *engine,
			 socklen_t *engine_len)
{
	const char *text = json_string_value(json_object_get(answer, "engine_address"));
	struct sockaddr_in *engine4 = (struct sockaddr_in *)engine;
	struct sockaddr_storage own;
	socklen_t own_len = sizeof(own);
	char mapped[64];
	uint64_t port;

	if (!text || !client_socket_number(answer, "engine_port", UINT16_MAX, &port) ||
	    getsockname(udp, (struct sockaddr *)&own, &own_len) < 0)
		return client_error(-EPROTO, "fanwired's answer names no engine or no socket");
	memset(engine, 0, sizeof(*engine));
	if (own.ss_family == AF_INET) {
		engine4->sin_family = AF_INET;
		engine4->sin_port = htons((uint16_t)port);
		*engine_len = sizeof(*engine4);
		if (inet_pton(AF_INET, text, &engine4->sin_addr) == 1)
			return 0;
	} else {
		engine->sin6_family = AF_INET6;
		engine->sin6_port = htons((uint16_t)port);
		*engine_len = sizeof(*engine);
		snprintf(mapped, sizeof(mapped), "%s%.45s",
			 strchr(text, ':') ? "" : "::ffff:", text);
		if (inet_pton(AF_INET6, mapped, &engine->sin6_addr) == 1)
			return 0;
	}
	return client_error(-EPROTO,
			    "fanwired named the engine address %s, which the socket it "
			    "gave cannot reach",
			    text);
}
