/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-uring: copies as io_uring sends, a burst in one system call. Each destination has a
 * connected socket of its own, registered, so that neither an address nor a descriptor is looked up
 * for a copy.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/peers/fanout_server.h"

struct sender {
	struct io_uring ring;
};

static int sender_open(struct server *server, int fd)
{
	struct sender *sender = server->state = calloc(1, sizeof(*sender));
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN};
	int err = sender ? io_uring_queue_init_params(SERVER_COPIES, &sender->ring, &params)
			 : -ENOMEM;

	return err ? err : io_uring_register_files(&sender->ring, &fd, 1);
}

static int sender_send(struct server *server, const struct server_copy *copies, unsigned cnt)
{
	struct sender *sender = server->state;
	unsigned failed;
	int n;

	for (unsigned i = 0; i < cnt; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&sender->ring);

		io_uring_prep_send(sqe, 0, copies[i].payload, copies[i].len, 0);
		io_uring_prep_send_set_addr(sqe, (const struct sockaddr *)copies[i].to,
					    sizeof(*copies[i].to));
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
