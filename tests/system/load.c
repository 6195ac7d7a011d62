/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A load tool for the system tests: many subscriptions and several publishers in one process, over
 * libfanwire. Every event says whom it is for and which one it is, and every connection checks what
 * it gets: its own, in sequence, each once. Prints one JSON object.
 *
 * usage: load CLIENT_SOCKET PUBLISHER SECRET CONNECTIONS EVENTS PUBLISHERS [FAMILY] <"USER TOKEN"
 * lines CONNECTIONS of each user; EVENTS to each user, from PUBLISHERS sessions that take turns.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#include "client/fanwire.h"

#define SILENCE_MS 3000 /* nothing for so long after the last result: what is missing is lost */
#define READY_MAX  256

struct user {
	char name[256];
	char token[4096];
};

struct event_data {
	uint32_t user, number;
};

struct receiver {
	struct fan_subscription *subscription;
	uint32_t user;
	uint32_t received;
	uint64_t epoch, sequence;
	uint8_t *seen; /* by event number */
};

struct load {
	const char *client_socket;
	struct fan_credential credential;
	unsigned connections_each, events_each, publisher_cnt;
	int family, epoll_fd;
	struct user *users;
	unsigned user_cnt;
	struct receiver *receivers;
	unsigned receiver_cnt;
	struct fan_publisher **publishers;
	uint64_t published, acknowledged, failed, attempted, sent;
	uint64_t received, foreign, duplicates, disorder, lost, ended;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, fan_error());
	return -1;
}

static int read_users(struct load *load)
{
	static char line[4400];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		load->users = realloc(load->users, (load->user_cnt + 1) * sizeof(*load->users));
		if (load->users == NULL)
			return -1;
		struct user *user = &load->users[load->user_cnt];

		if (sscanf(line, "%255s %4095s", user->name, user->token) == 2)
			load->user_cnt++;
	}
	return load->user_cnt > 0 ? 0 : -1;
}

static int subscribe_all(struct load *load)
{
	load->receivers =
		calloc((size_t)load->user_cnt * load->connections_each, sizeof(*load->receivers));
	for (unsigned i = 0; i < load->user_cnt * load->connections_each; i++) {
		struct receiver *receiver = &load->receivers[i];
		struct fan_subscribe_options options = {.family = load->family,
							.timeout_ms = 20000};
		struct epoll_event interest = {.events = EPOLLIN, .data.ptr = receiver};

		receiver->user = i % load->user_cnt;
		receiver->seen = calloc(load->events_each, 1);
		options.token = load->users[receiver->user].token;
		if (fan_subscribe(&receiver->subscription, load->client_socket, &options) != 0)
			return fail("subscribe");
		load->receiver_cnt++;
		if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD,
			      fan_subscription_fd(receiver->subscription), &interest) != 0)
			return -1;
	}
	return 0;
}

static int open_publishers(struct load *load)
{
	load->publishers = calloc(load->publisher_cnt, sizeof(struct fan_publisher *));
	for (unsigned i = 0; i < load->publisher_cnt; i++)
		if (fan_publisher_open(&load->publishers[i], load->client_socket,
				       &load->credential) != 0)
			return fail("open a publisher");
	return 0;
}

static void judge(struct load *load, struct receiver *receiver, const struct fan_event *event)
{
	struct event_data data;

	load->received++;
	receiver->received++;
	if (event->payload_len != sizeof(data)) {
		load->foreign++;
		return;
	}
	memcpy(&data, event->payload, sizeof(data));
	if (data.user != receiver->user || data.number >= load->events_each) {
		load->foreign++;
		return;
	}
	load->duplicates += receiver->seen[data.number]++ != 0;
	if (receiver->sequence != 0 &&
	    (event->epoch != receiver->epoch || event->sequence != receiver->sequence + 1))
		load->disorder++;
	receiver->epoch = event->epoch;
	receiver->sequence = event->sequence;
}

static void drain(struct load *load, struct receiver *receiver)
{
	struct fan_event event;

	while (fan_receive(receiver->subscription, &event, 0) == 1) {
		switch (event.type) {
		case FAN_EVENT_DATA:
			judge(load, receiver, &event);
			break;
		case FAN_EVENT_LOST:
			load->lost += event.lost_last - event.lost_first + 1;
			break;
		case FAN_EVENT_ENDED:
			load->ended++;
			return;
		}
	}
}

