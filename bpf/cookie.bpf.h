/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Cookie of the packet's socket. Where the kernel lets a program look at its own structures (Linux
 * 6.2), two loads; else, and for a socket that was never asked for its cookie, the helper, which is
 * two calls deep.
 */
#ifndef FANWIRE_BPF_COOKIE_H
#define FANWIRE_BPF_COOKIE_H

#include <stdbool.h>

/* User space tries it, and loads without where the kernel refuses. */
const volatile bool cookie_direct = false;

/* Of the kernel's structures what is read here; libbpf puts in where it stands. */
struct cookie___kernel {
	__s64 counter;
} __attribute__((preserve_access_index));
struct sock_common___kernel {
	struct cookie___kernel skc_cookie;
} __attribute__((preserve_access_index));
struct sock___kernel {
	struct sock_common___kernel __sk_common;
} __attribute__((preserve_access_index));
struct sk_buff___kernel {
	struct sock___kernel *sk;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

static __always_inline __u64 cookie_of(struct __sk_buff *skb)
{
	struct sock___kernel *sk;
	__u64 cookie = 0;

	if (cookie_direct) {
		sk = ((struct sk_buff___kernel *)bpf_cast_to_kern_ctx(skb))->sk;
		if (sk)
			cookie = (__u64)sk->__sk_common.skc_cookie.counter;
	}
	return cookie ? cookie : bpf_get_socket_cookie(skb);
}

#endif
