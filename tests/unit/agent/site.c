/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/agent/site.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_SOCKET HOST_DIR "/client.sock"

/* ---- the engine ---- */

struct site_registration *site_find(struct site *site, uint64_t id)
{
	for (unsigned i = 0; i < SITE_REGISTRATIONS; i++)
		if (site->registrations[i].id == id)
			return &site->registrations[i];
	return NULL;
}

static struct site_registration *registration_make(struct site *site, const struct message *message)
{
	struct site_registration *r = site_find(site, 0);

	cr_assert(r, "the played engine is full");
	r->id = message->id ? message->id : ++site->next_id;
	r->ref = message->ref;
	snprintf(r->user, sizeof(r->user), "%.60s", message->u.client.token + strlen("user:"));
	return r;
}

/* As many as there can be, each as long as it can be. */
static void site_tails(struct message_tails *tails)
{
	tails->cnt = MESSAGE_TAILS_MAX;
	for (unsigned i = 0; i < MESSAGE_TAILS_MAX; i++)
		tails->tail[i] = (struct message_tail){i, 0x77, INT64_MAX};
}

static void fill_grant(struct message *answer, const struct site_registration *r)
{
	struct scope scope;

	host_scope(&scope, r->user);
	memcpy(answer->u.grant.scope.handle, scope.handle, 16);
	answer->u.grant.scope.user_generation = scope.user_generation;
	answer->u.grant.scope.key_generation = scope.key_generation;
	answer->u.grant.scope.previous_key_generation = scope.previous_key_generation;
	memcpy(answer->u.grant.scope.tag_key, scope.tag_key, 16);
	memcpy(answer->u.grant.scope.previous_tag_key, scope.previous_tag_key, 16);
	snprintf(answer->u.grant.user, sizeof(answer->u.grant.user), "%s", r->user);
	answer->u.grant.generation = 3;
	answer->u.grant.lease_s = 60;
	answer->u.grant.keys.seal = true;
	answer->u.grant.keys.cnt = 1;
	answer->u.grant.keys.key[0].generation = 1;
	memset(answer->u.grant.keys.key[0].key, 0xab, FAN_KEY_LEN);
	memset(answer->u.grant.keys.replay_key, 0xcd, FAN_TAG_KEY_LEN);
	site_tails(&answer->u.grant.tails);
	answer->u.grant.address = r->address;
}

static void refuse(struct site *site, const struct message *message, enum message_error error)
{
	struct message answer = {
		.type = MESSAGE_REFUSE, .ref = message->ref, .id = message->id, .error = error};

	snprintf(answer.reason, sizeof(answer.reason), "refused by the test");
	link_to_agent(site->link, &answer);
}

void site_end(struct site *site, uint64_t id, enum message_end end)
{
	struct message message = {.type = MESSAGE_ENDED, .id = id, .end = end};
	struct site_registration *r = site_find(site, id);

	if (r)
		memset(r, 0, sizeof(*r));
	snprintf(message.reason, sizeof(message.reason), "ended by the test");
	link_to_agent(site->link, &message);
}

void site_reusable(struct site *site, uint64_t id, uint64_t bound_ref)
{
	struct message message = {.type = MESSAGE_REUSABLE, .id = id, .ref = bound_ref};

	link_to_agent(site->link, &message);
	site_run(site, 5);
}

static void on_register(struct site *site, const struct message *message)
{
	struct message answer = {.type = MESSAGE_GRANT, .ref = message->ref};

	if (strncmp(message->u.client.token, "user:", 5) != 0) {
		refuse(site, message, MESSAGE_ERROR_TOKEN_INVALID);
		return;
	}
	if (message->id && site_find(site, message->id))
		site_end(site, message->id, MESSAGE_END_REPLACED);
	struct site_registration *r = registration_make(site, message);

	answer.id = r->id;
	fill_grant(&answer, r);
	link_to_agent(site->link, &answer);
}

static void on_bound(struct site *site, const struct message *message)
{
	struct message answer = {.type = MESSAGE_ACTIVE, .ref = message->ref, .id = message->id};
	struct site_registration *r = site_find(site, message->id);

	cr_assert(r);
	cr_assert_eq(r->ref, message->ref);
	r->bound = true;
	r->address = message->u.bound.address;
	r->cookie = message->u.bound.cookie;
	site_tails(&answer.u.active.tails);
	link_to_agent(site->link, &answer);
}

