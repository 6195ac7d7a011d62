// SPDX-License-Identifier: BSD-3-Clause
/*
 * What the holder of a scoped descriptor tries, uid 0's included. The port guard is not attached:
 * the locked filter alone must hold.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/udp.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT	  24100
#define PORT_LAST 24149
#define NOBODY	  65534

static struct host host;
static struct scoped_socket bob;
static int sender;

static void setup(void)
{
	host_init(&host, PORT, PORT_LAST);
	host.config.port_guard = false;
	host_open(&host);
	bob = host_scoped(&host, 4, PORT, "bob");
	sender = host_udp(4, ENGINE4, 0);
}

static void teardown(void)
{
	close(sender);
	close(bob.fd);
	host_fini(&host);
}

TestSuite(holder, .init = setup, .fini = teardown, .timeout = 60);

/* Alice's packet does not reach the descriptor, and Bob's does: the scope is in force. */
static void expect_scoped(int fd)
{
	uint8_t packet[2048], got[2048];
	size_t len = host_packet(packet, "alice", 20);
	struct tally before = host_tally(&host);

	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	host_expect_verdict(&host, &before, SCOPE_DROP_FOREIGN_USER, 1);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), -1, "a foreign packet was received");
	len = host_packet(packet, "bob", 20);
	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), (ssize_t)len);
}

static void expect_refused(int option, const void *value, socklen_t len)
{
	cr_assert_eq(setsockopt(bob.fd, SOL_SOCKET, option, value, len), -1, "option %d was set",
		     option);
	cr_assert_eq(errno, EPERM, "option %d: %s", option, strerror(errno));
}

static void try_filter_options(void)
{
	struct sock_filter pass_all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
	struct sock_fprog program = {1, pass_all};
	int off = 0, prog_fd = scope_filter_fd(host.maps);

	expect_refused(SO_DETACH_FILTER, &off, sizeof(off));
	expect_refused(SO_ATTACH_FILTER, &program, sizeof(program));
	expect_refused(SO_ATTACH_BPF, &prog_fd, sizeof(prog_fd));
	expect_refused(SO_LOCK_FILTER, &off, sizeof(off));
}

Test(holder, root_cannot_detach_replace_or_unlock_the_filter)
{
	try_filter_options();
	expect_scoped(bob.fd);
}

/* Runs `act` in a child that has become nobody; its failed assertions fail the test. */
static void as_nobody(void (*act)(void))
{
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(3);
		act();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
}

static void filter_options_refused_or_die(void)
{
	struct sock_filter pass_all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
	struct sock_fprog program = {1, pass_all};
	int off = 0;

	if (setsockopt(bob.fd, SOL_SOCKET, SO_DETACH_FILTER, &off, sizeof(off)) != -1 ||
	    setsockopt(bob.fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != -1 ||
	    setsockopt(bob.fd, SOL_SOCKET, SO_LOCK_FILTER, &off, sizeof(off)) != -1)
		_exit(4);
}

Test(holder, an_unprivileged_holder_cannot_either)
{
	as_nobody(filter_options_refused_or_die);
	expect_scoped(bob.fd);
}

Test(holder, no_bpf_program_can_be_attached_to_an_address_group)
{
	struct sock_filter pass_all[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {1, pass_all};
	int on = 1;

	setsockopt(bob.fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	cr_assert_eq(
		setsockopt(bob.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)),
		-1);
	expect_scoped(bob.fd);
}

Test(holder, connecting_and_disconnecting_keeps_port_address_and_scope)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	socklen_t len;
	union name elsewhere = host_name(ELSEWHERE4, 9, &len);
	struct fan_address address;
	uint16_t port;
	char text[46];

	cr_assert_eq(connect(bob.fd, &elsewhere.any, len), 0);
	cr_assert_eq(connect(bob.fd, &none, sizeof(none)), 0);
	cr_assert_eq(socket_address(bob.fd, &address, &port), 0);
	fan_address_format(text, address.bytes, address.family);
	cr_assert_str_eq(text, RECEIVER4);
	cr_assert_eq(port, PORT);
	cr_assert_eq(bind(bob.fd, &elsewhere.any, len), -1, "it was bound a second time");
	expect_scoped(bob.fd);
}

Test(holder, a_failed_connect_then_autobind_changes_nothing)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	socklen_t len;
	union name nowhere = host_name("203.0.113.9", 9, &len);

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(connect(bob.fd, &nowhere.any, len),
			     -1); /* no route in this namespace */
		cr_assert_eq(connect(bob.fd, &none, sizeof(none)), 0);
		host_send(bob.fd, ELSEWHERE4, 9, "x", 1);
		cr_assert_eq(host_port(bob.fd), PORT);
	}
	expect_scoped(bob.fd);
}

