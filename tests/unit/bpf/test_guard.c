// SPDX-License-Identifier: BSD-3-Clause
/*
 * The port guard alone: sockets here have no filter. A scope in the map is all that lets a socket
 * use a port of the range, whoever owns it (these tests are uid 0).
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/ipv6.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT	  24150
#define PORT_LAST 24179
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* of Linux 6.3; Debian 12 has 6.1 */
#endif

static struct host host;
static int sender4, sender6;

static void setup(void)
{
	host_init(&host, PORT, PORT_LAST);
	host_open(&host);
	sender4 = host_udp(4, ENGINE4, ENGINE_PORT);
	sender6 = host_udp(6, ENGINE6, ENGINE_PORT);
}

static void teardown(void)
{
	close(sender4);
	close(sender6);
	host_fini(&host);
}

TestSuite(guard, .init = setup, .fini = teardown, .timeout = 60);

/* A socket of the range with a scope and no filter: what the guard lets through is seen. */
static int unfiltered(int family, uint16_t port, uint64_t *cookie)
{
	int fd = host_udp(family, NULL, 0), on = 1;
	socklen_t len;
	union name name = host_name(family == 4 ? RECEIVER4 : RECEIVER6, port, &len);
	struct scope scope;

	host_scope(&scope, "bob");
	cr_assert_eq(socket_cookie(fd, cookie), 0);
	cr_assert_eq(scope_set(host.maps, *cookie, &scope), 0);
	if (family == 6)
		cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)), 0);
	cr_assert_eq(bind(fd, &name.any, len), 0, "%s", strerror(errno));
	return fd;
}

static void expect_bind_denied(int fd, const char *address, uint16_t port)
{
	struct tally before = host_tally(&host);
	socklen_t len;
	union name name = host_name(address, port, &len);

	cr_assert_eq(bind(fd, &name.any, len), -1, "%s port %u was bound", address, port);
	cr_assert_eq(errno, EPERM, "%s", strerror(errno));
	host_expect_guard(&host, &before, GUARD_BIND_DENIED, 1);
}

static void expect_each_bind_denied(bool reuse)
{
	static const struct {
		int family;
		const char *address;
	} binds[] = {
		{4, RECEIVER4}, {4, "0.0.0.0"}, {4, "127.0.0.1"},	  {6, RECEIVER6},
		{6, "::"},	{6, "::1"},	{6, "::ffff:" RECEIVER4}, {6, "::ffff:0.0.0.0"},
	};
	int on = 1;

	for (size_t i = 0; i < sizeof(binds) / sizeof(binds[0]); i++) {
		int fd = host_udp(binds[i].family, NULL, 0);

		if (reuse) {
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		}
		expect_bind_denied(fd, binds[i].address, PORT);
		expect_bind_denied(fd, binds[i].address, PORT_LAST);
		close(fd);
	}
}

Test(guard, no_port_of_the_range_can_be_bound)
{
	expect_each_bind_denied(false);
}

Test(guard, ports_outside_the_range_and_tcp_are_left_alone)
{
	int fd = host_udp(4, RECEIVER4, PORT - 1), tcp = socket(AF_INET, SOCK_STREAM, 0);
	uint8_t got[16];
	socklen_t len;
	union name name = host_name(RECEIVER4, PORT, &len);

	cr_assert_eq(host_send(sender4, RECEIVER4, PORT - 1, "hello", 5), 0);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), 5);
	cr_assert_eq(bind(tcp, &name.any, len), 0);
	close(tcp);
	close(fd);
}

Test(guard, a_port_cannot_be_squatted_before_fanwired_binds_it)
{
	struct scoped_socket bob;
	int fd = host_udp(4, NULL, 0);

	expect_bind_denied(fd, RECEIVER4, PORT);
	bob = host_scoped(&host, 4, PORT, "bob");
	cr_assert_eq(host_port(bob.fd), PORT);
	close(bob.fd);
	close(fd);
}

