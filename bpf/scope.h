/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * What the BPF programs and user space share: map keys and values. Fixed-width types only; the
 * including file has __u8..__u64 from <linux/types.h> already. control/agent writes the maps.
 */
#ifndef FANWIRE_BPF_SCOPE_H
#define FANWIRE_BPF_SCOPE_H

/* What the filter of one socket must know. */
struct scope {
	__u8 handle[16];
	__u32 user_generation;
	__u8 key_generation;	      /* present one */
	__u8 previous_key_generation; /* the other one that is accepted; equal to the present: none
				       */
	__u8 pad[2];
	__u64 tag_key[2]; /* SipHash key, little-endian words, of the present key generation */
	__u64 previous_tag_key[2];
	__u64 connection; /* id, for the audit */
};

/*
 * Value of map `scopes` (hash): key is the socket's cookie, a __u64. The kernel may give a deleted
 * entry to another cookie while a filter still reads it; the cookie at both ends shows that.
 */
struct scope_entry {
	__u64 cookie;
	struct scope scope;
	__u64 cookie_again;
};

/*
 * Array `scope_slots`: the scopes of `scopes` once more, where no call and no hash is needed to
 * find them. That of a cookie stands at index cookie % SCOPE_SLOT_CNT, or, where another cookie's
 * stands there, in `scopes` alone. User space maps it and writes each entry in place: cookies to 0,
 * the scope, the cookies again, in this order. What `scopes` has not, a slot never has.
 */
#define SCOPE_SLOT_CNT 65536

/* Index of per-CPU array `verdicts`: packets by outcome of scope_filter. */
enum scope_verdict {
	SCOPE_ACCEPTED = 0,
	SCOPE_DROP_NO_SCOPE,	 /* the socket's cookie has no scope (any more) */
	SCOPE_DROP_SUPER_PACKET, /* several datagrams joined by receive offload */
	SCOPE_DROP_SHORT,
	SCOPE_DROP_LENGTH, /* payload_len does not account for every byte */
	SCOPE_DROP_VERSION,
	SCOPE_DROP_TYPE,
	SCOPE_DROP_FOREIGN_USER,
	SCOPE_DROP_USER_GENERATION,
	SCOPE_DROP_KEY_GENERATION,
	SCOPE_DROP_TAG,
	SCOPE_VERDICT_CNT
};

/* Index of per-CPU array `guards`: outcomes of port_guard. */
enum guard_verdict {
	GUARD_BIND_DENIED = 0,
	GUARD_INGRESS_DENIED,
	GUARD_EGRESS_DENIED,
	GUARD_VERDICT_CNT
};

/* Key of `foreign` (LRU hash, bounded): cross-user drops, aggregated for the audit; value __u64
 * count. */
struct foreign_key {
	__u8 victim[16]; /* the packet's user */
	__u8 owner[16];	 /* the socket's user */
	__u8 source[16]; /* address the packet claims; v4-mapped for IPv4 */
};

/* Array `guard_config`, one entry. */
struct guard_config {
	__u16 port_first, port_last; /* host byte order, inclusive */
	__u16 engine_port;	     /* host byte order */
	__u16 pad;
	__u8 engine4[4];  /* zero: no IPv4 */
	__u8 engine6[16]; /* zero: no IPv6 */
};

/* Array `steer_config`, one entry. All zero: everything goes to the kernel. */
struct steer_config {
	__u16 port; /* host byte order */
	__u16 pad;
	__u8 engine4[4];
	__u8 engine6[16];
};

#endif
