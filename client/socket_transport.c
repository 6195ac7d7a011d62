/* SPDX-License-Identifier: BSD-3-Clause */
/* The scoped socket: the kernel has judged what comes out of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/error.h"
#include "client/subscription.h"

struct socket_batch {
	struct mmsghdr messages[RECEIVE_BATCH];
	struct iovec iov[RECEIVE_BATCH];
	uint8_t packets[]; /* RECEIVE_BATCH of packet_len */
};

static int watch(struct fan_subscription *s)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = s->udp};

	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->udp, &event) < 0)
		return client_error(-errno, "cannot watch the socket: %s", strerror(errno));
	return 0;
}

/*
 * A connected socket costs the kernel less a datagram: it finds socket and route in one step.
 * Events come from the engine's address only, so nothing is lost by it; where it cannot be done,
 * the socket serves as it is.
 */
static void connect_engine(struct fan_subscription *s)
{
	(void)!connect(s->udp, (struct sockaddr *)&s->engine, s->engine_len);
}

static int socket_open(struct fan_subscription *s, const json_t *answer, uint32_t payload_limit)
{
	/* one byte more than the longest, so that a longer one shows */
	size_t packet_len = FAN_DELIVERY_LEN + payload_limit + 1;
	struct socket_batch *b;
	int status;

	if (s->udp < 0)
		return client_error(-EPROTO, "fanwired's answer lacks a socket; are both of the "
					     "same version?");
	b = calloc(1, sizeof(*b) + RECEIVE_BATCH * packet_len);
	if (!b)
		return client_error(-ENOMEM, "out of memory for receive buffers");
	s->link = b;
	for (unsigned i = 0; i < RECEIVE_BATCH; i++) {
		b->iov[i] = (struct iovec){b->packets + i * packet_len, packet_len};
		b->messages[i].msg_hdr = (struct msghdr){.msg_iov = &b->iov[i], .msg_iovlen = 1};
	}
	status = client_socket_engine(answer, s->udp, &s->engine, &s->engine_len);
	if (status < 0)
		return status;
	connect_engine(s);
	return watch(s);
}

static bool socket_fill(struct fan_subscription *s)
{
	struct socket_batch *b = s->link;
	int n;

	do {
		n = recvmmsg(s->udp, b->messages, RECEIVE_BATCH, MSG_DONTWAIT, NULL);
		/* an ICMP error of an echo that we sent is not the events' concern */
	} while (n < 0 && (errno == EINTR || errno == ECONNREFUSED || errno == EHOSTUNREACH ||
			   errno == ENETUNREACH));
	s->batch.next = 0;
	s->batch.cnt = n > 0 ? (unsigned)n : 0;
	for (unsigned i = 0; i < s->batch.cnt; i++) {
		s->batch.packets[i] = b->iov[i].iov_base;
		s->batch.lens[i] = b->messages[i].msg_len;
	}
	return s->batch.cnt > 0;
}

static void socket_send(struct fan_subscription *s, const uint8_t *packet, size_t len)
{
	(void)!sendto(s->udp, packet, len, MSG_DONTWAIT | MSG_NOSIGNAL,
		      (struct sockaddr *)&s->engine, s->engine_len);
}

static void socket_wait(struct fan_subscription *s, uint64_t deadline_ns)
{
	clock_poll(s->epoll_fd, deadline_ns);
}

static uint64_t socket_now(const struct fan_subscription *s)
{
	return clock_now_ns();
}

static void socket_close(struct fan_subscription *s)
{
	free(s->link);
	s->link = NULL;
	if (s->udp >= 0)
		close(s->udp);
	s->udp = -1;
}

const struct transport socket_transport = {
	.open = socket_open,
	.fill = socket_fill,
	.send = socket_send,
	.wait = socket_wait,
	.now = socket_now,
	.attaches = true,
	.close = socket_close,
};
