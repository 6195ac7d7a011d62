/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/load.h"

static void *at(struct fan_config *config, size_t off)
{
	return (char *)config + off;
}

static void store_number(void *to, size_t len, int64_t number)
{
	uint8_t u8 = (uint8_t)number;
	uint16_t u16 = (uint16_t)number;
	uint32_t u32 = (uint32_t)number;
	uint64_t u64 = (uint64_t)number;

	if (len == sizeof(u8))
		memcpy(to, &u8, sizeof(u8));
	else if (len == sizeof(u16))
		memcpy(to, &u16, sizeof(u16));
	else if (len == sizeof(u32))
		memcpy(to, &u32, sizeof(u32));
	else
		memcpy(to, &u64, sizeof(u64));
}

void values_default(struct fan_config *config)
{
	for (unsigned i = 0; i < config_key_cnt; i++) {
		const struct config_key *key = &config_keys[i];

		if (key->kind == CONFIG_INT || key->kind == CONFIG_BOOL)
			store_number(at(config, key->off), key->len, key->number);
		else if (key->kind == CONFIG_STRING || key->kind == CONFIG_PATH)
			snprintf(at(config, key->off), key->len, "%s", key->text);
	}
	config->cores[0] = 1;
	config->core_cnt = 1;
}

static bool is_integer(const config_setting_t *setting)
{
	int type = config_setting_type(setting);

	return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

/* A whole number in the key's range, or a problem. */
static bool read_integer(struct loader *loader, int idx, const config_setting_t *setting,
			 int64_t min, int64_t max, int64_t *number)
{
	const struct config_key *key = &config_keys[idx];

	if (!is_integer(setting)) {
		loader_key_problem(loader, idx,
				   "not a whole number; write %lld..%lld without quotes (%s)",
				   (long long)min, (long long)max, key->help);
		return false;
	}
	*number = config_setting_get_int64(setting);
	if (*number < min || *number > max) {
		loader_key_problem(loader, idx, "%lld is out of range; write %lld..%lld (%s)",
				   (long long)*number, (long long)min, (long long)max, key->help);
		return false;
	}
	return true;
}

static void read_bool(struct loader *loader, int idx, const config_setting_t *setting)
{
	const struct config_key *key = &config_keys[idx];

	if (config_setting_type(setting) != CONFIG_TYPE_BOOL) {
		loader_key_problem(loader, idx, "not true or false; write one of them (%s)",
				   key->help);
		return;
	}
	store_number(at(loader->config, key->off), key->len, config_setting_get_bool(setting));
}

/* The text of a string setting, or NULL and a problem. */
static const char *read_text(struct loader *loader, int idx, const config_setting_t *setting)
{
	const char *text = config_setting_get_string(setting);

	if (config_setting_type(setting) == CONFIG_TYPE_STRING && text)
		return text;
	loader_key_problem(loader, idx, "not a text; write it in double quotes (%s)",
			   config_keys[idx].help);
	return NULL;
}

static void read_string(struct loader *loader, int idx, const config_setting_t *setting)
{
	const struct config_key *key = &config_keys[idx];
	const char *text = read_text(loader, idx, setting);

	if (!text)
		return;
	if (strlen(text) >= key->len)
		loader_key_problem(loader, idx, "too long: %zu bytes; write at most %zu",
				   strlen(text), key->len - 1);
	else if (strlen(text) < (size_t)key->min)
		loader_key_problem(loader, idx, "empty; write a value (%s)", key->help);
	else if (key->kind == CONFIG_PATH && text[0] && text[0] != '/')
		loader_key_problem(loader, idx, "\"%.100s\" is relative; write an absolute path",
				   text);
	else
		memcpy(at(loader->config, key->off), text, strlen(text) + 1);
}

static bool parse_mac(uint8_t mac[6], const char *text)
{
	unsigned byte[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
		   &byte[4], &byte[5], &end) != 6 ||
	    end != 17 || text[end])
		return false;
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)byte[i];
	return !(mac[0] & 1); /* a group address is no next hop */
}

static void read_mac(struct loader *loader, int idx, const config_setting_t *setting)
{
	const char *text = read_text(loader, idx, setting);

	if (!text || !text[0])
		return;
	if (parse_mac(loader->config->static_mac, text))
		loader->config->has_static_mac = true;
	else
		loader_key_problem(loader, idx, "\"%.40s\" is not a station's address; write %s",
				   text, config_keys[idx].help);
}

/* ---- lists: each reads one element into slot `i` ---- */

