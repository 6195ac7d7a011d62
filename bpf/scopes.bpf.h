/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* The maps that scope_filter and port_guard share; user space makes both use the same ones. */
#ifndef FANWIRE_BPF_SCOPES_H
#define FANWIRE_BPF_SCOPES_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* user space sets it from max_connections */
	__type(key, __u64);
	__type(value, struct scope_entry);
} scopes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCOPE_SLOT_CNT);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct scope_entry);
} scope_slots SEC(".maps");

/* The slot of this cookie where it holds the cookie's scope, else NULL: see the hash. */
static __always_inline struct scope_entry *slot_of(__u64 cookie)
{
	__u32 idx = (__u32)cookie & (SCOPE_SLOT_CNT - 1);
	struct scope_entry *slot = bpf_map_lookup_elem(&scope_slots, &idx);

	if (!slot || !cookie) /* an empty slot's cookie is 0, and so is that of no socket */
		return 0;
	return *(volatile __u64 *)&slot->cookie == cookie ? slot : 0;
}

#endif
