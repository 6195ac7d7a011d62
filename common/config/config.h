/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one configuration file, read by every program of ours (libconfig syntax; control/embedded/
 * fanwire.conf is the commented default and states every key). Immutable after loading.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FAN_ADDRESSES_MAX 64
#define FAN_PATH_MAX	  256

struct fan_address {
	uint8_t bytes[16]; /* IPv6, or IPv4 as v4-mapped */
	uint8_t family;	   /* 4 or 6 */
};

struct fan_config {
	/* instance */
	char instance[32];	       /* [a-z0-9-]; names run files, bpffs, DPDK's file prefix */
	char run_dir[FAN_PATH_MAX];    /* sockets, keys' default place, pid files */
	char region_dir[FAN_PATH_MAX]; /* hugetlbfs or tmpfs */
	char bpf_dir[FAN_PATH_MAX];    /* bpffs; fanwired mounts one there where there is none */
	char state_dir[FAN_PATH_MAX];  /* database and keys: outlives a boot */
	char cgroup_dir[FAN_PATH_MAX]; /* cgroup v2 root; "" = found in /proc/mounts */
	char log_level[16];	       /* error, warning, info, debug */

	/* network */
	struct fan_address engine_address[2]; /* IPv4 and/or IPv6 of the dataplane */
	unsigned engine_address_cnt;
	uint16_t engine_port; /* UDP */
	char interface[16];   /* kernel interface of the dataplane's port; "" where it has none */
	char receiver_netns[FAN_PATH_MAX]; /* namespace of the scoped sockets; "" = fanwired's own
					    */
	struct fan_address receiver_address[FAN_ADDRESSES_MAX]; /* pool */
	unsigned receiver_address_cnt;
	uint16_t port_first, port_last; /* reserved range of the scoped sockets, inclusive */
	unsigned payload_limit;		/* bytes of one datagram's payload */
	uint8_t static_mac[6];		/* next hop of a port without a kernel interface */
	bool has_static_mac;

	/* dataplane */
	char port[FAN_PATH_MAX];     /* DPDK device: "net_af_xdp0,iface=fw0,..." or a PCI address */
	char eal_args[FAN_PATH_MAX]; /* further EAL arguments, blank-separated */
	unsigned cores[16];	     /* one worker each */
	unsigned core_cnt;
	int main_core;	      /* of the process's other threads; -1: not pinned */
	unsigned hugepage_mb; /* memory of DPDK; with huge_pages = false: --no-huge -m */
	bool huge_pages;
	unsigned burst;		 /* packets, 8..256 */
	unsigned mbuf_cnt;	 /* packet buffers, all workers */
	unsigned idle_sleep_us;	 /* 0: spin */
	unsigned log_mb;	 /* event log, all workers */
	unsigned log_user_kb;	 /* of it, one user's share; 0: a sixteenth of a worker's */
	unsigned seal_schedules; /* key schedules that a worker keeps, of about 1 KiB */
	unsigned telemetry;	 /* 1: DPDK telemetry socket */
	char dataplane_user[64]; /* whose the dataplane is once it has started; see control_user */
	bool limit_system_calls; /* to those that a running dataplane needs (seccomp) */

	/* limits */
	uint32_t max_users;
	uint32_t max_connections;
	uint32_t max_connections_per_user;
	uint32_t max_threads_per_connection;
	uint32_t max_groups;
	uint32_t max_publishers;
	uint32_t max_sessions; /* rounded up to a power of two */
	uint32_t max_sessions_per_publisher;
	uint64_t publisher_bytes_per_second; /* of copies, all its sessions; 0: no limit */

	/* times */
	unsigned lease_s;
	unsigned linger_s;
	unsigned reattach_s;
	unsigned quarantine_s;
	unsigned max_unattended_s;    /* 0: never */
	unsigned challenge_timeout_s; /* a registration that is not answered by then is dropped */
	unsigned token_ttl_s;	      /* default of `token` */
	unsigned key_overlap_s;	      /* a rotation: how long the keys before it hold on */

	/* scope */
	bool seal;		       /* deliveries are sealed */
	bool port_guard;	       /* attach the guard (false: status shows the wall as off) */
	unsigned receive_buffer_bytes; /* SO_RCVBUFFORCE of a scoped socket */
	struct {
		struct fan_address address;
		uint8_t prefix_len; /* of its family: 0..32 or 0..128; see fan_config_vouches() */
	} vouched[16];		    /* prefixes whose addresses need no challenge */
	unsigned vouched_cnt;

	/* control */
	char control_user[64];		   /* whose fanwired is; "" or unknown: stays who it is */
	char control_socket[FAN_PATH_MAX]; /* "" = run_dir/control.sock */
	char client_socket[FAN_PATH_MAX];  /* "" = run_dir/client.sock */
	char admin_group[64];		   /* group of control.sock; unknown: root only, said so */
	uint16_t metrics_port;		   /* on 127.0.0.1; 0: none */
	unsigned http_body_max;
	char token_audience[64];
};

/*
 * Loads and checks `path`. 0, or -errno with every problem in `why` (4096 bytes), a line each:
 * "FILE:LINE: KEY: what is wrong; what to write instead". An unknown key is a problem.
 */
int fan_config_load(struct fan_config *config, const char *path, char why[4096]);

/* Whether the address lies in a vouched prefix. */
bool fan_config_vouches(const struct fan_config *config, const struct fan_address *address);

/* Parses "192.0.2.1" or "2001:db8::1" into v4-mapped/IPv6 bytes. -EINVAL. */
int fan_address_parse(struct fan_address *address, const char *text);
/* Longest text is 46 bytes with its NUL. */
void fan_address_format(char text[46], const uint8_t bytes[16], uint8_t family);
