/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One publisher or one subscriber that may be killed at any instant: whatever it knows stands in
 * its file before it goes on, and the next one with that file continues where it stopped.
 *
 * usage: actor publish   CLIENT_SOCKET FILE USER USER_NUMBER PUBLISHER_NUMBER NAME SECRET
 *        actor subscribe CLIENT_SOCKET FILE USER_NUMBER CONNECTION TOKEN
 * A file is a sequence of struct line. SIGTERM: a publisher stops beginning events and leaves when
 * the last is answered, a subscriber leaves at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/fanwire.h"
#include "tests/prove/content.h"

#define PAUSE_MS  2
#define WINDOW	  64
#define FRAGMENTS 25

/* tests/prove/kill.py reads these. */
enum line_kind {
	LINE_BEGUN = 1,	   /* publisher: index may have been published */
	LINE_ANSWERED = 2, /* status, epoch, sequence, sent */
	LINE_GOT = 3, /* subscriber: an event; status: 1 recovered, -1 not exact, -2 another user's;
			 sent: unfinished */
	LINE_LOST = 4,	  /* sequence: first, sent: last, index: unfinished */
	LINE_STARTED = 5, /* a process of it began */
	LINE_ENDED = 6,	  /* its registration or session did */
	LINE_ACTIVE = 7,  /* the registration is acknowledged; index: connection */
};

struct line {
	int32_t kind, status;
	uint32_t publisher, user;
	uint64_t index, epoch, sequence, sent, time_ms;
};
_Static_assert(sizeof(struct line) == 56, "kill.py reads it");

static volatile sig_atomic_t leave;

static void on_signal(int number)
{
	(void)number;
	leave = 1;
}

struct actor {
	const char *client_socket;
	int file;
	uint32_t user, publisher;
	uint64_t index;		  /* of the next event */
	struct fan_cursor cursor; /* of what came */
	uint64_t tickets[4096];	  /* index, by ticket */
	unsigned in_flight;
};

static int note(struct actor *a, struct line line)
{
	line.time_ms = now_ms();
	if (write(a->file, &line, sizeof(line)) == (ssize_t)sizeof(line))
		return 0;
	perror("actor: file");
	exit(3);
}

/* The sequence of a cursor is the highest that was told. */
static void move_to(struct fan_cursor *cursor, uint64_t epoch, uint64_t sequence,
		    uint64_t unfinished)
{
	if (epoch != cursor->epoch || sequence > cursor->sequence)
		cursor->sequence = sequence;
	cursor->epoch = epoch;
	cursor->unfinished = unfinished;
}

static void learn(struct actor *a, const struct line *line)
{
	if (line->kind == LINE_BEGUN)
		a->index = line->index + 1;
	if (line->kind == LINE_GOT)
		move_to(&a->cursor, line->epoch, line->sequence, line->sent);
	if (line->kind == LINE_LOST && line->sent != UINT64_MAX)
		move_to(&a->cursor, line->epoch, line->sent, line->index);
}

/* What its predecessors knew. */
static void resume(struct actor *a)
{
	static struct line lines[1024];
	ssize_t got;

	while ((got = read(a->file, lines, sizeof(lines))) > 0)
		for (size_t i = 0; i < (size_t)got / sizeof(lines[0]); i++)
			learn(a, &lines[i]);
	note(a, (struct line){.kind = LINE_STARTED});
}

/* ---- publishing ---- */

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct actor *a = arg;

	note(a, (struct line){.kind = LINE_ANSWERED,
			      .status = status,
			      .publisher = a->publisher,
			      .index = a->tickets[ticket % 4096],
			      .epoch = receipt ? receipt->epoch : 0,
			      .sequence = receipt ? receipt->sequence : 0,
			      .sent = receipt ? receipt->sent : 0});
}

static int publish_next(struct actor *a, struct fan_publisher *publisher, const char *user)
{
	struct content content = {.user = a->user, .publisher = a->publisher, .index = a->index};
	uint8_t payload[CONTENT_MAX];
	struct fan_event_spec spec = {.user = user, .payload = payload};
	int64_t ticket;

	spec.payload_len = content_make(&content, payload, FRAGMENTS);
	note(a, (struct line){.kind = LINE_BEGUN, .publisher = a->publisher, .index = a->index});
	while ((ticket = fan_publish_start(publisher, &spec)) == -EAGAIN)
		fan_publisher_step(publisher, 1, on_receipt, a);
	if (ticket < 0)
		return (int)ticket;
	a->tickets[ticket % 4096] = a->index++;
	return 0;
}

