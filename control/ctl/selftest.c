/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two canary users on the running system: each must get its own events and nothing else, and the
 * kernel must keep forged datagrams from their sockets. The forgeries are sent from a publisher
 * session's socket, since that stands in the receivers' network namespace.
 *
 * The canaries have the same names each time, since a revoked user is remembered for ever; so there
 * is one selftest at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "common/wire/handle.h"
#include "control/ctl/api.h"
#include "control/ctl/output.h"

#define EVENTS_EACH  20
#define DATAGRAM_MAX (FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX + 1)
#define QUIET_MS     300 /* what did not come by then does not come */
#define ARRIVE_MS    2000
#define TURN_MS	     60000 /* for the selftest before this one to end */

struct datagram {
	uint8_t bytes[DATAGRAM_MAX];
	size_t len;
};

struct canary {
	const char *name;
	struct fan_subscription *subscription;
	struct datagram captured; /* one that the engine sent to it */
};

struct selftest {
	const struct ctl *ctl;
	struct canary a, b;
	int turn_fd;		      /* holds the lock of take_turn() */
	struct fan_publisher *forger; /* for its socket only */
	bool seal;		      /* deliveries are to be sealed */
	unsigned delivered, foreign, forged, arrived;
};

static bool failed(const struct selftest *test, const char *what)
{
	output_error(test->ctl, "selftest", "%s: %s", what, fan_error());
	return false;
}

/* ---- canaries -------------------------------------------------------------------------------- */

static bool canary_subscribe(struct selftest *test, struct canary *canary)
{
	json_t *body = json_pack("{s:s, s:i}", "user", canary->name, "ttl_seconds", 120);
	json_t *answer = api_call(test->ctl, "POST", "/v1/tokens", NULL, body);
	struct fan_subscribe_options options = {
		.token = json_string_value(json_object_get(answer, "token"))};
	int status;

	if (!answer)
		return false;
	status = fan_subscribe(&canary->subscription, test->ctl->client_socket, &options);
	json_decref(answer);
	return status == 0 || failed(test, "a canary cannot subscribe");
}

static json_t *grant_for(const struct selftest *test, const struct canary *canary)
{
	return api_call(test->ctl, "POST", "/v1/grants", NULL,
			json_pack("{s:s}", "user", canary->name));
}

static bool canary_publish(struct selftest *test, const struct canary *canary, unsigned number)
{
	char payload[96];
	struct fan_event_spec event = {.user = canary->name, .payload = payload};
	json_t *answer = grant_for(test, canary);
	struct fan_credential credential = {
		.grant = json_string_value(json_object_get(answer, "grant"))};
	struct fan_receipt receipt;
	int status;

	if (!answer)
		return false;
	event.payload_len =
		(size_t)snprintf(payload, sizeof(payload), "%s %u", canary->name, number);
	status = fan_publish_once(test->ctl->client_socket, &credential, &event, &receipt, 0);
	json_decref(answer);
	if (status < 0)
		return failed(test, "a canary's event was not taken");
	if (receipt.sent != 1)
		output_error(test->ctl, "selftest", "an event for one connection was sent to %u",
			     receipt.sent);
	return receipt.sent == 1;
}

/* Counts the canary's events: its own in order, and whatever should not be there. */
static void canary_collect(struct selftest *test, struct canary *canary, bool quiet)
{
	unsigned expected = 0;
	struct fan_event event;
	char payload[96];
	int len;

	while (expected < EVENTS_EACH || quiet) {
		if (fan_receive(canary->subscription, &event, quiet ? QUIET_MS : ARRIVE_MS) != 1)
			return;
		len = snprintf(payload, sizeof(payload), "%s %u", canary->name, expected);
		if (!quiet && event.type == FAN_EVENT_DATA && event.payload_len == (size_t)len &&
		    memcmp(event.payload, payload, (size_t)len) == 0) {
			test->delivered++;
			expected++;
		} else {
			test->foreign++;
		}
		if (event.type == FAN_EVENT_ENDED)
			return;
	}
}

static bool test_delivery(struct selftest *test)
{
	for (unsigned i = 0; i < EVENTS_EACH; i++) {
		if (!canary_publish(test, &test->a, i) || !canary_publish(test, &test->b, i))
			return false;
	}
	canary_collect(test, &test->a, false);
	canary_collect(test, &test->b, false);
	canary_collect(test, &test->a, true);
	canary_collect(test, &test->b, true);
	return true;
}

/* ---- forgery --------------------------------------------------------------------------------- */

static bool wait_readable(int fd, int timeout_ms)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	return poll(&poller, 1, timeout_ms) > 0;
}

/* On the wire there is nothing of what was published: neither as it was, nor a part of it. */
static bool is_sealed(const struct selftest *test, const struct canary *canary)
{
	const struct datagram *datagram = &canary->captured;

	if (!memmem(datagram->bytes, datagram->len, canary->name, strlen(canary->name)))
		return true;
	output_error(test->ctl, "selftest",
		     "deliveries should be sealed, and a canary's came in the clear; restart "
		     "fanwire-dataplane, and see fanwirectl status for the walls");
	return false;
}

