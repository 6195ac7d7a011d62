/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One packet of client.sock, in or out, with at most one descriptor. Never blocks, and never leaves
 * a received descriptor open that it does not hand over. Any thread.
 */
#pragma once

#include <stddef.h>

#include <jansson.h>

#include "control/agent/request.h"

struct packet {
	size_t len;
	int descriptor;	   /* -1: none */
	const char *fault; /* NULL, or why it cannot be taken as a request; then no descriptor */
	char text[CLIENT_PACKET_MAX + 1];
};

/* 1: *packet is filled; 0: the peer has closed; -EAGAIN: nothing there; -errno: the peer is gone.
 */
int packet_receive(int fd, struct packet *packet);
/*
 * Sends the object as one packet and consumes it. -EAGAIN: the peer does not read. -EINVAL: packet
 * is NULL, or no JSON.
 */
int packet_send(int fd, json_t *packet, int descriptor);
/* Closes a client's socket so that what was sent to it can still be read. */
void packet_close(int fd);