Test(holder, encapsulation_hands_nothing_past_the_filter)
{
	uint8_t packet[2048], got[2048];
	size_t len = host_packet(packet, "alice", 20);
	int settable = 0;

	/* Its handlers run before the filter; they may eat a datagram, never hand it to the holder.
	 */
	for (int encap = 1; encap < 16; encap++) {
		settable += !setsockopt(bob.fd, IPPROTO_UDP, UDP_ENCAP, &encap, sizeof(encap));
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
		cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1, "encapsulation %d", encap);
	}
	cr_log_info("%d encapsulations could be set", settable);
}

Test(holder, an_ipv6_socket_cannot_open_itself_to_ipv4)
{
	struct scoped_socket bob6 = host_scoped(&host, 6, PORT + 1, "bob");
	int off = 0, family = AF_INET, only = 0;
	socklen_t len = sizeof(only);

	cr_assert_eq(getsockopt(bob6.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len), 0);
	cr_assert_eq(only, 1);
	cr_assert_eq(setsockopt(bob6.fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)), -1);
	cr_assert_eq(setsockopt(bob6.fd, IPPROTO_IPV6, IPV6_ADDRFORM, &family, sizeof(family)), -1);
	close(bob6.fd);
}

Test(holder, a_duplicate_keeps_the_scope)
{
	int copy = fcntl(bob.fd, F_DUPFD_CLOEXEC, 100);

	cr_assert_geq(copy, 100);
	close(bob.fd);
	bob.fd = copy;
	try_filter_options();
	expect_scoped(copy);
}

static int pass_fd(int to, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {"x", 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control.bytes)};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(to, &msg, 0) == 1 ? 0 : -errno;
}

static int take_fd(int from)
{
	char byte, bytes[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = bytes,
			     .msg_controllen = sizeof(bytes)};
	int fd = -1;

	if (recvmsg(from, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* The child: in a network namespace of its own, with the passed descriptor. */
static void receive_elsewhere(int from)
{
	uint8_t got[2048], expected[2048];
	ssize_t len;
	int fd, off = 0;

	if (unshare(CLONE_NEWNET))
		_exit(2);
	fd = take_fd(from);
	if (fd < 0 || !setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &off, sizeof(off)))
		_exit(3);
	if (write(from, "r", 1) != 1)
		_exit(4);
	/* Alice's was sent first; only Bob's may come. */
	len = recv(fd, got, sizeof(got), MSG_DONTWAIT);
	for (int i = 0; i < 1000 && len < 0; i++) {
		usleep(1000);
		len = recv(fd, got, sizeof(got), MSG_DONTWAIT);
	}
	if (len != (ssize_t)host_packet(expected, "bob", 20) ||
	    memcmp(got, expected, (size_t)len) != 0)
		_exit(5);
	_exit(0);
}

Test(holder, a_descriptor_passed_to_another_process_and_namespace_keeps_the_scope)
{
	uint8_t packet[2048];
	int pair[2], status;
	char byte;
	pid_t pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		close(bob.fd);
		close(pair[0]);
		receive_elsewhere(pair[1]);
	}
	close(pair[1]);
	cr_assert_eq(pass_fd(pair[0], bob.fd), 0);
	cr_assert_eq(read(pair[0], &byte, 1), 1);
	host_send(sender, RECEIVER4, PORT, packet, host_packet(packet, "alice", 20));
	host_send(sender, RECEIVER4, PORT, packet, host_packet(packet, "bob", 20));
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
	close(pair[0]);
}
