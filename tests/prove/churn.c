/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many users, few of them at a time: the oldest leaves, the next one comes, at times a crowd leaves
 * and comes back at once, and events go to whoever is there. Every second subscriber reads what its
 * socket accepted as it came: a datagram of another user there is a leak, whatever the library
 * would have made of it. The others read through the library. Prints one JSON object.
 *
 * usage: churn CLIENT_SOCKET PUBLISHER SECRET LIVE DELIVERIES SEED <"USER TOKEN HANDLE" lines
 * LIVE subscribers at a time. It ends when each user has been there and DELIVERIES have come.
 * Delivery must not be sealed: what a seal hides would hide a leak here.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/fanwire.h"
#include "common/wire/wire.h"
#include "tests/prove/content.h"

#define PUBLISHERS   4
#define READY_MAX    256
#define STORM_EVERY  150 /* comings */
#define STORM_SIZE   40
#define EVENTS_ROUND 8
#define LEASE_SHARE  5 /* seconds; who reads its socket itself comes back for a lease */

struct user {
	char name[64], token[1024];
	uint8_t handle[16];
};

struct slot {
	struct fan_subscription *subscription;
	uint32_t user, number;
	uint64_t since_ms;
};

struct churn {
	const char *client_socket;
	struct fan_publisher *publishers[PUBLISHERS];
	struct user *users;
	struct slot *slots;
	uint32_t user_cnt, slot_cnt, next_user, next_slot;
	uint64_t random, published, failed, refused, comings, storms;
	uint64_t deliveries, raw, foreign, damaged, ended;
	uint64_t *index; /* by user */
	int epoll_fd;
};

static uint64_t draw(struct churn *c)
{
	return content_mix(c->random += UINT64_C(0x9e3779b97f4a7c15));
}

static int read_users(struct churn *c)
{
	static char line[2048];
	char hex[33];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		c->users = realloc(c->users, (c->user_cnt + 1) * sizeof(*c->users));
		if (c->users == NULL)
			return -1;
		struct user *user = &c->users[c->user_cnt];

		if (sscanf(line, "%63s %1023s %32s", user->name, user->token, hex) != 3)
			continue;
		for (unsigned i = 0; i < 16; i++)
			sscanf(hex + 2 * i, "%2hhx", &user->handle[i]);
		c->user_cnt++;
	}
	c->index = calloc(c->user_cnt, sizeof(*c->index));
	return c->user_cnt > 0 && c->index != NULL ? 0 : -1;
}

static bool is_raw(const struct slot *slot)
{
	return slot->number % 2;
}

static void come(struct churn *c, struct slot *slot, uint32_t user)
{
	struct fan_subscribe_options options = {
		.token = c->users[user].token, .family = 4, .timeout_ms = 10000};
	struct epoll_event interest = {.events = EPOLLIN, .data.ptr = slot};

	slot->user = user;
	slot->since_ms = now_ms();
	if (fan_subscribe(&slot->subscription, c->client_socket, &options) != 0) {
		if (c->refused++ < 5)
			fprintf(stderr, "churn: subscribe: %s\n", fan_error());
		slot->subscription = NULL;
		return;
	}
	c->comings++;
	epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD,
		  is_raw(slot) ? fan_subscription_socket(slot->subscription)
			       : fan_subscription_fd(slot->subscription),
		  &interest);
}

static void go(struct slot *slot)
{
	if (slot->subscription != NULL)
		fan_subscription_close(
			slot->subscription); /* descriptors leave the epoll set with it */
	slot->subscription = NULL;
}

/* ---- what came ---- */

static void judge(struct churn *c, const struct slot *slot, const void *payload, size_t len)
{
	struct content content;

	c->deliveries++;
	if (!content_is_exact(&content, payload, len, 0))
		c->damaged++;
	else if (content.user != slot->user)
		c->foreign++;
}

static void drain_raw(struct churn *c, const struct slot *slot)
{
	uint8_t packet[2048];
	ssize_t len;

	while ((len = recv(fan_subscription_socket(slot->subscription), packet, sizeof(packet),
			   MSG_DONTWAIT)) >= 0) {
		c->raw++;
		if (len < FAN_DELIVERY_LEN ||
		    memcmp(packet + 8, c->users[slot->user].handle, 16) != 0)
			c->foreign++;
		else if (packet[1] == FAN_TYPE_DELIVERY)
			judge(c, slot, packet + FAN_DELIVERY_LEN, (size_t)len - FAN_DELIVERY_LEN);
	}
}

static void drain(struct churn *c, struct slot *slot)
{
	struct fan_event event;

	if (slot->subscription == NULL)
		return;
	if (is_raw(slot)) {
		drain_raw(c, slot);
		return;
	}
	while (fan_receive(slot->subscription, &event, 0) == 1) {
		if (event.type == FAN_EVENT_DATA)
			judge(c, slot, event.payload, event.payload_len);
		if (event.type == FAN_EVENT_ENDED) {
			c->ended++;
			go(slot);
			return;
		}
	}
}