/* Whether deliveries are to be sealed. False: unknown, and said why. */
static bool ask_seal(struct selftest *test)
{
	json_t *keys = api_call(test->ctl, "GET", "/v1/keys", NULL, NULL);

	test->seal = json_is_true(json_object_get(keys, "seal"));
	json_decref(keys);
	return keys;
}

/* Publishes one event to the canary and takes its datagram raw from the socket. */
static bool canary_capture(struct selftest *test, struct canary *canary)
{
	int fd = fan_subscription_socket(canary->subscription);
	struct datagram *datagram = &canary->captured;

	if (!canary_publish(test, canary, EVENTS_EACH))
		return false;
	while (wait_readable(fd, ARRIVE_MS)) {
		ssize_t len = recv(fd, datagram->bytes, sizeof(datagram->bytes), MSG_DONTWAIT);

		datagram->len = len > 0 ? (size_t)len : 0;
		if (datagram->len > FAN_DELIVERY_LEN && datagram->bytes[1] == FAN_TYPE_DELIVERY)
			return !test->seal || is_sealed(test, canary);
	}
	output_error(test->ctl, "selftest", "an event was sent to a canary but did not come");
	return false;
}

static bool forge(struct selftest *test, const struct canary *target, const uint8_t *bytes,
		  size_t len)
{
	struct sockaddr_storage address;
	socklen_t address_len = sizeof(address);
	int target_fd = fan_subscription_socket(target->subscription);

	if (getsockname(target_fd, (struct sockaddr *)&address, &address_len) == 0 &&
	    sendto(fan_publisher_socket(test->forger), bytes, len, 0, (struct sockaddr *)&address,
		   address_len) == (ssize_t)len) {
		test->forged++;
		return true;
	}
	output_error(test->ctl, "selftest", "a forged datagram could not even be sent: %s",
		     strerror(errno));
	return false;
}

/*
 * The library connects its socket to the engine, so nobody else's datagram would even come to the
 * filter. A holder may undo that, and the filter must hold alone: here it does.
 */
static bool disconnect(struct selftest *test, const struct canary *canary)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	int fd = fan_subscription_socket(canary->subscription);

	if (connect(fd, &nobody, sizeof(nobody)) == 0)
		return true;
	output_error(test->ctl, "selftest", "a canary's socket cannot be disconnected: %s",
		     strerror(errno));
	return false;
}

/* One's datagram to the other; every header byte damaged; cut short; too long. */
static bool forge_across(struct selftest *test)
{
	struct datagram copy;
	const struct datagram *own = &test->b.captured;

	if (!disconnect(test, &test->b) ||
	    !forge(test, &test->b, test->a.captured.bytes, test->a.captured.len))
		return false;
	for (unsigned i = 0; i < FAN_DELIVERY_LEN; i++) {
		copy = *own;
		copy.bytes[i] ^= (uint8_t)(1u << (i % 8));
		if (!forge(test, &test->b, copy.bytes, copy.len))
			return false;
	}
	copy = *own;
	copy.bytes[copy.len] = 0;
	return forge(test, &test->b, own->bytes, 1) &&
	       forge(test, &test->b, own->bytes, FAN_DELIVERY_LEN - 1) &&
	       forge(test, &test->b, own->bytes, own->len - 1) &&
	       forge(test, &test->b, copy.bytes, copy.len + 1);
}

/* What the engine itself sends on: where the stream stands. Forged ones are of other lengths. */
static bool is_status(const uint8_t *bytes, ssize_t len)
{
	return len == FAN_DELIVERY_LEN && bytes[1] == FAN_TYPE_STATUS;
}

static void count_arrived(struct selftest *test, const struct canary *target)
{
	int fd = fan_subscription_socket(target->subscription);
	uint64_t end_ns = clock_deadline(QUIET_MS);
	uint8_t bytes[DATAGRAM_MAX];

	while (clock_poll(fd, end_ns)) {
		ssize_t len = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		test->arrived += len >= 0 && !is_status(bytes, len);
	}
}

/* The canary is revoked and comes back: what was sealed for it before is not for it any more. */
static bool forge_old_generation(struct selftest *test)
{
	struct canary *canary = &test->a;
	json_t *answer = api_call(test->ctl, "POST", "/v1/revocations", NULL,
				  json_pack("{s:s}", "user", canary->name));
	struct fan_event event;
	bool ended = false;

	if (!answer)
		return false;
	json_decref(answer);
	while (!ended && fan_receive(canary->subscription, &event, ARRIVE_MS) == 1)
		ended = event.type == FAN_EVENT_ENDED;
	if (!ended) {
		output_error(test->ctl, "selftest", "a revoked canary was not told so");
		return false;
	}
	fan_subscription_close(canary->subscription);
	canary->subscription = NULL;
	return canary_subscribe(test, canary) && disconnect(test, canary) &&
	       forge(test, canary, canary->captured.bytes, canary->captured.len);
}

