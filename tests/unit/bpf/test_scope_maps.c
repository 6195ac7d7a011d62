// SPDX-License-Identifier: BSD-3-Clause
/* Loading, pinning, taking up again after kill -9, and what is said when the host does not fit. */
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT	  24300
#define PORT_LAST 24329
#define PIN_DIR	  HOST_DIR "/bpf/"

static struct host host;

static void setup(void)
{
	host_init(&host, PORT, PORT_LAST);
}

static void teardown(void)
{
	char why[1024];

	host_fini(&host);
	scope_maps_remove(&host.config, why);
}

TestSuite(scope_maps, .init = setup, .fini = teardown, .timeout = 60);

/* Opening fails with `error`, and the sentence holds `phrase`. */
static void expect_refused(int error, const char *phrase)
{
	struct scope_maps *maps = NULL;
	char why[1024] = "";
	int result = scope_maps_open(&maps, &host.config, why);

	cr_assert_eq(result, -error, "%s: %s", strerror(-result), why);
	cr_assert_not_null(strstr(why, phrase), "\"%s\" is not in: %s", phrase, why);
}

static uint32_t pinned_id(const char *name)
{
	union {
		struct bpf_map_info map;
		struct bpf_link_info link;
	} info = {0};
	uint32_t len = sizeof(info);
	char path[128];
	int fd;

	snprintf(path, sizeof(path), PIN_DIR "%s", name);
	fd = bpf_obj_get(path);
	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return strncmp(name, "guard_", 6) || !strcmp(name, "guard_config") ? info.map.id
									   : info.link.id;
}

static bool is_pinned(const char *name)
{
	char path[128];
	struct stat stat_;

	snprintf(path, sizeof(path), PIN_DIR "%s", name);
	return !stat(path, &stat_);
}

static void expect_walls(enum wall_state filter, enum wall_state guard, const char *phrase)
{
	struct scope_walls walls;

	scope_walls_check(host.maps, &walls);
	cr_assert_eq(walls.filter, filter, "%s", walls.filter_why);
	cr_assert_eq(walls.guard, guard, "%s", walls.guard_why);
	cr_assert_not_null(strstr(filter == WALL_ON ? walls.guard_why : walls.filter_why, phrase),
			   "%s%s", walls.filter_why, walls.guard_why);
}

static void send_foreign(void)
{
	uint8_t packet[256];
	int fd = host_udp(4, ENGINE4, 0);

	cr_assert_eq(host_send(fd, RECEIVER4, PORT, packet, host_packet(packet, "alice", 9)), 0);
	close(fd);
}

static void expect_own_only(int fd)
{
	uint8_t packet[256], got[256];
	size_t len = host_packet(packet, "bob", 9);
	int from = host_udp(4, ENGINE4, 0);

	send_foreign();
	cr_assert_eq(host_send(from, RECEIVER4, PORT, packet, len), 0);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), (ssize_t)len);
	cr_assert_arr_eq(got, packet, len);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), -1);
	close(from);
}

Test(scope_maps, everything_is_on_after_opening)
{
	host_open(&host);
	expect_walls(WALL_ON, WALL_ON, "");
	cr_assert_eq(scope_cnt(host.maps), 0, "the probe left a scope behind");
}

Test(scope_maps, without_the_guard_its_wall_is_off)
{
	host.config.port_guard = false;
	host_open(&host);
	expect_walls(WALL_ON, WALL_OFF, "port_guard");
}

/* Opens in a child that is killed with everything in the kernel, and a socket handed to the parent.
 */
static int killed_with_scoped_socket(uint64_t *cookie)
{
	int pair[2], fd = -1, status;
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = {cookie, sizeof(*cookie)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct scoped_socket bob;
	pid_t pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
		host_open(&host);
		bob = host_scoped(&host, 4, PORT, "bob");
		iov.iov_base = &bob.cookie;
		*(struct cmsghdr *)control =
			(struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA((struct cmsghdr *)control), &bob.fd, sizeof(int));
		sendmsg(pair[1], &msg, 0);
		for (;;)
			pause();
	}
	close(pair[1]); /* a child that fails instead of sending ends the wait */
	cr_assert_eq(recvmsg(pair[0], &msg, 0), (ssize_t)sizeof(*cookie));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	close(pair[0]);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status));
	return fd;
}