Test(guard, reuse_set_after_the_lock_lets_nobody_share_the_port)
{
	struct scoped_socket bob = host_scoped(&host, 4, PORT, "bob"), last;
	int on = 1;

	setsockopt(bob.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(bob.fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	last = host_scoped(&host, 6, PORT_LAST, "bob");
	setsockopt(last.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(last.fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	expect_each_bind_denied(true);
	close(last.fd);
	close(bob.fd);
}

/* The kernel picks this socket's port within the range; then nothing may arrive there. */
static void expect_deaf(int fd, int family, const char *address)
{
	struct tally before = host_tally(&host);
	uint16_t port = host_port(fd);
	uint8_t got[16];

	cr_assert(port >= PORT && port <= PORT_LAST, "port %u is not of the range", port);
	cr_assert_eq(host_send(family == 4 ? sender4 : sender6, address, port, "secret", 6), 0);
	host_expect_guard(&host, &before, GUARD_INGRESS_DENIED, 1);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), -1, "an unscoped socket received");
}

/* From here on the kernel picks ports of the range: an administrator's mistake after the start. */
static void open_range(void)
{
	host_sysctl("/proc/sys/net/ipv4/ip_local_port_range", "24150 24179");
}

/* False where the kernel has no such option: there the sysctl is the only way into the range. */
static bool set_port_range(int fd)
{
	uint32_t range = PORT | (uint32_t)PORT_LAST << 16;

	if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof(range)) == 0)
		return true;
	cr_assert_eq(errno, ENOPROTOOPT, "%s", strerror(errno));
	return false;
}

static void try_bind_0(int family, const char *address, const char *own, bool option)
{
	int fd = host_udp(family, NULL, 0);
	socklen_t len;
	union name name = host_name(address, 0, &len);

	if (option)
		set_port_range(fd);
	cr_assert_eq(bind(fd, &name.any, len), 0, "%s", strerror(errno));
	expect_deaf(fd, strchr(own, ':') ? 6 : 4, own);
	close(fd);
}

Test(guard, bind_of_port_0_receives_nothing)
{
	open_range();
	for (int option = 0; option < 2; option++) {
		try_bind_0(4, RECEIVER4, RECEIVER4, option);
		try_bind_0(4, "0.0.0.0", RECEIVER4, option);
		try_bind_0(6, RECEIVER6, RECEIVER6, option);
		try_bind_0(6, "::", RECEIVER6, option);
		try_bind_0(6, "::", RECEIVER4, option); /* takes IPv4 as v4-mapped */
		try_bind_0(6, "::ffff:" RECEIVER4, RECEIVER4, option);
	}
}

static void try_autobind(int family, const char *to, const char *own, bool by_connect, bool option)
{
	int fd = host_udp(family, NULL, 0);
	socklen_t len;
	union name name = host_name(to, ENGINE_PORT, &len);

	if (option)
		set_port_range(fd);
	if (by_connect)
		cr_assert_eq(connect(fd, &name.any, len), 0);
	else /* what it sends is refused, but it has its port now */
		cr_assert_eq(host_send(fd, to, ENGINE_PORT, "x", 1), -EPERM);
	expect_deaf(fd, strchr(own, ':') ? 6 : 4, own);
	close(fd);
}

Test(guard, autobind_by_connect_or_sendto_receives_nothing)
{
	open_range();
	for (int way = 0; way < 4; way++) {
		/* connected sockets have the engine's address too: all are on the loopback here */
		try_autobind(4, ENGINE4, way & 1 ? ENGINE4 : RECEIVER4, way & 1, way & 2);
		try_autobind(6, ENGINE6, way & 1 ? ENGINE6 : RECEIVER6, way & 1, way & 2);
		try_autobind(6, "::ffff:" ENGINE4, way & 1 ? ENGINE4 : RECEIVER4, way & 1, way & 2);
	}
}

