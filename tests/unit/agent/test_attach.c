/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/agent/site.h"

#define PORT_FIRST 24540
#define PORT_LAST  24559

static struct site site;
static int alice_socket, bob_socket; /* scoped; their registrations outlived a restart */
static uint64_t alice, bob;

static void setup(void)
{
	int first, second;

	site_init(&site, PORT_FIRST, PORT_LAST);
	site_start(&site);
	first = peer_connect(&site);
	second = peer_connect(&site);
	alice = peer_subscribe(&site, first, "alice", &alice_socket);
	bob = peer_subscribe(&site, second, "bob", &bob_socket);
	site_stop(&site);
	peer_hear_end(&site, first);
	close(first);
	close(second);
	site_start(&site);
	site_run(&site, 20);
}

static void teardown(void)
{
	site_fini(&site);
}

TestSuite(attach, .init = setup, .fini = teardown, .timeout = 40);

static void say_attach(int peer, uint64_t id, int descriptor)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "{\"op\":\"attach\",\"connection\":\"%016lx\",\"token\":\"user:x\"}", id);
	cr_assert_eq(peer_say(peer, text, descriptor), 0);
}

static json_t *attach(int peer, uint64_t id, int descriptor)
{
	say_attach(peer, id, descriptor);
	return peer_hear(&site, peer, NULL);
}

Test(attach, nothing_ends_by_the_restart_itself)
{
	struct agent_status status = site_status(&site);

	cr_assert_eq(site.got[MESSAGE_END], 0);
	cr_assert_eq(status.scopes, 2);
	cr_assert_eq(status.ports_used, 2);
	cr_assert_eq(status.clients, 0);
}

Test(attach, own_socket_is_taken)
{
	int peer = peer_connect(&site), engine = host_udp(4, ENGINE4, ENGINE_PORT);
	uint8_t packet[256];
	size_t len = host_packet(packet, "alice", 9);
	uint64_t cookie;

	cr_assert_eq(host_send(engine, RECEIVER4, host_port(alice_socket), packet, len), 0);
	json_t *answer = attach(peer, alice, alice_socket);

	cr_assert(json_is_true(json_object_get(answer, "ok")), "%s", json_dumps(answer, 0));
	cr_assert_eq(json_id(answer, "connection"), alice);
	cr_assert_str_eq(json_text(answer, "user"), "alice");
	cr_assert_str_eq(json_text(answer, "state"), "active");
	cr_assert_str_eq(json_text(answer, "address"), RECEIVER4);
	cr_assert_eq(json_integer_value(json_object_get(answer, "port")), host_port(alice_socket));
	json_decref(answer);
	cr_assert_eq(socket_cookie(alice_socket, &cookie), 0);
	cr_assert_eq(site.last[MESSAGE_ATTACH].u.client.cookie, cookie);
	cr_assert_eq(host_receive(alice_socket, packet, sizeof(packet)), (ssize_t)len,
		     "what came while no fanwired ran is there");

	/* It is a subscriber like any other again: renewals, and its end. */
	peer_say(peer, "{\"op\":\"renew\"}", -1);
	json_decref(peer_hear(&site, peer, NULL));
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	cr_assert_eq(site.last[MESSAGE_END].ref, site.last[MESSAGE_ATTACH].ref);
	cr_assert_eq(site_status(&site).scopes, 1);
}

static void refused(int descriptor, uint64_t id, const char *error)
{
	int peer = peer_connect(&site);

	site_run(&site, 10);
	unsigned before = descriptors_open();

	say_attach(peer, id, descriptor);
	peer_hear_error(&site, peer, error);
	cr_assert_eq(descriptors_open(), before, "the descriptor stayed open");
	cr_assert_eq(site.got[MESSAGE_ATTACH], 0, "the engine was asked");
	close(peer);
	site_run(&site, 10);
	cr_assert_eq(site_status(&site).scopes, 2);
	cr_assert_eq(site.got[MESSAGE_END], 0);
}

Test(attach, any_other_descriptor_is_refused)
{
	int pipes[2], other;

	cr_assert_eq(pipe(pipes), 0);
	refused(pipes[0], alice, "bad_request");
	refused(open("/dev/null", 0), alice, "bad_request");
	refused(socket(AF_INET, SOCK_STREAM, 0), alice, "bad_request");
	refused(socket(AF_UNIX, SOCK_DGRAM, 0), alice, "bad_request");
	refused(socket(AF_INET, SOCK_RAW, IPPROTO_UDP), alice, "bad_request");
	refused(host_udp(4, RECEIVER4, 0), alice, "connection_unknown");
	refused(bob_socket, alice, "bad_request");
	refused(alice_socket, bob, "bad_request");
	refused(alice_socket, 0x123, "bad_request");

	/* A descriptor that cannot be told apart by its number only is still the right one. */
	other = dup(alice_socket);
	json_t *answer = attach(peer_connect(&site), alice, other);

	cr_assert(json_is_true(json_object_get(answer, "ok")), "%s", json_dumps(answer, 0));
	json_decref(answer);
}

