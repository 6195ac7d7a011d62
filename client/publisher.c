/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "common/wire/handle.h"

#define TIMEOUT_DEFAULT_MS 5000

static struct publisher_event *event_at(struct fan_publisher *p, int64_t ticket)
{
	return &p->events[ticket % PUBLISHER_EVENTS];
}

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
	if (!event->any_resolved)
		event->epoch = result->epoch;
	event->any_resolved = true;
	/* fragments of two streams make no event: nobody has it whole */
	if (result->epoch != event->epoch)
		event->receipt.sent = 0;
	if (result->sent < event->receipt.sent)
		event->receipt.sent = result->sent;
	if (--event->unresolved == 0)
		event_finish(p, event);
}

void publisher_fail(struct fan_publisher *p, int status)
{
	free(p->cut.payload);
	memset(&p->cut, 0, sizeof(p->cut));
	for (int64_t t = p->ticket_first; t < p->ticket_next; t++) {
		struct publisher_event *event = event_at(p, t);

		if (event->ticket != t || event->finished)
			continue;
		event->status = status;
		event_finish(p, event);
	}
}

static void arm(struct fan_publisher *p)
{
	uint64_t deadline_ns = p->finished_cnt ? 0 : window_deadline(p);

	if (!p->ended)
		deadline_ns = clock_earlier(deadline_ns, p->uplink.deadline_ns);
	clock_timer_arm(&p->timer, deadline_ns);
	p->left_ns = clock_now_ns();
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
	uint64_t now_ns = clock_now_ns();
	int status = header_fill(&cut.header, spec);

	window_enter(p, now_ns);
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
	status = window_pump(p, now_ns);
	if (status < 0) {
		session_end(p, "sealing failed");
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

		if (session_service(p) < 0)
			session_end(p, "sealing failed");
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
		if (session_service(p) < 0)
			session_end(p, "sealing failed");
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
	if (p->held)
		return client_error(-EDQUOT,
				    "over budget: this publisher has spent what it may have sent a "
				    "second in copies (limits.publisher_bytes_per_second); the "
				    "event was held back, and nobody has it yet; publish more "
				    "slowly");
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
