/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sockets in the receivers' network namespace: scoped ones for subscribers, plain ones for
 * publishers. The caller's thread never enters that namespace: a short-lived thread makes the
 * socket there and ends. All descriptors are close-on-exec and non-blocking.
 *
 * Event-loop thread only.
 */
#pragma once

#include <stdint.h>

#include "control/agent/scope/scope_maps.h"

struct scoped_socket {
	int fd;		 /* the caller's, to pass on and close */
	uint64_t cookie; /* key of its scope */
};

/*
 * Makes a socket that is scoped before anything can reach it: create, cookie, scope map entry,
 * filter attached and locked, receive buffer, bind to address:port (a port of the range, host byte
 * order). -EADDRINUSE: the port is taken; try another. On failure nothing is left, and `why` says
 * what.
 */
int scoped_socket_open(struct scope_maps *maps, const struct scope *scope,
		       const struct fan_address *address, uint16_t port, struct scoped_socket *made,
		       char why[256]);

/* A publisher's socket: bound to a receiver address and a port of the kernel's choice (*port). */
int plain_socket_open(struct scope_maps *maps, const struct fan_address *address, int *fd,
		      uint16_t *port, char why[256]);

/* Cookie of a socket that a client sent back. -ENOTSOCK and the like where it is none. */
int socket_cookie(int fd, uint64_t *cookie);
/* Its own address and port (host byte order). -EAFNOSUPPORT: neither IPv4 nor IPv6. */
int socket_address(int fd, struct fan_address *address, uint16_t *port);
