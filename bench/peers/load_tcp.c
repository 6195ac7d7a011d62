/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/load_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY_MAX 64
#define HELLO_MS  5000
#define IN_MAX	  (64 << 10)

struct tcp {
	const struct tcp_protocol *protocol;
	struct tcp_connection *receivers;
	struct tcp_connection publisher;
	int epoll_fd;
	size_t out_len, out_sent;
	uint8_t out[TCP_OUT_MAX];
	uint8_t in[IN_MAX]; /* one for all, so that it stays in cache */
};

static int connect_one(struct load *load, struct tcp_connection *connection)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)load->options.port)};
	int on = 1;

	if (inet_pton(AF_INET, load->options.address, &address.sin_addr) != 1)
		return load_error(load, -EINVAL, "\"%s\" is no IPv4 address",
				  load->options.address);
	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->fd < 0 ||
	    connect(connection->fd, (struct sockaddr *)&address, sizeof(address)))
		return load_error(load, -errno, "connection to %s port %u: %s",
				  load->options.address, load->options.port, strerror(errno));
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return 0;
}

/* Connects, says who it is and what it wants, and waits until that is in force. */
static int greet(struct load *load, struct tcp *tcp, struct tcp_connection *connection, int user)
{
	struct pollfd poll_fd = {.events = POLLIN};
	uint8_t hello[4096], answer[4096];
	size_t len, have = 0;
	int err = connect_one(load, connection);

	if (err)
		return err;
	poll_fd.fd = connection->fd;
	len = tcp->protocol->hello(hello, connection->receiver, user);
	if (write(connection->fd, hello, len) != (ssize_t)len)
		return load_error(load, -EIO, "%s does not listen", tcp->protocol->name);
	while (!tcp->protocol->greeted(answer, have, user)) {
		ssize_t n = 0;

		if (poll(&poll_fd, 1, HELLO_MS) == 1)
			n = read(connection->fd, answer + have, sizeof(answer) - have);
		if (n <= 0)
			return load_error(load, -EIO, "%s did not take a %s: \"%.*s\"",
					  tcp->protocol->name,
					  user < 0 ? "publisher" : "subscriber",
					  (int)(have < 200 ? have : 200), (const char *)answer);
		have += (size_t)n;
	}
	return fcntl(connection->fd, F_SETFL, O_NONBLOCK);
}

static int watch(struct tcp *tcp, struct tcp_connection *connection)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

	return epoll_ctl(tcp->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event);
}

int tcp_open(struct load *load, const struct tcp_protocol *protocol)
{
	struct tcp *tcp = load->state = calloc(1, sizeof(*tcp));
	int err = 0;

	if (!tcp)
		return load_error(load, -ENOMEM, "no memory");
	tcp->protocol = protocol;
	tcp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	tcp->publisher.fd = -1;
	tcp->publisher.receiver = UINT32_MAX;
	tcp->receivers = calloc(load->receiver_cnt, sizeof(*tcp->receivers));
	if (!tcp->receivers)
		return load_error(load, -ENOMEM, "no memory for %u receivers", load->receiver_cnt);
	for (unsigned i = 0; i < load->receiver_cnt; i++)
		tcp->receivers[i].fd = -1;
	for (unsigned i = 0; !err && i < load->receiver_cnt; i++) {
		tcp->receivers[i].receiver = i;
		err = greet(load, tcp, &tcp->receivers[i], (int)(i / load->options.fanout));
		if (!err && watch(tcp, &tcp->receivers[i]))
			err = load_error(load, -errno, "epoll: %s", strerror(errno));
	}
	if (!err)
		err = greet(load, tcp, &tcp->publisher, -1);
	return !err && watch(tcp, &tcp->publisher)
		       ? load_error(load, -errno, "epoll: %s", strerror(errno))
		       : err;
}

void tcp_close(struct load *load)
{
	struct tcp *tcp = load->state;

	if (!tcp)
		return;
	for (unsigned i = 0; tcp->receivers && i < load->receiver_cnt; i++)
		if (tcp->receivers[i].fd >= 0)
			close(tcp->receivers[i].fd);
	if (tcp->publisher.fd >= 0)
		close(tcp->publisher.fd);
	close(tcp->epoll_fd);
	free(tcp->receivers);
	free(tcp);
}

bool tcp_publish(struct load *load, const struct load_mark *mark)
{
	struct tcp *tcp = load->state;

	if (tcp->out_len + load->options.payload + 256 > TCP_OUT_MAX)
		return false;
	memcpy(load->payload, mark, sizeof(*mark));
	tcp->out_len += tcp->protocol->publish(tcp->out + tcp->out_len, mark->user, load->payload,
					       load->options.payload);
	return true;
}

void tcp_flush(struct load *load)
{
	struct tcp *tcp = load->state;
	ssize_t n;

	if (tcp->out_sent == tcp->out_len)
		return;
	n = write(tcp->publisher.fd, tcp->out + tcp->out_sent, tcp->out_len - tcp->out_sent);
	if (n < 0 && errno != EAGAIN)
		load_error(load, -errno, "%s does not take publishes: %s", tcp->protocol->name,
			   strerror(errno));
	tcp->out_sent += n > 0 ? (size_t)n : 0;
	if (tcp->out_sent == tcp->out_len)
		tcp->out_sent = tcp->out_len = 0;
}

/* What `in` holds of a connection; what is left of a last message is kept for the next time. */
static void messages_take(struct load *load, struct tcp *tcp, struct tcp_connection *connection,
			  size_t have)
{
	size_t off = 0, payload_len;
	const uint8_t *payload;
	int len = 0;

	while (off < have) {
		payload = NULL;
		len = tcp->protocol->parse(tcp->in + off, have - off, &payload, &payload_len);
		if (len <= 0)
			break;
		if (payload && connection->receiver != UINT32_MAX)
			load_take(load, connection->receiver, payload, payload_len);
		off += (size_t)len;
	}
	if (len < 0 || have - off > TCP_REST_MAX) {
		load_error(load, -EPROTO, "%s sent what is no message: \"%.*s\"",
			   tcp->protocol->name, (int)(have - off < 60 ? have - off : 60),
			   (const char *)tcp->in + off);
		return;
	}
	connection->rest_len = (unsigned)(have - off);
	memcpy(connection->rest, tcp->in + off, connection->rest_len);
}

static void connection_read(struct load *load, struct tcp *tcp, struct tcp_connection *connection)
{
	size_t have = connection->rest_len;
	ssize_t n;

	memcpy(tcp->in, connection->rest, have);
	n = read(connection->fd, tcp->in + have, IN_MAX - have);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		load_error(load, -EIO, "%s closed a connection%s%s", tcp->protocol->name,
			   n ? ": " : "", n ? strerror(errno) : "");
	if (n <= 0)
		return;
	if (load->options.rate)
		load->now_ns = load_now_ns();
	messages_take(load, tcp, connection, have + (size_t)n);
}

void tcp_receive(struct load *load)
{
	struct tcp *tcp = load->state;
	struct epoll_event ready[READY_MAX];
	int cnt = epoll_wait(tcp->epoll_fd, ready, READY_MAX, 0);

	for (int i = 0; i < cnt; i++)
		connection_read(load, tcp, ready[i].data.ptr);
}
