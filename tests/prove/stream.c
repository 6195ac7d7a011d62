/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many streams over libfanwire in one process: each connection checks each of its streams for gaps,
 * repetitions, order and content (content.h). Prints one JSON object.
 *
 * usage: stream CLIENT_SOCKET PUBLISHER SECRET CONNECTIONS EVENTS PUBLISHERS FRAGMENTS SILENCE_S
 * <"USER TOKEN" lines CONNECTIONS of each user; EVENTS to each user in all, on channels that take
 * turns, from PUBLISHERS sessions that take turns; one event in FRAGMENTS is larger than a
 * datagram. It ends when all is there, or when nothing has come for SILENCE_S.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "client/fanwire.h"
#include "tests/prove/content.h"

#define CHANNELS   3 /* all, and two threads */
#define PUBLISHERS 2048
#define READY_MAX  256

static const char *const threads[CHANNELS] = {NULL, "alpha", "beta"};

struct user {
	char name[256];
	char token[4096];
	uint64_t published[CHANNELS][PUBLISHERS];
};

struct receiver {
	struct fan_subscription *subscription;
	uint32_t user;
	uint64_t next[CHANNELS][PUBLISHERS]; /* index */
	uint64_t channel[CHANNELS], epoch[CHANNELS], sequence[CHANNELS];
	uint64_t lost[CHANNELS];
};

struct streams {
	const char *client_socket;
	struct fan_credential credential;
	unsigned connections_each, events_each, publisher_cnt, fragments, silence_s;
	int epoll_fd,
		publishers_fd; /* what receives; who has been answered or is due to send again */
	unsigned next_publisher;
	struct user *users;
	unsigned user_cnt;
	struct receiver *receivers;
	unsigned receiver_cnt;
	struct fan_publisher *publishers[PUBLISHERS];
	uint64_t published, acknowledged, failed, received, recovered;
	uint64_t foreign, damaged, duplicates, disorder, gaps, lost, ended;
};

static int fail(const char *what)
{
	fprintf(stderr, "stream: %s: %s\n", what, fan_error());
	return -1;
}

static int read_users(struct streams *s)
{
	static char line[4400];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		s->users = realloc(s->users, (s->user_cnt + 1) * sizeof(*s->users));
		if (s->users == NULL)
			return -1;
		struct user *user = &s->users[s->user_cnt];

		memset(user, 0, sizeof(*user));
		if (sscanf(line, "%255s %4095s", user->name, user->token) == 2)
			s->user_cnt++;
	}
	return s->user_cnt > 0 ? 0 : -1;
}

static int subscribe_all(struct streams *s)
{
	s->receivers = calloc((size_t)s->user_cnt * s->connections_each, sizeof(*s->receivers));
	for (unsigned i = 0; i < s->user_cnt * s->connections_each; i++) {
		struct receiver *receiver = &s->receivers[i];
		struct fan_subscribe_options options = {
			.family = i % 2 ? 6 : 4,
			.threads = threads + 1,
			.thread_cnt = CHANNELS - 1,
			.timeout_ms = 120000,
			.token = s->users[i % s->user_cnt].token,
		};
		struct epoll_event interest = {.events = EPOLLIN, .data.ptr = receiver};

		receiver->user = i % s->user_cnt;
		if (fan_subscribe(&receiver->subscription, s->client_socket, &options) != 0)
			return fail("subscribe");
		s->receiver_cnt++;
		if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD,
			      fan_subscription_fd(receiver->subscription), &interest) != 0)
			return -1;
	}
	return 0;
}

static int open_publishers(struct streams *s)
{
	for (unsigned i = 0; i < s->publisher_cnt; i++) {
		struct epoll_event interest = {.events = EPOLLIN, .data.u32 = i};

		if (fan_publisher_open(&s->publishers[i], s->client_socket, &s->credential) != 0)
			return fail("open a publisher");
		if (epoll_ctl(s->publishers_fd, EPOLL_CTL_ADD, fan_publisher_fd(s->publishers[i]),
			      &interest) != 0)
			return -1;
	}
	return 0;
}

static int channel_of(const struct fan_event *event)
{
	for (int i = 1; i < CHANNELS; i++)
		if (event->thread != NULL && strcmp(event->thread, threads[i]) == 0)
			return i;
	return event->thread == NULL ? 0 : -1;
}