Test(attach, one_holder_at_a_time)
{
	int first = peer_connect(&site), second = peer_connect(&site);

	json_decref(attach(first, alice, alice_socket));
	say_attach(second, alice, alice_socket);
	peer_hear_error(&site, second, "busy");
	cr_assert_eq(site.got[MESSAGE_ATTACH], 1);
	close(second);
	site_run(&site, 20);
	cr_assert_eq(site.got[MESSAGE_END], 0, "the holder lives on");
}

Test(attach, two_at_once_and_a_slow_engine)
{
	int first = peer_connect(&site), second = peer_connect(&site), third;
	struct message answer = {.type = MESSAGE_ATTACHED, .id = alice};

	site.mute = true;
	say_attach(first, alice, alice_socket);
	cr_assert(site_wait(&site, &site.got[MESSAGE_ATTACH], 1, 1000));
	say_attach(second, alice, alice_socket);
	peer_hear_error(&site, second, "busy");
	/* The first one leaves before the answer: its claim stands until that has come. */
	close(first);
	site_run(&site, 20);
	say_attach(second, alice, alice_socket);
	peer_hear_error(&site, second, "busy");
	cr_assert_eq(site.got[MESSAGE_ATTACH], 1);
	answer.ref = site.last[MESSAGE_ATTACH].ref;
	link_to_agent(site.link, &answer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_DETACH], 1, 1000));
	cr_assert_eq(site.last[MESSAGE_DETACH].id, alice);
	cr_assert_eq(site.last[MESSAGE_DETACH].ref, answer.ref);
	cr_assert_eq(site.got[MESSAGE_END], 0, "a try that was given up ended the registration");
	cr_assert_eq(site_status(&site).scopes, 2);
	site.mute = false;
	third = peer_connect(&site);
	json_t *packet = attach(third, alice, alice_socket);

	cr_assert(json_is_true(json_object_get(packet, "ok")), "%s", json_dumps(packet, 0));
	json_decref(packet);
}

Test(attach, left_before_it_was_refused)
{
	int first = peer_connect(&site), second = peer_connect(&site);
	struct message refusal = {
		.type = MESSAGE_REFUSE, .id = alice, .error = MESSAGE_ERROR_TOKEN_INVALID};

	site.mute = true;
	say_attach(first, alice, alice_socket);
	cr_assert(site_wait(&site, &site.got[MESSAGE_ATTACH], 1, 1000));
	close(first);
	site_run(&site, 20);
	refusal.ref = site.last[MESSAGE_ATTACH].ref;
	link_to_agent(site.link, &refusal);
	site_run(&site, 20);
	site.mute = false;
	json_t *packet = attach(second, alice, alice_socket);

	cr_assert(json_is_true(json_object_get(packet, "ok")), "%s", json_dumps(packet, 0));
	json_decref(packet);
}

Test(attach, one_that_waits_for_the_engine_is_not_cut_off)
{
	int peer = peer_connect(&site);
	struct message answer = {.type = MESSAGE_ATTACHED, .id = alice};

	site.mute = true;
	say_attach(peer, alice, alice_socket);
	site_run(&site, 12000); /* the time-out of half-open ones is 10 s */
	cr_assert_eq(site_status(&site).clients, 1);
	answer.ref = site.last[MESSAGE_ATTACH].ref;
	answer.u.grant.address = site_find(&site, alice)->address;
	link_to_agent(site.link, &answer);
	json_t *packet = peer_hear(&site, peer, NULL);

	cr_assert(json_is_true(json_object_get(packet, "ok")), "%s", json_dumps(packet, 0));
	json_decref(packet);
}

Test(attach, ended_while_it_waits)
{
	int peer = peer_connect(&site);

	site.mute = true;
	say_attach(peer, alice, alice_socket);
	cr_assert(site_wait(&site, &site.got[MESSAGE_ATTACH], 1, 1000));
	site_end(&site, alice, MESSAGE_END_ABSENT);
	json_t *event = peer_hear(&site, peer, NULL);

	cr_assert_str_eq(json_text(event, "reason"), "absent");
	json_decref(event);
	peer_hear_end(&site, peer);
	cr_assert_eq(site_status(&site).scopes, 1);
}

Test(attach, refused_by_the_engine_may_be_asked_again)
{
	int peer = peer_connect(&site);
	struct site_registration *r = site_find(&site, alice);
	uint64_t cookie = r->cookie;

	r->cookie = 1;
	say_attach(peer, alice, alice_socket);
	peer_hear_error(&site, peer, "connection_unknown");
	r->cookie = cookie;
	json_t *answer = attach(peer, alice, alice_socket);

	cr_assert(json_is_true(json_object_get(answer, "ok")));
	json_decref(answer);
}

Test(attach, absent_one_ends_when_the_engine_says_so)
{
	site_end(&site, alice, MESSAGE_END_ABSENT);
	site_run(&site, 20);
	cr_assert_eq(site_status(&site).scopes, 1);
	cr_assert_eq(site_status(&site).ports_used, 1);
	cr_assert_eq(site_status(&site).ports_resting, 1);
	site_run(&site, 1100);
	site_reusable(&site, alice, 0);
	cr_assert_eq(site_status(&site).ports_resting, 0);
}