static void on_attach(struct site *site, const struct message *message)
{
	struct message answer = {.type = MESSAGE_ATTACHED, .ref = message->ref, .id = message->id};
	struct site_registration *r = site_find(site, message->id);

	if (!r || r->cookie != message->u.client.cookie) {
		refuse(site, message, MESSAGE_ERROR_CONNECTION_UNKNOWN);
		return;
	}
	r->ref = message->ref;
	fill_grant(&answer, r);
	link_to_agent(site->link, &answer);
}

static void on_end(struct site *site, const struct message *message)
{
	struct site_registration *r = site_find(site, message->id);

	if (r && r->ref == message->ref)
		site_end(site, message->id, message->end);
}

static void on_session_open(struct site *site, const struct message *message)
{
	struct message answer = {.type = MESSAGE_SESSION_GRANT, .ref = message->ref, .id = 0x77};

	if (strcmp(message->u.session_open.secret, "right") != 0) {
		refuse(site, message, MESSAGE_ERROR_CREDENTIAL);
		return;
	}
	memset(answer.u.session.key, 0xab, FAN_KEY_LEN);
	link_to_agent(site->link, &answer);
}

static void on_message(void *arg, const struct message *message)
{
	struct site *site = arg;
	struct message answer = {.ref = message->ref, .id = message->id};

	cr_assert(message->type < 128);
	site->got[message->type]++;
	memset(&site->last[message->type], 0, sizeof(*message));
	memcpy(&site->last[message->type], message, message_len(message->type));
	if (site->mute)
		return;
	switch (message->type) {
	case MESSAGE_REGISTER:
		on_register(site, message);
		return;
	case MESSAGE_BOUND:
		on_bound(site, message);
		return;
	case MESSAGE_ATTACH:
		on_attach(site, message);
		return;
	case MESSAGE_RENEW:
		answer.type = MESSAGE_RENEWED;
		answer.u.grant.lease_s = 60;
		site_tails(&answer.u.grant.tails);
		link_to_agent(site->link, &answer);
		return;
	case MESSAGE_END:
		on_end(site, message);
		return;
	case MESSAGE_SESSION_OPEN:
		on_session_open(site, message);
		return;
	case MESSAGE_SESSION_ATTACH:
		answer.type = MESSAGE_SESSION_ATTACHED;
		link_to_agent(site->link, &answer);
		return;
	default:
		return;
	}
}

static void tell_holds(struct site *site)
{
	struct message hello = {.type = MESSAGE_HELLO};

	for (unsigned i = 0; i < SITE_REGISTRATIONS; i++) {
		const struct site_registration *r = &site->registrations[i];
		struct message hold = {.type = MESSAGE_HOLD, .id = r->id};
		struct scope scope;

		if (!r->id)
			continue;
		host_scope(&scope, r->user);
		hold.u.bound.address = r->address;
		hold.u.bound.cookie = r->cookie;
		memcpy(hold.u.bound.handle, scope.handle, 16);
		link_to_agent(site->link, &hold);
	}
	link_to_agent(site->link, &hello);
}

/* ---- life ---- */

void site_init(struct site *site, uint16_t port_first, uint16_t port_last)
{
	struct fan_config *config = &site->host.config;

	memset(site, 0, sizeof(*site));
	host_init(&site->host, port_first, port_last);
	strcpy(config->instance, "unit-agent");
	strcpy(config->run_dir, HOST_DIR);
	config->max_connections = 512;
	config->max_sessions = 64;
	config->quarantine_s = 1;
	config->max_connections_per_user = SITE_REGISTRATIONS;
	config->reattach_s = 1;
	config->payload_limit = FAN_PAYLOAD_DEFAULT;
	config->receive_buffer_bytes = 65536;
	site->base = event_base_new();
	cr_assert(site->base);
}

void site_start(struct site *site)
{
	char why[1024] = "";

	site->link = link_create(site->base);
	cr_assert(site->link);
	link_set_engine(site->link, on_message, site);
	tell_holds(site);
	cr_assert_eq(agent_create(&site->agent, site->base, site->link, &site->host.config, why), 0,
		     "%s", why);
}

void site_stop(struct site *site)
{
	agent_destroy(site->agent);
	link_destroy(site->link);
	site->agent = NULL;
	site->link = NULL;
}

