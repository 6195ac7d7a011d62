/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/publisher.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/error.h"
#include "common/wire/handle.h"

#define TIMEOUT_DEFAULT_MS 5000
#define OPEN_MS		   5000

static struct publisher_event *event_at(struct fan_publisher *p, int64_t ticket)
{
	return &p->events[ticket % PUBLISHER_EVENTS];
}

/* ---- session --------------------------------------------------------------------------------- */

static int keep_credential(struct fan_publisher *p, const struct fan_credential *credential)
{
	if (!credential || (!credential->grant && (!credential->name || !credential->secret)))
		return client_error(-EINVAL, "a publisher needs a name and a secret, or a grant");
	p->grant = credential->grant ? strdup(credential->grant) : NULL;
	p->name = credential->grant ? NULL : strdup(credential->name);
	p->secret = credential->grant ? NULL : strdup(credential->secret);
	if (!p->grant && (!p->name || !p->secret))
		return client_error(-ENOMEM, "out of memory");
	return 0;
}

static json_t *session_request(const struct fan_publisher *p, const char *op)
{
	json_t *request = json_pack("{s:s, s:s*, s:s*, s:s*}", "op", op, "name", p->name, "secret",
				    p->secret, "grant", p->grant);
	char id[17];

	if (p->session) {
		fan_id_format(id, p->session);
		json_object_set_new(request, "session", json_string(id));
	}
	return request;
}

static int take_session(struct fan_publisher *p, const json_t *answer)
{
	const char *key_text = json_string_value(json_object_get(answer, "key"));
	uint8_t key[FAN_KEY_LEN];
	uint64_t limit;
	int status;

	if (p->udp < 0 || !key_text || fan_unhex(key, sizeof(key), key_text) < 0 ||
	    !client_socket_id(answer, "session", &p->session) || p->session == 0 ||
	    !client_socket_number(answer, "payload_limit", FAN_PAYLOAD_MAX, &limit) || limit == 0)
		return client_error(-EPROTO, "fanwired's answer lacks a session, key, limit or "
					     "socket; are both of the same version?");
	p->payload_limit = (uint32_t)limit;
	status = seal_init(&p->seal, key);
	sodium_memzero(key, sizeof(key));
	if (status == 0)
		status = window_init(p);
	if (status < 0)
		return client_error(status, "out of memory for the session's window");
	return client_socket_engine(answer, p->udp, &p->engine, &p->engine_len);
}

static int watch(struct fan_publisher *p)
{
	struct epoll_event event = {.events = EPOLLIN};

	event.data.fd = p->timer.fd;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->timer.fd, &event) < 0)
		return client_error(-errno, "cannot watch the timer: %s", strerror(errno));
	event.data.fd = p->udp;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->udp, &event) < 0)
		return client_error(-errno, "cannot watch the socket: %s", strerror(errno));
	return 0;
}

int fan_publisher_open(struct fan_publisher **publisher, const char *client_socket,
		       const struct fan_credential *credential)
{
	struct fan_publisher *p = calloc(1, sizeof(*p));
	json_t *request = NULL, *answer = NULL;
	int status = -ENOMEM;

	if (!p || sodium_init() < 0) {
		free(p);
		return client_error(-ENOMEM, "out of memory for a publisher");
	}
	p->udp = p->timer.fd = p->uplink.fd = -1;
	p->ticket_next = p->ticket_first = 1;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll_fd < 0 || clock_timer_open(&p->timer) < 0) {
		status = client_error(-errno, "cannot make descriptors: %s", strerror(errno));
		goto fail;
	}
	status = keep_credential(p, credential);
	if (status < 0)
		goto fail;
	request = session_request(p, "publish_open");
	status = uplink_open(&p->uplink, p->epoll_fd, client_socket, request, &answer, &p->udp,
			     clock_deadline(OPEN_MS));
	if (status < 0)
		goto fail;
	status = take_session(p, answer);
	if (status == 0)
		status = watch(p);
	if (status < 0)
		goto fail;
	json_decref(request);
	json_decref(answer);
	*publisher = p;
	return 0;
fail:
	json_decref(request);
	json_decref(answer);
	fan_publisher_close(p);
	/* a limit of sessions passes by itself; the header promises the one number for it */
	return status == -EDQUOT ? -EAGAIN : status;
}

