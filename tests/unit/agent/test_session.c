/* SPDX-License-Identifier: BSD-3-Clause */
/* Publisher sessions, and the walls without which nothing is granted. */
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/agent/site.h"

#define PORT_FIRST 24560
#define PORT_LAST  24569

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

TestSuite(session, .init = setup, .fini = teardown, .timeout = 30);

#define OPEN "{\"op\":\"publish_open\",\"name\":\"orders\",\"secret\":\"right\"}"

static int open_session(int peer)
{
	int descriptor;

	cr_assert_eq(peer_say(peer, OPEN, -1), 0);
	json_t *answer = peer_hear(&site, peer, &descriptor);

	cr_assert(json_is_true(json_object_get(answer, "ok")), "%s", json_dumps(answer, 0));
	json_decref(answer);
	return descriptor;
}

Test(session, gets_a_key_and_a_socket)
{
	int peer = peer_connect(&site), descriptor;
	char key[2 * FAN_KEY_LEN + 1];
	struct fan_address address;
	uint16_t port;

	cr_assert_eq(peer_say(peer, OPEN, -1), 0);
	json_t *answer = peer_hear(&site, peer, &descriptor);
	const struct message *asked = &site.last[MESSAGE_SESSION_OPEN];

	memset(key, 0, sizeof(key));
	for (unsigned i = 0; i < FAN_KEY_LEN; i++)
		memcpy(key + 2 * i, "ab", 2);
	cr_assert_str_eq(json_text(answer, "key"), key);
	cr_assert_eq(json_id(answer, "session"), 0x77);
	cr_assert(json_is_null(json_object_get(answer, "user")));
	cr_assert_str_eq(json_text(answer, "engine_address"), ENGINE4);
	json_decref(answer);
	cr_assert_eq(socket_address(descriptor, &address, &port), 0);
	cr_assert_eq(asked->u.session_open.address.port, port);
	cr_assert_eq(memcmp(asked->u.session_open.address.bytes, address.bytes, 16), 0);
	cr_assert_str_eq(asked->u.session_open.name, "orders");
	cr_assert(port < PORT_FIRST || port > PORT_LAST, "the range is the subscribers'");
	cr_assert_eq(site_status(&site).scopes, 0);
}

Test(session, refused_leaves_no_socket)
{
	int peer = peer_connect(&site);

	site_run(&site, 20);
	unsigned before = descriptors_open();

	peer_say(peer, "{\"op\":\"publish_open\",\"name\":\"orders\",\"secret\":\"wrong\"}", -1);
	peer_hear_error(&site, peer, "credential");
	cr_assert_eq(descriptors_open(), before);
	close(open_session(peer));
	cr_assert_eq(descriptors_open(), before);
}

Test(session, ends_with_its_connection)
{
	int peer = peer_connect(&site);

	open_session(peer);
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_SESSION_END], 1, 1000));
	cr_assert_eq(site.last[MESSAGE_SESSION_END].id, 0x77);
	cr_assert_eq(site.last[MESSAGE_SESSION_END].ref, site.last[MESSAGE_SESSION_OPEN].ref);
}

Test(session, ended_by_the_engine_is_told)
{
	struct message ended = {
		.type = MESSAGE_SESSION_ENDED, .id = 0x77, .end = MESSAGE_END_ENGINE};
	int peer = peer_connect(&site);

	open_session(peer);
	link_to_agent(site.link, &ended);
	json_t *event = peer_hear(&site, peer, NULL);

	cr_assert_str_eq(json_text(event, "event"), "ended");
	cr_assert_str_eq(json_text(event, "reason"), "engine");
	cr_assert_eq(json_id(event, "session"), 0x77);
	json_decref(event);
	peer_hear_end(&site, peer);
	cr_assert_eq(site.got[MESSAGE_SESSION_END], 0);
}

static const char attach[] = "{\"op\":\"publish_attach\",\"session\":\"0000000000000077\","
			     "\"name\":\"orders\",\"secret\":\"right\"}";

