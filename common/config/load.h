/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of common/config share while one file is loaded. Private to common/config; one
 * loader on the stack of fan_config_load(), no other state.
 */
#pragma once

#include <libconfig.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/config/config.h"
#include "common/config/keys.h"

#define CONFIG_KEYS_MAX 64
#define CONFIG_WHY_LEN	4096

struct loader {
	struct fan_config *config;
	const char *path;
	config_t file;
	const config_setting_t *settings[CONFIG_KEYS_MAX]; /* by key index; NULL: not in the file */
	char *why;					   /* CONFIG_WHY_LEN bytes */
	size_t why_len;
	unsigned problem_cnt;
	unsigned unsaid_cnt; /* problems that `why` had no room for */
};

/* Notes one problem: "FILE:LINE: KEY: text". `setting` gives file and line; NULL: line 1. */
void loader_problem(struct loader *loader, const config_setting_t *setting, const char *group,
		    const char *name, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
/* The same for a key of the table: where it stands, else its group, else line 1. */
#define loader_key_problem(loader, idx, ...)                                      \
	loader_problem(loader, loader_where(loader, idx), config_keys[idx].group, \
		       config_keys[idx].name, __VA_ARGS__)
const config_setting_t *loader_where(const struct loader *loader, int idx);

/* values.c: defaults of every key; then one key's value from its setting, or problems. */
void values_default(struct fan_config *config);
void values_read(struct loader *loader, int idx, const config_setting_t *setting);

/* check.c: fills in what follows from other keys, and what single keys cannot tell. */
void check_config(struct loader *loader);
