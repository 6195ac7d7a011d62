/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/agent/request.h"
#include "tests/unit/agent/site.h"

#define PORT_FIRST 24520
#define PORT_LAST  24539
#define PATH	   HOST_DIR "/client.sock"

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

TestSuite(client_socket, .init = setup, .fini = teardown, .timeout = 40);

Test(client_socket, anybody_may_connect)
{
	struct stat file;

	cr_assert_eq(stat(PATH, &file), 0);
	cr_assert(S_ISSOCK(file.st_mode));
	cr_assert_eq(file.st_mode & 07777, 0666);
	site_stop(&site);
	cr_assert_eq(stat(PATH, &file), -1, "an orderly end removes the file");
}

static int second_agent(char why[1024])
{
	struct link *link = link_create(site.base);
	struct agent *agent = NULL;
	struct fan_config config = site.host.config;

	/* Its own pins: it is the socket that must stop it. */
	strcpy(config.bpf_dir, HOST_DIR "/bpf2");
	config.port_first = PORT_LAST + 1;
	config.port_last = PORT_LAST + 5;
	int err = agent_create(&agent, site.base, link, &config, why);

	agent_destroy(agent);
	link_destroy(link);
	return err;
}

Test(client_socket, another_fanwired_is_not_pushed_aside)
{
	char why[1024] = "";
	int descriptor;

	cr_assert_eq(second_agent(why), -EADDRINUSE, "%s", why);
	cr_assert(strstr(why, "another fanwired runs here"), "%s", why);
	peer_subscribe(&site, peer_connect(&site), "alice", &descriptor);
}

/* As a fanwired leaves it that was killed: a file on which nobody listens. */
Test(client_socket, stale_file_is_replaced)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), descriptor;

	site_stop(&site);
	pid_t pid = fork();

	if (pid == 0) {
		site_start(&site);
		_exit(0); /* no clean-up */
	}
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(access(PATH, F_OK), 0);
	site_start(&site);
	peer_subscribe(&site, peer_connect(&site), "alice", &descriptor);
	close(fd);
}

Test(client_socket, foreign_file_stays)
{
	char why[1024] = "";

	site_stop(&site);
	close(open(PATH, O_CREAT | O_WRONLY, 0600));
	cr_assert_eq(second_agent(why), -EEXIST, "%s", why);
	cr_assert(strstr(why, PATH), "%s", why);
	cr_assert_eq(access(PATH, F_OK), 0);
}

Test(client_socket, bad_paths_are_explained)
{
	char why[1024] = "";

	site_stop(&site);
	strcpy(site.host.config.client_socket, HOST_DIR "/missing/client.sock");
	cr_assert_eq(second_agent(why), -ENOENT, "%s", why);
	cr_assert(strstr(why, "/missing/"), "%s", why);
	memset(site.host.config.client_socket, 'x', 200);
	site.host.config.client_socket[0] = '/';
	site.host.config.client_socket[200] = 0;
	cr_assert_eq(second_agent(why), -ENAMETOOLONG, "%s", why);
	cr_assert(strstr(why, "shorter"), "%s", why);
}

Test(client_socket, garbage_is_answered_then_cut_off)
{
	int peer = peer_connect(&site);

	for (unsigned i = 0; i < 16; i++) {
		cr_assert_eq(peer_say(peer, i % 2 ? "\xff\xfe garbage" : "{\"op\":\"fly\"}", -1),
			     0);
		peer_hear_error(&site, peer, "bad_request");
	}
	peer_hear_end(&site, peer);
	cr_assert_eq(site_status(&site).clients, 0);
	cr_assert_eq(site.got[MESSAGE_REGISTER], 0);
}

Test(client_socket, packet_size_is_bounded)
{
	int peer = peer_connect(&site), descriptor;
	char *text = malloc(CLIENT_PACKET_MAX + 4096);

	memset(text, ' ', CLIENT_PACKET_MAX + 4096);
	memcpy(text, "{\"op\":\"renew\"}", 14);
	cr_assert_eq(peer_send(peer, text, CLIENT_PACKET_MAX, NULL, 0), 0);
	peer_hear_error(&site, peer, "bad_request"); /* nothing to renew: it was read */
	for (unsigned over = 1; over <= 4096; over += 4095) {
		cr_assert_eq(peer_send(peer, text, CLIENT_PACKET_MAX + over, NULL, 0), 0);
		json_t *packet = peer_hear(&site, peer, NULL);

		cr_assert(strstr(json_text(packet, "message"), "16384"), "%s",
			  json_text(packet, "message"));
		json_decref(packet);
	}
	peer_subscribe(&site, peer, "alice", &descriptor);
	free(text);
}

