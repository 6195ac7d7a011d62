/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Zeroed memory for the registry's books, which may be large: then it comes straight from the
 * kernel, a page when it is touched first, in huge pages where there are some. So room for what is
 * not used costs nothing, and what is used costs few faults.
 */
#pragma once

#include <stddef.h>

/* NULL: out of memory. */
void *big_calloc(size_t cnt, size_t len);
/* With the same cnt and len; NULL is nothing. */
void big_free(void *memory, size_t cnt, size_t len);
