// SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only
/*
 * Socket filter of a scoped UDP socket: only datagrams of the socket's own user pass, whole and
 * with a right filter tag. It runs for each datagram before it is queued, and sees the UDP header
 * at offset 0. The verdict is nothing or everything, never a shortened datagram.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "common/plant.h"

#include "scope.h"
#include "scopes.bpf.h"
#include "siphash.bpf.h"

#define UDP_LEN	      8
#define HEADER_LEN    100
#define WIRE_VERSION  1
#define TYPE_DELIVERY 0x10
#define TYPE_LOST     0x13
#define FOREIGN_MAX   1024

#define DROP 0
#define PASS 0xffffffff

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCOPE_VERDICT_CNT);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FOREIGN_MAX);
	__type(key, struct foreign_key);
	__type(value, __u64);
} foreign SEC(".maps");

/* docs/wire-format.md: the delivery header. Read from a copy on the stack, so alignment holds. */
struct header {
	__u8 version;
	__u8 type;
	__u8 flags;
	__u8 key_generation;
	__be16 payload_len;
	__be16 kind;
	__u64 handle[2];
	__u64 position[4]; /* channel, epoch, sequence, time */
	__be32 user_generation;
	__u8 rest[32]; /* session, publisher sequence, sealing tag */
	__u8 filter_tag[8];
} __attribute__((packed, aligned(8)));
_Static_assert(sizeof(struct header) == 104, "header of 100 bytes, rounded up to 8");
_Static_assert(__builtin_offsetof(struct header, filter_tag) == 92, "tag follows what it covers");

/* What one packet is judged by: the scope's user, and the key of the packet's key generation. */
struct scope_read {
	__u64 handle[2];
	__u64 key[2];
	__u32 user_generation;
	__u32 has_key; /* the packet's key generation is one of the two that are accepted */
};

/* Where the packet says that it comes from; zeros where the network header cannot be read. */
static __always_inline void source_address(struct __sk_buff *skb, __u8 source[16])
{
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		bpf_skb_load_bytes_relative(skb, 8, source, 16, BPF_HDR_START_NET);
	} else if (skb->protocol == bpf_htons(ETH_P_IP)) {
		source[10] = 0xff;
		source[11] = 0xff;
		bpf_skb_load_bytes_relative(skb, 12, source + 12, 4, BPF_HDR_START_NET);
	}
}

/* For the audit. Before the tag is looked at: a forgery that names another user matters most. */
static __noinline int note_foreign(struct __sk_buff *skb, const struct header *header,
				   const struct scope_read *scope)
{
	struct foreign_key key = {};
	__u64 one = 1, *cnt;

	if (!header || !scope)
		return 0;
	__builtin_memcpy(key.victim, header->handle, sizeof(key.victim));
	__builtin_memcpy(key.owner, scope->handle, sizeof(key.owner));
	source_address(skb, key.source);
	cnt = bpf_map_lookup_elem(&foreign, &key);
	if (!cnt && !bpf_map_update_elem(&foreign, &key, &one, BPF_NOEXIST))
		return 0;
	cnt = bpf_map_lookup_elem(&foreign, &key);
	if (cnt)
		__sync_fetch_and_add(cnt, 1);
	return 0;
}

/*
 * What of the scope the packet is judged by. Each is read once, between the cookies, so one packet
 * is judged by one scope, and an entry that was written or given to another socket on the way is
 * seen: whoever writes one takes the cookies away first and puts them back last.
 */
