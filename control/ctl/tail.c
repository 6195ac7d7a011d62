/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/fanwire.h"
#include "common/wire/handle.h"
#include "control/ctl/channel.h"
#include "control/ctl/command.h"
#include "control/ctl/output.h"

#define TOKEN_MAX      8192
#define THREADS_MAX    64
#define LOOK_MS	       250  /* between two looks at whether fanwired is there */
#define OUTAGE_TELL_MS 1000 /* a restart takes less: not worth a word */

struct tail {
	const struct ctl *ctl;
	const char *user;
	char token[TOKEN_MAX];
	const char *threads[THREADS_MAX];
	struct fan_subscribe_options options;
	unsigned long long count; /* 0: for ever */
	int timeout_ms;		  /* -1: none */
};

/* ---- what an event looks like ---------------------------------------------------------------- */

/* "all", the thread's name, or @ and the connection's id. */
static const char *channel_name(const struct fan_event *event, char name[24])
{
	if (event->thread)
		return event->thread;
	if (event->channel == FAN_CHANNEL_ALL)
		return "all";
	name[0] = '@';
	fan_id_format(name + 1, event->channel & FAN_CONNECTION_ID_MASK);
	return name;
}

static void set_payload(json_t *object, const struct fan_event *event)
{
	json_t *text = json_stringn(event->payload_len ? event->payload : "", event->payload_len);
	size_t room;
	char *base64;

	if (text) {
		json_object_set_new(object, "payload", text);
		return;
	}
	room = sodium_base64_encoded_len(event->payload_len, sodium_base64_VARIANT_ORIGINAL);
	base64 = malloc(room);
	if (base64) {
		sodium_bin2base64(base64, room, event->payload, event->payload_len,
				  sodium_base64_VARIANT_ORIGINAL);
		json_object_set_new(object, "payload_base64", json_string(base64));
	}
	free(base64);
}

static json_t *event_json(const struct tail *tail, const struct fan_event *event)
{
	char epoch[17], publisher[17], name[24];
	const char *channel = channel_name(event, name);
	json_t *object;

	fan_id_format(epoch, event->epoch);
	fan_id_format(publisher, event->publisher);
	if (event->type == FAN_EVENT_LOST)
		return json_pack("{s:{s:s, s:s, s:I, s:I}}", "lost", "channel", channel, "epoch",
				 epoch, "first", (json_int_t)event->lost_first, "last",
				 (json_int_t)event->lost_last);
	object = json_pack("{s:s, s:s, s:s, s:I, s:i, s:s}", "user", tail->user, "channel", channel,
			   "epoch", epoch, "sequence", (json_int_t)event->sequence, "kind",
			   (int)event->kind, "publisher", publisher);
	set_payload(object, event);
	return object;
}

static void print_event(const struct tail *tail, const struct fan_event *event)
{
	char name[24], *payload;
	json_t *object;

	if (tail->ctl->json) {
		object = event_json(tail, event);
		output_json(object);
		json_decref(object);
		return;
	}
	if (event->type == FAN_EVENT_LOST) {
		printf("%s lost %" PRIu64 " to %" PRIu64 "\n", channel_name(event, name),
		       event->lost_first, event->lost_last);
	} else {
		payload = output_escape(event->payload ? event->payload : "", event->payload_len);
		printf("%s %" PRIu64 " %s\n", channel_name(event, name), event->sequence, payload);
		free(payload);
	}
	fflush(stdout);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static bool read_token(struct tail *tail, const char *text)
{
	FILE *file;
	size_t len;

	if (!text) {
		output_error(tail->ctl, "usage",
			     "--token is required; fanwirectl token %s makes "
			     "one",
			     tail->user);
		return false;
	}
	if (*text != '@') {
		len = strlen(text);
		memcpy(tail->token, text, len < TOKEN_MAX ? len + 1 : 0);
	} else {
		file = fopen(text + 1, "re");
		if (!file) {
			output_error(tail->ctl, "usage", "cannot open the token's file %s: %s",
				     text + 1, strerror(errno));
			return false;
		}
		len = fread(tail->token, 1, TOKEN_MAX, file);
		fclose(file);
		if (len < TOKEN_MAX)
			tail->token[len] = 0;
	}
	if (len >= TOKEN_MAX) {
		output_error(tail->ctl, "usage", "a token has less than %d bytes", TOKEN_MAX);
		return false;
	}
	tail->token[strcspn(tail->token, "\r\n")] = 0;
	if (*tail->token)
		return true;
	output_error(tail->ctl, "usage",
		     "the token's file %s is empty; fanwirectl token %s makes one", text + 1,
		     tail->user);
	return false;
}

static bool read_channels(struct tail *tail, const struct arguments *arguments)
{
	struct fan_subscribe_options *options = &tail->options;
	const char *text;

	for (unsigned i = 0; (text = arguments_option(arguments, "--channel", i)); i++) {
		const char *thread;
		uint64_t connection;

		if (!channel_parse(tail->ctl, text, &thread, &connection))
			return false;
		if (thread && options->thread_cnt < THREADS_MAX) {
			tail->threads[options->thread_cnt++] = thread;
		} else if (connection && !options->connection) {
			options->connection = connection;
		} else {
			output_error(tail->ctl, "usage",
				     "--channel %s: one connection id and %d "
				     "threads at most",
				     text, THREADS_MAX);
			return false;
		}
	}
	options->threads = tail->threads;
	options->single = 1; /* so that publish --channel @ID reaches it, whatever its id */
	return true;
}

/* ---- following ------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

struct outage {
	int64_t since_ms; /* 0: none */
	bool told;
};

