/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Traffic of the soak test, over libfanwire, until it is told to end (SIGTERM) or its time is over.
 *   steady: one connection for each user, and a publisher that sends RATE events a second to users
 *     drawn by chance, some of whom are nobody; each event names its user and its time. Each
 *     receiver insists on its own, in order, each once, and nothing missing that was not told.
 *   churn: RATE times a second a connection of a user drawn by chance ends and another one comes.
 * One line of JSON each second: what came since the last one, and the 99th percentile of the time
 * from publish to receipt.
 *
 * usage: soak-load steady|churn CLIENT_SOCKET PUBLISHER SECRET SECONDS RATE SEED <"USER TOKEN"
 * lines
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "client/fanwire.h"

#define USERS_MAX    256
#define READY_MAX    128
#define BUCKETS	     4096 /* of latencies, BUCKET_US each */
#define BUCKET_US    50
#define SECOND_NS    UINT64_C(1000000000)
#define BATCH_MS     2
#define SUBSCRIBE_MS 2000

struct event_data {
	uint32_t user, number;
	uint64_t time_ns;
};

struct receiver {
	struct fan_subscription *subscription;
	uint64_t epoch, sequence; /* 0: nothing yet */
};

struct user {
	char name[256], token[4096];
	struct receiver receiver;
};

struct tally {
	uint64_t published, acknowledged, failed, received, foreign, duplicates, gaps, lost, ended;
	uint64_t made, refused;
	uint32_t latency[BUCKETS];
};

static struct user *users;
static unsigned user_cnt;
static struct tally tally;
static const char *client_socket;
static uint64_t state;
static int epoll_fd;
static volatile sig_atomic_t stop;

static void on_stop(int number)
{
	stop = 1;
}

static uint32_t draw(uint32_t below)
{
	state ^= state << 13; /* xorshift64, Marsaglia 2003 */
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 32) % below);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static int read_users(void)
{
	static char line[4400];

	users = calloc(USERS_MAX, sizeof(*users));
	while (users && user_cnt < USERS_MAX && fgets(line, sizeof(line), stdin))
		if (sscanf(line, "%255s %4095s", users[user_cnt].name, users[user_cnt].token) == 2)
			user_cnt++;
	return user_cnt ? 0 : -EINVAL;
}

static int subscribe(struct user *user)
{
	struct fan_subscribe_options options = {.token = user->token, .timeout_ms = SUBSCRIBE_MS};
	struct epoll_event interest = {.events = EPOLLIN, .data.ptr = user};
	int err = fan_subscribe(&user->receiver.subscription, client_socket, &options);

	if (err) {
		user->receiver.subscription = NULL;
		return err;
	}
	user->receiver.epoch = user->receiver.sequence = 0;
	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fan_subscription_fd(user->receiver.subscription),
			 &interest);
}

/* ---- receiving ---- */

static void note_latency(uint64_t sent_ns)
{
	uint64_t bucket = (now_ns() - sent_ns) / (BUCKET_US * 1000);

	tally.latency[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static void note_place(struct receiver *r, uint64_t epoch, uint64_t first, uint64_t last)
{
	if (r->epoch == epoch && first <= r->sequence)
		tally.duplicates++;
	else if (r->epoch == epoch && first != r->sequence + 1)
		tally.gaps++;
	else if (r->epoch && r->epoch != epoch) /* its end was not told */
		tally.gaps++;
	r->epoch = last == UINT64_MAX ? 0 : epoch;
	r->sequence = last;
}

static void on_event(struct user *user, const struct fan_event *event)
{
	struct event_data data;

	switch (event->type) {
	case FAN_EVENT_LOST:
		tally.lost++;
		note_place(&user->receiver, event->epoch, event->lost_first, event->lost_last);
		return;
	case FAN_EVENT_ENDED:
		tally.ended++;
		return;
	case FAN_EVENT_DATA:
		break;
	}
	tally.received++;
	if (event->payload_len != sizeof(data)) {
		tally.foreign++;
		return;
	}
	memcpy(&data, event->payload, sizeof(data));
	if (data.user >= user_cnt || &users[data.user] != user)
		tally.foreign++;
	note_place(&user->receiver, event->epoch, event->sequence, event->sequence);
	note_latency(data.time_ns);
}

static void receive_ready(int timeout_ms)
{
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(epoll_fd, ready, READY_MAX, timeout_ms);

	for (int i = 0; i < cnt; i++) {
		struct user *user = ready[i].data.ptr;
		struct fan_event event;

		while (user->receiver.subscription &&
		       fan_receive(user->receiver.subscription, &event, 0) == 1)
			on_event(user, &event);
	}
}

/* ---- the two kinds of traffic ---- */

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	if (status)
		tally.failed++; /* told so: honest */
	else
		tally.acknowledged++;
}

static void publish_one(struct fan_publisher *publisher)
{
	struct event_data data = {.user = draw(user_cnt), .time_ns = now_ns()};
	bool nobody = draw(16) == 0;
	struct fan_event_spec spec = {.user = nobody ? "nobody" : users[data.user].name,
				      .payload = &data,
				      .payload_len = sizeof(data)};

	if (fan_publish_start(publisher, &spec) > 0)
		tally.published++;
}

static void steady_turn(struct fan_publisher *publisher, unsigned due)
{
	while (due--)
		publish_one(publisher);
	fan_publisher_step(publisher, 0, on_receipt, NULL);
}

static void churn_turn(unsigned due)
{
	while (due-- && !stop) {
		struct user *user = &users[draw(user_cnt)];

		if (user->receiver.subscription) {
			fan_subscription_close(user->receiver.subscription);
			user->receiver.subscription = NULL;
		}
		if (subscribe(user) == 0)
			tally.made++;
		else
			tally.refused++;
	}
}

static uint64_t percentile_99(void)
{
	uint64_t cnt = 0, seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++)
		cnt += tally.latency[i];
	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += tally.latency[i];
		if (seen * 100 >= cnt * 99)
			return (i + 1) * BUCKET_US;
	}
	return 0;
}