static __always_inline int scope_read(const struct scope_entry *entry, __u64 cookie,
				      __u8 key_generation, struct scope_read *read)
{
	const volatile struct scope *scope = &entry->scope;
	const volatile __u64 *key = scope->tag_key;

	if (*(volatile __u64 *)&entry->cookie != cookie)
		return -1;
	read->handle[0] = *(const volatile __u64 *)&scope->handle[0];
	read->handle[1] = *(const volatile __u64 *)&scope->handle[8];
	read->user_generation = scope->user_generation;
	read->has_key = 1;
	if (key_generation != scope->key_generation) {
		read->has_key = key_generation == scope->previous_key_generation;
		key = scope->previous_tag_key;
	}
	read->key[0] = key[0];
	read->key[1] = key[1];
	asm volatile("" ::: "memory");
	return *(volatile __u64 *)&entry->cookie_again == cookie &&
			       *(volatile __u64 *)&entry->cookie == cookie
		       ? 0
		       : -1;
}

/* What the header says, against the length of the datagram and what this filter knows. */
static __always_inline __u32 judge_form(const struct __sk_buff *skb, const struct header *header)
{
	if (header->version != WIRE_VERSION)
		return SCOPE_DROP_VERSION;
	if (header->type < TYPE_DELIVERY || header->type > TYPE_LOST)
		return SCOPE_DROP_TYPE;
	if (UDP_LEN + HEADER_LEN + (__u32)bpf_ntohs(header->payload_len) != skb->len)
		return SCOPE_DROP_LENGTH;
	return SCOPE_ACCEPTED;
}

/* Whether it is this user's, of a generation that is in force, and from somebody with the key. */
static __always_inline __u32 judge_scope(struct __sk_buff *skb, struct header *header,
					 const struct scope_read *scope)
{
	__u64 tag;

	if ((header->handle[0] != scope->handle[0] || header->handle[1] != scope->handle[1]) &&
	    !fan_planted(PLANT_FILTER_PASSES_FOREIGN)) {
		note_foreign(skb, header, scope);
		return SCOPE_DROP_FOREIGN_USER;
	}
	if (bpf_ntohl(header->user_generation) != scope->user_generation &&
	    !fan_planted(PLANT_FILTER_PASSES_OLD_GENERATION))
		return SCOPE_DROP_USER_GENERATION;
	if (!scope->has_key && !fan_planted(PLANT_FILTER_KEEPS_OLD_KEYS))
		return SCOPE_DROP_KEY_GENERATION;
	__builtin_memcpy(&tag, header->filter_tag, sizeof(tag));
	if (siphash_header((__u64 *)header, scope->key[0], scope->key[1]) != tag &&
	    !fan_planted(PLANT_FILTER_PASSES_WRONG_TAG))
		return SCOPE_DROP_TAG;
	return SCOPE_ACCEPTED;
}

static __always_inline __u32 judge(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct scope_entry *entry = slot_of(cookie);
	struct scope_read scope;
	struct header header; /* not set to zero: only what was loaded is read */
	__u32 verdict;

	if (!entry)
		entry = bpf_map_lookup_elem(&scopes, &cookie);
	if (!entry)
		return SCOPE_DROP_NO_SCOPE;
	if (skb->gso_segs > 1 || skb->gso_size) /* injected ones may leave gso_segs at 0 */
		return SCOPE_DROP_SUPER_PACKET;
	if (skb->len < UDP_LEN + HEADER_LEN ||
	    bpf_skb_load_bytes(skb, UDP_LEN, &header, HEADER_LEN))
		return SCOPE_DROP_SHORT;
	verdict = judge_form(skb, &header);
	if (verdict != SCOPE_ACCEPTED)
		return verdict;
	if (scope_read(entry, cookie, header.key_generation, &scope)) {
		entry = bpf_map_lookup_elem(&scopes, &cookie); /* the slot is being written */
		if (!entry || scope_read(entry, cookie, header.key_generation, &scope))
			return SCOPE_DROP_NO_SCOPE;
	}
	return judge_scope(skb, &header, &scope);
}

SEC("socket")
int scope_filter(struct __sk_buff *skb)
{
	__u32 verdict = judge(skb);
	__u64 *cnt = bpf_map_lookup_elem(&verdicts, &verdict);

	if (cnt)
		(*cnt)++;
	return verdict == SCOPE_ACCEPTED ? PASS : DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