Test(scope_maps, after_kill_9_all_is_taken_up_again)
{
	static const char *const names[] = {
		"scopes",	"scope_slots", "verdicts",    "foreign",       "guards",
		"guard_config", "guard_bind4", "guard_bind6", "guard_ingress", "guard_egress"};
	enum { NAME_CNT = sizeof(names) / sizeof(names[0]) };
	uint32_t ids[NAME_CNT];
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie), squatter = host_udp(4, NULL, 0);
	struct tally tally;
	struct scope scope;
	socklen_t len;
	union name name = host_name(RECEIVER4, PORT + 1, &len);

	for (int i = 0; i < NAME_CNT; i++)
		ids[i] = pinned_id(names[i]);
	/* Nobody runs: the walls stand, and what they count is not lost. */
	expect_own_only(fd);
	cr_assert_eq(bind(squatter, &name.any, len), -1);
	cr_assert_eq(errno, EPERM);

	host_open(&host);
	for (int i = 0; i < NAME_CNT; i++)
		cr_assert_eq(pinned_id(names[i]), ids[i], "%s is another object", names[i]);
	expect_walls(WALL_ON, WALL_ON, "");
	tally = host_tally(&host);
	cr_assert_eq(tally.verdicts[SCOPE_ACCEPTED], 1);
	cr_assert_eq(tally.verdicts[SCOPE_DROP_FOREIGN_USER], 1);
	cr_assert_eq(tally.guards[GUARD_BIND_DENIED], 1);
	cr_assert_eq(scope_cnt(host.maps), 1);
	cr_assert_eq(scope_get(host.maps, cookie, &scope), 0);
	cr_assert_eq(scope.connection, 7);
	/* The old socket follows changes made by the new process. */
	expect_own_only(fd);
	cr_assert_eq(scope_del(host.maps, cookie), 0);
	send_foreign();
	host_expect_guard(&host, &tally, GUARD_INGRESS_DENIED, 1);
	close(squatter);
	close(fd);
}

Test(scope_maps, two_of_one_instance_cannot_run)
{
	char why[1024];

	host_open(&host);
	expect_refused(EBUSY, "another fanwired of this instance");
	cr_assert_eq(scope_maps_remove(&host.config, why), -EBUSY);
}

Test(scope_maps, a_range_of_another_instance_is_refused)
{
	struct host other = host;

	host_open(&host);
	strcpy(other.config.bpf_dir, HOST_DIR "/bpf-other");
	other.config.port_last = PORT_LAST + 10;
	other.config.port_first = PORT_LAST - 1;
	host.config = other.config;
	other.maps = NULL;
	/* The probe binds from the top, so let the overlap be there. */
	host.config.port_last = PORT_LAST;
	expect_refused(EPERM, "another instance on this machine guards ports 24300-24329");
}

Test(scope_maps, a_port_range_that_the_kernel_may_hand_out_is_refused_with_the_sysctl_to_run)
{
	host_sysctl("/proc/sys/net/ipv4/ip_local_port_range", "24310 40000");
	expect_refused(EINVAL, "sysctl -w net.ipv4.ip_local_reserved_ports=24300-24329");
	host_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports", "100,24300-24328");
	expect_refused(EINVAL,
		       "sysctl -w net.ipv4.ip_local_reserved_ports=100,24300-24328,24300-24329");
	host_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports", "100,24300-24329,30000");
	host_open(&host);
}

Test(scope_maps, the_range_of_the_receivers_namespace_counts)
{
	host_run("ip netns add unit-bpf-receivers");
	host_run("ip -n unit-bpf-receivers link set lo up");
	strcpy(host.config.receiver_netns, "/run/netns/unit-bpf-receivers");
	host_sysctl("/proc/sys/net/ipv4/ip_local_port_range", "24310 40000"); /* ours: no matter */
	host.config.receiver_address_cnt = 1;
	expect_refused(EADDRNOTAVAIL, "give this address to an interface");
	host_run("ip -n unit-bpf-receivers addr add " RECEIVER4 "/32 dev lo");
	host_open(&host);
	host_fini(&host);
	host_run("ip netns exec unit-bpf-receivers sysctl -qw "
		 "net.ipv4.ip_local_port_range='24310 40000'");
	expect_refused(EINVAL, "nsenter --net=/run/netns/unit-bpf-receivers sysctl -w");
	host_run("ip netns del unit-bpf-receivers");
	expect_refused(ENOENT, "ip netns add");
}