static void report(void)
{
	printf("{\"published\":%lu,\"acknowledged\":%lu,\"failed\":%lu,\"received\":%lu,"
	       "\"foreign\":%lu,\"duplicates\":%lu,\"gaps\":%lu,\"lost\":%lu,\"ended\":%lu,"
	       "\"made\":%lu,\"refused\":%lu,\"p99_us\":%lu}\n",
	       tally.published, tally.acknowledged, tally.failed, tally.received, tally.foreign,
	       tally.duplicates, tally.gaps, tally.lost, tally.ended, tally.made, tally.refused,
	       tally.received ? percentile_99() : 0);
	fflush(stdout);
	memset(&tally, 0, sizeof(tally));
}

static void run(struct fan_publisher *publisher, uint64_t seconds, unsigned rate)
{
	uint64_t start = now_ns(), done = 0, told = start;

	while (!stop && now_ns() - start < seconds * SECOND_NS) {
		uint64_t due = (now_ns() - start) * rate / SECOND_NS - done;
		unsigned turn = due < rate ? (unsigned)due : rate; /* after a pause: no flood */

		done += due;
		if (publisher)
			steady_turn(publisher, turn);
		else
			churn_turn(turn);
		receive_ready(BATCH_MS);
		if (now_ns() - told >= SECOND_NS) {
			report();
			told += SECOND_NS;
		}
	}
	for (unsigned i = 0; publisher && i < 200; i++) { /* what is on its way */
		fan_publisher_step(publisher, 0, on_receipt, NULL);
		receive_ready(5);
	}
	report();
}

static int begin(struct fan_publisher **publisher, const struct fan_credential *credential)
{
	for (unsigned i = 0; i < user_cnt; i++) {
		if (subscribe(&users[i]) == 0)
			continue;
		fprintf(stderr, "soak-load: subscribe: %s\n", fan_error());
		return -1;
	}
	if (fan_publisher_open(publisher, client_socket, credential) == 0)
		return 0;
	fprintf(stderr, "soak-load: open a publisher: %s\n", fan_error());
	return -1;
}

int main(int argc, char **argv)
{
	struct fan_publisher *publisher = NULL;
	bool steady = argc == 8 && strcmp(argv[1], "steady") == 0;
	int err = 0;

	if (!steady && (argc != 8 || strcmp(argv[1], "churn") != 0)) {
		fprintf(stderr, "usage: soak-load steady|churn CLIENT_SOCKET PUBLISHER SECRET "
				"SECONDS RATE SEED\n");
		return 1;
	}
	signal(SIGTERM, on_stop);
	client_socket = argv[2];
	state = strtoull(argv[7], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	err = read_users();
	if (!err && steady)
		err = begin(&publisher,
			    &(struct fan_credential){.name = argv[3], .secret = argv[4]});
	if (!err)
		run(publisher, strtoull(argv[5], NULL, 10), (unsigned)atoi(argv[6]));
	for (unsigned i = 0; i < user_cnt; i++)
		if (users[i].receiver.subscription)
			fan_subscription_close(users[i].receiver.subscription);
	if (publisher)
		fan_publisher_close(publisher);
	free(users);
	return err ? 2 : 0;
}
