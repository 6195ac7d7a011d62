// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * XDP program of an AF_XDP port: UDP to the engine's address and port goes to the dataplane, all
 * else to the kernel, which goes on answering ARP, neighbour discovery and ping. DPDK's net_af_xdp
 * loads it (xdp_prog=) and fills `xsks_map`; the dataplane fills `steer_config` after that.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "scope.h"

#define IPV4_MORE_OR_OFFSET 0x3fff /* any fragment */

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64); /* receive queues */
	__type(key, __u32);
	__type(value, __u32);
} xsks_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_config);
} steer_config SEC(".maps");

/* The UDP header of an IPv4 packet to the engine, or none. */
static __always_inline const struct udphdr *engine_udp4(const struct steer_config *config,
							const void *data, const void *end)
{
	const struct iphdr *ip = data;
	__u32 engine;

	if ((const void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 ||
	    ip->protocol != IPPROTO_UDP || (ip->frag_off & bpf_htons(IPV4_MORE_OR_OFFSET)))
		return 0;
	__builtin_memcpy(&engine, config->engine4, sizeof(engine));
	if (!engine || ip->daddr != engine)
		return 0;
	return data + ip->ihl * 4;
}

static __always_inline const struct udphdr *engine_udp6(const struct steer_config *config,
							const void *data, const void *end)
{
	const struct ipv6hdr *ip = data;
	__u32 engine[4];

	if ((const void *)(ip + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_UDP)
		return 0;
	__builtin_memcpy(engine, config->engine6, sizeof(engine));
	if (!(engine[0] | engine[1] | engine[2] | engine[3]))
		return 0;
	for (int i = 0; i < 4; i++)
		if (ip->daddr.in6_u.u6_addr32[i] != engine[i])
			return 0;
	return (const void *)(ip + 1);
}

SEC("xdp")
int fanwire_steer(struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct steer_config *config;
	const struct udphdr *udp = 0;
	__u32 zero = 0;

	config = bpf_map_lookup_elem(&steer_config, &zero);
	if (!config || (const void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		udp = engine_udp4(config, eth + 1, end);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		udp = engine_udp6(config, eth + 1, end);
	if (!udp || (const void *)(udp + 1) > end || !config->port ||
	    udp->dest != bpf_htons(config->port))
		return XDP_PASS;
	return bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
