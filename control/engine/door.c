/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/door.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "common/log.h"

#define LOOK_MS	    100 /* while it is full: between two looks whether somebody has left */
#define REST_MS	    1000
#define TELL_EACH_S 60

/*
 * A connection, known by its descriptor and its socket's inode: evhttp tells nobody when it closes
 * one that has not sent a whole request.
 */
struct place {
	struct bufferevent *fresh; /* just accepted: its descriptor is not known yet */
	bool taken;
	int fd;
	ino_t ino;
	uint64_t since_s;
};

struct door {
	struct door *next;
	struct evconnlistener *listener;
	struct event *on_fresh, *on_look;
	struct door_rules rules;
	uint64_t told_s; /* 0: not yet */
	struct place places[DOOR_PLACES_MAX];
};

static struct door *doors; /* all of them: a listener's error says no more than which listener */

static uint64_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec + 1;
}

static bool is_open(const struct place *place)
{
	struct stat st;

	return place->fresh ||
	       (fstat(place->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == place->ino);
}

static struct place *free_place(struct door *door)
{
	for (unsigned i = 0; i < door->rules.places; i++)
		if (!door->places[i].taken)
			return &door->places[i];
	return NULL;
}

/* Of those that have left. */
static void free_places(struct door *door)
{
	for (unsigned i = 0; i < door->rules.places; i++) {
		struct place *place = &door->places[i];

		if (place->taken && !is_open(place))
			place->taken = false;
	}
}

static void look_in(struct door *door, unsigned ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evconnlistener_disable(door->listener);
	evtimer_add(door->on_look, &delay);
}

/* A flood is told once a minute, not once a connection. */
static bool may_tell(struct door *door)
{
	uint64_t now = now_s();

	if (door->told_s && now - door->told_s < TELL_EACH_S)
		return false;
	door->told_s = now;
	return true;
}

static void learn(struct place *place)
{
	struct stat st;

	place->fd = bufferevent_getfd(place->fresh);
	place->taken = fstat(place->fd, &st) == 0;
	place->ino = st.st_ino;
	bufferevent_decref(place->fresh);
	place->fresh = NULL;
}

/* Runs before the event loop looks at any socket anew, so that none can have closed. */
static void on_fresh(evutil_socket_t fd, short what, void *arg)
{
	struct door *door = arg;

	for (unsigned i = 0; i < door->rules.places; i++)
		if (door->places[i].fresh)
			learn(&door->places[i]);
}

static struct bufferevent *on_accept(struct event_base *base, void *arg)
{
	struct door *door = arg;
	struct place *place = free_place(door);
	struct bufferevent *made = bufferevent_socket_new(base, -1, 0);

	if (!made || !place)
		return made;
	bufferevent_incref(made);
	*place = (struct place){.fresh = made, .taken = true, .since_s = now_s()};
	event_active(door->on_fresh, EV_TIMEOUT, 0);
	if (!free_place(door))
		free_places(door);
	if (!free_place(door))
		look_in(door, LOOK_MS);
	return made;
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct door *door = arg;
	uint64_t now = now_s();

	free_places(door);
	if (free_place(door)) {
		evconnlistener_enable(door->listener);
		return;
	}
	if (may_tell(door))
		fan_log(FAN_LOG_WARNING, door->rules.subject,
			"%u connections are open, which is the limit: further ones wait, and one "
			"that is older than %u s is closed for them",
			door->rules.places, door->rules.patience_s);
	for (unsigned i = 0; i < door->rules.places; i++)
		if (!door->places[i].fresh &&
		    now - door->places[i].since_s > door->rules.patience_s)
			shutdown(door->places[i].fd, SHUT_RDWR); /* evhttp reads its end */
	look_in(door, LOOK_MS);
}

/* libevent hands over the listener's argument, which is evhttp's own. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	struct door *door = doors;
	int err = errno;

	while (door && door->listener != listener)
		door = door->next;
	if (!door)
		return;
	if (may_tell(door))
		fan_log(FAN_LOG_ERROR, door->rules.subject,
			"cannot accept connections: %s; fanwired tries again each second",
			strerror(err));
	look_in(door, REST_MS);
}

int door_open(struct door **out, struct event_base *base, struct evhttp *server,
	      struct evconnlistener *listener, const struct door_rules *rules)
{
	struct door *door = calloc(1, sizeof(*door));

	*out = NULL;
	if (!door)
		return -ENOMEM;
	door->listener = listener;
	door->rules = *rules;
	door->on_fresh = event_new(base, -1, 0, on_fresh, door);
	door->on_look = evtimer_new(base, on_look, door);
	door->next = doors;
	doors = door;
	if (!door->on_fresh || !door->on_look) {
		door_close(door);
		return -ENOMEM;
	}
	evhttp_set_bevcb(server, on_accept, door);
	evconnlistener_set_error_cb(listener, on_accept_error);
	*out = door;
	return 0;
}

void door_close(struct door *door)
{
	struct door **link = &doors;

	if (!door)
		return;
	while (*link != door)
		link = &(*link)->next;
	*link = door->next;
	for (unsigned i = 0; i < door->rules.places; i++)
		if (door->places[i].fresh)
			bufferevent_decref(door->places[i].fresh);
	if (door->on_fresh)
		event_free(door->on_fresh);
	if (door->on_look)
		event_free(door->on_look);
	free(door);
}