Test(attach, held_ports_are_given_to_nobody)
{
	int descriptor;

	for (unsigned i = 0; i < 2 * (PORT_LAST - PORT_FIRST + 1) - 2; i++)
		peer_subscribe(&site, peer_connect(&site), "carol", &descriptor);
	int peer = peer_connect(&site);

	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:carol\"}", -1);
	peer_hear_error(&site, peer, "no_port");
}

Test(attach, scopes_that_nobody_owns_are_swept)
{
	site_stop(&site);
	memset(site_find(&site, bob), 0, sizeof(struct site_registration)); /* unknown by now */
	site_start(&site);
	site_run(&site, 500);
	cr_assert_eq(site_status(&site).scopes, 2);
	site_run(&site, 800); /* reattach_s */
	cr_assert_eq(site_status(&site).scopes, 1);
	json_t *answer = attach(peer_connect(&site), alice, alice_socket);

	cr_assert(json_is_true(json_object_get(answer, "ok")));
	json_decref(answer);
}

Test(attach, ports_rest_on_over_a_restart)
{
	int peer = peer_connect(&site), descriptor;
	uint64_t id = peer_subscribe(&site, peer, "carol", &descriptor);
	uint16_t port = host_port(descriptor);

	close(descriptor);
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	site_reusable(&site, id, site.last[MESSAGE_BOUND].ref);
	site_stop(&site);
	site_start(&site);
	site_run(&site, 20);
	cr_assert_eq(site_status(&site).ports_resting, 1);
	peer = peer_connect(&site);
	peer_subscribe(&site, peer, "carol", &descriptor);
	cr_assert_eq(host_port(descriptor), port, "its last user has it back");
	cr_assert_eq(site_status(&site).ports_resting, 0);
}

Test(attach, rests_of_another_pool_or_boot_are_forgotten)
{
	int peer = peer_connect(&site), descriptor;

	peer_subscribe(&site, peer, "carol", &descriptor);
	close(descriptor);
	close(peer);
	cr_assert(site_wait(&site, &site.got[MESSAGE_END], 1, 1000));
	site_stop(&site);
	struct fan_config *config = &site.host.config;
	struct fan_address first = config->receiver_address[0];

	config->receiver_address[0] = config->receiver_address[1];
	config->receiver_address[1] = first;
	site_start(&site);
	cr_assert_eq(site_status(&site).ports_resting, 0);
	site_stop(&site);
	cr_assert_eq(truncate(HOST_DIR "/ports", 7), 0);
	site_start(&site);
	cr_assert_eq(site_status(&site).ports_resting, 0);
	site_stop(&site);

	/* All ones: a release in the far future, as of a clock that has begun anew. */
	host_run("s=$(stat -c %s " HOST_DIR "/ports); head -c 32 " HOST_DIR "/ports >/mnt/p;"
		 "head -c $((s - 32)) /dev/zero | tr '\\0' '\\377' >>/mnt/p; mv /mnt/p " HOST_DIR
		 "/ports");
	site_start(&site);
	cr_assert_eq(site_status(&site).ports_resting, 0);
}

Test(attach, hold_of_an_ending_one_rests_its_port)
{
	struct message hold = {.type = MESSAGE_HOLD, .id = 0x999, .end = MESSAGE_END_CLOSED};

	hold.u.bound.address = site_find(&site, alice)->address;
	hold.u.bound.address.port = PORT_LAST;
	hold.u.bound.cookie = 12345;
	link_to_agent(site.link, &hold);
	site_run(&site, 20);
	cr_assert_eq(site_status(&site).ports_resting, 1);
	cr_assert_eq(site_status(&site).ports_used, 2);
	site_reusable(&site, 0x999, 0);
	site_run(&site, 1100);
	cr_assert_eq(site_status(&site).ports_resting, 0);
}

Test(attach, whoever_is_early_waits_until_all_is_held)
{
	int peer = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	/* More holds than the link delivers in one turn, and a peer that is there from the start.
	 */
	site_stop(&site);
	for (uint64_t id = 1000; id < 1900; id++) {
		struct site_registration *r = site_find(&site, 0);

		*r = *site_find(&site, bob);
		r->id = id;
	}
	struct site_registration last = *site_find(&site, alice);

	memset(site_find(&site, alice), 0, sizeof(last));
	*site_find(&site, 0) = (struct site_registration){.id = 5000, .user = "x"};
	for (unsigned i = SITE_REGISTRATIONS; i-- > 0;)
		if (!site.registrations[i].id) {
			site.registrations[i] = last;
			break;
		}
	site_start(&site);
	peer_connect_to(peer);
	json_t *answer = attach(peer, alice, alice_socket);

	cr_assert(json_is_true(json_object_get(answer, "ok")), "%s", json_dumps(answer, 0));
	json_decref(answer);
}
