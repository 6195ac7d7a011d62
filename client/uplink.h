/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The connection of one session or subscription to client.sock, and its mending: when fanwired
 * restarts, what it granted lives on, so the owner connects again and attaches with its descriptor.
 * The owner drives it and holds it in his epoll set; his thread only.
 */
#pragma once

#include <stdbool.h>

#include "client/client_socket.h"

enum uplink_state {
	UPLINK_UP,
	UPLINK_DOWN,	  /* broken; uplink_attach() is due at deadline_ns */
	UPLINK_ATTACHING, /* the request is out; its answer comes, or the connection breaks */
};

struct uplink {
	char path[CLIENT_SOCKET_PATH_MAX];
	int fd;	      /* -1 while down */
	int epoll_fd; /* the owner's */
	enum uplink_state state;
	unsigned backoff_ms;
	uint64_t deadline_ns; /* of being down; else CLOCK_NEVER */
};

/* Connects, asks, and is up: *answer is the caller's. -errno with fan_error(). */
int uplink_open(struct uplink *uplink, int epoll_fd, const char *path, const json_t *request,
		json_t **answer, int *descriptor, uint64_t deadline_ns);
void uplink_close(struct uplink *uplink);

/* Next message, or NULL. A broken connection goes down, to be attached again with back-off. */
json_t *uplink_recv(struct uplink *uplink, uint64_t now_ns);

/* One try to connect and ask to attach, where one is due. */
bool uplink_attach_due(const struct uplink *uplink, uint64_t now_ns);
void uplink_attach(struct uplink *uplink, const json_t *request, int descriptor, uint64_t now_ns);
void uplink_set_up(struct uplink *uplink);
void uplink_set_down(struct uplink *uplink, uint64_t now_ns);
