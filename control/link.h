/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In-process link between engine and agent: two queues on one libevent base. A message that is
 * sent is delivered from the event loop, never from within the sender's call, so neither side
 * re-enters the other, as it would be over a network. Order is kept in each direction.
 * The event-loop thread only.
 */
#pragma once

#include "control/messages.h"

struct event_base;
struct link;

/* The message is valid during the call, and no longer than message_len() says. */
typedef void (*link_on_message)(void *arg, const struct message *message);

struct link *link_create(struct event_base *base);
void link_destroy(struct link *link);
void link_set_agent(struct link *link, link_on_message on_message, void *arg);
void link_set_engine(struct link *link, link_on_message on_message, void *arg);
/* Copies the message (only its used part need be valid). Aborts the process when out of memory. */
void link_to_engine(struct link *link, const struct message *message);
void link_to_agent(struct link *link, const struct message *message);