static bool read_address(struct loader *loader, int idx, const config_setting_t *element,
			 unsigned i)
{
	const struct config_key *key = &config_keys[idx];
	struct fan_address *list = at(loader->config, key->off);
	const char *text = read_text(loader, idx, element);

	if (!text)
		return false;
	if (fan_address_parse(&list[i], text) == 0)
		return true;
	loader_key_problem(loader, idx,
			   "\"%.60s\" is not an address; write one such as \"192.0.2.1\" or "
			   "\"2001:db8::1\"",
			   text);
	return false;
}

static bool read_core(struct loader *loader, int idx, const config_setting_t *element, unsigned i)
{
	int64_t core;

	if (!read_integer(loader, idx, element, 0, 127, &core))
		return false;
	loader->config->cores[i] = (unsigned)core;
	return true;
}

static bool host_bits_zero(const struct fan_address *address, unsigned prefix_len)
{
	unsigned first = prefix_len + (address->family == 4 ? 96 : 0);

	for (unsigned bit = first; bit < 128; bit++) {
		if (address->bytes[bit / 8] & (0x80 >> (bit % 8)))
			return false;
	}
	return true;
}

static bool read_prefix(struct loader *loader, int idx, const config_setting_t *element, unsigned i)
{
	const char *text = read_text(loader, idx, element);
	struct fan_address address;
	char host[48], *end = NULL;
	unsigned long bits = 0;
	const char *slash;

	if (!text)
		return false;
	slash = strchr(text, '/');
	if (slash && (size_t)(slash - text) < sizeof(host) && slash[1] >= '0' && slash[1] <= '9') {
		snprintf(host, sizeof(host), "%.*s", (int)(slash - text), text);
		bits = strtoul(slash + 1, &end, 10);
	}
	if (!end || *end || fan_address_parse(&address, host) != 0 ||
	    bits > (address.family == 4 ? 32 : 128)) {
		loader_key_problem(
			loader, idx,
			"\"%.60s\" is not a prefix; write one such as \"192.0.2.0/24\" or "
			"\"2001:db8::/64\"",
			text);
		return false;
	}
	if (!host_bits_zero(&address, (unsigned)bits)) {
		loader_key_problem(loader, idx,
				   "\"%.60s\" has bits behind its length; write the prefix itself",
				   text);
		return false;
	}
	loader->config->vouched[i].address = address;
	loader->config->vouched[i].prefix_len = (uint8_t)bits;
	return true;
}

static bool read_element(struct loader *loader, int idx, const config_setting_t *element,
			 unsigned i)
{
	switch (config_keys[idx].kind) {
	case CONFIG_ADDRESSES:
		return read_address(loader, idx, element, i);
	case CONFIG_CORES:
		return read_core(loader, idx, element, i);
	default:
		return read_prefix(loader, idx, element, i);
	}
}

static void read_list(struct loader *loader, int idx, const config_setting_t *setting)
{
	const struct config_key *key = &config_keys[idx];
	int length = config_setting_length(setting);
	unsigned cnt = 0;

	if (!config_setting_is_array(setting) && !config_setting_is_list(setting)) {
		loader_key_problem(loader, idx, "not a list; write [ ... ] (%s)", key->help);
		return;
	}
	if (length < key->min || length > key->max) {
		loader_key_problem(loader, idx, "%d elements; write %lld..%lld (%s)", length,
				   (long long)key->min, (long long)key->max, key->help);
		return;
	}
	for (int i = 0; i < length; i++) {
		const config_setting_t *element = config_setting_get_elem(setting, (unsigned)i);

		cnt += read_element(loader, idx, element, cnt);
	}
	memcpy(at(loader->config, key->cnt_off), &cnt, sizeof(cnt));
}

void values_read(struct loader *loader, int idx, const config_setting_t *setting)
{
	const struct config_key *key = &config_keys[idx];
	int64_t number;

	switch (key->kind) {
	case CONFIG_INT:
		if (read_integer(loader, idx, setting, key->min, key->max, &number))
			store_number(at(loader->config, key->off), key->len, number);
		break;
	case CONFIG_BOOL:
		read_bool(loader, idx, setting);
		break;
	case CONFIG_STRING:
	case CONFIG_PATH:
		read_string(loader, idx, setting);
		break;
	case CONFIG_MAC:
		read_mac(loader, idx, setting);
		break;
	case CONFIG_ADDRESSES:
	case CONFIG_CORES:
	case CONFIG_PREFIXES:
		read_list(loader, idx, setting);
		break;
	}
}