static void judge(struct streams *s, struct receiver *receiver, const struct fan_event *event)
{
	int channel = channel_of(event);
	struct content content;
	uint64_t *next;

	s->received++;
	s->recovered += event->recovered != 0;
	if (!content_is_exact(&content, event->payload, event->payload_len, s->fragments)) {
		s->damaged++;
		return;
	}
	if (content.user != receiver->user || (int)content.channel != channel ||
	    content.publisher >= PUBLISHERS) {
		s->foreign++;
		return;
	}
	if (event->epoch == receiver->epoch[channel] &&
	    event->sequence <= receiver->sequence[channel])
		s->disorder++;
	receiver->epoch[channel] = event->epoch;
	receiver->sequence[channel] = event->sequence;
	next = &receiver->next[channel][content.publisher];
	if (content.index < *next) {
		s->duplicates++;
		return;
	}
	if (content.index > *next) { /* a gap: silent, unless that much was said to be lost */
		uint64_t missing = content.index - *next;
		uint64_t told =
			receiver->lost[channel] < missing ? receiver->lost[channel] : missing;

		receiver->lost[channel] -= told;
		s->gaps += missing - told;
	}
	*next = content.index + 1;
}

static void drain(struct streams *s, struct receiver *receiver)
{
	struct fan_event event;
	int channel, got;

	while ((got = fan_receive(receiver->subscription, &event, 0)) == 1) {
		switch (event.type) {
		case FAN_EVENT_DATA:
			judge(s, receiver, &event);
			break;
		case FAN_EVENT_LOST:
			channel = channel_of(&event);
			s->lost += event.lost_last - event.lost_first + 1;
			if (channel >= 0)
				receiver->lost[channel] += event.lost_last - event.lost_first + 1;
			break;
		case FAN_EVENT_ENDED:
			fprintf(stderr, "stream: ended: %.*s\n", (int)event.payload_len,
				(const char *)event.payload);
			s->ended++;
			return;
		}
	}
	if (got < 0 && got != -ENOTCONN)
		fail("receive");
}

/* What waits. */
static void receive_ready(struct streams *s, int timeout_ms)
{
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(s->epoll_fd, ready, READY_MAX, timeout_ms);

	for (int i = 0; i < cnt; i++)
		drain(s, ready[i].data.ptr);
}

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct streams *s = arg;

	(void)ticket;
	(void)receipt;
	s->acknowledged += status == 0;
	s->failed += status != 0;
	if (status != 0)
		fprintf(stderr, "stream: publish: %d\n", status);
}

static void step_ready(struct streams *s)
{
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(s->publishers_fd, ready, READY_MAX, 0);

	for (int i = 0; i < cnt; i++)
		fan_publisher_step(s->publishers[ready[i].data.u32], 0, on_receipt, s);
}

/* Tries the sessions in turn, from the one after the last that had room. */
static int64_t publish_where_room_is(struct streams *s, uint32_t channel, uint32_t user)
{
	for (unsigned tries = 0; tries < s->publisher_cnt; tries++) {
		uint32_t publisher = s->next_publisher++ % s->publisher_cnt;
		uint64_t *index = &s->users[user].published[channel][publisher];
		struct content content = {
			.user = user, .channel = channel, .publisher = publisher, .index = *index};
		uint8_t payload[CONTENT_MAX];
		struct fan_event_spec spec = {.user = s->users[user].name,
					      .thread = threads[channel],
					      .payload = payload};
		int64_t ticket;

		spec.payload_len = content_make(&content, payload, s->fragments);
		ticket = fan_publish_start(s->publishers[publisher], &spec);
		if (ticket >= 0)
			(*index)++;
		if (ticket != -EAGAIN)
			return ticket;
	}
	return -EAGAIN;
}

static void publish_one(struct streams *s, uint32_t number, uint32_t user)
{
	int64_t ticket;

	while ((ticket = publish_where_room_is(s, number % CHANNELS, user)) == -EAGAIN) {
		step_ready(s);
		receive_ready(s, 1);
	}
	if (ticket < 0) {
		fail("publish");
		s->failed++;
		return;
	}
	s->published++;
}

