/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishes to a fan-out server over UDP and receives on plain sockets. Publishes that lie together
 * leave in one call, as segments of one buffer, which the server receives in one piece as well.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/peers/receivers.h"

#define RECEIVE_BUFFER (4 << 20) /* as a scoped socket has */

struct udp {
	struct receivers receivers;
	int fd;
	unsigned cnt; /* publishes in the buffer */
	uint8_t buffer[LOAD_BATCH * LOAD_PAYLOAD_MAX];
};

static int address_make(struct load *load, const char *text, unsigned port,
			struct sockaddr_in *address)
{
	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, text, &address->sin_addr) == 1)
		return 0;
	return load_error(load, -EINVAL, "\"%s\" is no IPv4 address", text);
}

static int receivers_open(struct load *load, struct udp *udp)
{
	int buffer = RECEIVE_BUFFER;

	for (unsigned i = 0; i < load->receiver_cnt; i++) {
		struct sockaddr_in address;
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		int err = address_make(load, load->options.receive_address,
				       load->options.receive_port + i, &address);

		if (err)
			return err;
		udp->receivers.fds[i] = fd;
		if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
			return load_error(load, -errno, "receiving socket %u of %u on port %u: %s",
					  i + 1, load->receiver_cnt, load->options.receive_port + i,
					  strerror(errno));
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	}
	return 0;
}

static int publisher_open(struct load *load, struct udp *udp)
{
	int segment = (int)load->options.payload, buffer = RECEIVE_BUFFER;
	struct sockaddr_in address;
	int err = address_make(load, load->options.address, load->options.port, &address);

	if (err)
		return err;
	udp->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (udp->fd < 0 || connect(udp->fd, (struct sockaddr *)&address, sizeof(address)) ||
	    setsockopt(udp->fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
		return load_error(load, -errno, "the publisher's socket: %s", strerror(errno));
	setsockopt(udp->fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	return 0;
}

static void udp_close(struct load *load)
{
	struct udp *udp = load->state;

	if (!udp)
		return;
	for (unsigned i = 0; udp->receivers.fds && i < udp->receivers.cnt; i++)
		if (udp->receivers.fds[i] >= 0)
			close(udp->receivers.fds[i]);
	if (udp->fd >= 0)
		close(udp->fd);
	receivers_fini(&udp->receivers);
	free(udp);
}

static int udp_open(struct load *load)
{
	struct udp *udp = load->state = calloc(1, sizeof(*udp));
	int err;

	if (!udp)
		return load_error(load, -ENOMEM, "no memory");
	udp->fd = -1;
	err = receivers_init(&udp->receivers, load->receiver_cnt, 0);
	if (err)
		return load_error(load, err, "no memory for the receiving sockets");
	err = receivers_open(load, udp);
	return err ? err : publisher_open(load, udp);
}

static void udp_flush(struct load *load)
{
	struct udp *udp = load->state;
	size_t len = (size_t)udp->cnt * load->options.payload;

	if (udp->cnt == 0)
		return;
	if (send(udp->fd, udp->buffer, len, 0) != (ssize_t)len)
		load_error(load, -errno, "%u publishes could not be sent: %s", udp->cnt,
			   strerror(errno));
	udp->cnt = 0;
}

static bool udp_publish(struct load *load, const struct load_mark *mark)
{
	struct udp *udp = load->state;
	uint8_t *payload = udp->buffer + (size_t)udp->cnt * load->options.payload;

	memcpy(payload, load->payload, load->options.payload);
	memcpy(payload, mark, sizeof(*mark));
	if (++udp->cnt == LOAD_BATCH)
		udp_flush(load);
	return true;
}

static void udp_receive(struct load *load)
{
	receivers_poll(load, &((struct udp *)load->state)->receivers);
}

const struct transport transport_udp = {
	.name = "udp",
	.open = udp_open,
	.publish = udp_publish,
	.flush = udp_flush,
	.receive = udp_receive,
	.close = udp_close,
};
