/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A datagram that arrives in the very moment in which a subscriber's socket is bound meets its
 * filter. bind() is wrapped by the linker: it sends one before it returns.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT 24450

int __real_bind(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len);

static struct host host;
static int sender = -1, sent;

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	int rc = __real_bind(fd, address, len);

	if (rc == 0 && sender >= 0)
		sent += sendto(sender, "early", 5, 0, address, len) == 5;
	return rc;
}

Test(bind_order, what_arrives_with_the_bind_meets_the_filter)
{
	struct scoped_socket bob;
	char byte;

	host_init(&host, 24450, 24499);
	host_open(&host);
	sender = host_udp(4, RECEIVER4, 0);
	bob = host_scoped(&host, 4, PORT, "bob");
	cr_assert_geq(sent, 1, "nothing was sent in the moment of the bind");
	cr_expect_eq(recv(bob.fd, &byte, 1, MSG_DONTWAIT), -1);
	cr_expect_eq(errno, EAGAIN);
	close(sender);
	close(bob.fd);
	host_fini(&host);
}