Test(client_socket, descriptors_of_clients_never_stay)
{
	int pipes[2], many[200], peer = peer_connect(&site);

	site_run(&site, 20);
	cr_assert_eq(pipe(pipes), 0);
	for (unsigned i = 0; i < 200; i++)
		many[i] = pipes[0];
	unsigned before = descriptors_open();

	/* With a request that takes none, with garbage, too many, and far too many. */
	peer_say(peer, "{\"op\":\"subscribe\",\"token\":\"user:a\"}", pipes[0]);
	peer_hear_error(&site, peer, "bad_request");
	peer_say(peer, "garbage", pipes[0]);
	peer_hear_error(&site, peer, "bad_request");
	static const char attach[] =
		"{\"op\":\"attach\",\"connection\":\"0000000000000001\",\"token\":\"user:a\"}";

	for (unsigned cnt = 2; cnt <= 200; cnt += 66) {
		cr_assert_eq(peer_send(peer, attach, strlen(attach), many, cnt), 0);
		peer_hear_error(&site, peer, "bad_request");
	}
	cr_assert_eq(peer_send(peer, attach, strlen(attach), NULL, 0), 0);
	peer_hear_error(&site, peer, "bad_request");
	cr_assert_eq(descriptors_open(), before);

	/* With what cannot be a request at all, and with packets that nobody reads any more. */
	static char huge[CLIENT_PACKET_MAX + 100];

	cr_assert_eq(peer_send(peer, huge, sizeof(huge), many, 3), 0);
	peer_hear_error(&site, peer, "bad_request");
	for (unsigned i = 0; i < 20; i++)
		peer_send(peer, "garbage", 7, many, 200);
	cr_assert_eq(peer_send(peer, "", 0, many, 1), 0);
	close(peer);
	site_run(&site, 50);
	cr_assert_eq(descriptors_open(), before - 2, "the peer's end and ours are gone");
	cr_assert_eq(site.got[MESSAGE_ATTACH] + site.got[MESSAGE_REGISTER], 0);
}

Test(client_socket, two_hundred_connects_leave_nothing)
{
	int descriptor;

	peer_subscribe(&site, peer_connect(&site), "warm", &descriptor);
	site_run(&site, 20);
	unsigned before = descriptors_open();
	struct agent_status was = site_status(&site);

	for (unsigned i = 0; i < 200; i++) {
		int peer = peer_connect(&site);
		uint64_t id = peer_subscribe(&site, peer, "alice", &descriptor);

		close(descriptor);
		close(peer);
		cr_assert(site_wait(&site, &site.got[MESSAGE_END], i + 1, 1000));
		site_reusable(&site, id, site.last[MESSAGE_BOUND].ref);
	}
	cr_assert_eq(descriptors_open(), before);
	struct agent_status now = site_status(&site);

	cr_assert_eq(now.clients, was.clients);
	cr_assert_eq(now.scopes, was.scopes);
	cr_assert_eq(now.ports_used, was.ports_used);
	cr_assert_eq(now.ports_resting, 1, "always the same port: its last user had it back");
	site_run(&site, 1100);
	cr_assert_eq(site_status(&site).ports_resting, 0);
}

Test(client_socket, who_does_not_read_is_cut_off)
{
	int peer = peer_connect(&site), other = peer_connect(&site), descriptor;
	unsigned sent = 0;

	peer_subscribe(&site, peer, "alice", &descriptor);
	peer_subscribe(&site, other, "bob", &descriptor);
	while (site.got[MESSAGE_END] == 0 && sent < 100000) {
		peer_say(peer, "{\"op\":\"renew\"}", -1);
		site_run(&site, 0);
		if (++sent % 4 == 0)
			site_run(&site, 1);
	}
	cr_assert_eq(site.got[MESSAGE_END], 1, "it was not cut off");
	cr_assert_eq(site_status(&site).clients, 1);
	peer_say(other, "{\"op\":\"renew\"}", -1);
	json_decref(peer_hear(&site, other, NULL));
}

Test(client_socket, half_open_ones_time_out)
{
	int idle = peer_connect(&site), used = peer_connect(&site), waiting = peer_connect(&site);
	int descriptor;

	peer_subscribe(&site, used, "alice", &descriptor);
	site.mute = true; /* the engine does not answer this one */
	peer_say(waiting, "{\"op\":\"subscribe\",\"token\":\"user:bob\"}", -1);
	site_run(&site, 8000);
	cr_assert_eq(site_status(&site).clients, 3);
	site_run(&site, 3500);
	peer_hear_error(&site, idle, "busy");
	peer_hear_end(&site, idle);
	peer_hear_error(&site, waiting, "busy");
	peer_hear_end(&site, waiting);
	cr_assert_eq(site_status(&site).clients, 1);
	cr_assert_eq(site_status(&site).scopes, 1);
}

/* The caps are those of setup(): 512 + 64 + 64 clients, an eighth of them half-open for one uid. */
Test(client_socket, half_open_ones_of_a_uid_are_limited)
{
	unsigned limit = (512 + 64 + 64) / 8;
	int peers[100], descriptor;

	for (unsigned i = 0; i < limit; i++)
		peers[i] = peer_connect(&site);
	site_run(&site, 50);
	int refused = peer_connect(&site);

	peer_hear_error(&site, refused, "busy");
	peer_hear_end(&site, refused);
	peer_subscribe(&site, peers[0], "alice", &descriptor); /* no longer half-open */
	int taken = peer_connect(&site);

	peer_subscribe(&site, taken, "alice", &descriptor);
	close(peers[1]);
	site_run(&site, 20);
	peer_subscribe(&site, peer_connect(&site), "alice", &descriptor);
}

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

Test(client_socket, survives_without_descriptors)
{
	struct rlimit limit;
	int peers[3], descriptor;

	for (unsigned i = 0; i < 3; i++)
		peers[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	rlim_t was = limit.rlim_cur;

	int highest = dup(0);

	close(highest);
	limit.rlim_cur = (rlim_t)highest; /* the next descriptor would be this one */
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (unsigned i = 0; i < 3; i++)
		peer_connect_to(peers[i]);
	uint64_t before = cpu_ms();

	site_run(&site, 600);
	cr_assert_lt(cpu_ms() - before, 300, "it spins");
	limit.rlim_cur = was;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	peer_hear_error(&site, peers[0], "busy");
	peer_hear_end(&site, peers[0]);
	site_run(&site, 1100); /* the listener's rest */
	peer_subscribe(&site, peers[1], "alice", &descriptor);
	peer_subscribe(&site, peers[2], "bob", &descriptor);
}
