/* SPDX-License-Identifier: BSD-3-Clause */
#include "engine.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/client_socket.h"

static const uint8_t key[FAN_KEY_LEN] = {1, 2, 3, 4, 5};
static const uint8_t replay_key[FAN_TAG_KEY_LEN] = {6, 7, 8};

/* ---- client.sock ----------------------------------------------------------------------------- */

static int make_udp(struct sockaddr_in *address)
{
	socklen_t len = sizeof(*address);
	int size = 4 << 20;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*address = (struct sockaddr_in){.sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	cr_assert(bind(fd, (struct sockaddr *)address, len) == 0);
	cr_assert(getsockname(fd, (struct sockaddr *)address, &len) == 0);
	return fd;
}

static void give(struct engine *e, int client, json_t *answer)
{
	if (e->given >= 0)
		close(e->given);
	e->given = make_udp(&e->peer);
	json_object_set_new(answer, "engine_address", json_string("127.0.0.1"));
	json_object_set_new(answer, "engine_port", json_integer(ntohs(e->udp_address.sin_port)));
	json_object_set_new(answer, "payload_limit", json_integer(ENGINE_LIMIT));
	client_socket_send(client, answer, e->given);
	json_decref(answer);
}

static void user_key(uint8_t user[FAN_KEY_LEN], uint8_t generation)
{
	memset(user, generation, FAN_KEY_LEN);
}

void engine_key(char text[2 * FAN_KEY_LEN + 1], uint8_t generation)
{
	uint8_t user[FAN_KEY_LEN];

	user_key(user, generation);
	fan_hex(text, user, sizeof(user));
}

/* What a grant and an attachment have of keys. */
static void add_keys(const struct engine *e, json_t *answer)
{
	char user[2 * FAN_KEY_LEN + 1], replay[2 * FAN_TAG_KEY_LEN + 1];

	json_object_set_new(answer, "seal", json_boolean(e->seals));
	if (!e->seals)
		return;
	engine_key(user, 1);
	fan_hex(replay, replay_key, sizeof(replay_key));
	json_object_update_new(answer, json_pack("{s:[{s:i, s:s}], s:s}", "keys", "generation", 1,
						 "key", user, "replay_key", replay));
}

static void add_tails(const struct engine *e, json_t *message)
{
	if (!e->tails)
		return;
	json_object_set_new(message, "tails", json_loads(e->tails, 0, NULL));
	json_object_set_new(message, "time_ns", json_integer(ENGINE_TIME_NS));
}

/* The challenge of the real engine: an echo of exactly its numbers must come back. */
static void challenge(struct engine *e, int client)
{
	struct fan_delivery d = engine_delivery(0x5555, 0);
	struct pollfd poller = {.fd = e->udp, .events = POLLIN};
	uint8_t packet[256];
	struct fan_echo echo;
	json_t *active;

	d.type = FAN_TYPE_CHALLENGE;
	d.flags = 0;
	d.channel = FAN_CHANNEL_SINGLE | ENGINE_ID;
	d.epoch = 0x7777;
	if (!e->no_challenge) {
		engine_deliver(e, &d, NULL);
		if (poll(&poller, 1, 2000) > 0) {
			ssize_t len = recv(e->udp, packet, sizeof(packet), 0);

			if (fan_echo_decode(packet, (size_t)len, &echo) == FAN_WIRE_OK &&
			    echo.connection == ENGINE_ID && echo.salt == 0x7777 &&
			    echo.proof == 0x5555)
				e->echoes++;
		}
		if (!e->echoes)
			return;
	}
	if (e->loses_active) {
		shutdown(client, SHUT_RDWR);
		return;
	}
	active = json_pack("{s:s, s:s}", "event", "active", "connection", "0000000000000011");
	add_tails(e, active);
	client_socket_send(client, active, -1);
	json_decref(active);
}

static bool same_socket(struct engine *e, int fd)
{
	uint64_t a = 0, b = 1;
	socklen_t len = sizeof(a);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &a, &len);
	getsockopt(e->given, SOL_SOCKET, SO_COOKIE, &b, &len);
	return a == b;
}

static void on_request(struct engine *e, int client, const json_t *request, int passed)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	char key_text[2 * FAN_KEY_LEN + 1];
	json_t *answer;

	if (e->refuse) {
		answer = json_pack("{s:b, s:s, s:s}", "ok", 0, "error", e->refuse, "message",
				   "refused by the test");
		client_socket_send(client, answer, -1);
		json_decref(answer);
	} else if (strcmp(op, "publish_open") == 0) {
		e->opens++;
		fan_hex(key_text, key, sizeof(key));
		give(e, client,
		     json_pack("{s:b, s:s, s:s, s:n}", "ok", 1, "session", "0123456789abcdef",
			       "key", key_text, "user"));
	} else if (strcmp(op, "subscribe") == 0) {
		e->opens++;
		answer = json_pack("{s:b, s:s, s:i, s:s, s:i, s:s}", "ok", 1, "connection",
				   "0000000000000011", "generation", 1, "user", "alice",
				   "lease_seconds", e->lease_s, "state", "pending");
		add_keys(e, answer);
		give(e, client, answer);
		challenge(e, client);
	} else if (strcmp(op, "renew") == 0) {
		e->renews++;
		answer = json_pack("{s:b, s:s, s:i}", "ok", 1, "op", "renew", "lease_seconds",
				   e->lease_s);
		add_tails(e, answer);
		client_socket_send(client, answer, -1);
		json_decref(answer);
	} else {
		e->attached_same += same_socket(e, passed);
		e->attaches++;
		usleep(e->attach_ms * 1000);
		answer = json_pack("{s:b, s:s}", "ok", 1, "state", "active");
		add_keys(e, answer);
		add_tails(e, answer);
		client_socket_send(client, answer, -1);
		json_decref(answer);
	}
}