/* On standard error, as all that is no event: deliveries go on meanwhile, so it is easily missed.
 */
static void watch_fanwired(struct outage *outage, const struct fan_subscription *subscription)
{
	int64_t now = now_ms();

	if (fan_subscription_attached(subscription)) {
		if (outage->told)
			fprintf(stderr, "fanwired is back: attached again\n");
		*outage = (struct outage){0};
		return;
	}
	if (!outage->since_ms)
		outage->since_ms = now;
	if (outage->told || now - outage->since_ms < OUTAGE_TELL_MS)
		return;
	outage->told = true;
	fprintf(stderr, "fanwired is away: events still come, but the registration ends if it "
			"stays so; attaching again as soon as it is back\n");
}

/* How long to wait for the next event, so that an outage is seen meanwhile. */
static int wait_ms(const struct tail *tail, int64_t end_ms)
{
	int64_t left_ms = end_ms - now_ms();

	if (tail->timeout_ms < 0 || left_ms > LOOK_MS)
		return LOOK_MS;
	return left_ms > 0 ? (int)left_ms : 0;
}

static int time_is_over(const struct tail *tail, unsigned long long seen)
{
	if (!tail->count)
		return EXIT_DONE;
	output_error(tail->ctl, "timeout", "%llu of %llu events came within %g s", seen,
		     tail->count, tail->timeout_ms / 1000.0);
	return EXIT_REFUSED;
}

static int follow(const struct tail *tail, struct fan_subscription *subscription)
{
	int64_t end_ms = now_ms() + tail->timeout_ms;
	struct outage outage = {0};
	unsigned long long seen = 0;
	struct fan_event event;

	while (!tail->count || seen < tail->count) {
		int status = fan_receive(subscription, &event, wait_ms(tail, end_ms));

		watch_fanwired(&outage, subscription);
		if (status < 0) {
			output_error(tail->ctl, "receive", "%s", fan_error());
			return EXIT_REFUSED;
		}
		if (status == 0) {
			if (tail->timeout_ms < 0 || now_ms() < end_ms)
				continue;
			return time_is_over(tail, seen);
		}
		if (event.type == FAN_EVENT_ENDED) {
			output_error(tail->ctl, "ended", "the registration has ended: %.*s",
				     (int)event.payload_len, (const char *)event.payload);
			return EXIT_REFUSED;
		}
		print_event(tail, &event);
		seen += event.type == FAN_EVENT_DATA;
	}
	return EXIT_DONE;
}

/* On standard error, whatever -j: a script may wait for it. */
static void say_listening(const struct fan_subscription *subscription)
{
	const char *user = fan_subscription_user(subscription);
	char *escaped = output_escape(user, strlen(user));

	fprintf(stderr, "listening as connection %016" PRIx64 " of %s\n",
		fan_subscription_id(subscription), escaped);
	free(escaped);
}

static int subscribe_and_follow(struct tail *tail)
{
	struct fan_subscription *subscription;
	const char *owner;
	int status;

	if (fan_subscribe(&subscription, tail->ctl->client_socket, &tail->options) < 0) {
		output_error(tail->ctl, "subscribe", "%s", fan_error());
		return EXIT_REFUSED;
	}
	owner = fan_subscription_user(subscription);
	if (strcmp(owner, tail->user) != 0) {
		output_error(tail->ctl, "token_user",
			     "the token is %s's, not %s's; make one with "
			     "fanwirectl token",
			     owner, tail->user);
		status = EXIT_REFUSED;
	} else {
		say_listening(subscription);
		status = follow(tail, subscription);
	}
	fan_subscription_close(subscription);
	return status;
}

int run_tail(const struct ctl *ctl, const struct arguments *arguments)
{
	struct tail tail = {.ctl = ctl, .user = arguments->positional[0], .timeout_ms = -1};

	if (!read_token(&tail, arguments_option(arguments, "--token", 0)) ||
	    !read_channels(&tail, arguments) ||
	    !arguments_number(ctl, arguments, "--count", 1, UINT64_MAX, &tail.count) ||
	    !arguments_seconds(ctl, arguments, "--timeout", &tail.timeout_ms))
		return EXIT_USAGE;
	tail.options.token = tail.token;
	return subscribe_and_follow(&tail);
}
