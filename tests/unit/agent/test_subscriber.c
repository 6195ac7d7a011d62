/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/agent/site.h"

#define PORT_FIRST 24500
#define PORT_LAST  24519 /* times two families */

static struct site site;

static void setup(void)
{
	site_init(&site, PORT_FIRST, PORT_LAST);
	site_start(&site);
}

static void teardown(void)
{
	site_fini(&site);
}

TestSuite(subscriber, .init = setup, .fini = teardown, .timeout = 30);

Test(subscriber, gets_a_bound_filtered_locked_socket)
{
	int peer = peer_connect(&site), descriptor, on = 1;
	json_t *packet;

	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\",\"family\":4}", -1);
	packet = peer_hear(&site, peer, &descriptor);
	cr_assert_str_eq(json_text(packet, "user"), "alice");
	cr_assert_str_eq(json_text(packet, "address"), RECEIVER4);
	cr_assert_str_eq(json_text(packet, "engine_address"), ENGINE4);
	cr_assert_str_eq(json_text(packet, "state"), "pending");
	cr_assert_eq(json_integer_value(json_object_get(packet, "engine_port")), ENGINE_PORT);
	cr_assert_eq(json_integer_value(json_object_get(packet, "payload_limit")),
		     FAN_PAYLOAD_DEFAULT);
	cr_assert_eq(json_integer_value(json_object_get(packet, "lease_seconds")), 60);
	cr_assert_eq(json_integer_value(json_object_get(packet, "generation")), 3);
	cr_assert_eq(json_integer_value(json_object_get(packet, "port")), host_port(descriptor));
	cr_assert_geq(host_port(descriptor), PORT_FIRST);
	cr_assert_leq(host_port(descriptor), PORT_LAST);
	cr_assert_eq(setsockopt(descriptor, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)), -1);
	cr_assert_eq(errno, EPERM, "the filter is locked");

	/* The engine was told that very socket. */
	uint64_t cookie;

	cr_assert_eq(socket_cookie(descriptor, &cookie), 0);
	cr_assert_eq(site.last[MESSAGE_BOUND].u.bound.cookie, cookie);
	cr_assert_eq(site.last[MESSAGE_BOUND].u.bound.address.port, host_port(descriptor));
	cr_assert_eq(site.last[MESSAGE_REGISTER].u.client.uid, getuid());
	cr_assert_eq(site.last[MESSAGE_REGISTER].u.client.pid, (uint32_t)getpid());
	json_decref(packet);
	packet = peer_hear(&site, peer, NULL);
	cr_assert_str_eq(json_text(packet, "event"), "active");
	json_decref(packet);
}

static void told_tails(const json_t *packet)
{
	const json_t *tails = json_object_get(packet, "tails"), *tail = json_array_get(tails, 65);

	cr_assert_eq(json_array_size(tails), MESSAGE_TAILS_MAX);
	cr_assert_eq(json_id(tail, "channel"), 65);
	cr_assert_eq(json_id(tail, "epoch"), 0x77);
	cr_assert_eq(json_integer_value(json_object_get(tail, "sequence")), INT64_MAX);
}

Test(subscriber, is_told_its_keys_and_where_its_streams_stand)
{
	int peer = peer_connect(&site), descriptor;
	const json_t *key;
	json_t *packet;

	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\"}", -1);
	packet = peer_hear(&site, peer, &descriptor);
	cr_assert(json_is_true(json_object_get(packet, "seal")));
	cr_assert_eq(json_array_size(json_object_get(packet, "keys")), 1);
	key = json_array_get(json_object_get(packet, "keys"), 0);
	cr_assert_eq(json_integer_value(json_object_get(key, "generation")), 1);
	cr_assert_str_eq(json_text(key, "key"), "abababababababababababababababab"
						"abababababababababababababababab");
	cr_assert_str_eq(json_text(packet, "replay_key"), "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd");
	json_decref(packet);
	packet = peer_hear(&site, peer, NULL);
	cr_assert_str_eq(json_text(packet, "event"), "active");
	told_tails(packet);
	json_decref(packet);
	peer_say(peer, "{\"op\":\"renew\"}", -1);
	packet = peer_hear(&site, peer, NULL);
	told_tails(packet);
	json_decref(packet);
}

