/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-uring: copies as io_uring sends, a burst in one system call. Each destination has a
 * connected socket of its own, registered, so that neither an address nor a descriptor is looked up
 * for a copy.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "bench/peers/fanout_server.h"

#define SEND_BUFFER (1 << 20)

struct sender {
	struct io_uring ring;
};

static int connected_open(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), buffer = SEND_BUFFER;

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	return fd;
}

static int sender_open(struct server *server, const struct sockaddr_in *table, unsigned cnt)
{
	struct sender *sender = server->state = calloc(1, sizeof(*sender));
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN};
	int *fds = calloc(cnt, sizeof(*fds));
	int err = sender && fds ? io_uring_queue_init_params(SERVER_COPIES, &sender->ring, &params)
				: -ENOMEM;

	for (unsigned i = 0; !err && i < cnt; i++) {
		fds[i] = connected_open(&table[i]);
		err = fds[i] < 0 ? fds[i] : 0;
	}
	if (!err)
		err = io_uring_register_files(&sender->ring, fds, cnt);
	free(fds);
	return err;
}

static int sender_send(struct server *server, const struct server_copy *copies, unsigned cnt)
{
	struct sender *sender = server->state;
	unsigned failed;
	int n;

	for (unsigned i = 0; i < cnt; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&sender->ring);

		io_uring_prep_send(sqe, (int)copies[i].idx, copies[i].payload, copies[i].len, 0);
		sqe->flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	}
	n = io_uring_submit_and_get_events(&sender->ring);
	failed = io_uring_cq_ready(&sender->ring);
	io_uring_cq_advance(&sender->ring, failed);
	return n < 0 ? n : 0;
}

int main(int argc, char **argv)
{
	struct server server = {.name = "io_uring", .open = sender_open, .send = sender_send};

	return server_main(&server, argc, argv);
}
