/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/link.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

/* Messages delivered before other events get their turn. */
#define LINK_BATCH 128

struct envelope {
	struct envelope *next;
	bool to_engine;
	size_t len;		/* of what is allocated */
	struct message message; /* its used part only */
};

struct end_point {
	link_on_message on_message;
	void *arg;
};

struct link {
	struct event *wakeup;
	struct envelope *first, **last;
	struct end_point agent, engine;
};

static struct envelope *pop(struct link *link)
{
	struct envelope *envelope = link->first;

	if (!envelope)
		return NULL;
	link->first = envelope->next;
	if (!link->first)
		link->last = &link->first;
	return envelope;
}

/* Messages carry tokens and keys: they do not stay behind in freed memory. */
static void destroy(struct envelope *envelope)
{
	explicit_bzero(envelope, envelope->len);
	free(envelope);
}

/*
 * A timer of zero comes after a look at the descriptors; event_active() would be served in the same
 * turn of the loop, and two sides that answer each other would have it for themselves.
 */
static void wake(struct link *link)
{
	const struct timeval now = {0};

	if (!evtimer_pending(link->wakeup, NULL))
		evtimer_add(link->wakeup, &now);
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	struct link *link = arg;

	for (unsigned n = 0; n < LINK_BATCH; n++) {
		struct envelope *envelope = pop(link);

		if (!envelope)
			return;
		/* Read at delivery: a side that has gone meanwhile (NULL) gets nothing. */
		const struct end_point *to = envelope->to_engine ? &link->engine : &link->agent;

		if (to->on_message)
			to->on_message(to->arg, &envelope->message);
		destroy(envelope);
	}
	if (link->first)
		wake(link);
}

struct link *link_create(struct event_base *base)
{
	struct link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->last = &link->first;
	link->wakeup = evtimer_new(base, on_wakeup, link);
	if (!link->wakeup) {
		free(link);
		return NULL;
	}
	return link;
}

void link_destroy(struct link *link)
{
	struct envelope *envelope;

	if (!link)
		return;
	event_free(link->wakeup);
	while ((envelope = pop(link)))
		destroy(envelope);
	free(link);
}

void link_set_agent(struct link *link, link_on_message on_message, void *arg)
{
	link->agent = (struct end_point){on_message, arg};
}

void link_set_engine(struct link *link, link_on_message on_message, void *arg)
{
	link->engine = (struct end_point){on_message, arg};
}

static void push(struct link *link, bool to_engine, const struct message *message)
{
	size_t used = message_len(message->type);
	size_t len = offsetof(struct envelope, message) + used;
	struct envelope *envelope = malloc(len);

	if (!envelope) {
		/* Dropping a message would lose an end or a grant for ever; a restart loses
		 * nothing. */
		fprintf(stderr, "link: out of memory\n");
		abort();
	}
	envelope->next = NULL;
	envelope->to_engine = to_engine;
	envelope->len = len;
	memcpy(&envelope->message, message, used);
	*link->last = envelope;
	link->last = &envelope->next;
	wake(link);
}

void link_to_engine(struct link *link, const struct message *message)
{
	push(link, true, message);
}

void link_to_agent(struct link *link, const struct message *message)
{
	push(link, false, message);
}