static void receive_ready(struct churn *c, int timeout_ms)
{
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(c->epoll_fd, ready, READY_MAX, timeout_ms);

	for (int i = 0; i < cnt; i++)
		drain(c, ready[i].data.ptr);
}

/* ---- what goes ---- */

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct churn *c = arg;

	(void)ticket;
	(void)receipt;
	c->failed += status != 0;
}

static void publish_round(struct churn *c)
{
	for (unsigned i = 0; i < EVENTS_ROUND; i++) {
		const struct slot *slot = &c->slots[draw(c) % c->slot_cnt];
		struct fan_publisher *publisher = c->publishers[draw(c) % PUBLISHERS];
		struct content content = {.user = slot->user, .index = c->index[slot->user]++};
		uint8_t payload[CONTENT_MAX];
		struct fan_event_spec spec = {.user = c->users[slot->user].name,
					      .payload = payload};

		spec.payload_len = content_make(&content, payload, 0);
		while (fan_publish_start(publisher, &spec) == -EAGAIN) {
			fan_publisher_step(publisher, 1, on_receipt, c);
			receive_ready(c, 0);
		}
		c->published++;
	}
	for (unsigned i = 0; i < PUBLISHERS; i++)
		fan_publisher_step(c->publishers[i], 0, on_receipt, c);
	receive_ready(c, 0);
}

/* ---- who is there ---- */

/* All at once, as after the network was away: the same users, in whatever places they get. */
static void storm(struct churn *c)
{
	uint32_t first = (uint32_t)(draw(c) % c->slot_cnt);

	c->storms++;
	for (unsigned i = 0; i < STORM_SIZE; i++)
		go(&c->slots[(first + i) % c->slot_cnt]);
	for (unsigned i = 0; i < STORM_SIZE; i++) {
		struct slot *slot = &c->slots[(first + i) % c->slot_cnt];

		come(c, slot, slot->user);
	}
}

static void replace_oldest(struct churn *c)
{
	struct slot *slot = &c->slots[c->next_slot++ % c->slot_cnt];

	go(slot);
	come(c, slot, c->next_user++ % c->user_cnt);
}

/* Who reads its socket itself renews no lease. */
static void renew(struct churn *c)
{
	for (uint32_t i = 1; i < c->slot_cnt; i += 2)
		if (now_ms() - c->slots[i].since_ms > LEASE_SHARE * 1000) {
			go(&c->slots[i]);
			come(c, &c->slots[i], c->slots[i].user);
		}
}

static void run(struct churn *c, uint64_t deliveries)
{
	while (c->next_user < c->user_cnt || c->deliveries < deliveries) {
		uint64_t rounds = c->next_user < c->user_cnt ? 1 : 1000;

		replace_oldest(c);
		for (uint64_t i = 0; i < rounds && (rounds == 1 || c->deliveries < deliveries); i++)
			publish_round(c);
		if (c->comings % STORM_EVERY == 0)
			storm(c);
		renew(c);
	}
	for (unsigned i = 0; i < 100; i++) {
		for (unsigned p = 0; p < PUBLISHERS; p++)
			fan_publisher_step(c->publishers[p], 0, on_receipt, c);
		receive_ready(c, 10);
	}
}

static int start(struct churn *c, const struct fan_credential *credential)
{
	c->slots = calloc(c->slot_cnt, sizeof(*c->slots));
	for (unsigned i = 0; i < PUBLISHERS; i++)
		if (fan_publisher_open(&c->publishers[i], c->client_socket, credential) != 0) {
			fprintf(stderr, "churn: open a publisher: %s\n", fan_error());
			return -1;
		}
	for (uint32_t i = 0; i < c->slot_cnt; i++) {
		c->slots[i].number = i;
		replace_oldest(c);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct churn c = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	struct rlimit files;

	if (argc != 7) {
		fprintf(stderr,
			"usage: churn CLIENT_SOCKET PUBLISHER SECRET LIVE DELIVERIES SEED\n");
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	c.client_socket = argv[1];
	c.slot_cnt = (uint32_t)atoi(argv[4]);
	c.random = strtoull(argv[6], NULL, 0);
	if (read_users(&c) != 0 ||
	    start(&c, &(struct fan_credential){.name = argv[2], .secret = argv[3]}) != 0)
		return 2;
	run(&c, strtoull(argv[5], NULL, 0));
	for (uint32_t i = 0; i < c.slot_cnt; i++)
		go(&c.slots[i]);
	printf("{\"users\":%u,\"comings\":%lu,\"storms\":%lu,\"refused\":%lu,\"published\":%lu,"
	       "\"failed\":%lu,"
	       "\"deliveries\":%lu,\"raw\":%lu,\"foreign\":%lu,\"damaged\":%lu,\"ended\":%lu}\n",
	       c.user_cnt, c.comings, c.storms, c.refused, c.published, c.failed, c.deliveries,
	       c.raw, c.foreign, c.damaged, c.ended);
	for (unsigned i = 0; i < PUBLISHERS; i++)
		fan_publisher_close(c.publishers[i]);
	free(c.users);
	free(c.slots);
	free(c.index);
	return 0;
}
