/* SPDX-License-Identifier: BSD-3-Clause */
/* An AF_XDP interface before and after: arguments, stale programs, foreign ones, two at once. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/scope.h"
#include "common/log.h"
#include "dataplane/eal.h"
#include "dataplane/steer_port.h"

#define PORT "net_af_xdp0,iface=dpU0,start_queue=0,queue_count=1"

static struct fan_config config;
static struct steer_port steer = {.lock_fd = -1};
static struct bpf_object *object; /* the attached program's; NULL: none */

/* A network namespace of the test's own, gone with its process. */
static void open_one(void)
{
	cr_assert_eq(unshare(CLONE_NEWNET), 0, "these tests need root");
	cr_assert_eq(system("ip link add dpU0 type veth peer name dpU1 && ip link set dpU0 up"), 0);
	fan_log_init("test", "error");
	setenv("FANWIRE_STEER_OBJECT", STEER_OBJECT, 1);
	snprintf(config.port, sizeof(config.port), "%s", PORT);
	config.engine_port = 7400;
	config.engine_address_cnt = 2;
	config.engine_address[0] =
		(struct fan_address){.bytes = {[10] = 0xff, 0xff, 198, 18, 0, 1}, .family = 4};
	config.engine_address[1] = (struct fan_address){.bytes = {0xfd, [15] = 1}, .family = 6};
}

static void close_one(void)
{
	steer_port_close(&steer);
	bpf_object__close(object);
}

TestSuite(steer_port, .init = open_one, .fini = close_one);

static __u32 attached(void)
{
	__u32 id = 0;

	cr_assert_eq(bpf_xdp_query_id((int)if_nametoindex("dpU0"), 0, &id), 0);
	return id;
}

/* Loads the steer program and attaches it, as DPDK does. */
static void steer_attach(void)
{
	object = bpf_object__open_file(STEER_OBJECT, NULL);
	cr_assert_not_null(object);
	cr_assert_eq(bpf_object__load(object), 0);
	cr_assert_eq(bpf_xdp_attach((int)if_nametoindex("dpU0"),
				    bpf_program__fd(bpf_object__next_program(object, NULL)), 0,
				    NULL),
		     0);
}

static void foreign_attach(void)
{
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "somebody_else", "GPL", pass, 2, NULL);

	cr_assert_geq(fd, 0);
	cr_assert_eq(bpf_xdp_attach((int)if_nametoindex("dpU0"), fd, 0, NULL), 0);
}

Test(steer_port, completes_the_arguments)
{
	cr_assert_eq(steer_port_open(&steer, &config), 0);
	cr_expect_str_eq(steer.vdev, PORT ",xdp_prog=" STEER_OBJECT ",busy_budget=0");
	steer_port_close(&steer);
	snprintf(config.port, sizeof(config.port), "%s", PORT ",xdp_prog=/mine.o,busy_budget=64");
	cr_assert_eq(steer_port_open(&steer, &config), 0);
	cr_expect_str_eq(steer.vdev, config.port);
}

Test(steer_port, leaves_other_ports_alone)
{
	snprintf(config.port, sizeof(config.port), "net_null0,no-rx=1");
	cr_assert_eq(steer_port_open(&steer, &config), 0);
	cr_expect_str_eq(steer.vdev, config.port);
	cr_expect_eq(steer_port_configure(&steer, &config), 0);
}

Test(steer_port, detaches_what_a_killed_dataplane_left)
{
	steer_attach();
	cr_assert_neq(attached(), 0);
	cr_expect_eq(steer_port_open(&steer, &config), 0);
	cr_expect_eq(attached(), 0);
}

Test(steer_port, touches_no_program_of_somebody_else)
{
	__u32 id;

	foreign_attach();
	id = attached();
	cr_expect_eq(steer_port_open(&steer, &config), -EBUSY);
	cr_expect_eq(attached(), id);
	cr_expect_eq(steer_port_configure(&steer, &config), -ENOENT, "it has no map of ours");
}

Test(steer_port, takes_an_interface_once)
{
	struct steer_port other;

	cr_expect_eq(steer_port_open(&steer, &config), 0);
	steer_attach();
	cr_expect_eq(steer_port_open(&other, &config), -EADDRINUSE);
	cr_expect_neq(attached(), 0, "a live one's program stays");
	steer_port_close(&other);
	steer_port_close(&steer);
	cr_expect_eq(steer_port_open(&other, &config), 0);
	steer_port_close(&other);
	cr_expect_neq(access(other.lock_path, F_OK), 0, "nothing is left behind");
}

/* Nor does anybody but root keep a dataplane from its interface. */
Test(steer_port, is_not_kept_out_by_a_name_that_anybody_can_take)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0fanwire-steer-dpU0"};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&name,
			  offsetof(struct sockaddr_un, sun_path) + sizeof("fanwire-steer-dpU0")),
		     0);
	cr_expect_eq(steer_port_open(&steer, &config), 0);
	close(fd);
}

/* The kernel takes its lock back; the file stays, and is in nobody's way. */
Test(steer_port, takes_over_from_a_killed_one)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(steer_port_open(&steer, &config) ? 1 : 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	cr_expect_eq(steer_port_open(&steer, &config), 0);
	cr_expect_eq(access(steer.lock_path, F_OK), 0);
}

Test(steer_port, names_what_is_missing)
{
	snprintf(config.port, sizeof(config.port), "net_af_xdp0,iface=nowhere");
	cr_expect_eq(steer_port_open(&steer, &config), -ENODEV);
	snprintf(config.port, sizeof(config.port), "net_af_xdp0");
	cr_expect_eq(steer_port_open(&steer, &config), -EINVAL);
	setenv("FANWIRE_STEER_OBJECT", "/nowhere.o", 1);
	snprintf(config.port, sizeof(config.port), "%s", PORT);
	cr_expect_eq(steer_port_open(&steer, &config), -ENOENT);
}

Test(steer_port, tells_the_program_what_to_take)
{
	struct steer_config value;
	__u32 zero = 0;

	cr_assert_eq(steer_port_open(&steer, &config), 0);
	cr_expect_neq(steer_port_configure(&steer, &config), 0, "nothing is attached yet");
	steer_attach();
	cr_assert_eq(steer_port_configure(&steer, &config), 0);
	cr_assert_eq(bpf_map_lookup_elem(bpf_object__find_map_fd_by_name(object, "steer_config"),
					 &zero, &value),
		     0);
	cr_expect_eq(value.port, 7400);
	cr_expect_eq(memcmp(value.engine4, config.engine_address[0].bytes + 12, 4), 0);
	cr_expect_eq(memcmp(value.engine6, config.engine_address[1].bytes, 16), 0);
}

Test(eal, tells_a_pci_address_from_a_device)
{
	cr_expect(eal_port_is_pci("0000:03:00.0"));
	cr_expect(eal_port_is_pci("03:00.1"));
	cr_expect(eal_port_is_pci("0000:03:00.0,option=1"));
	cr_expect_not(eal_port_is_pci("net_null0,no-rx=1"));
	cr_expect_not(eal_port_is_pci("net_af_xdp0,iface=03:00.0"));
	cr_expect_not(eal_port_is_pci("03:00.0x"));
}
