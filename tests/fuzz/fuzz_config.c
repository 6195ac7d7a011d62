/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration's loader on any file: it accepts, or says why, and what it accepts keeps what
 * the rest of the programs rely on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
const char *__lsan_default_suppressions(void);

/* libconfig 1.5 loses its buffers where a text is malformed; a program reads one file, once. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_accepted(const struct fan_config *config)
{
	require(config->instance[0] && strlen(config->instance) < sizeof(config->instance));
	require(config->run_dir[0] == '/' && config->control_socket[0] == '/');
	require(config->engine_address_cnt >= 1 && config->engine_address_cnt <= 2);
	require(config->receiver_address_cnt >= 1);
	require(config->receiver_address_cnt <= FAN_ADDRESSES_MAX);
	require(config->port_first <= config->port_last);
	require(config->engine_port < config->port_first ||
		config->engine_port > config->port_last);
	require(config->payload_limit >= 64 && config->payload_limit <= 8832);
	require(config->core_cnt >= 1 && config->core_cnt <= 16);
	require(config->max_groups >= config->max_users);
	require((config->max_sessions & (config->max_sessions - 1)) == 0);
	require(config->vouched_cnt <= 16);
	for (unsigned i = 0; i < config->receiver_address_cnt; i++) {
		char text[46];

		fan_address_format(text, config->receiver_address[i].bytes,
				   config->receiver_address[i].family);
		require(text[0] != '?');
		(void)fan_config_vouches(config, &config->receiver_address[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fan_config config;
	char path[32], why[4096];
	int fd;

	if (memmem(data, len, "include", 7)) /* reads files that are not the input */
		return 0;
	fd = memfd_create("config", MFD_CLOEXEC);
	require(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (fan_config_load(&config, path, why) == 0) {
		require(why[0] == '\0');
		check_accepted(&config);
	} else {
		require(why[0] != '\0' && memchr(why, '\0', sizeof(why)));
		require(strchr(why, '\n') != NULL);
	}
	close(fd);
	return 0;
}
