/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Marks in the stream of messages to the agent: who must not say "done" before the agent has acted
 * upon what it was told. Event-loop thread only.
 */
#pragma once

#include <stdint.h>

struct link;
struct marks;
struct message;

struct marks *marks_create(struct link *link); /* NULL: out of memory */
/* Whoever still waits is called with -ECANCELED; NULL is allowed. */
void marks_destroy(struct marks *marks);

/* Calls back, status 0, once the agent has acted upon everything that was sent to it so far. */
typedef void (*marks_done)(void *arg, int status);
void marks_when_done(struct marks *marks, marks_done done, void *arg);
/* The agent's MARKED. */
void marks_on_message(struct marks *marks, const struct message *message);