/* Two generations while a rotation lasts: in the filter, and told to the client. */
Test(subscriber, new_keys_reach_filter_and_client)
{
	int peer = peer_connect(&site), engine = host_udp(4, ENGINE4, ENGINE_PORT), descriptor;
	uint64_t id = peer_subscribe(&site, peer, "alice", &descriptor);
	struct message message = {.type = MESSAGE_KEYS, .id = id};
	uint8_t sent[256], got[256];
	size_t len = host_packet(sent, "alice", 20);
	struct scope scope;
	json_t *packet;

	host_scope(&scope, "alice");
	memcpy(message.u.grant.scope.handle, scope.handle, 16);
	message.u.grant.scope.user_generation = 1;
	message.u.grant.scope.key_generation = 2;
	message.u.grant.scope.previous_key_generation = 1;
	memset(message.u.grant.scope.tag_key, 9, FAN_TAG_KEY_LEN);
	memcpy(message.u.grant.scope.previous_tag_key, scope.tag_key, FAN_TAG_KEY_LEN);
	message.u.grant.keys.cnt = 2;
	message.u.grant.keys.key[0].generation = 2;
	message.u.grant.keys.key[1].generation = 1;
	link_to_agent(site.link, &message);
	packet = peer_hear(&site, peer, NULL);
	cr_assert_str_eq(json_text(packet, "event"), "keys");
	cr_assert_eq(json_id(packet, "connection"), id);
	cr_assert_eq(json_array_size(json_object_get(packet, "keys")), 2);
	json_decref(packet);
	cr_assert_eq(host_send(engine, RECEIVER4, host_port(descriptor), sent, len), 0);
	cr_assert_eq(host_receive(descriptor, got, sizeof(got)), (ssize_t)len, "the present one");

	message.u.grant.scope.previous_key_generation = 2;
	message.u.grant.keys.cnt = 1;
	link_to_agent(site.link, &message);
	json_decref(peer_hear(&site, peer, NULL));
	cr_assert_eq(host_send(engine, RECEIVER4, host_port(descriptor), sent, len), 0);
	cr_assert_eq(host_receive(descriptor, got, sizeof(got)), -1, "retired");
}

Test(subscriber, receives_its_own_events_only)
{
	int peer = peer_connect(&site), engine = host_udp(4, ENGINE4, ENGINE_PORT), descriptor;
	uint8_t sent[256], got[256];

	peer_subscribe(&site, peer, "alice", &descriptor);
	size_t len = host_packet(sent, "bob", 20);

	cr_assert_eq(host_send(engine, RECEIVER4, host_port(descriptor), sent, len), 0);
	len = host_packet(sent, "alice", 20);
	cr_assert_eq(host_send(engine, RECEIVER4, host_port(descriptor), sent, len), 0);
	cr_assert_eq(host_receive(descriptor, got, sizeof(got)), (ssize_t)len);
	cr_assert_eq(memcmp(sent, got, len), 0);
	cr_assert_eq(host_receive(descriptor, got, sizeof(got)), -1);

	/* The other one becomes a message for the audit. */
	cr_assert(site_wait(&site, &site.got[MESSAGE_FOREIGN_DROP], 1, 2000));
	const struct message *drop = &site.last[MESSAGE_FOREIGN_DROP];
	struct scope alice, bob;

	host_scope(&alice, "alice");
	host_scope(&bob, "bob");
	cr_assert_eq(memcmp(drop->u.foreign.victim, bob.handle, 16), 0);
	cr_assert_eq(memcmp(drop->u.foreign.foreign, alice.handle, 16), 0);
	cr_assert_eq(drop->u.foreign.cnt, 1);
	struct fan_address source;

	cr_assert_eq(fan_address_parse(&source, ENGINE4), 0);
	cr_assert_eq(memcmp(drop->u.foreign.source, source.bytes, 16), 0);
}

