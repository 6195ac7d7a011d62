/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/receivers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BATCH	   32
#define PACKET_MAX 2048
#define ROUND	   64 /* sockets that are read before the publisher has its turn again */

struct receive_batch {
	struct mmsghdr messages[BATCH];
	struct iovec iov[BATCH];
	uint8_t packets[BATCH][PACKET_MAX];
};

int receivers_init(struct receivers *receivers, unsigned cnt, size_t header_len)
{
	struct receive_batch *batch = calloc(1, sizeof(*batch));

	*receivers = (struct receivers){.fds = calloc(cnt, sizeof(int)),
					.cnt = cnt,
					.header_len = header_len,
					.batch = batch};
	if (!batch || !receivers->fds)
		return -ENOMEM;
	for (unsigned i = 0; i < cnt; i++)
		receivers->fds[i] = -1;
	for (unsigned i = 0; i < BATCH; i++) {
		batch->iov[i] = (struct iovec){batch->packets[i], PACKET_MAX};
		batch->messages[i].msg_hdr =
			(struct msghdr){.msg_iov = &batch->iov[i], .msg_iovlen = 1};
	}
	return 0;
}

void receivers_fini(struct receivers *receivers)
{
	free(receivers->fds);
	free(receivers->batch);
}

static void read_one(struct load *load, struct receivers *receivers, unsigned idx)
{
	struct receive_batch *batch = receivers->batch;
	unsigned wanted = load_missing(load, idx);
	int cnt = recvmmsg(receivers->fds[idx], batch->messages, wanted < BATCH ? wanted : BATCH,
			   MSG_DONTWAIT, NULL);

	if (cnt > 0 && load->options.rate)
		load->now_ns = load_now_ns();
	for (int i = 0; i < cnt; i++) {
		size_t len = batch->messages[i].msg_len;

		if (len >= receivers->header_len)
			load_take(load, idx, batch->packets[i] + receivers->header_len,
				  len - receivers->header_len);
	}
}

void receivers_poll(struct load *load, struct receivers *receivers)
{
	unsigned read = 0;

	for (unsigned i = 0; i < receivers->cnt && read < ROUND; i++) {
		unsigned idx = receivers->next;

		receivers->next = idx + 1 < receivers->cnt ? idx + 1 : 0;
		if (load_missing(load, idx) == 0)
			continue;
		read_one(load, receivers, idx);
		read++;
	}
}
