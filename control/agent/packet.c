/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/packet.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for more than one, so that a second one is seen, and closed; the kernel drops the rest. */
#define DESCRIPTORS_SEEN 4

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(DESCRIPTORS_SEEN * sizeof(int))];
};

/* Number of descriptors that came; the first one in *first, all others closed. */
static unsigned take_descriptors(struct msghdr *message, int *first)
{
	unsigned cnt = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t len = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (cnt++ == 0)
				*first = fd;
			else
				close(fd);
		}
	}
	return cnt;
}

int packet_receive(int fd, struct packet *packet)
{
	union control control;
	struct iovec part = {packet->text, sizeof(packet->text)};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	unsigned cnt;
	ssize_t len;

	do
		len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (len < 0 && errno == EINTR);
	if (len < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	packet->len = (size_t)len;
	packet->descriptor = -1;
	packet->fault = NULL;
	cnt = take_descriptors(&message, &packet->descriptor);
	if (message.msg_flags & MSG_TRUNC || packet->len > CLIENT_PACKET_MAX)
		packet->fault = "the packet is larger than 16384 bytes";
	else if (cnt > 1)
		packet->fault = "more than one descriptor came; send at most one a packet";
	else if (message.msg_flags & MSG_CTRUNC)
		packet->fault = "the descriptor could not be received; send one, and try again in "
				"a moment";
	if ((packet->fault || !len) && packet->descriptor >= 0) {
		close(packet->descriptor);
		packet->descriptor = -1;
	}
	return len > 0; /* an empty packet looks like the end, and is treated as such */
}

int packet_send(int fd, json_t *packet, int descriptor)
{
	union control control = {.bytes = {0}};
	struct iovec part;
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	char *text = packet ? json_dumps(packet, JSON_COMPACT) : NULL;
	int err = 0;

	json_decref(packet);
	if (!text)
		return -EINVAL;
	part = (struct iovec){text, strlen(text)};
	if (descriptor >= 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &descriptor, sizeof(descriptor));
	}
	if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		err = errno == EWOULDBLOCK ? -EAGAIN : -errno;
	explicit_bzero(text, part.iov_len); /* keys, some of them */
	free(text);
	return err;
}

void packet_close(int fd)
{
	char byte;

	/*
	 * Unread packets at close() would turn the peer's next read into ECONNRESET, ahead of the
	 * answer that waits for it. Nothing new can come in after the shutdown.
	 */
	shutdown(fd, SHUT_RD);
	while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) > 0)
		;
	close(fd);
}
