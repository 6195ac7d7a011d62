/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/machine.h"

#define LINUX
#include <intel-ipsec-mb.h>
#include <rte_cycles.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *const interesting[] = {"sse4_2",  "aes",  "pclmulqdq",  "avx2",
					  "avx512f", "vaes", "vpclmulqdq", "hypervisor"};

/* Value of "key: value" in a file of /proc; "" where it is not there. */
static void proc_get(const char *path, const char *key, char *value, size_t value_len)
{
	size_t key_len = strlen(key);
	char line[8192];
	FILE *file = fopen(path, "re");

	value[0] = '\0';
	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, key_len) != 0 || !colon)
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		snprintf(value, value_len, "%.*s", (int)strcspn(colon, "\n"), colon);
		break;
	}
	if (file)
		fclose(file);
}

static uint64_t meminfo(const char *key)
{
	char value[64];

	proc_get("/proc/meminfo", key, value, sizeof(value));
	return strtoull(value, NULL, 10);
}

uint64_t machine_memory_available(void)
{
	return meminfo("MemAvailable") << 10;
}

uint64_t machine_huge_pages_free(void)
{
	return meminfo("HugePages_Free") * (meminfo("Hugepagesize") << 10);
}

static json_t *flags_of(char *flags)
{
	json_t *list = json_array();
	char *save = NULL;

	for (char *word = strtok_r(flags, " ", &save); word; word = strtok_r(NULL, " ", &save))
		for (unsigned i = 0; i < sizeof(interesting) / sizeof(interesting[0]); i++)
			if (strcmp(word, interesting[i]) == 0)
				json_array_append_new(list, json_string(word));
	return list;
}

json_t *machine_describe(void)
{
	char model[256], flags[8192];
	struct utsname system;
	double load = 0;

	proc_get("/proc/cpuinfo", "model name", model, sizeof(model));
	proc_get("/proc/cpuinfo", "flags", flags, sizeof(flags));
	uname(&system);
	if (getloadavg(&load, 1) != 1)
		load = -1;
	return json_pack("{s:s, s:o, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:f}", "cpu", model,
			 "cpu_flags", flags_of(flags), "cpus",
			 (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "tsc_hz",
			 (json_int_t)rte_get_tsc_hz(), "kernel", system.release, "dpdk",
			 rte_version(), "ipsec_mb", IMB_VERSION_STR, "memory_mb",
			 (json_int_t)(meminfo("MemTotal") >> 10), "huge_pages_total",
			 (json_int_t)meminfo("HugePages_Total"), "huge_page_kb",
			 (json_int_t)meminfo("Hugepagesize"), "load_1min", load);
}
