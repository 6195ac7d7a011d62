/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/config/keys.h"

#include <string.h>

#include "common/config/config.h"

#define AT(field)  offsetof(struct fan_config, field)
#define LEN(field) sizeof(((struct fan_config *)0)->field)

#define NUMBER(group, key, field, low, high, standard, help)                                    \
	{                                                                                       \
		group, key, CONFIG_INT, AT(field), LEN(field), 0, low, high, standard, "", help \
	}
#define FLAG(group, key, field, standard, help)                                             \
	{                                                                                   \
		group, key, CONFIG_BOOL, AT(field), LEN(field), 0, 0, 1, standard, "", help \
	}
#define TEXT(group, key, kind, field, least, standard, help)                            \
	{                                                                               \
		group, key, kind, AT(field), LEN(field), 0, least, 0, 0, standard, help \
	}
#define LIST(group, key, kind, field, cnt, low, high, help)                              \
	{                                                                                \
		group, key, kind, AT(field), LEN(field), AT(cnt), low, high, 0, "", help \
	}

#define MILLION 1000000

/* clang-format off: a table reads in rows */
const struct config_key config_keys[] = {
	TEXT("instance", "name", CONFIG_STRING, instance, 1, "fanwire",
	     "letters a-z, digits and '-', at most 31"),
	TEXT("instance", "run_dir", CONFIG_PATH, run_dir, 1, "/run/fanwire",
	     "directory of sockets"),
	TEXT("instance", "region_dir", CONFIG_PATH, region_dir, 1, "/run/fanwire/regions",
	     "directory on hugetlbfs or tmpfs"),
	TEXT("instance", "bpf_dir", CONFIG_PATH, bpf_dir, 1, "/run/fanwire/bpf", "a bpffs"),
	TEXT("instance", "state_dir", CONFIG_PATH, state_dir, 1, "/var/lib/fanwire",
	     "directory of database and keys"),
	TEXT("instance", "cgroup_dir", CONFIG_PATH, cgroup_dir, 0, "", "mount of cgroup v2"),
	TEXT("instance", "log_level", CONFIG_STRING, log_level, 1, "info",
	     "error, warning, info or debug"),

	LIST("network", "engine_addresses", CONFIG_ADDRESSES, engine_address, engine_address_cnt, 1,
	     2, "the dataplane's own, one IPv4 and/or one IPv6"),
	NUMBER("network", "engine_port", engine_port, 1, 65535, 7400, "UDP port of the dataplane"),
	TEXT("network", "interface", CONFIG_STRING, interface, 0, "", "kernel interface, or empty"),
	TEXT("network", "receiver_netns", CONFIG_PATH, receiver_netns, 0, "",
	     "namespace of the scoped sockets, or empty"),
	LIST("network", "receiver_addresses", CONFIG_ADDRESSES, receiver_address,
	     receiver_address_cnt, 1, FAN_ADDRESSES_MAX, "pool of the scoped sockets"),
	NUMBER("network", "port_first", port_first, 1024, 65535, 20000, "first reserved UDP port"),
	NUMBER("network", "port_last", port_last, 1024, 65535, 23999, "last reserved UDP port"),
	NUMBER("network", "payload_limit", payload_limit, 64, 8832, 1132,
	       "bytes of one datagram's payload"),
	TEXT("network", "static_mac", CONFIG_MAC, static_mac, 0, "",
	     "six bytes such as \"02:00:00:00:00:01\", or empty"),

	TEXT("dataplane", "port", CONFIG_STRING, port, 1, "", "a DPDK device or a PCI address"),
	TEXT("dataplane", "eal_args", CONFIG_STRING, eal_args, 0, "", "further EAL arguments"),
	LIST("dataplane", "cores", CONFIG_CORES, cores, core_cnt, 1, 16, "one worker each"),
	NUMBER("dataplane", "main_core", main_core, -1, 127, 0, "core of housekeeping; -1: any"),
	FLAG("dataplane", "huge_pages", huge_pages, 1, "whether DPDK uses huge pages"),
	NUMBER("dataplane", "hugepage_mb", hugepage_mb, 16, 1048576, 128, "MiB of DPDK's memory"),
	NUMBER("dataplane", "burst", burst, 8, 256, 64, "packets a burst"),
	NUMBER("dataplane", "mbuf_cnt", mbuf_cnt, 512, 16 * MILLION, 16384,
	       "packet buffers, received and sent"),
	NUMBER("dataplane", "idle_sleep_us", idle_sleep_us, 0, MILLION, 50,
	       "microseconds; 0: spin"),
	NUMBER("dataplane", "log_mb", log_mb, 1, 131072, 64, "MiB of the event log, all workers"),
	NUMBER("dataplane", "log_user_kb", log_user_kb, 0, 1073741824, 0,
	       "KiB of a worker's log that one user's events may take; 0: a sixteenth of it"),
	NUMBER("dataplane", "seal_schedules", seal_schedules, 256, 16 * MILLION, 16384,
	       "key schedules that a worker keeps, about 1 KiB each"),
	FLAG("dataplane", "telemetry", telemetry, 1, "DPDK's telemetry socket"),
	TEXT("dataplane", "user", CONFIG_STRING, dataplane_user, 0, "fanwire-dp",
	     "system user of the dataplane; empty: who starts it"),
	FLAG("dataplane", "limit_system_calls", limit_system_calls, 1,
	     "whether a running dataplane may make only the system calls that it needs"),

	NUMBER("limits", "max_users", max_users, 1, 16 * MILLION, 65536, "users with a connection"),
	NUMBER("limits", "max_connections", max_connections, 1, 16 * MILLION, 65536, "connections"),
	NUMBER("limits", "max_connections_per_user", max_connections_per_user, 1, 65536, 64,
	       "connections of one user"),
	NUMBER("limits", "max_threads_per_connection", max_threads_per_connection, 0, 64, 16,
	       "threads that a connection may join"),
	NUMBER("limits", "max_groups", max_groups, 1, 64 * MILLION, 131072,
	       "(user, channel) pairs, at least max_users"),
	NUMBER("limits", "max_publishers", max_publishers, 1, MILLION, 1024, "stored publishers"),
	NUMBER("limits", "max_sessions", max_sessions, 1, 16384, 256, "open publisher sessions"),
	NUMBER("limits", "max_sessions_per_publisher", max_sessions_per_publisher, 1, 16384, 32,
	       "open sessions of one credential, one grant, or all of a user's one-user grants"),
	NUMBER("limits", "publisher_bytes_per_second", publisher_bytes_per_second, 0,
	       100000 * (int64_t)MILLION, 1250 * MILLION,
	       "bytes a second of copies that one publisher may cause; 0: no limit"),

	NUMBER("times", "lease", lease_s, 1, 86400, 60, "seconds"),
	NUMBER("times", "linger", linger_s, 0, 86400, 120, "seconds"),
	NUMBER("times", "reattach", reattach_s, 1, 3600, 10, "seconds"),
	NUMBER("times", "quarantine", quarantine_s, 0, 3600, 10, "seconds"),
	NUMBER("times", "max_unattended", max_unattended_s, 0, 31536000, 3600,
	       "seconds; 0: for ever"),
	NUMBER("times", "challenge_timeout", challenge_timeout_s, 1, 300, 5, "seconds"),
	NUMBER("times", "token_ttl", token_ttl_s, 1, 31536000, 3600, "seconds"),
	NUMBER("times", "key_overlap", key_overlap_s, 1, 86400, 60,
	       "seconds that events sealed before a rotation of keys can still be had"),

	FLAG("scope", "seal", seal, 1, "whether deliveries are sealed"),
	FLAG("scope", "port_guard", port_guard, 1, "whether the guard is attached"),
	NUMBER("scope", "receive_buffer", receive_buffer_bytes, 4096, 1 << 30, 4194304, "bytes"),
	LIST("scope", "vouched", CONFIG_PREFIXES, vouched, vouched_cnt, 0, 16,
	     "prefixes whose addresses need no challenge"),

	TEXT("control", "user", CONFIG_STRING, control_user, 0, "fanwire",
	     "system user of fanwired; empty: who starts it"),
	TEXT("control", "control_socket", CONFIG_PATH, control_socket, 0, "",
	     "path; empty: run_dir/control.sock"),
	TEXT("control", "client_socket", CONFIG_PATH, client_socket, 0, "",
	     "path; empty: run_dir/client.sock"),
	TEXT("control", "admin_group", CONFIG_STRING, admin_group, 0, "fanwire-admin",
	     "group of control.sock"),
	NUMBER("control", "metrics_port", metrics_port, 0, 65535, 9617, "TCP port; 0: none"),
	NUMBER("control", "http_body_max", http_body_max, 1024, 16777216, 65536, "bytes"),
	TEXT("control", "token_audience", CONFIG_STRING, token_audience, 1, "fanwire",
	     "audience that tokens must name"),
};
/* clang-format on */
const unsigned config_key_cnt = sizeof(config_keys) / sizeof(config_keys[0]);

int config_key_find(const char *group, const char *name)
{
	for (unsigned i = 0; i < config_key_cnt; i++) {
		if (strcmp(config_keys[i].group, group) == 0 &&
		    strcmp(config_keys[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

int config_group_exists(const char *group)
{
	for (unsigned i = 0; i < config_key_cnt; i++) {
		if (strcmp(config_keys[i].group, group) == 0)
			return 1;
	}
	return 0;
}