Test(subscriber, family_six_on_request)
{
	int peer = peer_connect(&site), descriptor;
	json_t *packet;

	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:a\",\"family\":6}", -1);
	packet = peer_hear(&site, peer, &descriptor);
	cr_assert_str_eq(json_text(packet, "address"), RECEIVER6);
	cr_assert_str_eq(json_text(packet, "engine_address"), ENGINE6);
	json_decref(packet);
}

Test(subscriber, request_reaches_the_engine_whole)
{
	int peer = peer_connect(&site), descriptor;

	peer_say(peer,
		 "{\"op\":\"subscribe\",\"token\":\"user:alice\",\"threads\":[\"a\",\"b\"],"
		 "\"single\":true,\"connection\":\"0000000000000abc\"}",
		 -1);
	json_t *packet = peer_hear(&site, peer, &descriptor);
	const struct message *message = &site.last[MESSAGE_REGISTER];

	cr_assert_eq(json_id(packet, "connection"), 0xabc);
	cr_assert_eq(message->id, 0xabc);
	cr_assert_str_eq(message->u.client.token, "user:alice");
	cr_assert_eq(message->u.client.thread_cnt, 2);
	cr_assert_str_eq(message->u.client.threads[1], "b");
	cr_assert(message->u.client.single);
	json_decref(packet);
}

Test(subscriber, refused_by_the_engine_may_ask_again)
{
	int peer = peer_connect(&site), descriptor;

	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"nonsense\"}", -1);
	peer_hear_error(&site, peer, "token_invalid");
	peer_subscribe(&site, peer, "alice", &descriptor);
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\"}", -1);
	peer_hear_error(&site, peer, "bad_request");
	cr_assert_eq(site_status(&site).scopes, 1);
}

Test(subscriber, renews)
{
	int peer = peer_connect(&site), descriptor;

	peer_say(peer, "{\"op\":\"renew\"}", -1);
	peer_hear_error(&site, peer, "bad_request");
	uint64_t id = peer_subscribe(&site, peer, "alice", &descriptor);

	peer_say(peer, "{\"op\":\"renew\",\"token\":\"user:alice\"}", -1);
	json_t *packet = peer_hear(&site, peer, NULL);

	cr_assert_str_eq(json_text(packet, "op"), "renew");
	cr_assert_eq(json_integer_value(json_object_get(packet, "lease_seconds")), 60);
	cr_assert_eq(site.last[MESSAGE_RENEW].id, id);
	json_decref(packet);
}

/* A process of its own that subscribes, says so on `ready`, and waits to be killed. */
static void be_subscriber(int ready)
{
	static const char request[] = "{\"op\":\"subscribe\",\"token\":\"user:alice\"}";
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
	peer_connect_to(fd);
	if (send(fd, request, sizeof(request) - 1, 0) < 0 || recv(fd, &byte, 1, 0) != 1 ||
	    write(ready, "x", 1) != 1)
		_exit(1);
	pause();
	_exit(0);
}

Test(subscriber, killed_ends_within_a_second)
{
	int ready[2];
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	pid = fork();
	if (pid == 0)
		be_subscriber(ready[1]);
	cr_assert(site_wait(&site, &site.got[MESSAGE_BOUND], 1, 2000));
	cr_assert_eq(site.last[MESSAGE_REGISTER].u.client.pid, (uint32_t)pid);
	cr_assert_eq(site_status(&site).scopes, 1);
	char byte;

	cr_assert_eq(read(ready[0], &byte, 1), 1);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000), "no END within a second");
	cr_assert_eq(site.last[MESSAGE_END].end, MESSAGE_END_CLOSED);
	cr_assert_eq(site.last[MESSAGE_END].id, site.last[MESSAGE_BOUND].id);
	cr_assert_eq(site.last[MESSAGE_END].ref, site.last[MESSAGE_BOUND].ref);
	cr_assert_eq(site_status(&site).scopes, 0);
	cr_assert_eq(site_status(&site).ports_resting, 1);
}

