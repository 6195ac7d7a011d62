/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many users, some hundred connections at a time: stays end and others begin (comers.c), at times a
 * crowd leaves and comes back at once, and events go to whoever is there, in turn, as many as the
 * publishers' windows hold. Three of four stays read what their sockets accepted as it came: a
 * datagram of another user there is a leak, whatever the library would have made of it. The others
 * read through the library. Delivery must not be sealed: what a seal hides would hide a leak here.
 *
 * usage: churn CLIENT_SOCKET CONTROL_SOCKET PUBLISHER SECRET PLACES PORT_FIRST PORT_CNT
 *              USERS DELIVERIES REVOCATIONS SEED
 * It writes "still" once each user has been there and DELIVERIES have come, goes on reading until
 * its standard input ends, and prints one JSON object.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/wire/wire.h"
#include "tests/prove/churn.h"
#include "tests/prove/content.h"

#define STAYS	     192
#define RESIDENTS    16
#define COMERS	     24
#define PUBLISHERS   4
#define EVENTS_VISIT 8	/* to a stay, one after the other */
#define READ_BEHIND  48 /* stays: what was published to one is read when it has come */
#define BATCH	     32
#define PACKET_MAX   2048
#define STORM_EVERY  400 /* stays */
#define STORM_SIZE   40
#define RESIDENCE_MS 15000
#define PAUSE_US     4000
#define TAIL_MS	     3000 /* status of streams that have fallen silent: the last comes after 2 s */

struct traffic {
	struct churn churn;
	struct stay stays[STAYS];
	struct fan_publisher *publishers[PUBLISHERS];
	struct tally tally;
	uint64_t random, index, published, failed, storms, begun, revoke_every, resident_ms;
	uint64_t deliveries; /* wanted */
	uint32_t next_leaving;
};

static uint64_t draw(struct traffic *t)
{
	return content_mix(t->random += UINT64_C(0x9e3779b97f4a7c15));
}

/* ---- what came ---- */

static void judge(const struct stay *stay, struct tally *tally, const void *payload, size_t len)
{
	struct content content;

	tally->deliveries++;
	if (!content_is_exact(&content, payload, len, 0))
		tally->damaged++;
	else if (content.user != stay->user)
		tally->foreign++;
}

void stay_judge_raw(const struct stay *stay, struct tally *tally, const uint8_t *packet, size_t len)
{
	tally->raw++;
	if (len < FAN_DELIVERY_LEN ||
	    memcmp(packet + FAN_DELIVERY_HANDLE_OFF, stay->handle, sizeof(stay->handle)) != 0)
		tally->foreign++;
	else if (packet[1] == FAN_TYPE_DELIVERY)
		judge(stay, tally, packet + FAN_DELIVERY_LEN, len - FAN_DELIVERY_LEN);
}

void stay_drain_raw(const struct stay *stay, struct tally *tally, int fd)
{
	static _Thread_local uint8_t packets[BATCH][PACKET_MAX];
	static _Thread_local struct iovec iov[BATCH];
	struct mmsghdr messages[BATCH];
	int cnt;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){packets[i], PACKET_MAX};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	do {
		cnt = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
		for (int i = 0; i < cnt; i++)
			stay_judge_raw(stay, tally, packets[i], messages[i].msg_len);
	} while (cnt == BATCH);
}

static void drain_library(const struct stay *stay, struct tally *tally,
			  struct fan_subscription *subscription)
{
	struct fan_event event;

	while (fan_receive(subscription, &event, 0) == 1) {
		if (event.type == FAN_EVENT_DATA)
			judge(stay, tally, event.payload, event.payload_len);
		tally->lost += event.type == FAN_EVENT_LOST;
		tally->ended += event.type == FAN_EVENT_ENDED;
	}
}

static bool is_live(const struct stay *stay)
{
	return atomic_load_explicit(&stay->state, memory_order_acquire) == STAY_LIVE;
}

static void drain(struct traffic *t, const struct stay *stay)
{
	if (!is_live(stay))
		return;
	for (uint32_t i = 0; i < stay->cnt; i++)
		if (stay->library)
			drain_library(stay, &t->tally, stay->subscriptions[i]);
		else
			stay_drain_raw(stay, &t->tally,
				       fan_subscription_socket(stay->subscriptions[i]));
}

/* ---- what goes ---- */

static void on_receipt(void *arg, int64_t ticket, int status, const struct fan_receipt *receipt)
{
	struct traffic *t = arg;

	(void)ticket;
	(void)receipt;
	t->failed += status != 0;
}

