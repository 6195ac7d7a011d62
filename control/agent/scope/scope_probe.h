/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What scope_maps_open() asks of the host before it says that the walls stand: what the kernel
 * lacks, and whether a scoped socket can be made on each receiver address.
 */
#pragma once

struct scope_maps;

/* Names what this kernel lacks for the scope filter, after loading it failed with `result`. */
void scope_probe_explain(int result, char why[1024]);

/*
 * Makes and drops a scoped socket on each receiver address. Finds out whether the address is there
 * and whether another instance's guard covers our ports.
 */
int scope_probe_bind(struct scope_maps *maps, char why[1024]);
