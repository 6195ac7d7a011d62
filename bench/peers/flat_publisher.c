/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/flat_publisher.h"

#include <endian.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/publisher.h"

#define WINDOW	    256 /* of the 1,024 results that the engine keeps a session */
#define SEGMENTS    32
#define ACK_BATCH   16
#define ACK_MAX	    1232
#define OVERDUE_NS  UINT64_C(20000000)
#define SEND_BUFFER (4 << 20)

struct flat_publisher {
	struct fan_publisher *session; /* opened by the library; its key and socket are used here */
	uint64_t next, sent, accepted; /* sequences: to give, sent below, accepted up to */
	uint64_t progress_ns;
	unsigned event_len;
	size_t packet_len;
	uint8_t *packets; /* WINDOW of packet_len, one after the other: a run of them is one buffer
			   */
};

static uint8_t *packet_at(struct flat_publisher *f, uint64_t sequence)
{
	return f->packets + sequence % WINDOW * f->packet_len;
}

int flat_publisher_open(struct flat_publisher **publisher, const char *client_socket,
			const struct fan_credential *credential, unsigned len)
{
	struct flat_publisher *f = calloc(1, sizeof(*f));
	int buffer = SEND_BUFFER, segment = (int)(FAN_PUBLISH_LEN + len + FAN_TAG_LEN), err;

	*publisher = f;
	if (!f)
		return -ENOMEM;
	f->event_len = len;
	f->packet_len = (size_t)segment;
	f->packets = calloc(WINDOW, f->packet_len);
	f->next = f->sent = 1;
	err = f->packets ? fan_publisher_open(&f->session, client_socket, credential) : -ENOMEM;
	if (err)
		return err;
	setsockopt(f->session->udp, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	setsockopt(f->session->udp, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	return setsockopt(f->session->udp, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) ? -errno
											    : 0;
}

void flat_publisher_close(struct flat_publisher *f)
{
	if (!f)
		return;
	if (f->session)
		fan_publisher_close(f->session);
	free(f->packets);
	free(f);
}

bool flat_publish(struct flat_publisher *f, const uint8_t handle[FAN_HANDLE_LEN], const void *event)
{
	uint8_t *packet = packet_at(f, f->next);
	struct fan_publish header = {.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
				     .payload_len = (uint16_t)f->event_len,
				     .session = f->session->session,
				     .publisher_sequence = f->next};

	if (f->next - f->accepted > WINDOW)
		return false;
	memcpy(header.handle, handle, FAN_HANDLE_LEN);
	fan_publish_encode(packet, &header);
	if (seal_close(&f->session->seal, FAN_DIRECTION_PUBLISH, f->next, packet, FAN_PUBLISH_LEN,
		       event, f->event_len, packet + FAN_PUBLISH_LEN))
		return false;
	f->next++;
	return true;
}

int flat_publisher_flush(struct flat_publisher *f)
{
	while (f->sent < f->next) {
		uint64_t cnt = f->next - f->sent, to_wrap = WINDOW - f->sent % WINDOW;
		size_t len;

		cnt = cnt < SEGMENTS ? cnt : SEGMENTS;
		cnt = cnt < to_wrap ? cnt : to_wrap;
		len = cnt * f->packet_len;
		if (sendto(f->session->udp, packet_at(f, f->sent), len, MSG_NOSIGNAL,
			   (struct sockaddr *)&f->session->engine,
			   f->session->engine_len) != (ssize_t)len)
			return -errno;
		f->sent += cnt;
	}
	return 0;
}

static void ack_take(struct flat_publisher *f, const uint8_t *packet, size_t len, uint64_t now_ns)
{
	uint8_t body[ACK_MAX];
	struct fan_ack ack;
	uint64_t accepted;

	if (fan_ack_decode(packet, len, &ack) != FAN_WIRE_OK ||
	    ack.session != f->session->session ||
	    seal_open(&f->session->seal, FAN_DIRECTION_ACK, ack.counter, packet, FAN_ACK_LEN,
		      packet + FAN_ACK_LEN, len - FAN_ACK_LEN - FAN_TAG_LEN, body))
		return;
	memcpy(&accepted, body, sizeof(accepted));
	accepted = be64toh(accepted);
	if (accepted > f->accepted && accepted < f->next) {
		f->accepted = accepted;
		f->progress_ns = now_ns;
	}
}

void flat_publisher_step(struct flat_publisher *f, uint64_t now_ns)
{
	uint8_t packets[ACK_BATCH][ACK_MAX];
	struct mmsghdr messages[ACK_BATCH] = {0};
	struct iovec iov[ACK_BATCH];
	int cnt;

	if (f->accepted + 1 == f->next) {
		f->progress_ns = now_ns;
		return;
	}
	for (unsigned i = 0; i < ACK_BATCH; i++) {
		iov[i] = (struct iovec){packets[i], ACK_MAX};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	cnt = recvmmsg(f->session->udp, messages, ACK_BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < cnt; i++)
		ack_take(f, packets[i], messages[i].msg_len, now_ns);
	if (now_ns - f->progress_ns < OVERDUE_NS)
		return;
	f->sent = f->accepted + 1; /* the engine waits at the gap: again from there */
	f->progress_ns = now_ns;
}