/* Subscribes, leaves, and keeps the socket open. */
static void leave_open(const char *user, int *descriptor)
{
	int peer = peer_connect(&site);
	uint64_t id = peer_subscribe(&site, peer, user, descriptor);
	uint64_t ref = site.last[MESSAGE_BOUND].ref;
	unsigned ends = site.got[MESSAGE_END];

	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], ends + 1, 1000));
	site_reusable(&site, id, ref);
}

/* What he keeps open counts as his, and nobody else lacks it; closed, it counts no more. */
Test(subscriber, a_user_who_keeps_ended_sockets_open_has_fewer_connections)
{
	int descriptors[3], peer;

	site.host.config.max_connections_per_user = 3;
	for (unsigned i = 0; i < 3; i++)
		leave_open("alice", &descriptors[i]);
	peer = peer_connect(&site);
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\",\"family\":4}", -1);
	peer_hear_error(&site, peer, "limit_user");
	cr_assert_eq(site_status(&site).ports_held, 3);
	close(peer);
	peer = peer_connect(&site);
	peer_subscribe(&site, peer, "bob", &descriptors[0]);

	for (unsigned i = 1; i < 3; i++)
		close(descriptors[i]);
	site_run(&site, 500);
	cr_assert_eq(site_status(&site).ports_held, 1, "the first one's descriptor is lost");
	peer = peer_connect(&site);
	peer_subscribe(&site, peer, "alice", &descriptors[1]);
}

/* Nobody asks for them: at the end of their rest they are found out about all the same. */
Test(subscriber, sockets_kept_open_are_found_when_they_have_rested)
{
	int descriptors[2];

	for (unsigned i = 0; i < 2; i++)
		leave_open(i ? "bob" : "alice", &descriptors[i]);
	close(descriptors[1]);
	cr_assert_eq(site_status(&site).ports_resting, 2);
	site_run(&site, 1500);
	cr_assert_eq(site_status(&site).ports_resting, 0);
	cr_assert_eq(site_status(&site).ports_held, 1);
	site_stop(&site); /* and by the next fanwired, when they have rested again */
	site_start(&site);
	site_run(&site, 2500);
	cr_assert_eq(site_status(&site).ports_held, 1);
	cr_assert_eq(site_status(&site).scopes, 0, "a look left its scope behind");
	close(descriptors[0]);
	site_run(&site, 500);
	cr_assert_eq(site_status(&site).ports_held, 0);
}

Test(subscriber, ended_by_the_engine_is_told_and_cut_from_the_kernel)
{
	int peer = peer_connect(&site), engine = host_udp(4, ENGINE4, ENGINE_PORT), descriptor;
	uint64_t id = peer_subscribe(&site, peer, "alice", &descriptor);
	uint8_t packet[256];
	size_t len = host_packet(packet, "alice", 20);
	json_t *event;

	/* Unread requests at the close do not cost the event that went before. */
	for (unsigned i = 0; i < 20; i++)
		peer_say(peer, "{\"op\":\"renew\"}", -1);
	site_end(&site, id, MESSAGE_END_REVOKED);
	while (event = peer_hear(&site, peer, NULL), event && !json_object_get(event, "event"))
		json_decref(event);
	cr_assert_str_eq(json_text(event, "event"), "ended");
	cr_assert_str_eq(json_text(event, "reason"), "revoked");
	cr_assert_str_eq(json_text(event, "message"), "ended by the test");
	cr_assert_eq(json_id(event, "connection"), id);
	json_decref(event);
	peer_hear_end(&site, peer);
	cr_assert_eq(site_status(&site).scopes, 0);
	cr_assert_eq(site_status(&site).clients, 0);
	cr_assert_eq(site.got[MESSAGE_END], 0, "the engine knows");
	host_send(engine, RECEIVER4, host_port(descriptor), packet, len);
	cr_assert_eq(host_receive(descriptor, packet, sizeof(packet)), -1);
}