static void publish_all(struct streams *s)
{
	for (uint32_t number = 0; number < s->events_each; number++)
		for (uint32_t user = 0; user < s->user_cnt; user++) {
			publish_one(s, number, user);
			if (s->published % 16 == 0) {
				step_ready(s);
				receive_ready(s, 0);
			}
		}
}

static void finish(struct streams *s)
{
	uint64_t wanted = s->published * s->connections_each;
	uint64_t last = now_ms(), progress = 0;

	while (now_ms() - last < s->silence_s * 1000ull) {
		uint64_t now;

		step_ready(s);
		receive_ready(s, 1);
		now = s->received + s->lost + s->acknowledged;
		if (now != progress)
			last = now_ms();
		progress = now;
		if (s->received >= wanted && s->acknowledged + s->failed >= s->published)
			break;
	}
	for (unsigned i = 0; i < 50; i++) /* one too many would come now */
		receive_ready(s, 10);
}

/* Events that never came, and of which nobody was told: the end of a stream is no excuse. */
static uint64_t missing_at_end(const struct streams *s)
{
	uint64_t missing = 0;

	for (unsigned i = 0; i < s->receiver_cnt; i++)
		for (unsigned channel = 0; channel < CHANNELS; channel++) {
			const struct receiver *receiver = &s->receivers[i];
			uint64_t of_channel = 0;

			for (unsigned p = 0; p < s->publisher_cnt; p++)
				of_channel += s->users[receiver->user].published[channel][p] -
					      receiver->next[channel][p];
			missing += of_channel > receiver->lost[channel]
					   ? of_channel - receiver->lost[channel]
					   : 0;
		}
	return missing;
}

static void report(const struct streams *s, uint64_t milliseconds)
{
	printf("{\"users\":%u,\"connections\":%u,\"published\":%lu,\"acknowledged\":%lu,\"failed\":"
	       "%lu,"
	       "\"received\":%lu,\"recovered\":%lu,\"foreign\":%lu,\"damaged\":%lu,\"duplicates\":%"
	       "lu,"
	       "\"disorder\":%lu,\"gaps\":%lu,\"missing\":%lu,\"lost\":%lu,\"ended\":%lu,"
	       "\"milliseconds\":%lu}\n",
	       s->user_cnt, s->receiver_cnt, s->published, s->acknowledged, s->failed, s->received,
	       s->recovered, s->foreign, s->damaged, s->duplicates, s->disorder, s->gaps,
	       missing_at_end(s), s->lost, s->ended, milliseconds);
}

static void close_all(struct streams *s)
{
	for (unsigned i = 0; i < s->receiver_cnt; i++)
		fan_subscription_close(s->receivers[i].subscription);
	for (unsigned i = 0; i < s->publisher_cnt; i++)
		if (s->publishers[i] != NULL)
			fan_publisher_close(s->publishers[i]);
	free(s->receivers);
	free(s->users);
}

int main(int argc, char **argv)
{
	struct streams s = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
			    .publishers_fd = epoll_create1(EPOLL_CLOEXEC)};
	struct rlimit files;
	uint64_t start;
	int err;

	if (argc != 9 || atoi(argv[6]) < 1 || atoi(argv[6]) > PUBLISHERS) {
		fprintf(stderr, "usage: stream CLIENT_SOCKET PUBLISHER SECRET CONNECTIONS EVENTS "
				"PUBLISHERS (1..2048) "
				"FRAGMENTS SILENCE_S\n");
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	s.client_socket = argv[1];
	s.credential = (struct fan_credential){.name = argv[2], .secret = argv[3]};
	s.connections_each = (unsigned)atoi(argv[4]);
	s.events_each = (unsigned)atoi(argv[5]);
	s.publisher_cnt = (unsigned)atoi(argv[6]);
	s.fragments = (unsigned)atoi(argv[7]);
	s.silence_s = (unsigned)atoi(argv[8]);
	err = read_users(&s) != 0 || subscribe_all(&s) != 0 || open_publishers(&s) != 0;
	if (!err) {
		start = now_ms();
		publish_all(&s);
		finish(&s);
		report(&s, now_ms() - start);
	}
	close_all(&s);
	return err ? 2 : 0;
}