void fan_publisher_close(struct fan_publisher *p)
{
	if (!p)
		return;
	uplink_close(&p->uplink);
	clock_timer_close(&p->timer);
	if (p->udp >= 0)
		close(p->udp);
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	window_fini(p);
	seal_fini(&p->seal);
	free(p->cut.payload);
	if (p->secret)
		sodium_memzero(p->secret, strlen(p->secret));
	free(p->name);
	free(p->secret);
	free(p->grant);
	sodium_memzero(p, sizeof(*p));
	free(p);
}

int fan_publisher_fd(const struct fan_publisher *p)
{
	return p->epoll_fd;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void event_finish(struct fan_publisher *p, struct publisher_event *event)
{
	if (event->abandoned) {
		event->ticket = 0;
		return;
	}
	event->finished = true;
	p->active_cnt--;
	p->finished_cnt++;
}

/* Forgets events that are over at the old end, so that their slots can be given out again. */
static void events_trim(struct fan_publisher *p)
{
	while (p->ticket_first < p->ticket_next && event_at(p, p->ticket_first)->ticket == 0)
		p->ticket_first++;
}

static int result_error(uint16_t status)
{
	switch (status) {
	case FAN_RESULT_OK:
	case FAN_RESULT_NO_GROUP:
		return 0;
	case FAN_RESULT_SCOPE:
		return -EPERM;
	case FAN_RESULT_TOO_LARGE:
		return -EMSGSIZE;
	case FAN_RESULT_CHANNEL:
		return -EINVAL;
	case FAN_RESULT_UNATTENDED:
		return -ENETDOWN;
	default:
		return -EIO;
	}
}

void publisher_resolve(struct fan_publisher *p, int64_t ticket, bool last_fragment,
		       const struct fan_result *result)
{
	struct publisher_event *event = event_at(p, ticket);

	if (event->ticket != ticket || event->finished)
		return;
	if (event->status == 0)
		event->status = result_error(result->status);
	if (last_fragment) {
		event->receipt.epoch = result->epoch;
		event->receipt.sequence = result->sequence;
		event->receipt.attempted = result->attempted;
	}
	if (result->sent < event->receipt.sent)
		event->receipt.sent = result->sent;
	if (--event->unresolved == 0)
		event_finish(p, event);
}

static void session_ended(struct fan_publisher *p, const char *why)
{
	p->ended = true;
	snprintf(p->ended_why, sizeof(p->ended_why), "%s", why);
	free(p->cut.payload);
	memset(&p->cut, 0, sizeof(p->cut));
	for (int64_t t = p->ticket_first; t < p->ticket_next; t++) {
		struct publisher_event *event = event_at(p, t);

		if (event->ticket != t || event->finished)
			continue;
		event->status = -EPIPE;
		event_finish(p, event);
	}
	p->base = p->send_from = p->next;
	p->in_flight_cnt = 0;
}

static void on_message(struct fan_publisher *p, const json_t *message, uint64_t now_ns)
{
	const char *event = json_string_value(json_object_get(message, "event"));
	const char *error = json_string_value(json_object_get(message, "error"));
	const char *text = json_string_value(json_object_get(message, "message"));

	if (event && strcmp(event, "ended") == 0) {
		session_ended(p, text ? text : "the engine ended the session");
	} else if (p->uplink.state == UPLINK_ATTACHING) {
		if (json_is_true(json_object_get(message, "ok")))
			uplink_set_up(&p->uplink);
		else if (error &&
			 (strcmp(error, "connection_unknown") == 0 ||
			  strcmp(error, "credential") == 0 || strncmp(error, "token_", 6) == 0))
			session_ended(p, text ? text : error);
		else /* busy, or failing in a way that may pass */
			uplink_set_down(&p->uplink, now_ns);
	}
}

/* Everything that is due: acknowledgements, the client socket, retransmission, sending. */
static int service(struct fan_publisher *p)
{
	uint64_t now_ns = clock_now_ns();
	json_t *message;

	window_receive(p, now_ns);
	while ((message = uplink_recv(&p->uplink, now_ns))) {
		on_message(p, message, now_ns);
		json_decref(message);
	}
	if (p->ended) {
		uplink_close(&p->uplink);
		return 0;
	}
	if (uplink_attach_due(&p->uplink, now_ns)) {
		json_t *request = session_request(p, "publish_attach");

		uplink_attach(&p->uplink, request, p->udp, now_ns);
		json_decref(request);
	}
	window_expire(p, now_ns);
	return window_pump(p, now_ns);
}

static void arm(struct fan_publisher *p)
{
	uint64_t deadline_ns = p->finished_cnt ? 0 : window_deadline(p);

	if (!p->ended)
		deadline_ns = clock_earlier(deadline_ns, p->uplink.deadline_ns);
	clock_timer_arm(&p->timer, deadline_ns);
}

static uint64_t next_deadline(const struct fan_publisher *p)
{
	return clock_earlier(window_deadline(p), p->ended ? CLOCK_NEVER : p->uplink.deadline_ns);
}

/* ---- publishing ------------------------------------------------------------------------------ */

static int header_fill(struct fan_publish *header, const struct fan_event_spec *spec)
{
	memset(header, 0, sizeof(*header));
	if (!spec->user || fan_handle(header->handle, spec->user, strlen(spec->user)) < 0)
		return client_error(-EINVAL, "a user's name has 1 to %d bytes", FAN_NAME_MAX);
	if (spec->thread && spec->connection)
		return client_error(-EINVAL, "name a thread or a connection, not both");
	if (spec->thread &&
	    fan_thread_channel(&header->channel, spec->thread, strlen(spec->thread)) < 0)
		return client_error(-EINVAL, "a thread's name has 1 to %d bytes", FAN_NAME_MAX);
	if (spec->connection & ~FAN_CONNECTION_ID_MASK)
		return client_error(-EINVAL, "a connection's id has 62 bits");
	if (spec->connection)
		header->channel = FAN_CHANNEL_SINGLE | spec->connection;
	if (spec->payload_len > FAN_EVENT_MAX)
		return client_error(-EMSGSIZE, "an event has at most %d bytes, this one %zu",
				    FAN_EVENT_MAX, spec->payload_len);
	if (spec->payload_len && !spec->payload)
		return client_error(-EINVAL, "the event has a length but no payload");
	header->kind = spec->kind;
	return 0;
}

/* An event needs a ticket's slot and room for its first datagram, and follows the one before it. */
static bool has_room(struct fan_publisher *p)
{
	events_trim(p);
	return !p->cut.ticket && p->next - p->base < PUBLISHER_WINDOW &&
	       p->ticket_next - p->ticket_first < PUBLISHER_EVENTS;
}

static int64_t start(struct fan_publisher *p, const struct fan_event_spec *spec)
{
	struct publisher_cut cut = {.len = spec->payload_len, .data = spec->payload};
	struct publisher_event *event;
	int status = header_fill(&cut.header, spec);

	if (status < 0)
		return status;
	if (p->ended)
		return client_error(-EPIPE, "the session has ended: %s; open another",
				    p->ended_why);
	if (!has_room(p))
		return client_error(-EAGAIN, "the window is full; call fan_publisher_step()");
	cut.fragments_left = (uint32_t)((cut.len + p->payload_limit - 1) / p->payload_limit);
	if (cut.fragments_left == 0)
		cut.fragments_left = 1;
	if (cut.fragments_left > PUBLISHER_WINDOW - (p->next - p->base)) {
		cut.payload = malloc(cut.len);
		if (!cut.payload)
			return client_error(-ENOMEM, "out of memory for an event");
		cut.data = memcpy(cut.payload, spec->payload, cut.len);
	}
	cut.ticket = p->ticket_next++;
	event = event_at(p, cut.ticket);
	*event = (struct publisher_event){.ticket = cut.ticket,
					  .unresolved = cut.fragments_left,
					  .receipt = {.sent = UINT32_MAX}};
	p->active_cnt++;
	p->cut = cut;
	status = window_pump(p, clock_now_ns());
	if (status < 0) {
		session_ended(p, "sealing failed");
		return client_error(status, "cannot seal an event");
	}
	return event->ticket;
}

int64_t fan_publish_start(struct fan_publisher *p, const struct fan_event_spec *spec)
{
	int64_t ticket = start(p, spec);

	arm(p);
	return ticket;
}

static void report(struct fan_publisher *p, fan_on_receipt on_receipt, void *arg)
{
	for (int64_t t = p->ticket_first; p->finished_cnt && t < p->ticket_next; t++) {
		struct publisher_event *event = event_at(p, t);
		struct publisher_event copy = *event;

		if (copy.ticket != t || !copy.finished)
			continue;
		event->ticket = 0; /* before the call: it may start another event */
		p->finished_cnt--;
		if (on_receipt)
			on_receipt(arg, t, copy.status, &copy.receipt);
	}
	events_trim(p);
}

int fan_publisher_step(struct fan_publisher *p, int timeout_ms, fan_on_receipt on_receipt,
		       void *arg)
{
	uint64_t deadline_ns = clock_deadline(timeout_ms);

	for (;;) {
		bool over;

		if (service(p) < 0)
			session_ended(p, "sealing failed");
		over = p->finished_cnt || p->active_cnt == 0 || clock_now_ns() >= deadline_ns;
		report(p, on_receipt, arg);
		if (over)
			break;
		clock_timer_arm(&p->timer, next_deadline(p));
		clock_poll(p->epoll_fd, deadline_ns);
	}
	arm(p);
	return (int)p->active_cnt;
}

/* Waits for one event only; the results of others stay for fan_publisher_step(). */
static bool wait_for(struct fan_publisher *p, const struct publisher_event *event,
		     uint64_t deadline_ns)
{
	for (;;) {
		if (service(p) < 0)
			session_ended(p, "sealing failed");
		if (event && event->finished)
			return true;
		if (!event && (p->ended || has_room(p)))
			return true;
		if (clock_now_ns() >= deadline_ns)
			return false;
		clock_timer_arm(&p->timer, next_deadline(p));
		clock_poll(p->epoll_fd, deadline_ns);
	}
}

/*
 * What was sent must still be answered, or the engine would wait at the gap for ever; so the event
 * stays in the window, without anybody who waits. Fragments that were not sent yet are let go.
 */
static void abandon(struct fan_publisher *p, struct publisher_event *event)
{
	if (p->cut.ticket == event->ticket) {
		event->unresolved -= p->cut.fragments_left;
		free(p->cut.payload);
		memset(&p->cut, 0, sizeof(p->cut));
	}
	p->active_cnt--;
	event->abandoned = true;
	if (event->unresolved == 0)
		event->ticket = 0;
}

static int timed_out(struct fan_publisher *p)
{
	return client_error(-ETIMEDOUT,
			    "not acknowledged in time: it may or may not have been delivered%s%s; "
			    "see whether the dataplane runs",
			    p->send_error ? "; last error of the socket: " : "",
			    p->send_error ? strerror(p->send_error) : "");
}

static int explain(const struct fan_publisher *p, int status)
{
	switch (status) {
	case -EPERM:
		return client_error(status, "this session may name only its own user");
	case -EMSGSIZE:
		return client_error(status, "the payload is over the site's limit");
	case -ENETDOWN:
		return client_error(status, "delivery is stopped: fanwired has been away too long; "
					    "start it");
	case -EPIPE:
		return client_error(status, "the session has ended: %s; open another",
				    p->ended_why);
	case -EIO:
		return client_error(status,
				    "interrupted by a crash of the dataplane: it may or may "
				    "not have been delivered");
	default:
		return client_error(status, "the engine refused the event: %s", strerror(-status));
	}
}

int fan_publish(struct fan_publisher *p, const struct fan_event_spec *spec,
		struct fan_receipt *receipt, int timeout_ms)
{
	uint64_t deadline_ns = clock_deadline(timeout_ms > 0 ? timeout_ms : TIMEOUT_DEFAULT_MS);
	struct publisher_event *event;
	int64_t ticket;
	int status;

	while ((ticket = start(p, spec)) == -EAGAIN) {
		if (p->ticket_next - p->ticket_first >= PUBLISHER_EVENTS && p->finished_cnt)
			return client_error(-EAGAIN, "too many results are waiting; call "
						     "fan_publisher_step() to have them");
		if (!wait_for(p, NULL, deadline_ns)) {
			arm(p);
			return timed_out(p);
		}
	}
	if (ticket < 0)
		return (int)ticket;
	event = event_at(p, ticket);
	if (!wait_for(p, event, deadline_ns)) {
		abandon(p, event);
		arm(p);
		return timed_out(p);
	}
	status = event->status;
	if (receipt)
		*receipt = event->receipt;
	event->ticket = 0;
	p->finished_cnt--;
	arm(p);
	return status < 0 ? explain(p, status) : 0;
}

int fan_publish_once(const char *client_socket, const struct fan_credential *credential,
		     const struct fan_event_spec *spec, struct fan_receipt *receipt, int timeout_ms)
{
	struct fan_publisher *p;
	int status = fan_publisher_open(&p, client_socket, credential);

	if (status < 0)
		return status;
	status = fan_publish(p, spec, receipt, timeout_ms);
	fan_publisher_close(p);
	return status;
}
