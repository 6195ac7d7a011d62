/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/subscription.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/error.h"

#define TIMEOUT_DEFAULT_MS 5000
#define POLLED_SERVICE_NS  (10 * CLOCK_MS_NS)
#define HASTE_NS	   (2 * CLOCK_S_NS) /* between renewals */

/* ---- registration ---------------------------------------------------------------------------- */

static int watch(struct fan_subscription *s)
{
	struct epoll_event event = {.events = EPOLLIN};

	event.data.fd = s->timer.fd;
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->timer.fd, &event) < 0)
		return client_error(-errno, "cannot watch the timer: %s", strerror(errno));
	return 0;
}

/* ---- what fanwired says ---------------------------------------------------------------------- */

void subscription_end(struct fan_subscription *s, const char *reason, const char *text)
{
	s->ended = true;
	snprintf(s->ended_why, sizeof(s->ended_why), "%s: %s", reason, text);
	uplink_close(&s->uplink);
}

static void on_attach_refused(struct fan_subscription *s, const char *error, const char *text,
			      uint64_t now_ns)
{
	if (strcmp(error, "connection_unknown") == 0)
		subscription_end(s, "absent", text);
	else if (strcmp(error, "connection_foreign") == 0 || strncmp(error, "token_", 6) == 0)
		subscription_end(s, strncmp(error, "token_", 6) ? error : "token", text);
	else /* busy, or failing in a way that may pass */
		uplink_set_down(&s->uplink, now_ns);
}

void subscription_hasten(struct fan_subscription *s)
{
	s->renew_ns = clock_earlier(s->renew_ns, s->renewed_ns + HASTE_NS);
}

static void on_active(struct fan_subscription *s, const json_t *message, uint64_t now_ns)
{
	grant_take_tails(s, message, !s->active, now_ns);
	s->active = true;
}

/* The answer may be the only word of it: the event may have got lost with the daemon. */
static void on_attached(struct fan_subscription *s, const json_t *answer, uint64_t now_ns)
{
	const char *state = json_string_value(json_object_get(answer, "state"));

	uplink_set_up(&s->uplink);
	grant_take_keys(s, answer);
	if (state && strcmp(state, "active") == 0)
		on_active(s, answer, now_ns);
}

static void on_message(struct fan_subscription *s, const json_t *message, uint64_t now_ns)
{
	const char *event = json_string_value(json_object_get(message, "event"));
	const char *error = json_string_value(json_object_get(message, "error"));
	const char *text = json_string_value(json_object_get(message, "message"));
	const char *reason = json_string_value(json_object_get(message, "reason"));
	uint64_t lease_s;

	if (event && strcmp(event, "active") == 0)
		on_active(s, message, now_ns);
	else if (event && strcmp(event, "keys") == 0)
		grant_take_keys(s, message);
	else if (event && strcmp(event, "ended") == 0)
		subscription_end(s, reason ? reason : "ended", text ? text : "no reason was given");
	else if (s->uplink.state == UPLINK_ATTACHING && error)
		on_attach_refused(s, error, text ? text : "refused", now_ns);
	else if (s->uplink.state == UPLINK_ATTACHING)
		on_attached(s, message, now_ns);
	else if (!event && !error && s->active) /* of a renewal */
		grant_take_tails(s, message, false, now_ns);
	s->asked_cnt -= !event && s->asked_cnt;
	if (client_socket_number(message, "lease_seconds", 86400, &lease_s) && lease_s)
		s->lease_s = (uint32_t)lease_s;
}

/* What it answers it has read afterwards. Of several requests the earliest counts. */
static void note_asked(struct fan_subscription *s, uint64_t now_ns)
{
	if (s->asked_cnt++ == 0)
		s->asked_ns = now_ns;
}

/* At each third of the lease, so that two may get lost. A refused token is not sent again. */
static void renew(struct fan_subscription *s, uint64_t now_ns)
{
	json_t *request;

	if (s->uplink.state != UPLINK_UP || now_ns < s->renew_ns)
		return;
	request =
		json_pack("{s:s, s:s*}", "op", "renew", "token", s->token_fresh ? s->token : NULL);
	if (client_socket_send(s->uplink.fd, request, -1) == 0) {
		s->token_fresh = false;
		note_asked(s, now_ns);
	}
	json_decref(request);
	s->renewed_ns = now_ns;
	s->renew_ns = now_ns + s->lease_s * CLOCK_S_NS / 3;
}

