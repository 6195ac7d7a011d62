/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwire-bench-sendmmsg: the kernel's own way to send many datagrams in one call. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "bench/peers/fanout_server.h"

struct batch {
	struct mmsghdr messages[SERVER_COPIES];
	struct iovec iov[SERVER_COPIES];
};

static int batch_open(struct server *server, const struct sockaddr_in *table, unsigned cnt)
{
	(void)table;
	(void)cnt;
	server->state = calloc(1, sizeof(struct batch));
	return server->state ? 0 : -ENOMEM;
}

static int batch_send(struct server *server, const struct server_copy *copies, unsigned cnt)
{
	struct batch *batch = server->state;
	unsigned sent = 0;

	for (unsigned i = 0; i < cnt; i++) {
		batch->iov[i] = (struct iovec){(void *)copies[i].payload, copies[i].len};
		batch->messages[i].msg_hdr = (struct msghdr){.msg_name = (void *)copies[i].to,
							     .msg_namelen = sizeof(*copies[i].to),
							     .msg_iov = &batch->iov[i],
							     .msg_iovlen = 1};
	}
	while (sent < cnt) {
		int n = sendmmsg(server->fd, batch->messages + sent, cnt - sent, 0);

		if (n < 0 && errno != EINTR && errno != ECONNREFUSED)
			return -errno;
		sent += n > 0 ? (unsigned)n : errno == ECONNREFUSED;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct server server = {.name = "sendmmsg", .open = batch_open, .send = batch_send};

	return server_main(&server, argc, argv);
}