static void serve(struct engine *e, int client)
{
	json_t *request;
	int passed, status;

	while (!e->stop) {
		struct pollfd poller = {.fd = client, .events = POLLIN};

		poll(&poller, 1, 20);
		status = client_socket_recv(client, &request, &passed);
		if (status == -EAGAIN)
			continue;
		if (status < 0)
			return;
		pthread_mutex_lock(&e->lock);
		on_request(e, client, request, passed);
		pthread_mutex_unlock(&e->lock);
		json_decref(request);
		if (passed >= 0)
			close(passed);
	}
}

static void *daemon_main(void *arg)
{
	struct engine *e = arg;

	while (!e->stop) {
		struct pollfd poller = {.fd = e->listener, .events = POLLIN};
		int client;

		if (poll(&poller, 1, 20) <= 0)
			continue;
		client = accept(e->listener, NULL, NULL);
		pthread_mutex_lock(&e->lock);
		e->client = client;
		pthread_mutex_unlock(&e->lock);
		serve(e, client);
		pthread_mutex_lock(&e->lock);
		e->client = -1;
		close(client);
		pthread_mutex_unlock(&e->lock);
	}
	return NULL;
}

void engine_start(struct engine *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memset(e, 0, sizeof(*e));
	e->given = e->client = -1;
	e->lease_s = 60;
	strcpy(e->dir, "/tmp/fanwire-unit-XXXXXX");
	cr_assert_not_null(mkdtemp(e->dir));
	snprintf(e->path, sizeof(e->path), "%s/client.sock", e->dir);
	strcpy(address.sun_path, e->path);
	e->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	cr_assert(bind(e->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(listen(e->listener, 8) == 0);
	e->udp = make_udp(&e->udp_address);
	cr_assert(seal_init(&e->seal, key) == 0);
	pthread_mutex_init(&e->lock, NULL);
	cr_assert(pthread_create(&e->thread, NULL, daemon_main, e) == 0);
}

void engine_stop(struct engine *e)
{
	e->stop = true;
	pthread_join(e->thread, NULL);
	close(e->listener);
	close(e->udp);
	if (e->given >= 0)
		close(e->given);
	seal_fini(&e->seal);
	unlink(e->path);
	rmdir(e->dir);
}

void engine_hang_up(struct engine *e)
{
	pthread_mutex_lock(&e->lock);
	if (e->client >= 0)
		shutdown(e->client, SHUT_RDWR);
	pthread_mutex_unlock(&e->lock);
}

void engine_say(struct engine *e, const char *text)
{
	json_t *object = json_loads(text, 0, NULL);

	pthread_mutex_lock(&e->lock);
	cr_assert(client_socket_send(e->client, object, -1) == 0);
	pthread_mutex_unlock(&e->lock);
	json_decref(object);
}

bool engine_saw(atomic_uint *counter, unsigned least)
{
	for (unsigned i = 0; i < 200 && *counter < least; i++)
		usleep(10000);
	return *counter >= least;
}

/* ---- the engine's UDP ------------------------------------------------------------------------ */

bool engine_recv(struct engine *e, struct engine_publish *publish, int timeout_ms)
{
	struct pollfd poller = {.fd = e->udp, .events = POLLIN};
	uint8_t packet[2048];
	ssize_t len;

	if (poll(&poller, 1, timeout_ms) <= 0)
		return false;
	len = recv(e->udp, packet, sizeof(packet), 0);
	cr_assert_eq(fan_publish_decode(packet, (size_t)len, &publish->header), FAN_WIRE_OK);
	cr_assert_leq(publish->header.payload_len, ENGINE_LIMIT);
	cr_assert_eq(seal_open(&e->seal, FAN_DIRECTION_PUBLISH, publish->header.publisher_sequence,
			       packet, FAN_PUBLISH_LEN, packet + FAN_PUBLISH_LEN,
			       publish->header.payload_len, publish->payload),
		     0, "a publish is not sealed under its session's key");
	return true;
}

static void send_ack_of(struct engine *e, const struct fan_ack *ack, uint64_t cumulative,
			const struct fan_result *results, bool spoil)
{
	uint8_t packet[2048], body[2048];
	uint64_t big = htobe64(cumulative);
	size_t len = 8;

	fan_ack_encode(packet, ack);
	memcpy(body, &big, 8);
	for (unsigned i = 0; i < ack->count; i++)
		len += fan_result_encode(body + len, &results[i]);
	seal_close(&e->seal, FAN_DIRECTION_ACK, ack->counter, packet, FAN_ACK_LEN, body, len,
		   packet + FAN_ACK_LEN);
	if (spoil) /* low byte of the first result's status: counter mode turns 0 into "scope" */
		packet[FAN_ACK_LEN + 8 + 33] ^= FAN_RESULT_SCOPE;
	sendto(e->udp, packet, FAN_ACK_LEN + len + FAN_TAG_LEN, 0, (struct sockaddr *)&e->peer,
	       sizeof(e->peer));
}

static void send_ack(struct engine *e, uint64_t counter, uint64_t cumulative,
		     const struct fan_result *results, unsigned cnt, bool spoil)
{
	const struct fan_ack ack = {
		.count = (uint8_t)cnt, .session = ENGINE_SESSION, .counter = counter};

	send_ack_of(e, &ack, cumulative, results, spoil);
}

void engine_hold_back(struct engine *e, uint64_t cumulative, uint32_t wait_ms)
{
	const struct fan_ack ack = {.flags = FAN_ACK_OVER_BUDGET,
				    .wait_ms = wait_ms,
				    .session = ENGINE_SESSION,
				    .counter = ++e->ack_counter};

	send_ack_of(e, &ack, cumulative, NULL, false);
}

void engine_ack_as(struct engine *e, uint64_t counter, uint64_t cumulative,
		   const struct fan_result *results, unsigned cnt)
{
	send_ack(e, counter, cumulative, results, cnt, false);
}

void engine_ack(struct engine *e, uint64_t cumulative, const struct fan_result *results,
		unsigned cnt, bool spoil)
{
	send_ack(e, ++e->ack_counter, cumulative, results, cnt, spoil);
}

struct fan_result engine_result(uint64_t publisher_sequence)
{
	return (struct fan_result){.publisher_sequence = publisher_sequence,
				   .epoch = 77,
				   .sequence = 1000 + publisher_sequence,
				   .attempted = 3,
				   .sent = 2};
}

struct fan_delivery engine_delivery(uint64_t sequence, size_t payload_len)
{
	struct fan_delivery d = {.type = FAN_TYPE_DELIVERY,
				 .flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
				 .payload_len = (uint16_t)payload_len,
				 .key_generation = 1,
				 .kind = 9,
				 .epoch = 7,
				 .sequence = sequence,
				 .time_ns = ENGINE_TIME_NS + sequence,
				 .session = 5,
				 .publisher_sequence = sequence};

	fan_handle(d.handle, "alice", 5);
	return d;
}

/* Seals packet in place; its tag goes into the header. */
static void seal_delivery(const struct fan_delivery *delivery, uint8_t *packet)
{
	uint8_t user[FAN_KEY_LEN], stream[FAN_KEY_LEN], header[FAN_SEALED_HEADER_LEN];
	uint8_t *payload = packet + FAN_DELIVERY_LEN;
	uint8_t sealed[FAN_PAYLOAD_DEFAULT + FAN_TAG_LEN];
	struct seal seal;

	user_key(user, delivery->key_generation);
	fan_stream_key(stream, user, delivery->channel, delivery->epoch);
	fan_sealed_header(header, packet);
	cr_assert_eq(seal_init(&seal, stream), 0);
	cr_assert_eq(seal_close(&seal, FAN_DIRECTION_DELIVER, delivery->sequence, header,
				sizeof(header), payload, delivery->payload_len, sealed),
		     0);
	seal_fini(&seal);
	memcpy(payload, sealed, delivery->payload_len);
	memcpy(packet + FAN_SEALED_HEADER_LEN, sealed + delivery->payload_len, FAN_TAG_LEN);
}

void engine_deliver(struct engine *e, const struct fan_delivery *delivery, const void *payload)
{
	uint8_t packet[2048];
	size_t len = fan_delivery_encode(packet, delivery);

	if (delivery->payload_len)
		memcpy(packet + len, payload, delivery->payload_len);
	if (e->seals && delivery->type == FAN_TYPE_DELIVERY && delivery->key_generation)
		seal_delivery(delivery, packet);
	sendto(e->udp, packet, len + delivery->payload_len, 0, (struct sockaddr *)&e->peer,
	       sizeof(e->peer));
}

bool engine_asked(struct engine *e, struct fan_replay *replay, int timeout_ms)
{
	struct pollfd poller = {.fd = e->udp, .events = POLLIN};
	uint8_t packet[2048];
	ssize_t len;

	if (poll(&poller, 1, timeout_ms) <= 0)
		return false;
	len = recv(e->udp, packet, sizeof(packet), 0);
	cr_assert_eq(fan_replay_decode(packet, (size_t)len, replay), FAN_WIRE_OK);
	cr_assert(fan_replay_tag_ok(packet, replay_key));
	cr_assert_eq(replay->connection, ENGINE_ID);
	cr_assert_gt(replay->counter, e->replay_counter, "a request's counter does not grow");
	e->replay_counter = replay->counter;
	return true;
}