static void publish(struct traffic *t, uint32_t number)
{
	const struct stay *stay = &t->stays[number];
	struct fan_publisher *publisher = t->publishers[number % PUBLISHERS];

	if (!is_live(stay) || stay->cnt == 0)
		return;
	for (unsigned i = 0; i < EVENTS_VISIT; i++) {
		struct content content = {.user = stay->user, .index = t->index++};
		uint8_t payload[CONTENT_MAX];
		struct fan_event_spec spec = {.user = stay->name, .payload = payload};

		spec.payload_len = content_make(&content, payload, 0);
		while (fan_publish_start(publisher, &spec) == -EAGAIN)
			fan_publisher_step(publisher, 1, on_receipt, t);
		t->published++;
	}
}

/* One turn: to each stay, and from each, a little later. */
static void turn(struct traffic *t)
{
	for (uint32_t i = 0; i < STAYS; i++) {
		publish(t, i);
		drain(t, &t->stays[(i + STAYS - READ_BEHIND) % STAYS]);
	}
	for (unsigned p = 0; p < PUBLISHERS; p++)
		fan_publisher_step(t->publishers[p], 0, on_receipt, t);
}

/* ---- who is there ---- */

static void leave(struct traffic *t, struct stay *stay, bool again)
{
	stay->again = again;
	stay->library = draw(t) % 4 == 0;
	stay->revoke =
		!stay->resident && !again && t->revoke_every && t->begun % t->revoke_every == 0;
	t->begun += !again && !stay->resident;
	comers_put(&t->churn, stay);
}

/* All at once, as after the network was away: the same users, in whatever places they get. */
static void storm(struct traffic *t)
{
	uint32_t first = (uint32_t)(draw(t) % STAYS);

	t->storms++;
	for (uint32_t i = 0; i < STORM_SIZE; i++) {
		struct stay *stay = &t->stays[(first + i) % STAYS];

		if (is_live(stay) && stay->cnt && !stay->resident)
			leave(t, stay, true);
	}
}

/* So many may have come by now that the last user comes well before the last delivery. */
static bool may_come(const struct traffic *t)
{
	uint64_t share = t->tally.deliveries * t->churn.user_cnt * 5 / 4 / t->deliveries;

	return t->begun < share + STAYS && t->begun < (uint64_t)t->churn.user_cnt * 3 / 2;
}

static void replace_oldest(struct traffic *t)
{
	struct stay *stay = &t->stays[t->next_leaving % STAYS];

	if (stay->resident && now_ms() - t->resident_ms > RESIDENCE_MS && is_live(stay)) {
		t->resident_ms = now_ms();
		leave(t, stay, false);
	}
	if (stay->resident) {
		t->next_leaving++;
		return;
	}
	if (!is_live(stay) || t->churn.queue_cnt > COMERS || !may_come(t))
		return;
	t->next_leaving++;
	leave(t, stay, false);
	if (t->begun % STORM_EVERY == 0)
		storm(t);
}

static bool all_live(const struct traffic *t)
{
	for (uint32_t i = 0; i < STAYS; i++)
		if (!is_live(&t->stays[i]))
			return false;
	return true;
}

/* Events ahead of comings: the processors are for those who come. */
static bool is_ahead(const struct traffic *t)
{
	return t->tally.deliveries * t->churn.user_cnt > t->deliveries * t->begun;
}

static bool goes_on(const struct traffic *t)
{
	return t->tally.deliveries < t->deliveries || t->begun < t->churn.user_cnt ||
	       t->churn.next_user < t->churn.user_cnt;
}

static void run(struct traffic *t)
{
	for (uint32_t i = 0; i < STAYS; i++) {
		t->stays[i].resident = i % (STAYS / RESIDENTS) == 0;
		leave(t, &t->stays[i], false);
	}
	while (goes_on(t)) {
		for (unsigned i = 0; i < 8; i++)
			replace_oldest(t);
		turn(t);
		if (is_ahead(t))
			usleep(PAUSE_US);
	}
	t->churn.still = true;
	for (uint64_t since = now_ms(); !all_live(t) || now_ms() - since < TAIL_MS;) {
		for (unsigned p = 0; p < PUBLISHERS; p++)
			fan_publisher_step(t->publishers[p], 1, on_receipt, t);
		for (uint32_t i = 0; i < STAYS; i++)
			drain(t, &t->stays[i]);
	}
}

/* Nothing is published any more: whatever a socket accepts now, somebody forged. */
static void stay_still(struct traffic *t)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};

	puts("still");
	fflush(stdout);
	while (poll(&input, 1, 20) == 0)
		for (uint32_t i = 0; i < STAYS; i++)
			drain(t, &t->stays[i]);
	for (uint32_t i = 0; i < STAYS; i++)
		drain(t, &t->stays[i]);
}

