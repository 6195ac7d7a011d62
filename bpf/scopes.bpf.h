/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/* The map that scope_filter and port_guard share; user space makes both use one. */
#ifndef FANWIRE_BPF_SCOPES_H
#define FANWIRE_BPF_SCOPES_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* user space sets it from max_connections */
	__type(key, __u64);
	__type(value, struct scope_entry);
} scopes SEC(".maps");

#endif