Test(scope_maps, sockets_are_made_in_the_receivers_namespace_and_the_caller_stays)
{
	struct stat before, after;
	struct scoped_socket bob;
	uint8_t packet[256], got[256];
	size_t len = host_packet(packet, "bob", 9);
	int outside;

	host_run("ip netns add unit-bpf-receivers");
	host_run("ip -n unit-bpf-receivers link set lo up");
	host_run("ip -n unit-bpf-receivers addr add " RECEIVER4 "/32 dev lo");
	strcpy(host.config.receiver_netns, "/run/netns/unit-bpf-receivers");
	host.config.receiver_address_cnt = 1;
	host_open(&host);
	cr_assert_eq(stat("/proc/self/ns/net", &before), 0);
	bob = host_scoped(&host, 4, PORT, "bob");
	cr_assert_eq(stat("/proc/self/ns/net", &after), 0);
	cr_assert_eq(before.st_ino, after.st_ino);
	outside = host_udp(4, ENGINE4, 0);
	host_send(outside, RECEIVER4, PORT, packet, len); /* the caller's namespace: not there */
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1);
	close(outside);
	close(bob.fd);
}

Test(scope_maps, a_detached_guard_is_a_failed_wall_and_a_restart_mends_it)
{
	int fd;

	host_open(&host);
	fd = bpf_obj_get(PIN_DIR "guard_ingress");
	cr_assert_eq(bpf_link_detach(fd), 0);
	close(fd);
	expect_walls(WALL_ON, WALL_FAILED, "guard_ingress was detached");
	host_fini(&host);
	host_open(&host);
	expect_walls(WALL_ON, WALL_ON, "");
}

static void spoil_guard(struct guard_config config)
{
	int fd = bpf_obj_get(PIN_DIR "guard_config");
	uint32_t zero = 0;

	cr_assert_geq(fd, 0);
	cr_assert_eq(bpf_map_update_elem(fd, &zero, &config, BPF_ANY), 0);
	close(fd);
}

static void expect_guarded(uint16_t port)
{
	int squatter = host_udp(4, NULL, 0);
	socklen_t len;
	union name name = host_name(RECEIVER4, port, &len);

	cr_assert_eq(bind(squatter, &name.any, len), -1);
	cr_assert_eq(errno, EPERM, "%s", strerror(errno));
	close(squatter);
}

Test(scope_maps, a_changed_guard_is_set_right)
{
	host_open(&host);
	spoil_guard((struct guard_config){0});
	expect_walls(WALL_ON, WALL_ON, "");
	expect_guarded(PORT + 1);
	spoil_guard((struct guard_config){.port_first = PORT, .port_last = PORT});
	expect_walls(WALL_ON, WALL_ON, "");
	expect_guarded(PORT + 1);
}

/* While nobody runs, too: no configuration ever had such a range, so no socket stands on it. */
Test(scope_maps, a_spoilt_guard_is_set_right_at_start)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie);

	spoil_guard((struct guard_config){0});
	host_open(&host);
	expect_walls(WALL_ON, WALL_ON, "");
	expect_guarded(PORT + 1);
	expect_own_only(fd);
	close(fd);
}

static void limit_descriptors(rlim_t cnt)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = cnt;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Too few descriptors say nothing of a wall. What can be looked at without any still is. */
Test(scope_maps, without_descriptors_walls_are_as_last_seen)
{
	int fd;

	host_open(&host);
	limit_descriptors(3);
	expect_walls(WALL_ON, WALL_ON, "Too many open files");
	expect_walls(WALL_ON, WALL_ON, "Too many open files");
	limit_descriptors(1024);
	expect_walls(WALL_ON, WALL_ON, "");
	cr_assert(is_pinned("scopes") && is_pinned("guard_bind4"));

	fd = bpf_obj_get(PIN_DIR "guard_ingress");
	cr_assert_geq(fd, 0);
	cr_assert_eq(bpf_link_detach(fd), 0);
	close(fd);
	limit_descriptors(3);
	expect_walls(WALL_ON, WALL_FAILED, "guard_ingress was detached");
	limit_descriptors(1024);
}

