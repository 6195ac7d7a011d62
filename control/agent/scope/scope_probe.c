// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/scope_probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/agent/scope/pins.h"
#include "control/agent/scope/scoped_socket.h"

#define TRIES_MAX 256 /* ports that may be in use by subscribers who outlived a restart */

static const struct need {
	const char *name;
	enum bpf_func_id id;
} needs[] = {
	{"bpf_get_socket_cookie", BPF_FUNC_get_socket_cookie},
	{"bpf_skb_load_bytes", BPF_FUNC_skb_load_bytes},
	{"bpf_skb_load_bytes_relative", BPF_FUNC_skb_load_bytes_relative},
};

/* What the kernel lacks, or NULL where it is something else. */
static const char *lacking(void)
{
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SOCKET_FILTER, NULL) == 0)
		return "programs of type socket filter (CONFIG_BPF_SYSCALL)";
	if (libbpf_probe_bpf_map_type(BPF_MAP_TYPE_LRU_HASH, NULL) == 0)
		return "maps of type LRU hash";
	for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_SOCKET_FILTER, needs[i].id, NULL) == 0)
			return needs[i].name;
	return NULL;
}

void scope_probe_explain(int result, char why[1024])
{
	char complaint[256];
	const char *missing;

	snprintf(complaint, sizeof(complaint), "%s", pin_libbpf_complaint());
	if (result == -EPERM || result == -EACCES) {
		snprintf(why, 1024,
			 "the scope filter cannot be loaded: %s: %s; fanwired needs CAP_BPF and "
			 "CAP_NET_ADMIN: run it as root",
			 strerror(-result), complaint);
		return;
	}
	missing = lacking();
	snprintf(why, 1024,
		 "the scope filter cannot be loaded: %s%s%s%s%s; it needs Linux 5.15 or newer",
		 strerror(-result), complaint[0] ? ": " : "", complaint,
		 missing ? "; this kernel lacks " : "", missing ? missing : "");
}

/* A guard_config map of another instance whose range holds `port`: its range. */
static bool other_guard(const struct fan_config *config, uint16_t port, struct guard_config *found)
{
	struct bpf_map_info info;
	__u32 id = 0, len, zero = 0;
	bool is_other = false;
	int fd, own = pin_get(config->bpf_dir, "guard_config");

	while (!is_other && !bpf_map_get_next_id(id, &id)) {
		fd = bpf_map_get_fd_by_id(id);
		if (fd < 0)
			continue;
		memset(&info, 0, sizeof(info));
		len = sizeof(info);
		is_other = !bpf_obj_get_info_by_fd(fd, &info, &len) &&
			   !strcmp(info.name, "guard_config") &&
			   info.value_size == sizeof(*found) && !pin_same(fd, own) &&
			   !bpf_map_lookup_elem(fd, &zero, found) && port >= found->port_first &&
			   port <= found->port_last;
		close(fd);
	}
	if (own >= 0)
		close(own);
	return is_other;
}

static void explain_denied(const struct fan_config *config, uint16_t port, char why[1024])
{
	struct guard_config other;

	if (other_guard(config, port, &other))
		snprintf(why, 1024,
			 "another instance on this machine guards ports %u-%u; give each instance "
			 "its own (network.port_first, port_last: here %u-%u)",
			 other.port_first, other.port_last, config->port_first, config->port_last);
	else
		snprintf(why, 1024,
			 "a program on the cgroup v2 root refuses sockets on port %u; find it with "
			 "bpftool cgroup tree, or choose other ports (network.port_first, "
			 "port_last)",
			 port);
}

static int probe_address(struct scope_maps *maps, const struct fan_address *address, char why[1024])
{
	const struct fan_config *config = scope_config(maps);
	struct scope scope = {.previous_key_generation = 0};
	struct scoped_socket made;
	char reason[256];
	unsigned tries = 0, port;
	int result = 0;

	/* From the top: subscribers are given ports from the bottom. */
	for (port = config->port_last; port >= config->port_first && tries < TRIES_MAX; port--) {
		result = scoped_socket_open(maps, &scope, address, (uint16_t)port, &made, reason);
		if (result != -EADDRINUSE)
			break;
		tries++;
	}
	if (!result) {
		scope_del(maps, made.cookie);
		close(made.fd);
	}
	if (!result || result == -EADDRINUSE)
		return 0;
	if (result == -EPERM)
		explain_denied(config, (uint16_t)port, why);
	else
		snprintf(why, 1024, "network.receiver_addresses: %s", reason);
	return result;
}

int scope_probe_bind(struct scope_maps *maps, char why[1024])
{
	const struct fan_config *config = scope_config(maps);
	int result = 0;

	for (unsigned i = 0; i < config->receiver_address_cnt && !result; i++)
		result = probe_address(maps, &config->receiver_address[i], why);
	return result;
}
