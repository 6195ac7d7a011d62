/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who comes and goes: several at a time, since each registration waits for a disk and a challenge.
 * Those that leave close their sockets, or keep them open after the registration's end, or are
 * revoked; what an ended socket accepts afterwards is a leak.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/wire/handle.h"
#include "tests/prove/churn.h"
#include "tests/prove/content.h"

#define CONFIRM_MS	 20000
#define CONFIRM_EVERY_US 5000
#define GRAVE_MS	 1500
#define GRAVES_EVERY_US	 20000
#define RETRY_US	 20000
#define RETRY_MS	 20000
#define ANSWER_MAX	 65536

struct grave {
	struct grave *next;
	int fd;
	uint64_t since_ms;
};

/* ---- control.sock ---- */

/* The answer's body, in the caller's buffer; NULL where there is none of status 200. */
static const char *api(const struct churn *c, const char *method, const char *path,
		       const char *body, char answer[ANSWER_MAX])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ssize_t got = 0, more;
	char request[1024];
	const char *text = NULL;
	int len = snprintf(request, sizeof(request),
			   "%s %s HTTP/1.1\r\nHost: fanwired\r\nConnection: close\r\n"
			   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			   method, path, strlen(body), body);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", c->control_socket);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    send(fd, request, (size_t)len, MSG_NOSIGNAL) == len) {
		while ((more = recv(fd, answer + got, (size_t)(ANSWER_MAX - 1 - got), 0)) > 0)
			got += more;
		answer[got] = '\0';
		if (strncmp(answer, "HTTP/1.1 200", 12) == 0)
			text = strstr(answer, "\r\n\r\n");
	}
	close(fd);
	return text;
}

static bool get_token(const struct churn *c, const char *user, char token[4096])
{
	char answer[ANSWER_MAX], body[128];
	const char *text;

	snprintf(body, sizeof(body), "{\"user\":\"%s\",\"ttl_seconds\":86400}", user);
	text = api(c, "POST", "/v1/tokens", body, answer);
	text = text ? strstr(text, "\"token\"") : NULL;
	return text && sscanf(text, "\"token\" : \"%4095[^\"]", token) == 1;
}

/* No connection of this user is in force: the agent has taken each one's scope out of the kernel
 * before it tells the engine of the end. */
static bool confirm_ended(const struct churn *c, const char *user)
{
	uint64_t until_ms = now_ms() + CONFIRM_MS;
	char answer[ANSWER_MAX], path[128];
	const char *text;

	snprintf(path, sizeof(path), "/v1/connections?user=%s", user);
	while (now_ms() < until_ms) {
		text = api(c, "GET", path, "", answer);
		if (text && !strstr(text, "\"active\"") && !strstr(text, "\"pending\""))
			return true;
		usleep(CONFIRM_EVERY_US);
	}
	return false;
}

/* ---- ended sockets ---- */

static void grave_add(struct churn *c, int fd)
{
	struct grave *grave = malloc(sizeof(*grave));

	if (!grave)
		abort();
	*grave = (struct grave){.fd = fd, .since_ms = now_ms()};
	pthread_mutex_lock(&c->lock);
	grave->next = c->graves;
	c->graves = grave;
	pthread_mutex_unlock(&c->lock);
}

static void grave_read(struct tally *tally, int fd)
{
	uint8_t packet[2048];

	while (recv(fd, packet, sizeof(packet), MSG_DONTWAIT) >= 0)
		tally->accepted_after++;
}

void *graves_run(void *churn)
{
	struct tally *tally = calloc(1, sizeof(*tally));
	struct churn *c = churn;
	bool last = false;

	while (!last) {
		last = c->stop;
		pthread_mutex_lock(&c->lock);
		for (struct grave **at = &c->graves, *grave; (grave = *at) != NULL;) {
			grave_read(tally, grave->fd);
			if (!last && (c->still || now_ms() - grave->since_ms < GRAVE_MS)) {
				at = &grave->next;
				continue;
			}
			close(grave->fd);
			tally->kept++;
			*at = grave->next;
			free(grave);
		}
		pthread_mutex_unlock(&c->lock);
		usleep(GRAVES_EVERY_US);
	}
	return tally;
}

/* ---- going ---- */

static struct place *place_of(const struct churn *c, const struct stay *stay, uint32_t i)
{
	return &c->places[stay->ports[i] - c->port_first];
}

static bool revoke_user(struct churn *c, const struct stay *stay)
{
	char answer[ANSWER_MAX], body[128];

	c->revoked[stay->user] = true;
	snprintf(body, sizeof(body), "{\"user\":\"%s\"}", stay->name);
	return api(c, "POST", "/v1/revocations", body, answer) != NULL;
}

/* What a queue held when the end was known counts as delivered; what comes later must not. */
static void bury(struct churn *c, struct tally *tally, struct stay *stay, const int *fds,
		 enum place_way way)
{
	for (uint32_t i = 0; i < stay->cnt; i++) {
		stay_drain_raw(stay, tally, fds[i]);
		place_end(place_of(c, stay, i), way);
		grave_add(c, fds[i]);
	}
}

