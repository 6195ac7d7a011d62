// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * The port guard, linked to the root cgroup, so in force for every socket of every user in every
 * network namespace: UDP on a port of the range is received by scoped sockets only, and sent by
 * them to the engine only. A socket that lost its scope keeps its port, so it is judged by the
 * port.
 *
 * Bind hooks do not see a port that the kernel picked (bind to port 0, autobind): there the ingress
 * and egress hooks hold.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "scope.h"
#include "scopes.bpf.h"

#define ALLOW 1
#define DENY  0

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GUARD_VERDICT_CNT);
	__type(key, __u32);
	__type(value, __u64);
} guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard_config);
} guard_config SEC(".maps");

static __always_inline int deny(__u32 reason)
{
	__u64 *cnt = bpf_map_lookup_elem(&guards, &reason);

	if (cnt)
		(*cnt)++;
	return DENY;
}

static __always_inline const struct guard_config *config_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&guard_config, &zero);
}

static __always_inline int in_range(const struct guard_config *config, __u32 port)
{
	return port >= config->port_first && port <= config->port_last;
}

static __always_inline int is_scoped(__u64 cookie)
{
	return slot_of(cookie) || bpf_map_lookup_elem(&scopes, &cookie);
}

static __always_inline int guard_bind(struct bpf_sock_addr *ctx)
{
	const struct guard_config *config = config_get();

	if (!config || ctx->protocol != IPPROTO_UDP)
		return ALLOW;
	if (!in_range(config, bpf_ntohs(ctx->user_port)))
		return ALLOW;
	return is_scoped(bpf_get_socket_cookie(ctx)) ? ALLOW : deny(GUARD_BIND_DENIED);
}

SEC("cgroup/bind4")
int guard_bind4(struct bpf_sock_addr *ctx)
{
	return guard_bind(ctx);
}

SEC("cgroup/bind6")
int guard_bind6(struct bpf_sock_addr *ctx)
{
	return guard_bind(ctx);
}

/* Whether the packet's socket, which need not be UDP, has a port of the range. */
static __always_inline int has_port(struct __sk_buff *skb, const struct guard_config *config)
{
	struct bpf_sock *sk = skb->sk;

	return sk && in_range(config, sk->src_port);
}

static __always_inline int is_udp(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->protocol == IPPROTO_UDP;
}

/* The port first, which costs two loads: it lets all but our own packets go. */
SEC("cgroup_skb/ingress")
int guard_ingress(struct __sk_buff *skb)
{
	const struct guard_config *config = config_get();

	if (!config || !has_port(skb, config))
		return ALLOW;
	if (is_scoped(bpf_get_socket_cookie(skb)) || !is_udp(skb))
		return ALLOW;
	return deny(GUARD_INGRESS_DENIED);
}

static __always_inline int words_equal(const __u32 *a, const __u32 *b, int cnt)
{
	__u32 diff = 0, any = 0;

	for (int i = 0; i < cnt; i++) {
		diff |= a[i] ^ b[i];
		any |= b[i];
	}
	return !diff && any; /* an engine address of zeros is none */
}

/* IPv4 without options: a source route would show the engine and go elsewhere. */
static __always_inline int to_engine4(struct __sk_buff *skb, const struct guard_config *config)
{
	__u32 words[6], engine;

	if (bpf_skb_load_bytes(skb, 0, words, sizeof(words)))
		return 0;
	if ((bpf_ntohl(words[0]) >> 24) != 0x45 || (bpf_ntohl(words[1]) & 0x1fff) ||
	    ((bpf_ntohl(words[2]) >> 16) & 0xff) != IPPROTO_UDP)
		return 0;
	__builtin_memcpy(&engine, config->engine4, sizeof(engine));
	return words_equal(&words[4], &engine, 1) &&
	       (bpf_ntohl(words[5]) & 0xffff) == config->engine_port;
}

/* IPv6 without extension headers: a routing header would show the engine and go elsewhere. */
static __always_inline int to_engine6(struct __sk_buff *skb, const struct guard_config *config)
{
	__u32 words[11], engine[4];

	if (bpf_skb_load_bytes(skb, 0, words, sizeof(words)))
		return 0;
	if ((bpf_ntohl(words[0]) >> 28) != 6 || ((bpf_ntohl(words[1]) >> 8) & 0xff) != IPPROTO_UDP)
		return 0;
	__builtin_memcpy(engine, config->engine6, sizeof(engine));
	return words_equal(&words[6], engine, 4) &&
	       (bpf_ntohl(words[10]) & 0xffff) == config->engine_port;
}

SEC("cgroup_skb/egress")
int guard_egress(struct __sk_buff *skb)
{
	const struct guard_config *config = config_get();

	if (!config || !has_port(skb, config) || !is_udp(skb))
		return ALLOW;
	if (is_scoped(bpf_get_socket_cookie(skb))) {
		if (skb->protocol == bpf_htons(ETH_P_IP) && to_engine4(skb, config))
			return ALLOW;
		if (skb->protocol == bpf_htons(ETH_P_IPV6) && to_engine6(skb, config))
			return ALLOW;
	}
	return deny(GUARD_EGRESS_DENIED);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
