/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/fanwire.h"
#include "common/wire/handle.h"
#include "control/ctl/channel.h"
#include "control/ctl/command.h"
#include "control/ctl/event_view.h"
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
	struct fan_cursor cursors[EVENT_VIEW_CHANNELS];
	char *names[EVENT_VIEW_CHANNELS]; /* of the cursors' threads, where one has */
	struct event_places places;
	struct fan_subscribe_options options;
	unsigned long long count; /* 0: for ever */
	int timeout_ms;		  /* -1: none */
};

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

/* A channel to be in: of --channel, or of --since, which may name one that is joined already. */
static bool join(struct tail *tail, const char *text, const char **thread, uint64_t *connection)
{
	struct fan_subscribe_options *options = &tail->options;

	if (!channel_parse(tail->ctl, text, thread, connection))
		return false;
	for (size_t i = 0; *thread && i < options->thread_cnt; i++) {
		if (strcmp(options->threads[i], *thread) == 0)
			return true;
	}
	if (*connection && options->connection == *connection)
		return true;
	if (*thread && options->thread_cnt < THREADS_MAX) {
		tail->threads[options->thread_cnt++] = *thread;
		return true;
	}
	if (*connection && !options->connection) {
		options->connection = *connection;
		return true;
	}
	output_error(tail->ctl, "usage", "--channel %s: one connection id and %d threads at most",
		     text, THREADS_MAX);
	return false;
}

static bool read_channels(struct tail *tail, const struct arguments *arguments)
{
	const char *text, *thread;
	uint64_t connection;

	tail->options.threads = tail->threads;
	tail->options.single = 1; /* so that publish --channel @ID reaches it, whatever its id */
	for (unsigned i = 0; (text = arguments_option(arguments, "--channel", i)); i++) {
		if (!join(tail, text, &thread, &connection))
			return false;
	}
	return true;
}

/* Digits up to `end`. */
static bool parse_sequence(const char **text, char end, uint64_t *sequence)
{
	size_t len = strspn(*text, "0123456789");

	*sequence = strtoull(*text, NULL, 10);
	if (!len || (*text)[len] != end || errno || *sequence > INT64_MAX) /* as JSON has them */
		return false;
	*text += len + (end != 0);
	return true;
}

/* E:N, the place in a stream, or E:N:U where there was something unfinished. */
static bool parse_place(const char *text, struct fan_cursor *cursor)
{
	char *end;

	errno = 0;
	if (!*text || *text == ':' || strspn(text, "0123456789abcdefABCDEF") > 16 ||
	    text[strspn(text, "0123456789abcdefABCDEF")] != ':')
		return false;
	cursor->epoch = strtoull(text, &end, 16);
	text = end + 1;
	if (strchr(text, ':'))
		return parse_sequence(&text, ':', &cursor->sequence) &&
		       parse_sequence(&text, 0, &cursor->unfinished) && cursor->epoch != 0;
	return parse_sequence(&text, 0, &cursor->sequence) && cursor->epoch != 0;
}

/* [CHANNEL=]E:N; the channel's name may have = in it, the place has none. */
static bool read_since(struct tail *tail, const char *text)
{
	size_t idx = tail->options.cursor_cnt;
	struct fan_cursor *cursor = &tail->cursors[idx];
	const char *equals = strrchr(text, '=');
	uint64_t connection = 0;

	if (idx == EVENT_VIEW_CHANNELS || !parse_place(equals ? equals + 1 : text, cursor)) {
		output_error(tail->ctl, "usage",
			     "--since %s: [CHANNEL=]E:N, as tail says it at its end: an epoch in "
			     "hex digits and the number of the last event that was seen",
			     text);
		return false;
	}
	tail->options.cursor_cnt++;
	if (!equals)
		return true;
	tail->names[idx] = strndup(text, (size_t)(equals - text));
	if (!tail->names[idx] || !join(tail, tail->names[idx], &cursor->thread, &connection))
		return false;
	if (connection)
		cursor->channel = FAN_CHANNEL_SINGLE | connection;
	return true;
}

static bool read_cursors(struct tail *tail, const struct arguments *arguments)
{
	const char *text;

	tail->options.cursors = tail->cursors;
	for (unsigned i = 0; (text = arguments_option(arguments, "--since", i)); i++) {
		if (!read_since(tail, text))
			return false;
	}
	return true;
}

static bool read_policy(struct tail *tail, const char *text)
{
	static const struct {
		const char *name;
		int policy;
	} policies[] = {
		{"catch-up", FAN_CATCH_UP}, {"latest", FAN_LATEST}, {"disconnect", FAN_DISCONNECT}};

	for (size_t i = 0; text && i < sizeof(policies) / sizeof(policies[0]); i++) {
		if (strcmp(text, policies[i].name) == 0) {
			tail->options.policy = policies[i].policy;
			return true;
		}
	}
	if (text)
		output_error(tail->ctl, "usage", "--policy %s: catch-up, latest or disconnect",
			     text);
	return !text;
}

/* ---- following ------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static volatile sig_atomic_t stopped; /* the signal that did it */

static void on_stop(int number)
{
	stopped = number;
}

/* So that it can say where it was; a second one ends it at once. */
static void watch_signals(void)
{
	struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
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

static int follow(struct tail *tail, struct fan_subscription *subscription)
{
	int64_t end_ms = now_ms() + tail->timeout_ms;
	struct outage outage = {0};
	unsigned long long seen = 0;
	struct fan_event event;

	while (!stopped && (!tail->count || seen < tail->count)) {
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
		event_print(tail->ctl, tail->user, &event);
		event_places_note(&tail->places, &event);
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
		watch_signals();
		status = follow(tail, subscription);
		event_places_say(&tail->places);
	}
	fan_subscription_close(subscription);
	event_places_fini(&tail->places);
	if (stopped)
		raise(stopped); /* as who was not asked */
	return status;
}

int run_tail(const struct ctl *ctl, const struct arguments *arguments)
{
	struct tail tail = {.ctl = ctl, .user = arguments->positional[0], .timeout_ms = -1};
	int status = EXIT_USAGE;

	if (read_token(&tail, arguments_option(arguments, "--token", 0)) &&
	    read_channels(&tail, arguments) && read_cursors(&tail, arguments) &&
	    read_policy(&tail, arguments_option(arguments, "--policy", 0)) &&
	    arguments_number(ctl, arguments, "--count", 1, UINT64_MAX, &tail.count) &&
	    arguments_seconds(ctl, arguments, "--timeout", &tail.timeout_ms)) {
		tail.options.token = tail.token;
		status = subscribe_and_follow(&tail);
	}
	for (size_t i = 0; i < tail.options.cursor_cnt; i++)
		free(tail.names[i]);
	return status;
}
