// SPDX-License-Identifier: BSD-3-Clause
/* What steer takes for the dataplane, by BPF_PROG_TEST_RUN with an AF_XDP socket in its map. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/types.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/scope.h"
#include "steer.skel.h"

#define PORT	7400
#define ENGINE4 "198.18.0.1"
#define ENGINE6 "fd00:f1::1"

static struct steer_bpf *steer;
static int xsk = -1;

static void setup(void)
{
	struct steer_config config = {.port = PORT};
	uint32_t zero = 0;

	steer = steer_bpf__open_and_load();
	cr_assert_not_null(steer);
	inet_pton(AF_INET, ENGINE4, config.engine4);
	inet_pton(AF_INET6, ENGINE6, config.engine6);
	cr_assert_eq(bpf_map_update_elem(bpf_map__fd(steer->maps.steer_config), &zero, &config, 0),
		     0);
	xsk = socket(AF_XDP, SOCK_RAW, 0);
	cr_assert_geq(xsk, 0);
	cr_assert_eq(bpf_map_update_elem(bpf_map__fd(steer->maps.xsks_map), &zero, &xsk, 0), 0);
}

static void teardown(void)
{
	close(xsk);
	steer_bpf__destroy(steer);
}

TestSuite(steer, .init = setup, .fini = teardown, .timeout = 30);

struct frame {
	struct ethhdr eth;
	union {
		struct {
			struct iphdr ip;
			struct udphdr udp;
			uint8_t payload[64];
		} __attribute__((packed)) v4;
		struct {
			struct ip6_hdr ip;
			struct udphdr udp;
			uint8_t payload[64];
		} __attribute__((packed)) v6;
	};
} __attribute__((packed));

static void frame4(struct frame *frame, const char *to, uint16_t port)
{
	memset(frame, 0, sizeof(*frame));
	frame->eth.h_proto = htons(ETH_P_IP);
	frame->v4.ip.version = 4;
	frame->v4.ip.ihl = 5;
	frame->v4.ip.protocol = IPPROTO_UDP;
	frame->v4.ip.frag_off = htons(IP_DF);
	inet_pton(AF_INET, to, &frame->v4.ip.daddr);
	frame->v4.udp.dest = htons(port);
}

static void frame6(struct frame *frame, const char *to, uint16_t port)
{
	memset(frame, 0, sizeof(*frame));
	frame->eth.h_proto = htons(ETH_P_IPV6);
	frame->v6.ip.ip6_vfc = 6 << 4;
	frame->v6.ip.ip6_nxt = IPPROTO_UDP;
	inet_pton(AF_INET6, to, &frame->v6.ip.ip6_dst);
	frame->v6.udp.dest = htons(port);
}

static void expect(const struct frame *frame, size_t len, uint32_t action)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len);

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(steer->progs.fanwire_steer), &opts), 0);
	cr_assert_eq(opts.retval, action, "action %u", opts.retval);
}

Test(steer, udp_to_the_engine_goes_to_the_dataplane)
{
	struct frame frame;

	frame4(&frame, ENGINE4, PORT);
	expect(&frame, sizeof(frame), XDP_REDIRECT);
	frame6(&frame, ENGINE6, PORT);
	expect(&frame, sizeof(frame), XDP_REDIRECT);
}

Test(steer, a_header_with_options_is_read_by_its_length)
{
	struct frame frame;

	frame4(&frame, ENGINE4, 9);
	frame.v4.ip.ihl = 7;
	frame.v4.payload[2] = PORT >> 8; /* UDP starts 8 bytes later, where the payload was */
	frame.v4.payload[3] = PORT & 0xff;
	expect(&frame, sizeof(frame), XDP_REDIRECT);
	frame.v4.payload[3]++;
	expect(&frame, sizeof(frame), XDP_PASS);
}

Test(steer, everything_else_goes_to_the_kernel)
{
	struct frame frame;

	frame4(&frame, ENGINE4, PORT + 1);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame4(&frame, "198.18.0.2", PORT);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame6(&frame, ENGINE6, PORT - 1);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame6(&frame, "fd00:f1::2", PORT);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame4(&frame, ENGINE4, PORT);
	frame.v4.ip.protocol = IPPROTO_TCP;
	expect(&frame, sizeof(frame), XDP_PASS);
	frame6(&frame, ENGINE6, PORT);
	frame.v6.ip.ip6_nxt = IPPROTO_ICMPV6;
	expect(&frame, sizeof(frame), XDP_PASS);
	frame4(&frame, ENGINE4, PORT);
	frame.eth.h_proto = htons(ETH_P_ARP);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame.eth.h_proto = htons(ETH_P_IPV6); /* a version that is not the frame's */
	expect(&frame, sizeof(frame), XDP_PASS);
}

Test(steer, fragments_and_short_frames_go_to_the_kernel)
{
	struct frame frame;

	frame4(&frame, ENGINE4, PORT);
	frame.v4.ip.frag_off = htons(IP_MF);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame.v4.ip.frag_off = htons(100);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame4(&frame, ENGINE4, PORT);
	for (size_t len = ETH_HLEN; len < ETH_HLEN + 28; len++)
		expect(&frame, len, XDP_PASS);
	expect(&frame, ETH_HLEN + 28, XDP_REDIRECT);
	frame6(&frame, ENGINE6, PORT);
	for (size_t len = ETH_HLEN; len < ETH_HLEN + 48; len++)
		expect(&frame, len, XDP_PASS);
	expect(&frame, ETH_HLEN + 48, XDP_REDIRECT);
}

Test(steer, nothing_is_taken_before_it_is_configured_nor_without_a_socket)
{
	struct steer_config none = {0};
	uint32_t zero = 0;
	struct frame frame;

	bpf_map_delete_elem(bpf_map__fd(steer->maps.xsks_map), &zero);
	frame4(&frame, ENGINE4, PORT);
	expect(&frame, sizeof(frame), XDP_PASS);
	bpf_map_update_elem(bpf_map__fd(steer->maps.xsks_map), &zero, &xsk, 0);
	expect(&frame, sizeof(frame), XDP_REDIRECT);
	bpf_map_update_elem(bpf_map__fd(steer->maps.steer_config), &zero, &none, 0);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame4(&frame, "0.0.0.0", 0);
	expect(&frame, sizeof(frame), XDP_PASS);
	frame6(&frame, "::", 0);
	expect(&frame, sizeof(frame), XDP_PASS);
}