void site_fini(struct site *site)
{
	if (site->agent)
		site_stop(site);
	event_base_free(site->base);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void turn(struct site *site)
{
	const struct timeval tv = {.tv_usec = 2000};

	event_base_loopexit(site->base, &tv);
	cr_assert_geq(event_base_dispatch(site->base), 0);
}

void site_run(struct site *site, unsigned ms)
{
	uint64_t end = now_ms() + ms;

	while (now_ms() < end)
		turn(site);
}

bool site_wait(struct site *site, const unsigned *counter, unsigned least, unsigned ms)
{
	uint64_t end = now_ms() + ms;

	while (*counter < least && now_ms() < end)
		turn(site);
	return *counter >= least;
}

struct agent_status site_status(struct site *site)
{
	struct agent_status status;

	agent_status(site->agent, &status);
	return status;
}

/* ---- peers ---- */

void peer_connect_to(int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = CLIENT_SOCKET};

	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0, "%s",
		     strerror(errno));
}

int peer_connect(struct site *site)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	cr_assert_geq(fd, 0);
	peer_connect_to(fd);
	return fd;
}

int peer_send(int fd, const void *bytes, size_t len, const int *descriptors, unsigned cnt)
{
	char control[CMSG_SPACE(253 * sizeof(int))] = {0};
	struct iovec part = {(void *)bytes, len};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (cnt) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(cnt * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(cnt * sizeof(int));
		memcpy(CMSG_DATA(c), descriptors, cnt * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int peer_say(int fd, const char *text, int descriptor)
{
	return peer_send(fd, text, strlen(text), &descriptor, descriptor >= 0);
}

static int hear_once(int fd, json_t **packet, int *descriptor)
{
	static char text[65536];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = {text, sizeof(text)};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	if (len < 0)
		return -errno;
	*packet = len ? json_loadb(text, (size_t)len, 0, NULL) : NULL;
	cr_assert(!len || *packet, "no JSON: %.*s", (int)len, text);
	c = CMSG_FIRSTHDR(&message);
	if (c && descriptor)
		memcpy(descriptor, CMSG_DATA(c), sizeof(*descriptor));
	cr_assert(descriptor || !c, "an unexpected descriptor");
	return 0;
}

json_t *peer_hear(struct site *site, int fd, int *descriptor)
{
	uint64_t end = now_ms() + 2000;
	json_t *packet = NULL;
	int err;

	if (descriptor)
		*descriptor = -1;
	while ((err = hear_once(fd, &packet, descriptor)) == -EAGAIN && now_ms() < end)
		turn(site);
	cr_assert_eq(err, 0, "%s", strerror(-err));
	return packet;
}

uint64_t json_id(const json_t *packet, const char *field)
{
	uint64_t id = 0;

	cr_assert_eq(fan_id_parse(&id, json_text(packet, field)), 0);
	return id;
}

const char *json_text(const json_t *packet, const char *field)
{
	const char *text = json_string_value(json_object_get(packet, field));

	cr_assert(text, "no \"%s\" in %s", field, json_dumps(packet, 0));
	return text;
}

void peer_hear_error(struct site *site, int fd, const char *name)
{
	json_t *packet = peer_hear(site, fd, NULL);

	cr_assert(packet, "closed instead of \"%s\"", name);
	cr_assert(json_is_false(json_object_get(packet, "ok")), "%s", json_dumps(packet, 0));
	cr_assert_str_eq(json_text(packet, "error"), name, "%s", json_dumps(packet, 0));
	cr_assert(strlen(json_text(packet, "message")) > 10);
	json_decref(packet);
}

void peer_hear_end(struct site *site, int fd)
{
	json_t *packet = peer_hear(site, fd, NULL);

	cr_assert_null(packet, "%s", json_dumps(packet, 0));
}

uint64_t peer_subscribe(struct site *site, int fd, const char *user, int *descriptor)
{
	char text[256];
	json_t *packet;
	uint64_t id;

	snprintf(text, sizeof(text), "{\"op\":\"subscribe\",\"token\":\"user:%s\"}", user);
	cr_assert_eq(peer_say(fd, text, -1), 0);
	packet = peer_hear(site, fd, descriptor);
	cr_assert(packet);
	cr_assert(json_is_true(json_object_get(packet, "ok")), "%s", json_dumps(packet, 0));
	cr_assert_geq(*descriptor, 0);
	id = json_id(packet, "connection");
	json_decref(packet);
	packet = peer_hear(site, fd, NULL);
	cr_assert_str_eq(json_text(packet, "event"), "active");
	json_decref(packet);
	return id;
}

unsigned descriptors_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned cnt = 0;

	cr_assert(dir);
	while (readdir(dir))
		cnt++;
	closedir(dir);
	return cnt;
}