/* What the kernel's filter has dropped so far; -1: unknown, and said why. */
static long long filter_drops(const struct selftest *test)
{
	json_t *status = api_call(test->ctl, "GET", "/v1/status", NULL, NULL);
	long long drops = 0;
	const char *key;
	json_t *value;

	if (!status)
		return -1;
	json_object_foreach (json_object_get(status, "filter"), key, value) {
		if (strcmp(key, "accepted") != 0)
			drops += json_integer_value(value);
	}
	json_decref(status);
	return drops;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool open_forger(struct selftest *test)
{
	json_t *answer = grant_for(test, &test->a);
	struct fan_credential credential = {
		.grant = json_string_value(json_object_get(answer, "grant"))};
	int status;

	if (!answer)
		return false;
	status = fan_publisher_open(&test->forger, test->ctl->client_socket, &credential);
	json_decref(answer);
	return status == 0 || failed(test, "no publisher session");
}

/* *blocked: forged ones that did not arrive and that the kernel says it has dropped. */
static bool run_all(struct selftest *test, unsigned *blocked)
{
	long long before, after;

	if (!ask_seal(test) || !canary_subscribe(test, &test->a) ||
	    !canary_subscribe(test, &test->b) || !open_forger(test) || !test_delivery(test) ||
	    !canary_capture(test, &test->a) || !canary_capture(test, &test->b))
		return false;
	before = filter_drops(test);
	if (before < 0 || !forge_across(test))
		return false;
	count_arrived(test, &test->b);
	if (!forge_old_generation(test))
		return false;
	count_arrived(test, &test->a);
	after = filter_drops(test);
	if (after < 0)
		return false;
	*blocked = test->forged > test->arrived ? test->forged - test->arrived : 0;
	if (after - before < (long long)*blocked)
		*blocked = after > before ? (unsigned)(after - before) : 0;
	return true;
}

static int print_verdict(const struct selftest *test, unsigned blocked)
{
	bool passed = test->delivered == 2 * EVENTS_EACH && test->foreign == 0 &&
		      test->forged > 0 && blocked == test->forged;
	json_t *object;

	if (!test->ctl->json) {
		printf("delivered %u of %u events to two canary users, %u that were not theirs\n"
		       "blocked %u of %u forged datagrams in the kernel\n"
		       "deliveries are %s\n%s\n",
		       test->delivered, 2 * EVENTS_EACH, test->foreign, blocked, test->forged,
		       test->seal ? "sealed: seen on the wire" : "not sealed (scope.seal)",
		       passed ? "passed"
			      : "FAILED; see fanwirectl status for the walls, and "
				"fanwirectl doctor");
		return passed ? EXIT_DONE : EXIT_REFUSED;
	}
	object = json_pack("{s:i, s:i, s:i, s:i, s:i, s:b, s:b}", "delivered", (int)test->delivered,
			   "expected", 2 * EVENTS_EACH, "foreign", (int)test->foreign, "forged",
			   (int)test->forged, "blocked", (int)blocked, "sealed", (int)test->seal,
			   "passed", passed);
	output_json(object);
	json_decref(object);
	return passed ? EXIT_DONE : EXIT_REFUSED;
}

/*
 * One selftest at a time on an instance: a lock on the folder of its control socket, where an
 * administrator who is not root may not write.
 */
static bool take_turn(struct selftest *test)
{
	const char *slash = strrchr(test->ctl->socket, '/');
	uint64_t end_ns = clock_deadline(TURN_MS);
	char folder[256] = ".";

	if (slash)
		snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - test->ctl->socket),
			 test->ctl->socket);
	test->turn_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (test->turn_fd < 0) {
		output_error(test->ctl, "selftest", "cannot open %s: %s; is fanwired running?",
			     folder, strerror(errno));
		return false;
	}
	while (flock(test->turn_fd, LOCK_EX | LOCK_NB)) {
		if ((errno != EWOULDBLOCK && errno != EINTR) || clock_now_ns() > end_ns) {
			output_error(test->ctl, "selftest",
				     "cannot lock %s: %s; another selftest runs, and one at a time "
				     "is all there can be",
				     folder, strerror(errno));
			return false;
		}
		usleep(50000);
	}
	return true;
}

int run_selftest(const struct ctl *ctl, const struct arguments *arguments)
{
	struct selftest test = {.ctl = ctl,
				.a.name = "fanwire-selftest-a",
				.b.name = "fanwire-selftest-b",
				.turn_fd = -1};
	unsigned blocked = 0;
	bool finished;

	finished = take_turn(&test) && run_all(&test, &blocked);
	/* their sockets and the session end with their connections; their names stay */
	fan_publisher_close(test.forger);
	fan_subscription_close(test.a.subscription);
	fan_subscription_close(test.b.subscription);
	if (test.turn_fd >= 0)
		close(test.turn_fd);
	return finished ? print_verdict(&test, blocked) : EXIT_REFUSED;
}
