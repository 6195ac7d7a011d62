/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an AF_XDP port needs beyond DPDK: our XDP program instead of DPDK's, which would take ARP
 * too; its configuration once it is attached; and a clean interface to start on, since an XDP
 * program outlives the process that was killed. Main thread only; logs what it does.
 */
#pragma once

#include "common/config/config.h"

struct steer_port {
	char interface[16];	     /* "" where the port is not AF_XDP */
	char vdev[2 * FAN_PATH_MAX]; /* the port's arguments, completed */
	unsigned ifindex;
	char lock_path[64];
	int lock_fd; /* says that a live process steers this interface; -1: none */
};

/* Before EAL starts: completes the arguments, takes the interface, detaches what a dead predecessor
 * left. 0 or -errno. */
int steer_port_open(struct steer_port *steer, const struct fan_config *config);
/* After the port started: tells the program what to take. 0 or -errno. */
int steer_port_configure(const struct steer_port *steer, const struct fan_config *config);
void steer_port_close(struct steer_port *steer);
