/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/registry/big.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LARGE ((size_t)4 << 20) /* less is the heap's business */

static size_t size_of(size_t cnt, size_t len)
{
	return cnt && len > SIZE_MAX / cnt ? SIZE_MAX : cnt * len;
}

void *big_calloc(size_t cnt, size_t len)
{
	size_t size = size_of(cnt, len);
	void *memory;

	if (size < LARGE)
		return calloc(cnt ? cnt : 1, len);
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, size, MADV_HUGEPAGE); /* refused where there are none: small ones do */
	return memory;
}

void big_free(void *memory, size_t cnt, size_t len)
{
	size_t size = size_of(cnt, len);

	if (!memory)
		return;
	if (size < LARGE)
		free(memory);
	else
		munmap(memory, size);
}