static void go(struct churn *c, struct tally *tally, struct stay *stay, enum place_way way)
{
	int fds[STAY_CONNECTIONS];
	bool known = way != PLACE_REVOKED || revoke_user(c, stay);

	for (uint32_t i = 0; i < stay->cnt; i++) {
		if (way == PLACE_CLOSED)
			place_end(place_of(c, stay, i), way);
		else
			fds[i] = dup(fan_subscription_socket(stay->subscriptions[i]));
	}
	if (way == PLACE_REVOKED)
		bury(c, tally, stay, fds, way);
	for (uint32_t i = 0; i < stay->cnt; i++)
		fan_subscription_close(stay->subscriptions[i]);
	if (way == PLACE_KEPT) {
		known = confirm_ended(c, stay->name);
		bury(c, tally, stay, fds, way);
	}
	tally->unconfirmed += !known;
	tally->revoked += way == PLACE_REVOKED;
	stay->cnt = 0;
}

/* ---- coming ---- */

static void pick_user(struct churn *c, struct stay *stay)
{
	do
		stay->user = stay->resident ? c->user_cnt + c->next_resident++ % c->user_cnt
					    : c->next_user++ % c->user_cnt;
	while (c->revoked[stay->user]);
	snprintf(stay->name, sizeof(stay->name), "user-%u", stay->user);
	fan_handle(stay->handle, stay->name, strlen(stay->name));
}

/* Most have one connection, some two, a few eight; a resident sixteen. */
static uint32_t connections_of(const struct stay *stay)
{
	uint64_t drawn = content_mix(stay->user) % 16;

	if (stay->resident)
		return STAY_CONNECTIONS;
	return drawn < 13 ? 1 : drawn < 15 ? 2 : 8;
}

static bool join(struct churn *c, struct stay *stay, const char *token)
{
	struct fan_subscribe_options options = {.token = token, .family = 4, .timeout_ms = 20000};
	struct fan_subscription *subscription;
	struct sockaddr_in own;
	socklen_t len = sizeof(own);
	uint64_t until_ms = now_ms() + RETRY_MS;
	int err;

	while ((err = fan_subscribe(&subscription, c->client_socket, &options)) == -EAGAIN &&
	       now_ms() < until_ms)
		usleep(RETRY_US); /* the ports are in use or resting */
	if (err)
		return false;
	getsockname(fan_subscription_socket(subscription), (struct sockaddr *)&own, &len);
	stay->subscriptions[stay->cnt] = subscription;
	stay->ports[stay->cnt] = ntohs(own.sin_port);
	place_begin(place_of(c, stay, stay->cnt), stay->handle);
	stay->cnt++;
	return true;
}

static void come(struct churn *c, struct tally *tally, struct stay *stay)
{
	uint32_t wanted;
	char token[4096] = "";

	if (!stay->again)
		pick_user(c, stay);
	stay->again = false;
	wanted = connections_of(stay);
	if (!get_token(c, stay->name, token))
		fprintf(stderr, "churn: no token for %s\n", stay->name);
	for (uint32_t i = 0; i < wanted && *token; i++) {
		tally->comings++;
		if (!join(c, stay, token) && tally->refused++ < 3)
			fprintf(stderr, "churn: subscribe: %s\n", fan_error());
	}
}

static struct stay *take(struct churn *c)
{
	struct stay *stay = NULL;

	pthread_mutex_lock(&c->lock);
	while (c->queue_cnt == 0 && !c->stop)
		pthread_cond_wait(&c->some, &c->lock);
	if (c->queue_cnt) {
		stay = c->queue[c->queue_first++ % STAYS_MAX];
		c->queue_cnt--;
	}
	pthread_mutex_unlock(&c->lock);
	return stay;
}

void comers_put(struct churn *c, struct stay *stay)
{
	atomic_store_explicit(&stay->state, STAY_AWAY, memory_order_release);
	pthread_mutex_lock(&c->lock);
	c->queue[(c->queue_first + c->queue_cnt++) % STAYS_MAX] = stay;
	pthread_cond_signal(&c->some);
	pthread_mutex_unlock(&c->lock);
}

void *comer_run(void *churn)
{
	struct tally *tally = calloc(1, sizeof(*tally));
	struct churn *c = churn;
	struct stay *stay;
	uint64_t number = 0;

	while ((stay = take(c)) != NULL) {
		enum place_way way = number++ % 4 == 0 ? PLACE_KEPT : PLACE_CLOSED;

		if (stay->cnt)
			go(c, tally, stay, stay->revoke ? PLACE_REVOKED : way);
		stay->revoke = false;
		if (!c->stop)
			come(c, tally, stay);
		/* pairs with the acquire of the thread that publishes */
		atomic_store_explicit(&stay->state, STAY_LIVE, memory_order_release);
	}
	return tally;
}
