// SPDX-License-Identifier: BSD-3-Clause
#include "tests/unit/bpf/host.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

static const uint8_t master[FAN_KEY_LEN] = "a master key of 32 bytes, known";

void host_run(const char *command)
{
	cr_assert_eq(system(command), 0, "command failed: %s", command);
}

void host_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(write(fd, value, strlen(value)), (ssize_t)strlen(value), "%s", path);
	close(fd);
}

static void address_add(struct fan_address *address, const char *text)
{
	cr_assert_eq(fan_address_parse(address, text), 0);
}

/*
 * The guard covers the machine: two runs of these tests at once would refuse each other's ports.
 * A record lock ends with the process; a child that a failed test left behind holds none.
 */
static void wait_for_turn(void)
{
	struct flock turn = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open("/tmp/fanwire-unit-turn", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0); /* open until the process ends: closing it would end the turn */
	cr_assert_eq(fcntl(fd, F_SETLKW, &turn), 0);
}

void host_init(struct host *host, uint16_t port_first, uint16_t port_last)
{
	struct fan_config *config = &host->config;

	wait_for_turn();
	cr_assert_geq(sodium_init(), 0);
	memset(host, 0, sizeof(*host));
	cr_assert_eq(unshare(CLONE_NEWNET | CLONE_NEWNS), 0, "needs root: %s", strerror(errno));
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("tmpfs", HOST_DIR, "tmpfs", 0, NULL), 0);
	cr_assert_eq(mount("tmpfs", "/run", "tmpfs", 0, NULL), 0); /* ip netns add writes there */
	host_run("ip link set lo up && for a in " ENGINE4 " " RECEIVER4 " " ELSEWHERE4
		 "; do ip addr add $a/32 dev lo; done && for a in " ENGINE6 " " RECEIVER6
		 " " ELSEWHERE6 "; do ip addr add $a/128 dev lo nodad; done");
	strcpy(config->instance, "unit-bpf");
	strcpy(config->bpf_dir, HOST_DIR "/bpf");
	config->engine_address_cnt = config->receiver_address_cnt = 2;
	address_add(&config->engine_address[0], ENGINE4);
	address_add(&config->engine_address[1], ENGINE6);
	address_add(&config->receiver_address[0], RECEIVER4);
	address_add(&config->receiver_address[1], RECEIVER6);
	config->engine_port = ENGINE_PORT;
	config->port_first = port_first;
	config->port_last = port_last;
	config->max_connections = 64;
	config->port_guard = true;
	config->receive_buffer_bytes = 1 << 20;
}

void host_open(struct host *host)
{
	char why[1024];

	cr_assert_eq(scope_maps_open(&host->maps, &host->config, why), 0, "%s", why);
}

void host_fini(struct host *host)
{
	scope_maps_close(host->maps);
	host->maps = NULL;
}

void host_scope(struct scope *scope, const char *name)
{
	memset(scope, 0, sizeof(*scope));
	cr_assert_eq(fan_handle(scope->handle, name, strlen(name)), 0);
	scope->user_generation = 1;
	scope->key_generation = scope->previous_key_generation = 1;
	fan_tag_key((uint8_t *)scope->tag_key, master, 1, scope->handle);
	memcpy(scope->previous_tag_key, scope->tag_key, sizeof(scope->tag_key));
	scope->connection = 7;
}

struct scoped_socket host_scoped(struct host *host, int family, uint16_t port, const char *user)
{
	struct scoped_socket made = {-1, 0};
	struct fan_address address;
	struct scope scope;
	char why[256];

	host_scope(&scope, user);
	address_add(&address, family == 4 ? RECEIVER4 : RECEIVER6);
	cr_assert_eq(scoped_socket_open(host->maps, &scope, &address, port, &made, why), 0, "%s",
		     why);
	return made;
}

union name host_name(const char *address, uint16_t port, socklen_t *len)
{
	union name name = {0};

	if (inet_pton(AF_INET, address, &name.in4.sin_addr) == 1) {
		name.in4.sin_family = AF_INET;
		name.in4.sin_port = htons(port);
		*len = sizeof(name.in4);
		return name;
	}
	cr_assert_eq(inet_pton(AF_INET6, address, &name.in6.sin6_addr), 1, "%s", address);
	name.in6.sin6_family = AF_INET6;
	name.in6.sin6_port = htons(port);
	*len = sizeof(name.in6);
	return name;
}