Test(guard, the_port_range_option_alone_yields_no_port_of_the_range)
{
	int fd = host_udp(4, NULL, 0);
	socklen_t len;
	union name name = host_name(RECEIVER4, 0, &len);

	if (!set_port_range(fd)) {
		close(fd);
		cr_skip_test("this kernel has no IP_LOCAL_PORT_RANGE");
	}
	/* the kernel narrows ip_local_port_range by it and never leaves that */
	cr_assert_eq(bind(fd, &name.any, len), 0);
	cr_assert(host_port(fd) < PORT || host_port(fd) > PORT_LAST);
	close(fd);
}

Test(guard, a_scoped_socket_receives)
{
	uint64_t cookie4, cookie6;
	int fd4 = unfiltered(4, PORT, &cookie4), fd6 = unfiltered(6, PORT, &cookie6);
	struct tally before;
	uint8_t got[16];

	cr_assert_eq(host_send(sender4, RECEIVER4, PORT, "hello", 5), 0);
	cr_assert_eq(host_receive(fd4, got, sizeof(got)), 5);
	cr_assert_eq(host_send(sender6, RECEIVER6, PORT, "hello", 5), 0);
	cr_assert_eq(host_receive(fd6, got, sizeof(got)), 5);
	/* Its scope ends: it keeps its port and receives nothing more. */
	cr_assert_eq(scope_del(host.maps, cookie4), 0);
	before = host_tally(&host);
	cr_assert_eq(host_send(sender4, RECEIVER4, PORT, "hello", 5), 0);
	host_expect_guard(&host, &before, GUARD_INGRESS_DENIED, 1);
	cr_assert_eq(host_receive(fd4, got, sizeof(got)), -1);
	close(fd4);
	close(fd6);
}

static void expect_send_denied(int fd, const char *address, uint16_t port)
{
	struct tally before = host_tally(&host);

	cr_assert_eq(host_send(fd, address, port, "x", 1), -EPERM, "%s port %u", address, port);
	host_expect_guard(&host, &before, GUARD_EGRESS_DENIED, 1);
}

Test(guard, a_scoped_socket_sends_to_the_engine_and_nowhere_else)
{
	uint64_t cookie;
	int fd4 = unfiltered(4, PORT, &cookie), fd6 = unfiltered(6, PORT, &cookie);
	int victim4 = host_udp(4, ELSEWHERE4, ENGINE_PORT), other4 = host_udp(4, ENGINE4, 9);
	int victim6 = host_udp(6, ELSEWHERE6, ENGINE_PORT), other6 = host_udp(6, ENGINE6, 9);
	uint8_t got[16];

	cr_assert_eq(host_send(fd4, ENGINE4, ENGINE_PORT, "x", 1), 0);
	cr_assert_eq(host_receive(sender4, got, sizeof(got)), 1);
	cr_assert_eq(host_send(fd6, ENGINE6, ENGINE_PORT, "x", 1), 0);
	cr_assert_eq(host_receive(sender6, got, sizeof(got)), 1);
	expect_send_denied(fd4, ELSEWHERE4, ENGINE_PORT);
	expect_send_denied(fd4, ENGINE4, 9);
	expect_send_denied(fd4, "127.0.0.1", ENGINE_PORT);
	expect_send_denied(fd6, ELSEWHERE6, ENGINE_PORT);
	expect_send_denied(fd6, ENGINE6, 9);
	cr_assert_lt(host_send(fd6, "::ffff:" ELSEWHERE4, ENGINE_PORT, "x", 1), 0);
	cr_assert_eq(recv(victim4, got, sizeof(got), MSG_DONTWAIT), -1);
	cr_assert_eq(recv(other4, got, sizeof(got), MSG_DONTWAIT), -1);
	cr_assert_eq(recv(victim6, got, sizeof(got), MSG_DONTWAIT), -1);
	cr_assert_eq(recv(other6, got, sizeof(got), MSG_DONTWAIT), -1);
	close(victim4);
	close(victim6);
	close(other4);
	close(other6);
	close(fd4);
	close(fd6);
}

