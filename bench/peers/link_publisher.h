/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A publisher session whose publishes enter by a bypass receiver's own link, flat out: the same
 * session, sealing and order as over UDP, in frames that carry the session's address. What the
 * engine does not accept in time is sent again from the gap. One thread, the link's.
 */
#pragma once

#include <stdbool.h>

#include "client/bypass/link.h"
#include "client/fanwire.h"

struct link_publisher;

/* len: of every event. 0, or -errno with fan_error(). */
int link_publisher_open(struct link_publisher **publisher, struct fan_bypass *link,
			const char *client_socket, const struct fan_credential *credential,
			unsigned len);
void link_publisher_close(struct link_publisher *publisher);
/* False where the window is full. Sent by the next flush. */
bool link_publish(struct link_publisher *publisher, const uint8_t handle[FAN_HANDLE_LEN],
		  const void *event);
void link_publisher_flush(struct link_publisher *publisher);
/* Sends again what is overdue; acknowledgements come by the link. */
void link_publisher_step(struct link_publisher *publisher, uint64_t now_ns);
