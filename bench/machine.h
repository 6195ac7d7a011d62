/* SPDX-License-Identifier: BSD-3-Clause */
/* What a figure was measured on. Pure functions over /proc; any thread. */
#pragma once

#include <jansson.h>
#include <stdint.h>

/* CPU model and flags of interest, cores, kernel, DPDK and ipsec-mb, memory, huge pages, load. */
json_t *machine_describe(void);
/* Bytes that can be taken without swapping. */
uint64_t machine_memory_available(void);
/* Bytes of free huge pages of the default size. */
uint64_t machine_huge_pages_free(void);