Test(guard, connecting_elsewhere_does_not_help)
{
	uint64_t cookie;
	int fd = unfiltered(4, PORT, &cookie);
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	socklen_t len;
	union name elsewhere = host_name(ELSEWHERE4, ENGINE_PORT, &len);

	cr_assert_eq(connect(fd, &elsewhere.any, len), 0);
	cr_assert_eq(send(fd, "x", 1, 0), -1);
	cr_assert_eq(errno, EPERM);
	expect_send_denied(fd, ELSEWHERE4, ENGINE_PORT);
	cr_assert_eq(connect(fd, &none, sizeof(none)), 0);
	expect_send_denied(fd, ELSEWHERE4, ENGINE_PORT);
	cr_assert_eq(host_port(fd), PORT);
	close(fd);
}

Test(guard, neither_segmentation_nor_a_source_address_helps)
{
	uint64_t cookie;
	int fd = unfiltered(4, PORT, &cookie), segment = 10;
	socklen_t len;
	union name elsewhere = host_name(ELSEWHERE4, ENGINE_PORT, &len);
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = {.header = {CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO}};
	struct in_pktinfo info = {.ipi_spec_dst = elsewhere.in4.sin_addr};
	char bytes[40] = "";
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr msg = {.msg_name = &elsewhere,
			     .msg_namelen = len,
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.bytes)};

	memcpy(CMSG_DATA(&control.header), &info, sizeof(info));
	cr_assert_eq(sendmsg(fd, &msg, 0), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	cr_assert_eq(host_send(fd, ELSEWHERE4, ENGINE_PORT, bytes, sizeof(bytes)), -EPERM);
	close(fd);
}

Test(guard, a_route_written_into_the_packet_does_not_help)
{
	/*
	 * Loose source route by way of the engine: the header's destination is the engine's. Before
	 * it an option whose data stand where a header without options ends and the port follows.
	 */
	uint8_t options[] = {0x9e, 4, ENGINE_PORT >> 8, ENGINE_PORT & 0xff, 131, 7, 4, 198, 18, 0,
			     1,	   0};
	uint64_t cookie;
	int fd4 = unfiltered(4, PORT, &cookie), fd6 = unfiltered(6, PORT, &cookie);
	struct rt2_hdr route = {.rt_hdr = {.hdrlen = 2, .type = 2, .segments_left = 1}};
	int set;

	cr_assert_eq(setsockopt(fd4, IPPROTO_IP, IP_OPTIONS, options, sizeof(options)), 0);
	expect_send_denied(fd4, ELSEWHERE4, ENGINE_PORT);
	expect_send_denied(fd4, ENGINE4, ENGINE_PORT);
	cr_assert_eq(inet_pton(AF_INET6, ENGINE6, &route.addr), 1);
	set = setsockopt(fd6, IPPROTO_IPV6, IPV6_RTHDR, &route, sizeof(route));
	cr_assert(set == 0 || errno == EINVAL, "%s", strerror(errno)); /* kernels without MIPv6 */
	if (!set)
		expect_send_denied(fd6, ELSEWHERE6, ENGINE_PORT);
	close(fd4);
	close(fd6);
}

Test(guard, a_socket_that_lost_its_scope_sends_nothing)
{
	uint64_t cookie;
	int fd = unfiltered(4, PORT, &cookie);

	cr_assert_eq(scope_del(host.maps, cookie), 0);
	expect_send_denied(fd, ENGINE4, ENGINE_PORT);
	expect_send_denied(fd, ELSEWHERE4, ENGINE_PORT);
	close(fd);
}

Test(guard, publishers_sockets_are_plain)
{
	struct fan_address address;
	uint16_t port;
	uint8_t got[16];
	char why[256];
	int fd;

	cr_assert_eq(fan_address_parse(&address, RECEIVER4), 0);
	cr_assert_eq(plain_socket_open(host.maps, &address, &fd, &port, why), 0, "%s", why);
	cr_assert(port < PORT || port > PORT_LAST);
	cr_assert_eq(host_port(fd), port);
	cr_assert_eq(host_send(fd, ENGINE4, ENGINE_PORT, "x", 1), 0);
	cr_assert_eq(host_receive(sender4, got, sizeof(got)), 1);
	close(fd);
}
