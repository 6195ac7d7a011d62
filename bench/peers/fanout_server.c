/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/fanout_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench/peers/load.h"
#include "bench/step.h"

#define PACKET_MAX 65536 /* publishes that were sent together come together */
#define BATCH	   8
#define BUFFER	   (16 << 20)
#define SPIN_NS	   UINT64_C(20000000) /* without a publish, before it sleeps */

struct options {
	const char *address, *receive_address;
	unsigned port, receive_port, users, fanout;
	bool sleep; /* whenever there is no publish, as most servers do */
};

struct inbox {
	struct mmsghdr messages[BATCH];
	struct iovec iov[BATCH];
	uint8_t control[BATCH][CMSG_SPACE(sizeof(int))];
	uint8_t packets[BATCH][PACKET_MAX];
};

struct burst {
	struct server_copy copies[SERVER_COPIES];
	unsigned cnt;
};

static unsigned number_take(unsigned most)
{
	unsigned long number = strtoul(optarg, NULL, 10);

	if (number == 0 || number > most)
		exit(step_fail("\"%s\": a number from 1 to %u is needed", optarg, most));
	return (unsigned)number;
}

static void options_take(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{"address", required_argument, NULL, 'a'},
		{"port", required_argument, NULL, 'p'},
		{"receive-address", required_argument, NULL, 'A'},
		{"receive-port", required_argument, NULL, 'R'},
		{"users", required_argument, NULL, 'u'},
		{"fanout", required_argument, NULL, 'f'},
		{"sleep", no_argument, NULL, 's'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'a':
			o->address = optarg;
			break;
		case 'p':
			o->port = number_take(65535);
			break;
		case 'A':
			o->receive_address = optarg;
			break;
		case 'R':
			o->receive_port = number_take(65535);
			break;
		case 'u':
			o->users = number_take(65536);
			break;
		case 'f':
			o->fanout = number_take(64);
			break;
		case 's':
			o->sleep = true;
			break;
		default:
			exit(step_fail("unknown option; see bench/peers/fanout_server.c"));
		}
	}
	if (!o->address || !o->receive_address || !o->port || !o->receive_port || !o->users ||
	    !o->fanout)
		exit(step_fail("--address, --port, --receive-address, --receive-port, --users and "
			       "--fanout are needed"));
}

/* The addresses of user u: fanout of them from u * fanout on. */
static struct sockaddr_in *table_make(const struct options *o)
{
	struct sockaddr_in *table = calloc((size_t)o->users * o->fanout, sizeof(*table));

	for (unsigned i = 0; table && i < o->users * o->fanout; i++) {
		table[i].sin_family = AF_INET;
		table[i].sin_port = htons((uint16_t)(o->receive_port + i));
		if (inet_pton(AF_INET, o->receive_address, &table[i].sin_addr) != 1)
			exit(step_fail("\"%s\" is no IPv4 address", o->receive_address));
	}
	return table;
}

static int socket_open(const struct options *o)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), buffer = BUFFER, on = 1;

	if (fd < 0 || inet_pton(AF_INET, o->address, &address.sin_addr) != 1 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)))
		exit(step_fail("cannot listen on %s port %u: %s", o->address, o->port,
			       strerror(errno)));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on));
	return fd;
}

/* Length of each publish in a message that the kernel may have left in one piece. */
static size_t segment_len(struct msghdr *message, size_t len)
{
	int segment;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			return (size_t)segment;
		}
	return len;
}

static int burst_send(struct server *server, struct burst *burst)
{
	int err = burst->cnt ? server->send(server, burst->copies, burst->cnt) : 0;

	burst->cnt = 0;
	return err;
}

static int publish_spread(struct server *server, struct burst *burst, const struct options *o,
			  const struct sockaddr_in *table, const uint8_t *payload, size_t len)
{
	struct load_mark mark;
	int err = 0;

	if (len < sizeof(mark))
		return 0;
	memcpy(&mark, payload, sizeof(mark));
	if (mark.user >= o->users)
		return 0;
	if (burst->cnt + o->fanout > SERVER_COPIES)
		err = burst_send(server, burst);
	for (unsigned i = 0; i < o->fanout; i++) {
		unsigned idx = mark.user * o->fanout + i;

		burst->copies[burst->cnt++] = (struct server_copy){payload, len, &table[idx], idx};
	}
	return err;
}

static int inbox_handle(struct server *server, struct inbox *inbox, int cnt, struct burst *burst,
			const struct options *o, const struct sockaddr_in *table)
{
	int err = 0;

	for (int m = 0; m < cnt; m++) {
		size_t len = inbox->messages[m].msg_len;
		size_t segment = segment_len(&inbox->messages[m].msg_hdr, len);

		for (size_t off = 0; !err && off < len; off += segment)
			err = publish_spread(server, burst, o, table, inbox->packets[m] + off,
					     off + segment <= len ? segment : len - off);
	}
	return err ? err : burst_send(server, burst);
}

static int inbox_receive(int fd, struct inbox *inbox)
{
	for (unsigned i = 0; i < BATCH; i++) {
		inbox->iov[i] = (struct iovec){inbox->packets[i], PACKET_MAX};
		inbox->messages[i].msg_hdr =
			(struct msghdr){.msg_iov = &inbox->iov[i],
					.msg_iovlen = 1,
					.msg_control = inbox->control[i],
					.msg_controllen = sizeof(inbox->control[i])};
	}
	return recvmmsg(fd, inbox->messages, BATCH, MSG_DONTWAIT, NULL);
}

/* Sleeps until there is a publish; false at the end of the input. */
static bool sleep_until_publish(int fd)
{
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN},
				{.fd = STDIN_FILENO, .events = POLLIN}};

	return poll(fds, 2, -1) >= 0 && !fds[1].revents;
}

static int serve(struct server *server, const struct options *o, const struct sockaddr_in *table)
{
	struct inbox *inbox = calloc(1, sizeof(*inbox));
	struct burst *burst = calloc(1, sizeof(*burst));
	uint64_t last_ns = load_now_ns();
	int err = inbox && burst ? 0 : -ENOMEM;

	while (!err) {
		int cnt = inbox_receive(server->fd, inbox);

		if (cnt > 0) {
			err = inbox_handle(server, inbox, cnt, burst, o, table);
			last_ns = load_now_ns();
		} else if ((o->sleep || load_now_ns() - last_ns > SPIN_NS) &&
			   !sleep_until_publish(server->fd)) {
			break;
		}
	}
	free(inbox);
	free(burst);
	return err ? step_fail("%s: %s", server->name, strerror(-err)) : 0;
}

static void files_raise(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

int server_main(struct server *server, int argc, char **argv)
{
	struct options o = {0};
	struct sockaddr_in *table;
	int err;

	options_take(&o, argc, argv);
	files_raise();
	table = table_make(&o);
	if (!table)
		return step_fail("no memory for the addresses of %u users", o.users);
	server->fd = socket_open(&o);
	err = server->open(server, table, o.users * o.fanout);
	if (err)
		return step_fail("%s cannot be set up: %s", server->name, strerror(-err));
	step_ready(json_pack("{s:i, s:i, s:i, s:b}", "users", (int)o.users, "fanout", (int)o.fanout,
			     "burst", SERVER_COPIES, "sleeps", o.sleep),
		   json_object());
	return serve(server, &o, table);
}