static int publish(struct actor *a, const char *user, const struct fan_credential *credential)
{
	struct fan_publisher *publisher;
	int err, left = 0;

	err = fan_publisher_open(&publisher, a->client_socket, credential);
	if (err)
		return err; /* fanwired is away, perhaps: the driver starts another */
	while (!leave || left > 0) {
		left = fan_publisher_step(publisher, PAUSE_MS, on_receipt, a);
		if (left < 0 ||
		    (!leave && left < WINDOW && (err = publish_next(a, publisher, user)) != 0))
			break;
	}
	if (err || left < 0) {
		fprintf(stderr, "actor: publish: %s\n", fan_error());
		note(a, (struct line){.kind = LINE_ENDED, .status = err ? err : left});
	}
	fan_publisher_close(publisher);
	return err ? err : left;
}

/* ---- subscribing ---- */

static void got(struct actor *a, const struct fan_event *event)
{
	struct line line = {.kind = LINE_GOT,
			    .epoch = event->epoch,
			    .sequence = event->sequence,
			    .sent = event->unfinished,
			    .status = event->recovered};
	struct content content = {0};

	if (!content_is_exact(&content, event->payload, event->payload_len, FRAGMENTS))
		line.status = -1;
	else if (content.user != a->user)
		line.status = -2;
	line.user = content.user;
	line.publisher = content.publisher;
	line.index = content.index;
	note(a, line);
}

static int subscribe(struct actor *a, uint64_t connection, const char *token)
{
	struct fan_subscribe_options options = {.token = token,
						.connection = connection,
						.family = 4,
						.timeout_ms = 5000,
						.cursors = a->cursor.epoch ? &a->cursor : NULL,
						.cursor_cnt = a->cursor.epoch ? 1 : 0};
	struct fan_subscription *subscription;
	struct fan_event event = {0};
	int err = fan_subscribe(&subscription, a->client_socket, &options);

	if (err)
		return err;
	note(a, (struct line){.kind = LINE_ACTIVE, .index = fan_subscription_id(subscription)});
	while (!leave && (err = fan_receive(subscription, &event, 50)) >= 0) {
		if (err == 0)
			continue;
		if (event.type == FAN_EVENT_DATA)
			got(a, &event);
		if (event.type == FAN_EVENT_LOST)
			note(a, (struct line){.kind = LINE_LOST,
					      .epoch = event.epoch,
					      .index = event.unfinished,
					      .sequence = event.lost_first,
					      .sent = event.lost_last});
		if (event.type == FAN_EVENT_ENDED) {
			fprintf(stderr, "actor: ended: %.*s\n", (int)event.payload_len,
				(const char *)event.payload);
			note(a, (struct line){.kind = LINE_ENDED});
			break;
		}
	}
	fan_subscription_close(subscription);
	return 0;
}

int main(int argc, char **argv)
{
	bool publisher = argc == 9 && strcmp(argv[1], "publish") == 0;
	struct actor a = {0};
	int err;

	if (!publisher && !(argc == 7 && strcmp(argv[1], "subscribe") == 0)) {
		fputs("usage: actor publish CLIENT_SOCKET FILE USER USER_NUMBER PUBLISHER_NUMBER "
		      "NAME SECRET\n"
		      "       actor subscribe CLIENT_SOCKET FILE USER_NUMBER CONNECTION TOKEN\n",
		      stderr);
		return 1;
	}
	signal(SIGTERM, on_signal);
	a.client_socket = argv[2];
	a.file = open(argv[3], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	a.user = (uint32_t)atoi(argv[publisher ? 5 : 4]);
	a.publisher = publisher ? (uint32_t)atoi(argv[6]) : 0;
	resume(&a);
	if (publisher)
		err = publish(&a, argv[4],
			      &(struct fan_credential){.name = argv[7], .secret = argv[8]});
	else
		err = subscribe(&a, strtoull(argv[5], NULL, 0), argv[6]);
	if (err)
		fprintf(stderr, "actor: %s: %d: %s\n", argv[1], err, fan_error());
	return err ? 2 : 0;
}