static int receive_ready(struct load *load, int timeout_ms)
{
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(load->epoll_fd, ready, READY_MAX, timeout_ms);

	for (int i = 0; i < cnt; i++)
		drain(load, ready[i].data.ptr);
	return cnt;
}

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct load *load = arg;

	if (status != 0) {
		load->failed++;
		return;
	}
	load->acknowledged++;
	load->attempted += receipt->attempted;
	load->sent += receipt->sent;
}

/* Event n of a user comes from publisher (user + n): several publishers serve each user at once. */
static void publish_one(struct load *load, uint32_t user, uint32_t number)
{
	struct event_data data = {user, number};
	struct fan_event_spec spec = {
		.user = load->users[user].name, .payload = &data, .payload_len = sizeof(data)};
	struct fan_publisher *publisher = load->publishers[(user + number) % load->publisher_cnt];

	while (fan_publish_start(publisher, &spec) == -EAGAIN) {
		fan_publisher_step(publisher, 1, on_receipt, load);
		receive_ready(load, 0);
	}
	load->published++;
}

static void publish_all(struct load *load)
{
	for (uint32_t number = 0; number < load->events_each; number++)
		for (uint32_t user = 0; user < load->user_cnt; user++) {
			publish_one(load, user, number);
			if (load->published % 32 == 0)
				receive_ready(load, 0);
		}
}

static void finish(struct load *load)
{
	uint64_t wanted = load->published * load->connections_each;
	uint64_t last = now_ms(), progress = 0;

	while (now_ms() - last < SILENCE_MS) {
		int in_flight = 0;

		for (unsigned i = 0; i < load->publisher_cnt; i++) {
			int left = fan_publisher_step(load->publishers[i], 0, on_receipt, load);

			in_flight += left > 0 ? left : 0;
		}
		receive_ready(load, 10);
		if (load->received + load->lost != progress || in_flight > 0)
			last = now_ms();
		progress = load->received + load->lost;
		if (load->received >= wanted && in_flight == 0)
			break;
	}
	receive_ready(load, 100); /* one too many would come now */
}

static void report(const struct load *load, uint64_t publish_ms)
{
	uint64_t incomplete = 0;

	for (unsigned i = 0; i < load->receiver_cnt; i++)
		incomplete += load->receivers[i].received != load->events_each;
	printf("{\"users\":%u,\"connections\":%u,\"published\":%lu,\"acknowledged\":%lu,"
	       "\"failed\":%lu,\"attempted\":%lu,\"sent\":%lu,\"received\":%lu,\"foreign\":%lu,"
	       "\"duplicates\":%lu,\"disorder\":%lu,\"lost\":%lu,\"ended\":%lu,\"incomplete\":%lu,"
	       "\"milliseconds\":%lu}\n",
	       load->user_cnt, load->receiver_cnt, load->published, load->acknowledged,
	       load->failed, load->attempted, load->sent, load->received, load->foreign,
	       load->duplicates, load->disorder, load->lost, load->ended, incomplete, publish_ms);
}

static void close_all(struct load *load)
{
	for (unsigned i = 0; i < load->receiver_cnt; i++) {
		fan_subscription_close(load->receivers[i].subscription);
		free(load->receivers[i].seen);
	}
	for (unsigned i = 0; i < load->publisher_cnt && load->publishers != NULL; i++)
		if (load->publishers[i] != NULL)
			fan_publisher_close(load->publishers[i]);
	free(load->receivers);
	free(load->publishers);
	free(load->users);
}

int main(int argc, char **argv)
{
	struct load load = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	struct rlimit files;
	uint64_t start;
	int err;

	if (argc < 7) {
		fprintf(stderr, "usage: load CLIENT_SOCKET PUBLISHER SECRET CONNECTIONS EVENTS "
				"PUBLISHERS [FAMILY]\n");
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	load.client_socket = argv[1];
	load.credential = (struct fan_credential){.name = argv[2], .secret = argv[3]};
	load.connections_each = (unsigned)atoi(argv[4]);
	load.events_each = (unsigned)atoi(argv[5]);
	load.publisher_cnt = (unsigned)atoi(argv[6]);
	load.family = argc > 7 ? atoi(argv[7]) : 4;
	err = read_users(&load) != 0 || subscribe_all(&load) != 0 || open_publishers(&load) != 0;
	if (!err) {
		start = now_ms();
		publish_all(&load);
		finish(&load);
		report(&load, now_ms() - start);
	}
	close_all(&load);
	return err ? 2 : 0;
}