Test(session, attaches_with_its_socket_only)
{
	int peer = peer_connect(&site), own = open_session(peer), scoped, pipes[2];
	struct fan_address address;
	uint16_t port;

	peer_subscribe(&site, peer_connect(&site), "alice", &scoped);
	site_stop(&site);
	site_start(&site);
	peer = peer_connect(&site);
	cr_assert_eq(pipe(pipes), 0);
	int wrong[] = {pipes[0], scoped, socket(AF_INET, SOCK_STREAM, 0),
		       socket(AF_INET, SOCK_DGRAM, 0)};

	for (unsigned i = 0; i < 4; i++) {
		peer_say(peer, attach, wrong[i]);
		peer_hear_error(&site, peer, "bad_request");
	}
	cr_assert_eq(site.got[MESSAGE_SESSION_ATTACH], 0);
	peer_say(peer, attach, own);
	json_t *answer = peer_hear(&site, peer, NULL);

	cr_assert(json_is_true(json_object_get(answer, "ok")), "%s", json_dumps(answer, 0));
	cr_assert_eq(json_id(answer, "session"), 0x77);
	json_decref(answer);
	cr_assert_eq(socket_address(own, &address, &port), 0);
	cr_assert_eq(site.last[MESSAGE_SESSION_ATTACH].u.session_open.address.port, port);
	int second = peer_connect(&site);

	peer_say(second, attach, own);
	peer_hear_error(&site, second, "busy");
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_SESSION_END], 1, 1000));
}

Test(session, left_before_its_grant_is_ended)
{
	struct message grant = {.type = MESSAGE_SESSION_GRANT, .id = 5};
	int peer = peer_connect(&site);

	site.mute = true;
	site_run(&site, 20);
	unsigned before = descriptors_open();

	peer_say(peer, OPEN, -1);
	cr_assert(site_wait(&site, &site.got[MESSAGE_SESSION_OPEN], 1, 1000));
	close(peer);
	site_run(&site, 20);
	cr_assert_eq(descriptors_open(), before - 2);
	grant.ref = site.last[MESSAGE_SESSION_OPEN].ref;
	link_to_agent(site.link, &grant);
	cr_assert(site_wait(&site, &site.got[MESSAGE_SESSION_END], 1, 1000));
	cr_assert_eq(site.last[MESSAGE_SESSION_END].id, 5);
}

/* ---- walls ---- */

static void detach(const char *pin)
{
	int fd = bpf_obj_get(pin);

	cr_assert_geq(fd, 0, "%s: %s", pin, strerror(errno));
	cr_assert_eq(bpf_link_detach(fd), 0);
	close(fd);
}

Test(session, nothing_is_granted_while_a_wall_has_failed)
{
	int before = peer_connect(&site), peer = peer_connect(&site), descriptor;

	peer_subscribe(&site, before, "alice", &descriptor);
	cr_assert_eq(site_status(&site).guard, WALL_ON);
	cr_assert_eq(site_status(&site).filter, WALL_ON);
	detach(HOST_DIR "/bpf/guard_ingress");
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:bob\"}", -1);
	peer_hear_error(&site, peer, "wall_failed");
	peer_say(peer, OPEN, -1);
	peer_hear_error(&site, peer, "wall_failed");
	cr_assert_eq(site_status(&site).guard, WALL_FAILED);
	cr_assert(strlen(site_status(&site).guard_why) > 10);
	cr_assert_eq(site_status(&site).scopes, 1);
	site_run(&site, 20);
	cr_assert_eq(site.got[MESSAGE_AGENT_STATUS], 1, "the engine is told once");
	cr_assert_eq(site.last[MESSAGE_AGENT_STATUS].error, MESSAGE_ERROR_WALL_FAILED);
	peer_say(before, "{\"op\":\"renew\"}", -1); /* who has a socket keeps it */
	json_t *packet = peer_hear(&site, before, NULL);

	cr_assert(json_is_true(json_object_get(packet, "ok")));
	json_decref(packet);
}

Test(session, failed_wall_is_noticed_without_a_request)
{
	detach(HOST_DIR "/bpf/guard_bind4");
	cr_assert(site_wait(&site, &site.got[MESSAGE_AGENT_STATUS], 1, 2500));
	cr_assert_eq(site.last[MESSAGE_AGENT_STATUS].error, MESSAGE_ERROR_WALL_FAILED);
}

Test(session, guard_that_is_configured_off_is_no_failure)
{
	int descriptor;

	site_stop(&site);
	scope_maps_remove(&site.host.config, (char[1024]){0});
	site.host.config.port_guard = false;
	site_start(&site);
	peer_subscribe(&site, peer_connect(&site), "alice", &descriptor);
	cr_assert_eq(site_status(&site).guard, WALL_OFF);
	cr_assert(strstr(site_status(&site).guard_why, "port_guard"));
}

Test(session, every_counter_has_a_name)
{
	for (unsigned i = 0; i < SCOPE_VERDICT_CNT; i++)
		cr_assert(agent_verdict_name(i));
	for (unsigned i = 0; i < GUARD_VERDICT_CNT; i++)
		cr_assert(agent_guard_name(i));
	cr_assert_null(agent_verdict_name(SCOPE_VERDICT_CNT));
	cr_assert_null(agent_guard_name(GUARD_VERDICT_CNT));
}