Test(subscriber, replaced_one_is_told)
{
	int first = peer_connect(&site), second = peer_connect(&site), descriptor;
	uint64_t id = peer_subscribe(&site, first, "alice", &descriptor);
	char text[128];
	json_t *packet;

	snprintf(text, sizeof(text),
		 "{\"op\":\"subscribe\",\"token\":\"user:alice\",\"connection\":\"%016lx\"}", id);
	peer_say(second, text, -1);
	packet = peer_hear(&site, second, &descriptor);
	cr_assert_eq(json_id(packet, "connection"), id);
	json_decref(packet);
	packet = peer_hear(&site, first, NULL);
	cr_assert_str_eq(json_text(packet, "reason"), "replaced");
	json_decref(packet);
	peer_hear_end(&site, first);
	site_run(&site, 20);
	cr_assert_eq(site_status(&site).scopes, 1);
	cr_assert_eq(site_status(&site).ports_used, 1);
	cr_assert_eq(site.got[MESSAGE_END], 0, "the second one lives on");
}

Test(subscriber, left_before_its_grant_leaves_nothing)
{
	int peer = peer_connect(&site);

	site.mute = true;
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\"}", -1);
	cr_assert(site_wait(&site, &site.got[MESSAGE_REGISTER], 1, 2000));
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\"}", -1);
	peer_hear_error(&site, peer, "busy");
	close(peer);
	site_run(&site, 20);
	site.mute = false;

	struct message grant = {
		.type = MESSAGE_GRANT, .ref = site.last[MESSAGE_REGISTER].ref, .id = 9};

	link_to_agent(site.link, &grant);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	cr_assert_eq(site.last[MESSAGE_END].id, 9);
	cr_assert_eq(site.last[MESSAGE_END].ref, grant.ref);
	cr_assert_eq(site_status(&site).scopes, 0);
	cr_assert_eq(site_status(&site).ports_used, 0);
}

Test(subscriber, port_rests_until_the_engine_lets_go)
{
	int peer = peer_connect(&site), descriptor, again;
	uint64_t id = peer_subscribe(&site, peer, "alice", &descriptor);
	uint16_t port = host_port(descriptor);

	close(descriptor);
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	site_run(&site, 1100); /* quarantine_s */
	cr_assert_eq(site_status(&site).ports_resting, 1);
	site_reusable(&site, id, site.last[MESSAGE_BOUND].ref);
	cr_assert_eq(site_status(&site).ports_resting, 0);

	/* Within the quarantine its last user has it back, and nobody else. */
	peer = peer_connect(&site);
	id = peer_subscribe(&site, peer, "alice", &descriptor);
	port = host_port(descriptor);
	close(descriptor);
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 2, 1000));
	site_reusable(&site, id, site.last[MESSAGE_BOUND].ref);
	peer = peer_connect(&site);
	peer_subscribe(&site, peer, "bob", &descriptor);
	cr_assert_neq(host_port(descriptor), port);
	again = peer_connect(&site);
	peer_subscribe(&site, again, "alice", &descriptor);
	cr_assert_eq(host_port(descriptor), port);
}

Test(subscriber, kept_sockets_and_a_full_range)
{
	unsigned total = 2 * (PORT_LAST - PORT_FIRST + 1);
	int peer, descriptor, kept;

	/* An ended socket that its process keeps open still has its port: others are not hurt. */
	peer = peer_connect(&site);
	uint64_t id = peer_subscribe(&site, peer, "mallory", &kept);

	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	site_reusable(&site, id, site.last[MESSAGE_BOUND].ref);
	for (unsigned i = 0; i < total - 1; i++)
		peer_subscribe(&site, peer_connect(&site), "mallory", &descriptor);
	cr_assert_eq(site_status(&site).ports_used, total - 1);
	peer = peer_connect(&site);
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:alice\"}", -1);
	peer_hear_error(&site, peer, "no_port");
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 2, 1000), "the engine was told");
	cr_assert_eq(site.last[MESSAGE_END].end, MESSAGE_END_SOCKET);
	cr_assert_eq(site_status(&site).scopes, total - 1);
}
