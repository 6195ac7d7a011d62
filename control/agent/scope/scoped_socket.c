// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/scoped_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/plant.h"
#include "control/agent/scope/netns.h"

static int socket_make(void *arg)
{
	const struct fan_address *address = arg;
	int fd = socket(address->family == 4 ? AF_INET : AF_INET6,
			SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);

	return fd < 0 ? -errno : fd;
}

static int option_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int socket_bind(int fd, const struct fan_address *address, uint16_t port)
{
	struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int result;

	if (address->family == 4) {
		memcpy(&in4.sin_addr, address->bytes + 12, 4);
		return bind(fd, (struct sockaddr *)&in4, sizeof(in4)) ? -errno : 0;
	}
	memcpy(&in6.sin6_addr, address->bytes, 16);
	/* Else IPv4 comes in by the back door as v4-mapped; it cannot be changed after bind. */
	result = option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (result)
		return result;
	return bind(fd, (struct sockaddr *)&in6, sizeof(in6)) ? -errno : 0;
}

int socket_cookie(int fd, uint64_t *cookie)
{
	socklen_t len = sizeof(*cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &len) ? -errno : 0;
}

int socket_address(int fd, struct fan_address *address, uint16_t *port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	} name = {0};
	socklen_t len = sizeof(name);

	if (getsockname(fd, &name.any, &len))
		return -errno;
	memset(address, 0, sizeof(*address));
	if (name.any.sa_family == AF_INET) {
		address->family = 4;
		address->bytes[10] = address->bytes[11] = 0xff;
		memcpy(address->bytes + 12, &name.in4.sin_addr, 4);
		*port = ntohs(name.in4.sin_port);
	} else if (name.any.sa_family == AF_INET6) {
		address->family = 6;
		memcpy(address->bytes, &name.in6.sin6_addr, 16);
		*port = ntohs(name.in6.sin6_port);
	} else {
		return -EAFNOSUPPORT;
	}
	return 0;
}

/* Filter, lock, buffer: before bind, or what arrives in between would stay readable. */
static int socket_lock(struct scope_maps *maps, int fd, const char **step)
{
	int result;

	*step = "attach the scope filter";
	result = option_set(fd, SOL_SOCKET, SO_ATTACH_BPF, scope_filter_fd(maps));
	if (result)
		return result;
	*step = "lock the scope filter";
	result = fan_planted(PLANT_FILTER_NOT_LOCKED)
			 ? 0
			 : option_set(fd, SOL_SOCKET, SO_LOCK_FILTER, 1);
	if (result)
		return result;
	*step = "set the receive buffer (needs CAP_NET_ADMIN)";
	return option_set(fd, SOL_SOCKET, SO_RCVBUFFORCE,
			  (int)scope_config(maps)->receive_buffer_bytes);
}

static void explain(const struct fan_address *address, uint16_t port, const char *step, int result,
		    char why[256])
{
	char text[46];

	fan_address_format(text, address->bytes, address->family);
	snprintf(why, 256, "socket for %s port %u: cannot %s: %s%s", text, port, step,
		 strerror(-result),
		 result == -EADDRNOTAVAIL
			 ? "; give this address to an interface of the receivers' network namespace"
			 : "");
}

int scoped_socket_open(struct scope_maps *maps, const struct scope *scope,
		       const struct fan_address *address, uint16_t port, struct scoped_socket *made,
		       char why[256])
{
	struct fan_address wanted = *address;
	const char *step = "make it";
	uint64_t cookie = 0;
	int fd, result;

	fd = netns_run(scope_netns(maps), socket_make, &wanted);
	if (fd < 0) {
		result = fd;
		goto out;
	}
	step = "read its cookie";
	result = socket_cookie(fd, &cookie);
	if (result)
		goto out_close;
	step = "enter its scope in the kernel";
	result = scope_set(maps, cookie, scope);
	if (result)
		goto out_close;
	if (fan_planted(PLANT_BIND_BEFORE_FILTER))
		socket_bind(fd, address, port);
	result = socket_lock(maps, fd, &step);
	if (result)
		goto out_scope;
	step = "bind it";
	result = fan_planted(PLANT_BIND_BEFORE_FILTER) ? 0 : socket_bind(fd, address, port);
	if (result)
		goto out_scope;
	made->fd = fd;
	made->cookie = cookie;
	return 0;

out_scope:
	scope_del(maps, cookie);
out_close:
	close(fd);
out:
	explain(address, port, step, result, why);
	return result;
}

int plain_socket_open(struct scope_maps *maps, const struct fan_address *address, int *fd,
		      uint16_t *port, char why[256])
{
	struct fan_address wanted = *address;
	const char *step = "make it";
	int made, result;

	made = netns_run(scope_netns(maps), socket_make, &wanted);
	if (made < 0) {
		result = made;
		goto out;
	}
	step = "bind it";
	result = socket_bind(made, address, 0);
	if (result)
		goto out_close;
	step = "read its address";
	result = socket_address(made, &wanted, port);
	if (result)
		goto out_close;
	*fd = made;
	return 0;

out_close:
	close(made);
out:
	explain(address, 0, step, result, why);
	return result;
}