/* However few there are, a start takes nothing away that lives. */
Test(scope_maps, a_start_without_descriptors_removes_nothing)
{
	struct scope_maps *maps = NULL;
	uint64_t cookie;
	char why[1024];
	int fd = killed_with_scoped_socket(&cookie), result = -1;
	uint32_t scopes = pinned_id("scopes"), link = pinned_id("guard_ingress");

	for (rlim_t cnt = (rlim_t)fd + 1; result; cnt++) {
		cr_assert_lt(cnt, 200, "%s", why);
		limit_descriptors(cnt);
		result = scope_maps_open(&maps, &host.config, why);
		limit_descriptors(1024);
		cr_assert(!result || !strstr(why, "do not fit"), "with %lu: %s", cnt, why);
		cr_assert_eq(pinned_id("scopes"), scopes, "with %lu: %s", cnt, why);
		cr_assert_eq(pinned_id("guard_ingress"), link, "with %lu: %s", cnt, why);
	}
	cr_assert_eq(scope_cnt(maps), 1);
	scope_maps_close(maps);
	expect_own_only(fd);
	close(fd);
}

Test(scope_maps, removed_pins_are_put_back)
{
	host_open(&host);
	host_run("rm " PIN_DIR "scopes " PIN_DIR "scope_slots " PIN_DIR "scope_filter " PIN_DIR
		 "guard_bind4 " PIN_DIR "guards");
	cr_assert_not(is_pinned("scopes"));
	expect_walls(WALL_ON, WALL_ON, "");
	cr_assert(is_pinned("scopes") && is_pinned("scope_slots") && is_pinned("scope_filter") &&
		  is_pinned("guard_bind4") && is_pinned("guards"));
}

Test(scope_maps, a_wall_fails_where_pins_cannot_be_put_back)
{
	host_open(&host);
	host_run("umount -l " HOST_DIR "/bpf");
	expect_walls(WALL_FAILED, WALL_FAILED, "cannot be");
}

Test(scope_maps, another_layout_is_refused_while_in_use_and_replaced_when_not)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie);

	host.config.max_connections *= 4;
	expect_refused(EPROTO, "limits.max_connections");
	host.config.max_connections /= 8; /* a smaller one is no harm */
	host_open(&host);
	cr_assert_eq(scope_del(host.maps, cookie), 0);
	host_fini(&host);
	host.config.max_connections *= 8;
	host_open(&host);
	expect_walls(WALL_ON, WALL_ON, "");
	close(fd);
}

/* The socket's filter would go on by slots that nobody reaches: its scope could not be ended. */
Test(scope_maps, slots_out_of_reach_are_refused_while_in_use_and_replaced_when_not)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie);

	host_run("rm " PIN_DIR "scope_slots");
	expect_refused(EPROTO, "a pin is missing");
	host_run("rm " PIN_DIR "scopes");
	host_open(&host);
	cr_assert_eq(scope_cnt(host.maps), 0);
	cr_assert_eq(scope_get(host.maps, cookie, &(struct scope){0}), -ENOENT);
	expect_walls(WALL_ON, WALL_ON, "");
	close(fd);
}

Test(scope_maps, another_port_range_is_refused_while_sockets_live)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie);

	host.config.port_first++;
	expect_refused(ERANGE, "the port range is another now: 24300-24329 in the kernel, 24301-");
	host.config.port_first--;
	host_open(&host);
	scope_del(host.maps, cookie);
	host_fini(&host);
	host.config.port_first++;
	host_open(&host);
	expect_walls(WALL_ON, WALL_ON, "");
	close(fd);
}

Test(scope_maps, cgroup_v2_must_be_there)
{
	strcpy(host.config.cgroup_dir, "/nowhere");
	expect_refused(ENOENT, "instance.cgroup_dir");
	host.config.cgroup_dir[0] = 0;
	host_run("umount -l $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts)");
	expect_refused(ENOENT, "mount -t cgroup2");
}

static unsigned visited;

static void drop(void *arg, uint64_t cookie, const struct scope *scope)
{
	cr_assert_eq(scope->connection, cookie * 3);
	visited++;
	cr_assert_eq(scope_del(arg, cookie), 0);
}

