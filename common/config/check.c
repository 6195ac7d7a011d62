/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/config/load.h"

#define problem(loader, group, name, ...) \
	loader_key_problem(loader, config_key_find(group, name), __VA_ARGS__)

static void check_instance(struct loader *l)
{
	const struct fan_config *c = l->config;
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	bool known = false;

	if (c->instance[strspn(c->instance, letters)])
		problem(l, "instance", "name", "\"%s\" has other characters than %s", c->instance,
			"a-z, 0-9 and '-'; rename it");
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		known |= strcmp(c->log_level, levels[i]) == 0;
	if (!known)
		problem(l, "instance", "log_level",
			"\"%s\" is no level; write error, warning, info or debug", c->log_level);
}

static void check_ports(struct loader *l)
{
	const struct fan_config *c = l->config;

	if (c->port_first > c->port_last)
		problem(l, "network", "port_first", "%u is above port_last (%u); swap them",
			c->port_first, c->port_last);
	else if (c->engine_port >= c->port_first && c->engine_port <= c->port_last)
		problem(l, "network", "engine_port",
			"%u lies in the reserved range %u..%u; choose one outside", c->engine_port,
			c->port_first, c->port_last);
}

static bool same_address(const struct fan_address *a, const struct fan_address *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* An address that one host can have: not unspecified, multicast or broadcast. */
static bool is_host_address(const struct fan_address *address)
{
	static const uint8_t zero[16];

	if (address->family == 6)
		return memcmp(address->bytes, zero, 16) != 0 && address->bytes[0] != 0xff;
	return address->bytes[12] != 0 && address->bytes[12] < 224;
}

static void check_one_address(struct loader *l, const char *name, const struct fan_address *list,
			      unsigned idx)
{
	char text[46];

	fan_address_format(text, list[idx].bytes, list[idx].family);
	if (!is_host_address(&list[idx]))
		problem(l, "network", name, "%s is no host's address; write a unicast address",
			text);
	for (unsigned i = 0; i < idx; i++) {
		if (same_address(&list[i], &list[idx]))
			problem(l, "network", name, "%s stands there twice; remove one", text);
	}
}

static void check_addresses(struct loader *l)
{
	const struct fan_config *c = l->config;
	bool have[2] = {false, false}; /* IPv4, IPv6 of the engine */
	char text[46];

	if (c->engine_address_cnt == 2 &&
	    c->engine_address[0].family == c->engine_address[1].family)
		problem(l, "network", "engine_addresses",
			"two addresses of one family; write one IPv4 and one IPv6");
	for (unsigned i = 0; i < c->engine_address_cnt; i++) {
		check_one_address(l, "engine_addresses", c->engine_address, i);
		have[c->engine_address[i].family == 6] = true;
	}
	for (unsigned i = 0; i < c->receiver_address_cnt; i++) {
		const struct fan_address *receiver = &c->receiver_address[i];

		check_one_address(l, "receiver_addresses", c->receiver_address, i);
		fan_address_format(text, receiver->bytes, receiver->family);
		if (c->engine_address_cnt && !have[receiver->family == 6])
			problem(l, "network", "receiver_addresses",
				"%s is IPv%u and the engine has no such address; add one to "
				"engine_addresses or remove it",
				text, receiver->family);
		for (unsigned j = 0; j < c->engine_address_cnt; j++) {
			if (same_address(receiver, &c->engine_address[j]))
				problem(l, "network", "receiver_addresses",
					"%s is the engine's own; choose another", text);
		}
	}
}

static void check_required(struct loader *l)
{
	static const char *const keys[][2] = {
		{"network", "engine_addresses"},
		{"network", "receiver_addresses"},
		{"dataplane", "port"},
	};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		int idx = config_key_find(keys[i][0], keys[i][1]);

		if (!l->settings[idx])
			loader_key_problem(l, idx, "missing; write it (%s)", config_keys[idx].help);
	}
}

static void check_interface(struct loader *l)
{
	const char *name = l->config->interface;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strpbrk(name, "/: \t\n"))
		problem(l, "network", "interface", "\"%s\" cannot be an interface's name", name);
}

static void check_cores(struct loader *l)
{
	const struct fan_config *c = l->config;

	for (unsigned i = 0; i < c->core_cnt; i++) {
		for (unsigned j = 0; j < i; j++) {
			if (c->cores[i] == c->cores[j])
				problem(l, "dataplane", "cores",
					"core %u stands there twice; give each worker its own",
					c->cores[i]);
		}
	}
}

static uint32_t round_up_power_of_two(uint32_t n)
{
	return n <= 1 ? 1 : 1u << (32 - __builtin_clz(n - 1));
}

static void check_limits(struct loader *l)
{
	struct fan_config *c = l->config;

	if (c->max_groups < c->max_users)
		problem(l, "limits", "max_groups",
			"%u is below max_users (%u), and each user has a group; raise it",
			c->max_groups, c->max_users);
	c->max_sessions = round_up_power_of_two(c->max_sessions);
}

/* Fills in the default below run_dir, and sees that the kernel takes a path of that length. */
static void check_socket(struct loader *l, const char *name, char *path, const char *file)
{
	const size_t longest = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	char whole[2 * FAN_PATH_MAX];

	snprintf(whole, sizeof(whole), "%s/%s", l->config->run_dir, file);
	if (!path[0] && strlen(whole) <= longest)
		memcpy(path, whole, strlen(whole) + 1);
	else if (!path[0])
		problem(l, "instance", "run_dir", "too long for sockets in it; at most %zu bytes",
			longest - strlen(file) - 1);
	else if (strlen(path) > longest)
		problem(l, "control", name, "too long for a socket; at most %zu bytes", longest);
}

static void check_sockets(struct loader *l)
{
	struct fan_config *c = l->config;

	check_socket(l, "control_socket", c->control_socket, "control.sock");
	check_socket(l, "client_socket", c->client_socket, "client.sock");
	if (c->client_socket[0] && strcmp(c->control_socket, c->client_socket) == 0)
		problem(l, "control", "client_socket",
			"the same path as control_socket; choose another");
}

void check_config(struct loader *loader)
{
	check_required(loader);
	check_instance(loader);
	check_ports(loader);
	check_addresses(loader);
	check_interface(loader);
	check_cores(loader);
	check_limits(loader);
	check_sockets(loader);
}
