/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.sock as docs/client-socket.md states it: one JSON object a packet over SOCK_SEQPACKET, and
 * at most one descriptor beside it. No state; nothing here blocks beyond its deadline.
 */
#pragma once

#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_SOCKET_PATH_MAX	 108 /* sun_path */
#define CLIENT_SOCKET_PACKET_MAX (16 * 1024)

/* The socket to use: `path`, else $FANWIRE_CLIENT_SOCKET, else the default. -ENAMETOOLONG. */
int client_socket_path(char out[CLIENT_SOCKET_PATH_MAX], const char *path);

/* A connected, non-blocking descriptor, or -ENOENT, -ECONNREFUSED, -EACCES, -ETIMEDOUT … */
int client_socket_connect(const char *path, uint64_t deadline_ns);

/* Sends one object and, where descriptor >= 0, that with it. 0, -EMSGSIZE, -EPIPE, -EAGAIN … */
int client_socket_send(int fd, const json_t *request, int descriptor);

/*
 * The next object, which the caller releases. *descriptor (may be NULL: closed) is the one that
 * came with it, or -1. -EAGAIN: none there; -EPIPE: the server closed; -EPROTO: not a JSON object.
 */
int client_socket_recv(int fd, json_t **message, int *descriptor);

/* Sends and waits for the answer ("ok"); a refusal becomes -errno with the server's sentence. */
int client_socket_call(int fd, const json_t *request, json_t **answer, int *descriptor,
		       uint64_t deadline_ns);

/* -errno of a refusal {"ok":false,"error":…,"message":…}, and its sentence as fan_error(). */
int client_socket_refusal(const json_t *answer);

/* Fields of an answer: false where absent or of another form. */
bool client_socket_id(const json_t *object, const char *key, uint64_t *id);
bool client_socket_number(const json_t *object, const char *key, uint64_t max, uint64_t *number);

/* Where the engine is, as a destination for `udp`: its family decides the form of the address. */
int client_socket_engine(const json_t *answer, int udp, struct sockaddr_in6 *engine,
			 socklen_t *engine_len);
