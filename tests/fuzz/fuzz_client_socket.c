/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client.sock with its descriptors, over a real socket: packets of any bytes with any number of
 * descriptors. Only whole requests reach the agent, with a descriptor where one belongs and none
 * elsewhere; none is left open; and the next client is served.
 *
 * The input is a list of packets: how many descriptors (low 3 bits), length (16 bits), bytes.
 */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "control/agent/client_socket.h"

#define DESCRIPTORS_MAX 7
#define TURNS		8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct event_base *base;
static struct client_socket *clients;
static struct fan_config config;
static unsigned requests, gone;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void on_request(void *arg, struct client *client, const struct client_request *request,
		       int descriptor)
{
	requests++;
	require(client_request_has_descriptor(request->op) == (descriptor >= 0));
	if (descriptor >= 0)
		require(close(descriptor) == 0);
	if (requests % 2)
		client_refuse(client, request->op, MESSAGE_ERROR_INTERNAL, "by the fuzzer");
	else
		client_end(client);
}

static void on_gone(void *arg, struct client *client)
{
	gone++;
}

static void remove_folder(void)
{
	client_socket_close(clients);
	event_base_free(base);
	rmdir(config.run_dir);
}

static void prepare(void)
{
	static const struct client_socket_ops ops = {on_request, on_gone};
	char why[1024];

	if (clients)
		return;
	fan_log_init("fuzz", "error");
	strcpy(config.run_dir, "/tmp/fanwire-fuzz-XXXXXX");
	require(mkdtemp(config.run_dir) != NULL);
	config.max_connections = config.max_sessions = 16;
	base = event_base_new();
	require(base && client_socket_open(&clients, base, &config, &ops, NULL, why) == 0);
	client_socket_accept(clients);
	atexit(remove_folder);
}

static unsigned descriptors_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned cnt = 0;

	require(dir != NULL);
	while (readdir(dir))
		cnt++;
	closedir(dir);
	return cnt;
}

static int connect_client(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	require(snprintf(address.sun_path, sizeof(address.sun_path), "%s/client.sock",
			 config.run_dir) < (int)sizeof(address.sun_path));
	require(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void send_packet(int fd, const uint8_t *bytes, size_t len, unsigned descriptors)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec part = {(void *)bytes, len};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (descriptors) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
		for (unsigned i = 0; i < descriptors; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	}
	(void)sendmsg(fd, &message, MSG_NOSIGNAL); /* it may have been cut off: that is allowed */
}

static void turn(void)
{
	for (unsigned i = 0; i < TURNS; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

/* Each answer is a JSON object that says whether it went well. Descriptors come with none. */
static void hear(int fd)
{
	static char text[CLIENT_PACKET_MAX + 1];
	ssize_t len;

	while ((len = recv(fd, text, sizeof(text), 0)) > 0) {
		json_t *answer = json_loadb(text, (size_t)len, 0, NULL);

		require(json_is_object(answer) && json_is_false(json_object_get(answer, "ok")));
		require(json_is_string(json_object_get(answer, "error")));
		json_decref(answer);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	unsigned before, gone_before;
	int fd;

	prepare();
	before = descriptors_open();
	gone_before = gone;
	fd = connect_client();
	turn();
	while (len >= 3) {
		size_t n = (size_t)data[1] << 8 | data[2];

		n = n < len - 3 ? n : len - 3;
		send_packet(fd, data + 3, n, data[0] % (DESCRIPTORS_MAX + 1));
		data += 3 + n;
		len -= 3 + n;
		turn();
		hear(fd);
	}
	close(fd);
	turn();
	require(client_cnt(clients) == 0 && gone == gone_before + 1);
	require(descriptors_open() == before);
	return 0;
}
