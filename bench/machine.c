/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Number of "key: number" in /proc/meminfo, in its unit; 0 where it is not there. */
static uint64_t meminfo(const char *key)
{
	size_t key_len = strlen(key);
	uint64_t number = 0;
	char line[256];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, key, key_len) == 0 && line[key_len] == ':') {
			number = strtoull(line + key_len + 1, NULL, 10);
			break;
		}
	if (file)
		fclose(file);
	return number;
}

uint64_t machine_huge_pages_free(void)
{
	return meminfo("HugePages_Free") * (meminfo("Hugepagesize") << 10);
}