void subscription_listen(struct fan_subscription *s, uint64_t now_ns)
{
	json_t *message;

	while (!s->ended && (message = uplink_recv(&s->uplink, now_ns))) {
		on_message(s, message, now_ns);
		json_decref(message);
	}
}

static void service(struct fan_subscription *s, uint64_t now_ns)
{
	if (s->ended || (s->transport->polled && now_ns - s->served_ns < POLLED_SERVICE_NS))
		return;
	s->served_ns = now_ns;
	subscription_listen(s, now_ns);
	if (s->ended)
		return;
	if (s->uplink.state != UPLINK_UP && !s->transport->attaches) {
		subscription_end(s, "closed", "the connection to fanwired broke; subscribe again");
		return;
	}
	if (uplink_attach_due(&s->uplink, now_ns)) {
		json_t *request = grant_attach_request(s);

		s->asked_cnt = 0; /* the former connection answers nothing more */
		note_asked(s, now_ns);
		uplink_attach(&s->uplink, request, s->udp, now_ns);
		json_decref(request);
	}
	renew(s, now_ns);
}

static uint64_t next_deadline(const struct fan_subscription *s)
{
	uint64_t deadline_ns = receive_deadline(s);

	if (s->ended)
		return s->ended_told ? deadline_ns : 0;
	deadline_ns = clock_earlier(deadline_ns, s->uplink.deadline_ns);
	if (s->uplink.state == UPLINK_UP)
		deadline_ns = clock_earlier(deadline_ns, s->renew_ns);
	return deadline_ns;
}

static void timer_arm(struct fan_subscription *s)
{
	uint64_t deadline_ns = next_deadline(s);

	if (deadline_ns || !s->transport->polled)
		clock_timer_arm(&s->timer, deadline_ns);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int wait_active(struct fan_subscription *s, uint64_t deadline_ns)
{
	for (;;) {
		service(s, clock_now_ns());
		if (s->ended)
			return client_error(-ETIMEDOUT,
					    "the registration ended before it was "
					    "active: %s",
					    s->ended_why);
		if (s->active)
			return 0;
		receive_challenges(s);
		if (clock_now_ns() >= deadline_ns)
			return client_error(-ETIMEDOUT,
					    "the engine's challenge did not come; see whether the "
					    "dataplane runs and reaches this host");
		clock_timer_arm(&s->timer, clock_earlier(s->renew_ns, s->uplink.deadline_ns));
		s->transport->wait(s, deadline_ns);
	}
}

static int registration_open(struct fan_subscription *s, const char *client_socket,
			     const struct fan_subscribe_options *options, uint64_t deadline_ns)
{
	json_t *request = grant_request(options);
	json_t *answer = NULL;
	int status;

	if (s->transport->ask)
		s->transport->ask(s, request);
	status = uplink_open(&s->uplink, s->epoll_fd, client_socket, request, &answer, &s->udp,
			     deadline_ns);
	json_decref(request);
	if (status < 0)
		return status;
	status = grant_take(s, options, answer);
	if (status == 0)
		status = watch(s);
	json_decref(answer);
	return status < 0 ? status : wait_active(s, deadline_ns);
}

int fan_subscribe(struct fan_subscription **subscription, const char *client_socket,
		  const struct fan_subscribe_options *options)
{
	return subscription_open(subscription, client_socket, options, &socket_transport, NULL);
}

int subscription_open(struct fan_subscription **subscription, const char *client_socket,
		      const struct fan_subscribe_options *options,
		      const struct transport *transport, void *link)
{
	uint64_t deadline_ns;
	struct fan_subscription *s;
	int status;

	if (!options || !options->token)
		return client_error(-EINVAL, "a subscription needs a token");
	s = calloc(1, sizeof(*s));
	if (!s || sodium_init() < 0) {
		struct fan_subscription none = {.link = link, .udp = -1};

		free(s);
		transport->close(&none); /* the link is ours from the call on */
		return client_error(-ENOMEM, "out of memory for a subscription");
	}
	deadline_ns =
		clock_deadline(options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_DEFAULT_MS);
	s->udp = s->timer.fd = s->uplink.fd = -1;
	s->transport = transport;
	s->link = link;
	s->token = strdup(options->token);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!s->token || s->epoll_fd < 0 || clock_timer_open(&s->timer) < 0) {
		status = client_error(-errno, "cannot make descriptors: %s", strerror(errno));
		goto fail;
	}
	status = grant_make_streams(s, options);
	if (status == 0)
		status = registration_open(s, client_socket, options, deadline_ns);
	if (status < 0)
		goto fail;
	timer_arm(s);
	*subscription = s;
	return 0;
fail:
	fan_subscription_close(s);
	return status;
}

