/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of configuration keys: it alone drives parsing, defaults, ranges, unknown-key detection
 * and the help in messages. Private to common/config and its tests. Constant; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct fan_config;

enum config_kind {
	CONFIG_INT, /* also booleans and widths 1, 2, 4, 8: `len` says */
	CONFIG_BOOL,
	CONFIG_STRING,
	CONFIG_PATH,	  /* string; absolute, or empty where min is 0 */
	CONFIG_MAC,	  /* string; sets has_static_mac */
	CONFIG_ADDRESSES, /* list of struct fan_address */
	CONFIG_CORES,	  /* list of unsigned */
	CONFIG_PREFIXES,  /* list of vouched[] */
};

struct config_key {
	const char *group;
	const char *name;
	enum config_kind kind;
	size_t off;	/* of the value in struct fan_config */
	size_t len;	/* of the value in struct fan_config, all elements */
	size_t cnt_off; /* lists: of the element count, an unsigned */
	int64_t min,
		max;	/* of a number; of a list, how many; of a string, its least length and 0 */
	int64_t number; /* default of CONFIG_INT and CONFIG_BOOL */
	const char *text; /* default of strings */
	const char *help; /* what it is, for messages */
};

extern const struct config_key config_keys[];
extern const unsigned config_key_cnt;

/* Index of a key, or -1. */
int config_key_find(const char *group, const char *name);
/* Whether a group of that name exists. */
int config_group_exists(const char *group);