/* ---- the whole ---- */

static void add(struct tally *sum, struct tally *one)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)one;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
	free(one);
}

static void report(const struct traffic *t, const struct tally *sum, uint64_t milliseconds)
{
	printf("{\"users\":%lu,\"comings\":%lu,\"storms\":%lu,\"refused\":%lu,\"revoked\":%lu,"
	       "\"published\":%lu,\"failed\":%lu,\"deliveries\":%lu,\"raw\":%lu,\"foreign\":%lu,"
	       "\"damaged\":%lu,\"lost\":%lu,\"ended\":%lu,\"kept\":%lu,\"unconfirmed\":%lu,"
	       "\"accepted_after\":%lu,\"milliseconds\":%lu}\n",
	       (unsigned long)(t->churn.next_user < t->churn.user_cnt ? t->churn.next_user
								      : t->churn.user_cnt) +
		       t->churn.next_resident,
	       sum->comings, t->storms, sum->refused, sum->revoked, t->published, t->failed,
	       sum->deliveries, sum->raw, sum->foreign, sum->damaged, sum->lost, sum->ended,
	       sum->kept, sum->unconfirmed, sum->accepted_after, milliseconds);
}

static int with_threads(struct traffic *t)
{
	pthread_t threads[COMERS + 1];
	struct tally sum = {0};
	void *tally;
	uint64_t start = now_ms(), milliseconds;

	for (unsigned i = 0; i <= COMERS; i++)
		if (pthread_create(&threads[i], NULL, i < COMERS ? comer_run : graves_run, t) != 0)
			return -1;
	run(t);
	milliseconds = now_ms() - start;
	stay_still(t);
	pthread_mutex_lock(&t->churn.lock);
	t->churn.stop = true;
	pthread_cond_broadcast(&t->churn.some);
	pthread_mutex_unlock(&t->churn.lock);
	for (unsigned i = 0; i <= COMERS; i++) {
		pthread_join(threads[i], &tally);
		add(&sum, tally);
	}
	for (uint32_t i = 0; i < STAYS; i++)
		for (uint32_t k = 0; k < t->stays[i].cnt; k++)
			fan_subscription_close(t->stays[i].subscriptions[k]);
	for (unsigned i = 0; i < PUBLISHERS; i++)
		fan_publisher_close(t->publishers[i]);
	for (size_t i = 0; i < sizeof(sum) / sizeof(uint64_t); i++)
		((uint64_t *)&sum)[i] += ((uint64_t *)&t->tally)[i];
	report(t, &sum, milliseconds);
	return 0;
}

static int start(struct traffic *t, char **argv)
{
	struct fan_credential credential = {.name = argv[3], .secret = argv[4]};
	uint64_t revocations = strtoull(argv[10], NULL, 0);
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	t->churn.client_socket = argv[1];
	t->churn.control_socket = argv[2];
	t->churn.port_first = (uint16_t)atoi(argv[6]);
	t->churn.places = places_map(argv[5], (uint32_t)atoi(argv[7]));
	t->churn.user_cnt = (uint32_t)atoi(argv[8]);
	t->deliveries = strtoull(argv[9], NULL, 0);
	t->revoke_every = revocations ? t->churn.user_cnt / revocations : 0;
	t->random = strtoull(argv[11], NULL, 0);
	t->churn.revoked = calloc(2ull * t->churn.user_cnt, sizeof(*t->churn.revoked));
	pthread_mutex_init(&t->churn.lock, NULL);
	pthread_cond_init(&t->churn.some, NULL);
	if (!t->churn.places || !t->churn.revoked) {
		perror("churn: places");
		return -1;
	}
	for (unsigned i = 0; i < PUBLISHERS; i++)
		if (fan_publisher_open(&t->publishers[i], argv[1], &credential) != 0) {
			fprintf(stderr, "churn: open a publisher: %s\n", fan_error());
			return -1;
		}
	return 0;
}

int main(int argc, char **argv)
{
	struct traffic *t = calloc(1, sizeof(*t));

	if (argc != 12 || !t) {
		fputs("usage: churn CLIENT_SOCKET CONTROL_SOCKET PUBLISHER SECRET PLACES "
		      "PORT_FIRST PORT_CNT USERS DELIVERIES REVOCATIONS SEED\n",
		      stderr);
		return 1;
	}
	return start(t, argv) == 0 && with_threads(t) == 0 ? 0 : 2;
}
