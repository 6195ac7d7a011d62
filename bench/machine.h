/* SPDX-License-Identifier: BSD-3-Clause */
/* What the machine has to give now. Pure functions over /proc; any thread. */
#pragma once

#include <stdint.h>

/* Bytes of free huge pages of the default size. */
uint64_t machine_huge_pages_free(void);
