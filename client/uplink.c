/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/uplink.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/error.h"

#define BACKOFF_FIRST_MS 20
#define BACKOFF_LAST_MS	 500

static int uplink_adopt(struct uplink *uplink, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(uplink->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return client_error(-errno, "cannot watch the client socket: %s", strerror(errno));
	uplink->fd = fd;
	return 0;
}

int uplink_open(struct uplink *uplink, int epoll_fd, const char *path, const json_t *request,
		json_t **answer, int *descriptor, uint64_t deadline_ns)
{
	int status = client_socket_path(uplink->path, path);
	int fd;

	uplink->fd = -1;
	uplink->epoll_fd = epoll_fd;
	uplink->backoff_ms = BACKOFF_FIRST_MS;
	if (status < 0)
		return status;
	fd = client_socket_connect(uplink->path, deadline_ns);
	if (fd < 0)
		return fd;
	status = client_socket_call(fd, request, answer, descriptor, deadline_ns);
	if (status < 0)
		goto fail;
	status = uplink_adopt(uplink, fd);
	if (status < 0) {
		json_decref(*answer);
		if (*descriptor >= 0)
			close(*descriptor);
		goto fail;
	}
	uplink_set_up(uplink);
	return 0;
fail:
	close(fd);
	return status;
}

void uplink_close(struct uplink *uplink)
{
	if (uplink->fd >= 0)
		close(uplink->fd);
	uplink->fd = -1;
}

void uplink_set_up(struct uplink *uplink)
{
	uplink->state = UPLINK_UP;
	uplink->backoff_ms = BACKOFF_FIRST_MS;
	uplink->deadline_ns = CLOCK_NEVER;
}

void uplink_set_down(struct uplink *uplink, uint64_t now_ns)
{
	/* jitter: the daemon's clients lost it in one instant and must not return in one */
	unsigned wait_ms = uplink->backoff_ms / 2 + randombytes_uniform(uplink->backoff_ms);

	uplink_close(uplink);
	uplink->state = UPLINK_DOWN;
	uplink->deadline_ns = now_ns + wait_ms * CLOCK_MS_NS;
	uplink->backoff_ms *= 2;
	if (uplink->backoff_ms > BACKOFF_LAST_MS)
		uplink->backoff_ms = BACKOFF_LAST_MS;
}

json_t *uplink_recv(struct uplink *uplink, uint64_t now_ns)
{
	json_t *message = NULL;
	int status;

	if (uplink->fd < 0)
		return NULL;
	status = client_socket_recv(uplink->fd, &message, NULL);
	if (status < 0 && status != -EAGAIN)
		uplink_set_down(uplink, now_ns);
	return message;
}

bool uplink_attach_due(const struct uplink *uplink, uint64_t now_ns)
{
	return uplink->state == UPLINK_DOWN && now_ns >= uplink->deadline_ns;
}

void uplink_attach(struct uplink *uplink, const json_t *request, int descriptor, uint64_t now_ns)
{
	int fd;

	fd = client_socket_connect(uplink->path, 0);
	if (fd < 0) {
		uplink_set_down(uplink, now_ns);
		return;
	}
	if (client_socket_send(fd, request, descriptor) < 0 || uplink_adopt(uplink, fd) < 0) {
		close(fd);
		uplink_set_down(uplink, now_ns);
		return;
	}
	/*
	 * Not given up: where all come back at once, a second try would only queue anew. The daemon
	 * answers each in its turn, and the kernel breaks the connection of one that has died.
	 */
	uplink->state = UPLINK_ATTACHING;
	uplink->deadline_ns = CLOCK_NEVER;
}
