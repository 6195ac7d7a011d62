/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The door of an HTTP server: how many connections it holds at once, and for how long where others
 * wait. Whoever can connect could else take every descriptor of fanwired, with requests that never
 * end. Event-loop thread only.
 */
#pragma once

#define DOOR_PLACES_MAX 64

struct door;
struct event_base;
struct evconnlistener;
struct evhttp;

struct door_rules {
	const char *subject; /* of its log lines; kept */
	unsigned places;     /* connections at once, to DOOR_PLACES_MAX; further ones queue */
	unsigned patience_s; /* a connection that is older leaves while others queue */
};

/*
 * Takes a listener that is bound to the server already. Out of descriptors, it rests for a second
 * instead of trying without end. -ENOMEM.
 */
int door_open(struct door **door, struct event_base *base, struct evhttp *server,
	      struct evconnlistener *listener, const struct door_rules *rules);
/* The event loop does not run between this and evhttp_free(), in either order. */
void door_close(struct door *door);
