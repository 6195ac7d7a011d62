/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A publisher session that publishes flat out: each event sealed and numbered as libfanwire does
 * it, kept until the engine has accepted it, sent again from the gap where something got lost.
 * Events of one length leave as segments of one buffer. One thread.
 */
#pragma once

#include <stdbool.h>

#include "client/fanwire.h"
#include "common/wire/handle.h"

struct flat_publisher;

/* len: of every event. 0, or -errno with fan_error(). */
int flat_publisher_open(struct flat_publisher **publisher, const char *client_socket,
			const struct fan_credential *credential, unsigned len);
void flat_publisher_close(struct flat_publisher *publisher);
/* False where the window is full. Sent by the next flush at the latest. */
bool flat_publish(struct flat_publisher *publisher, const uint8_t handle[FAN_HANDLE_LEN],
		  const void *event);
/* 0 or -errno of the socket. */
int flat_publisher_flush(struct flat_publisher *publisher);
/* Takes in acknowledgements, and sends again what is overdue. */
void flat_publisher_step(struct flat_publisher *publisher, uint64_t now_ns);
