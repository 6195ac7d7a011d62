/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening end of client.sock in the file system. Event-loop thread only.
 */
#pragma once

#include <sys/types.h>

#include "common/config/config.h"

struct listener {
	int fd; /* -1: closed */
	char path[FAN_PATH_MAX];
	dev_t dev; /* of the file that we made */
	ino_t ino;
};

/*
 * Makes config->client_socket, mode 0666, listening. A file that a dead fanwired left is removed;
 * where somebody answers on it: -EADDRINUSE. `why` says what to do.
 */
int listener_open(struct listener *listener, const struct fan_config *config, char why[1024]);
/* Removes the file too, where it is still ours. */
void listener_close(struct listener *listener);