int host_udp(int family, const char *address, uint16_t port)
{
	int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);
	union name name;
	socklen_t len;

	cr_assert_geq(fd, 0);
	if (!address)
		return fd;
	name = host_name(address, port, &len);
	cr_assert_eq(bind(fd, &name.any, len), 0, "bind %s %u: %s", address, port, strerror(errno));
	return fd;
}

int host_send(int fd, const char *address, uint16_t port, const void *bytes, size_t len)
{
	socklen_t name_len;
	union name name = host_name(address, port, &name_len);

	return sendto(fd, bytes, len, 0, &name.any, name_len) == (ssize_t)len ? 0 : -errno;
}

uint16_t host_port(int fd)
{
	union name name;
	socklen_t len = sizeof(name);

	cr_assert_eq(getsockname(fd, &name.any, &len), 0);
	return ntohs(name.in4.sin_port); /* at the same offset in both families */
}

ssize_t host_receive(int fd, void *bytes, size_t len)
{
	struct pollfd poll_fd = {fd, POLLIN, 0};

	if (poll(&poll_fd, 1, 200) != 1)
		return -1;
	return recv(fd, bytes, len, MSG_DONTWAIT);
}

void host_delivery(struct fan_delivery *delivery, const char *user, size_t payload_len)
{
	memset(delivery, 0, sizeof(*delivery));
	delivery->type = FAN_TYPE_DELIVERY;
	delivery->flags = FAN_FLAG_BEGIN | FAN_FLAG_END;
	delivery->key_generation = 1;
	delivery->payload_len = (uint16_t)payload_len;
	delivery->kind = 3;
	cr_assert_eq(fan_handle(delivery->handle, user, strlen(user)), 0);
	delivery->epoch = 0x0123456789abcdef;
	delivery->sequence = 42;
	delivery->time_ns = 1700000000000000000;
	delivery->user_generation = 1;
	delivery->session = 5;
	delivery->publisher_sequence = 9;
}

size_t host_packet_of(uint8_t *packet, const struct fan_delivery *delivery, const char *user)
{
	size_t len = fan_delivery_encode(packet, delivery);
	struct scope scope;

	host_scope(&scope, user);
	fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
	memset(packet + len, 'x', delivery->payload_len);
	return len + delivery->payload_len;
}

size_t host_packet(uint8_t *packet, const char *user, size_t payload_len)
{
	struct fan_delivery delivery;

	host_delivery(&delivery, user, payload_len);
	return host_packet_of(packet, &delivery, user);
}

struct tally host_tally(struct host *host)
{
	struct tally tally;

	cr_assert_eq(scope_counters(host->maps, tally.verdicts, tally.guards), 0);
	return tally;
}

/* Waits for all rises together to reach `rise`: the receive path may run a little later. */
static struct tally tally_wait(struct host *host, const struct tally *before, bool guards,
			       uint64_t rise)
{
	unsigned cnt = guards ? (unsigned)GUARD_VERDICT_CNT : (unsigned)SCOPE_VERDICT_CNT;
	struct timespec pause = {0, 200000};
	struct tally now = {0};

	for (unsigned tries = 0; tries < 10000; tries++) {
		uint64_t risen = 0;

		now = host_tally(host);
		for (unsigned i = 0; i < cnt; i++)
			risen += guards ? now.guards[i] - before->guards[i]
					: now.verdicts[i] - before->verdicts[i];
		if (risen >= rise)
			break;
		nanosleep(&pause, NULL);
	}
	return now;
}

void host_expect_verdict(struct host *host, const struct tally *before, enum scope_verdict verdict,
			 uint64_t rise)
{
	struct tally now = tally_wait(host, before, false, rise);

	for (unsigned i = 0; i < SCOPE_VERDICT_CNT; i++)
		cr_assert_eq(now.verdicts[i] - before->verdicts[i], i == verdict ? rise : 0,
			     "verdict %u rose by %lu, %lu of verdict %u were expected", i,
			     now.verdicts[i] - before->verdicts[i], rise, verdict);
}

void host_expect_guard(struct host *host, const struct tally *before, enum guard_verdict verdict,
		       uint64_t rise)
{
	struct tally now = tally_wait(host, before, true, rise);

	for (unsigned i = 0; i < GUARD_VERDICT_CNT; i++)
		cr_assert_eq(now.guards[i] - before->guards[i], i == verdict ? rise : 0,
			     "guard %u rose by %lu, %lu of guard %u were expected", i,
			     now.guards[i] - before->guards[i], rise, verdict);
}