void fan_subscription_close(struct fan_subscription *s)
{
	if (!s)
		return;
	uplink_close(&s->uplink);
	clock_timer_close(&s->timer);
	s->transport->close(s);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	receive_fini(s);
	unseal_fini(&s->unseal);
	sodium_memzero(s->replay_key, sizeof(s->replay_key));
	free(s->token);
	free(s);
}

static int tell_ended(struct fan_subscription *s, struct fan_event *event)
{
	if (s->ended_told)
		return client_error(-ENOTCONN, "the registration has ended (%s); subscribe again",
				    s->ended_why);
	s->ended_told = true;
	*event = (struct fan_event){.type = FAN_EVENT_ENDED,
				    .payload = s->ended_why,
				    .payload_len = strlen(s->ended_why)};
	return 1;
}

/* One round: what is at hand, else what time has brought. 1, 0 or -errno. */
static int receive_round(struct fan_subscription *s, struct fan_event *event)
{
	enum receive_outcome outcome;
	uint64_t now_ns = 0;

	/* the client socket once a batch: not a system call an event */
	if (receive_deadline(s) != 0) {
		now_ns = s->transport->now(s);
		service(s, now_ns);
	}
	if (now_ns && !s->ended)
		receive_expire(s, now_ns, false);
	outcome = receive_next(s, event);
	/* only what the socket does not hold can be called lost */
	if (outcome == RECEIVE_EMPTY && now_ns && !s->ended) {
		receive_expire(s, now_ns, true);
		outcome = receive_next(s, event);
	}
	while (outcome == RECEIVE_EMPTY && s->ended && receive_finish(s))
		outcome = receive_next(s, event);
	if (outcome == RECEIVE_NO_MEMORY)
		return client_error(-ENOMEM,
				    s->reassembly.lost.dropped
					    ? "out of memory for what was lost: close the "
					      "subscription, and go on after the last cursor"
					    : "out of memory for a fragmented event");
	if (outcome == RECEIVE_EMPTY && s->ended)
		return tell_ended(s, event);
	return outcome == RECEIVE_EVENT;
}

int fan_receive(struct fan_subscription *s, struct fan_event *event, int timeout_ms)
{
	uint64_t deadline_ns = timeout_ms ? clock_deadline(timeout_ms) : 0;
	int status;

	while ((status = receive_round(s, event)) == 0) {
		timer_arm(s);
		if (timeout_ms == 0 || clock_now_ns() >= deadline_ns)
			return 0;
		s->transport->wait(s, deadline_ns);
	}
	timer_arm(s);
	return status;
}

int fan_subscription_set_token(struct fan_subscription *s, const char *token)
{
	char *copy = token ? strdup(token) : NULL;

	if (!copy)
		return client_error(token ? -ENOMEM : -EINVAL, "a fresh token is needed");
	free(s->token);
	s->token = copy;
	s->token_fresh = true;
	s->renew_ns = 0; /* now: the old one may be about to expire */
	clock_timer_arm(&s->timer, 0);
	return 0;
}

int fan_subscription_fd(const struct fan_subscription *s)
{
	return s->epoll_fd;
}

int fan_subscription_socket(const struct fan_subscription *s)
{
	return s->udp;
}

uint64_t fan_subscription_id(const struct fan_subscription *s)
{
	return s->id;
}

int fan_subscription_attached(const struct fan_subscription *s)
{
	return s->uplink.state == UPLINK_UP;
}

void fan_subscription_counts(const struct fan_subscription *s,
			     struct fan_subscription_counts *counts)
{
	*counts = s->counts;
}

const char *fan_subscription_user(const struct fan_subscription *s)
{
	return s->user;
}
