/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/eal.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_pci.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define SUBJECT	 "eal"
#define ARGS_MAX 64

/* rte_eal_init() keeps pointers into what it is given, so the arguments live as long as we do. */
static struct arguments {
	char text[8 * FAN_PATH_MAX];
	char *argv[ARGS_MAX];
	size_t len;
	int argc;
	bool overflow;
} arguments;

static __attribute__((format(printf, 1, 2))) void add(const char *format, ...)
{
	size_t room = sizeof(arguments.text) - arguments.len;
	char *at = arguments.text + arguments.len;
	va_list list;
	int len;

	va_start(list, format);
	len = vsnprintf(at, room, format, list);
	va_end(list);
	if (len < 0 || (size_t)len >= room || arguments.argc == ARGS_MAX - 1) {
		arguments.overflow = true;
		return;
	}
	arguments.argv[arguments.argc++] = at;
	arguments.len += (size_t)len + 1;
}

bool eal_port_is_pci(const char *port)
{
	struct rte_pci_addr address;
	char device[FAN_PATH_MAX];

	snprintf(device, sizeof(device), "%.*s", (int)strcspn(port, ","), port);
	return rte_pci_addr_parse(device, &address) == 0;
}

/* EAL's own message for a core that is not there does not say which setting to change. */
static int cores_check(const struct fan_config *config, const cpu_set_t *allowed)
{
	for (unsigned i = 0; i < config->core_cnt; i++) {
		if (config->cores[i] < CPU_SETSIZE && CPU_ISSET(config->cores[i], allowed))
			continue;
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"dataplane.cores: core %u is not available to this process; it may use %d "
			"cores",
			config->cores[i], CPU_COUNT(allowed));
		return -EINVAL;
	}
	if (config->main_core >= 0 && !CPU_ISSET((unsigned)config->main_core, allowed)) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"dataplane.main_core: core %d is not available to this process",
			config->main_core);
		return -EINVAL;
	}
	return 0;
}

/* "0@(0,1),1@1": lcore 0 is the main one, on its core or on all. */
static void lcores_add(const struct fan_config *config, const cpu_set_t *allowed)
{
	char text[4096];
	size_t len = (size_t)snprintf(text, sizeof(text), "--lcores=0@(");

	for (unsigned core = 0, cnt = 0; core < CPU_SETSIZE && len < sizeof(text) - 64; core++) {
		bool wanted = config->main_core < 0 || (unsigned)config->main_core == core;

		if (wanted && CPU_ISSET(core, allowed))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%u",
						cnt++ ? "," : "", core);
	}
	len += (size_t)snprintf(text + len, sizeof(text) - len, ")");
	for (unsigned i = 0; i < config->core_cnt; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, ",%u@%u", i + 1,
					config->cores[i]);
	add("%s", text);
}

static void memory_add(const struct fan_config *config)
{
	/* In memory: nothing stays behind on hugetlbfs when the process is killed. */
	add("%s", config->huge_pages ? "--in-memory" : "--no-huge");
	add("-m");
	add("%u", config->hugepage_mb);
}

static void further_add(const char *text)
{
	char copy[FAN_PATH_MAX], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, " \t", &save); word; word = strtok_r(NULL, " \t", &save))
		add("%s", word);
}

int eal_start(const struct fan_config *config, const char *vdev)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -errno;
	if (cores_check(config, &allowed))
		return -EINVAL;
	add("fanwire-dataplane");
	add("--file-prefix=fanwire-%s", config->instance);
	lcores_add(config, &allowed);
	add("--main-lcore=0");
	memory_add(config);
	if (vdev) {
		add("--no-pci");
		add("--vdev=%s", vdev);
		add("--iova-mode=va"); /* AF_XDP needs its buffers in one piece of memory */
	} else {
		add("-a");
		add("%s", config->port);
	}
	if (!config->telemetry)
		add("--no-telemetry");
	if (strcmp(config->log_level, "debug") != 0) {
		add("--log-level=warning");
		add("--log-level=lib.telemetry:error"); /* it speaks of a legacy socket at each
							   start */
	}
	further_add(config->eal_args);
	if (arguments.overflow) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"dataplane.port and eal_args are too long together");
		return -E2BIG;
	}
	if (rte_eal_init(arguments.argc, arguments.argv) < 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "DPDK did not start: %s. %s",
			rte_strerror(rte_errno),
			config->huge_pages
				? "Are there hugepage_mb of free huge pages (vm.nr_hugepages)? Set "
				  "huge_pages = false to run without; is dataplane.port right?"
				: "Is dataplane.port right?");
		return -EIO;
	}
	return 0;
}
