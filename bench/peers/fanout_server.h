/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fan-out server as an application would write it: receives publishes over UDP, and sends each to
 * the addresses of its user. What differs is how a burst of copies is sent.
 */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_COPIES 1024 /* at most in one burst */

struct server_copy {
	const void *payload;
	size_t len;
	const struct sockaddr_in *to;
	unsigned idx; /* of the address in the table */
};

struct server {
	const char *name;
	/* 0 or -errno. server->fd is an unconnected UDP socket; table: every address there is. */
	int (*open)(struct server *server, const struct sockaddr_in *table, unsigned cnt);
	/* Sends all of them; they are not needed afterwards. 0 or -errno. */
	int (*send)(struct server *server, const struct server_copy *copies, unsigned cnt);
	int fd;
	void *state;
};

/* The whole program: options, ready, then serves until its input ends. The exit status. */
int server_main(struct server *server, int argc, char **argv);