Test(scope_maps, every_scope_is_visited_once_even_while_they_are_deleted)
{
	struct scope scope;

	host_open(&host);
	host_scope(&scope, "bob");
	for (uint64_t cookie = 1ull << 40; cookie < (1ull << 40) + 50; cookie++) {
		scope.connection = cookie * 3;
		cr_assert_eq(scope_set(host.maps, cookie, &scope), 0);
		cr_assert_eq(scope_set(host.maps, cookie, &scope), 0); /* again: replaced */
	}
	cr_assert_eq(scope_cnt(host.maps), 50);
	cr_assert_eq(scope_each(host.maps, drop, host.maps), 50);
	cr_assert_eq(visited, 50);
	cr_assert_eq(scope_cnt(host.maps), 0);
	cr_assert_eq(scope_del(host.maps, 1ull << 40), -ENOENT);
	cr_assert_eq(scope_get(host.maps, 1ull << 40, &scope), -ENOENT);
}

Test(scope_maps, a_full_map_and_a_taken_port_leave_nothing_behind)
{
	struct scoped_socket bob, second = {-1, 0};
	struct fan_address address;
	struct scope scope;
	char why[256];

	host.config.max_connections = 1;
	host_open(&host);
	bob = host_scoped(&host, 4, PORT, "bob");
	host_scope(&scope, "carol");
	cr_assert_eq(fan_address_parse(&address, RECEIVER4), 0);
	cr_assert_eq(scoped_socket_open(host.maps, &scope, &address, PORT, &second, why),
		     -EADDRINUSE);
	cr_assert_eq(scope_cnt(host.maps), 1);
	for (uint64_t cookie = 1ull << 40; scope_cnt(host.maps) < 1025; cookie++)
		cr_assert_eq(scope_set(host.maps, cookie, &scope), 0);
	cr_assert_eq(scoped_socket_open(host.maps, &scope, &address, PORT + 1, &second, why),
		     -E2BIG);
	cr_assert_eq(second.fd, -1);
	cr_assert_not_null(strstr(why, "scope"), "%s", why);
	close(bob.fd);
}

Test(scope_maps, a_scoped_socket_is_close_on_exec_and_not_reusable)
{
	struct scoped_socket bob;
	int value;
	socklen_t len = sizeof(value);

	host_open(&host);
	bob = host_scoped(&host, 4, PORT, "bob");
	cr_assert(fcntl(bob.fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(getsockopt(bob.fd, SOL_SOCKET, SO_LOCK_FILTER, &value, &len), 0);
	cr_assert_eq(value, 1);
	cr_assert_eq(getsockopt(bob.fd, SOL_SOCKET, SO_REUSEADDR, &value, &len), 0);
	cr_assert_eq(value, 0);
	cr_assert_eq(getsockopt(bob.fd, SOL_SOCKET, SO_REUSEPORT, &value, &len), 0);
	cr_assert_eq(value, 0);
	cr_assert_eq(getsockopt(bob.fd, SOL_SOCKET, SO_RCVBUF, &value, &len), 0);
	cr_assert_eq(value, 2 << 20, "the kernel doubles what is asked for: %d", value);
	close(bob.fd);
}

Test(scope_maps, removing_leaves_nothing_in_the_kernel)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie), squatter;
	uint8_t packet[256], got[256];
	int from = host_udp(4, ENGINE4, 0);
	char why[1024];

	cr_assert_eq(scope_maps_remove(&host.config, why), 0, "%s", why);
	cr_assert_not(is_pinned("scopes"));
	cr_assert_not(is_pinned("guard_bind4"));
	/* The socket that lives on is deaf, and the ports are anybody's again. */
	host_send(from, RECEIVER4, PORT, packet, host_packet(packet, "bob", 9));
	cr_assert_eq(host_receive(fd, got, sizeof(got)), -1);
	squatter = host_udp(4, RECEIVER4, PORT + 1);
	close(squatter);
	close(from);
	close(fd);
}

Test(scope_maps, sockets_whose_pins_were_removed_are_cut_off_by_a_new_guard)
{
	uint64_t cookie;
	int fd = killed_with_scoped_socket(&cookie);
	uint8_t packet[256], got[256];
	int from = host_udp(4, ENGINE4, 0);
	struct tally before;

	host_run("rm " PIN_DIR "guard* " PIN_DIR "scope*");
	host_open(&host);
	before = host_tally(&host);
	host_send(from, RECEIVER4, PORT, packet, host_packet(packet, "bob", 9));
	host_expect_guard(&host, &before, GUARD_INGRESS_DENIED, 1);
	cr_assert_eq(host_receive(fd, got, sizeof(got)), -1);
	close(from);
	close(fd);
}
