/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config/config.h"
#include "common/config/keys.h"

#define EMBEDDED FAN_SOURCE_ROOT "/control/embedded/fanwire.conf"

static char path[] = "/tmp/fan-config-XXXXXX";
static char why[4096];
static struct fan_config config;

static void init(void)
{
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
}

static void fini(void)
{
	unlink(path);
}
TestSuite(config, .init = init, .fini = fini);

static int load(const char *text)
{
	FILE *file = fopen(path, "we");

	cr_assert_not_null(file);
	cr_assert_geq(fputs(text, file), 0);
	cr_assert_eq(fclose(file), 0);
	return fan_config_load(&config, path, why);
}

/* What a configuration must have, on lines 1 and 2; a test adds its own from line 3 on. */
#define REQUIRED                                                                                 \
	"network: { engine_addresses = [ \"192.0.2.1\" ]; receiver_addresses = [ \"192.0.2.2\" " \
	"]; };\n"                                                                                \
	"dataplane: { port = \"net_null0\"; };\n"

static void expect_problem(const char *text, unsigned line, const char *key, const char *says)
{
	char wanted[256];

	cr_expect_eq(load(text), -EINVAL, "accepted: %s", text);
	snprintf(wanted, sizeof(wanted), "%s:%u: %s: ", path, line, key);
	cr_expect(strstr(why, wanted), "wanted \"%s\", got: %s", wanted, why);
	cr_expect(strstr(why, says), "wanted \"%s\", got: %s", says, why);
}

static char *read_embedded(void)
{
	FILE *file = fopen(EMBEDDED, "re");
	char *text = calloc(1, 65536);

	cr_assert(file && text);
	cr_assert_gt(fread(text, 1, 65535, file), 0);
	fclose(file);
	return text;
}

Test(config, embedded_file_is_accepted)
{
	cr_assert_eq(fan_config_load(&config, EMBEDDED, why), 0, "%s", why);
	cr_expect_str_eq(why, "");
	cr_expect_str_eq(config.instance, "embedded");
	cr_expect_eq(config.engine_address_cnt, 2);
	cr_expect_eq(config.engine_port, 7400);
	cr_expect_eq(config.port_last, 23999);
	cr_expect_eq(config.core_cnt, 1);
	cr_expect_eq(config.cores[0], 1);
	cr_expect_eq(config.receive_buffer_bytes, 4194304);
	cr_expect_eq(config.max_unattended_s, 3600);
	cr_expect_str_eq(config.control_socket, "/run/fanwire/control.sock");
	cr_expect_str_eq(config.client_socket, "/run/fanwire/client.sock");
}

static bool has_key(const char *text, const char *name)
{
	char wanted[80];

	snprintf(wanted, sizeof(wanted), "%s = ", name);
	for (const char *at = strstr(text, wanted); at; at = strstr(at + 1, wanted)) {
		if (at > text && (at[-1] == ' ' || at[-1] == '\t'))
			return true;
	}
	return false;
}

Test(config, embedded_file_states_every_key)
{
	char *text = read_embedded();

	for (unsigned i = 0; i < config_key_cnt; i++)
		cr_expect(has_key(text, config_keys[i].name), "%s.%s is not in %s",
			  config_keys[i].group, config_keys[i].name, EMBEDDED);
	free(text);
}

/* With every commented-out key made active the configuration must be the same: they are defaults.
 */
Test(config, embedded_file_states_the_defaults)
{
	struct fan_config standard;
	char *text = read_embedded();

	for (char *at = strstr(text, "\n\t// "); at; at = strstr(at + 1, "\n\t// ")) {
		char name[64];

		if (sscanf(at + 5, "%63[a-z_] =", name) == 1 && strchr(at + 5, '='))
			memcpy(at + 2, "   ", 3);
	}
	cr_assert_eq(fan_config_load(&standard, EMBEDDED, why), 0, "%s", why);
	cr_assert_eq(load(text), 0, "%s", why);
	cr_expect_arr_eq(&config, &standard, sizeof(config), "a stated default is not the default");
	for (unsigned i = 0; i < config_key_cnt; i++) { /* that nothing stayed a comment */
		char comment[80];

		snprintf(comment, sizeof(comment), "// %s =", config_keys[i].name);
		cr_expect_null(strstr(text, comment), "%s", comment);
	}
	free(text);
}

Test(config, least_file)
{
	cr_assert_eq(load(REQUIRED), 0, "%s", why);
	cr_expect_str_eq(config.instance, "fanwire");
	cr_expect_str_eq(config.interface, "");
	cr_expect_eq(config.huge_pages, true);
	cr_expect_eq(config.max_sessions, 256);
	cr_expect_eq(config.max_sessions_per_publisher, 32);
	cr_expect_eq(config.publisher_bytes_per_second, 1250000000);
}

Test(config, what_is_required)
{
	expect_problem("", 1, "dataplane.port", "missing");
	cr_expect(strstr(why, ":1: network.engine_addresses: missing"), "%s", why);
	cr_expect(strstr(why, ":1: network.receiver_addresses: missing"), "%s", why);
	expect_problem("\n\nnetwork: { };", 3, "network.engine_addresses", "missing");
}

Test(config, unknown_names)
{
	expect_problem(REQUIRED "limits: {\n max_user = 5;\n};", 4, "limits.max_user",
		       "unknown key");
	expect_problem(REQUIRED "\nlimit: { max_users = 5; };", 4, "limit", "unknown");
	expect_problem(REQUIRED "times = 5;", 3, "times", "is a group");
	expect_problem(REQUIRED "max_users = 5;", 3, "max_users", "unknown");
	expect_problem(REQUIRED "times: { max_users = 5; };", 3, "times.max_users", "unknown");
}

Test(config, syntax_and_duplicates)
{
	expect_problem(REQUIRED "limits: {\n max_users = ;\n};", 4, "syntax", "max_users");
	expect_problem(REQUIRED "limits: {\n max_users = 5;\n max_users = 6;\n};", 5, "max_users",
		       "twice");
	expect_problem(REQUIRED "network: { };", 3, "network", "twice");
}

Test(config, wrong_types)
{
	expect_problem(REQUIRED "limits: { max_users = \"5\"; };", 3, "limits.max_users",
		       "not a whole number");
	expect_problem(REQUIRED "limits: { max_users = 5.5; };", 3, "limits.max_users",
		       "not a whole number");
	expect_problem(REQUIRED "limits: { max_users = true; };", 3, "limits.max_users",
		       "not a whole number");
	expect_problem(REQUIRED "scope: { port_guard = 1; };", 3, "scope.port_guard",
		       "true or false");
	expect_problem(REQUIRED "control: { admin_group = 5; };", 3, "control.admin_group",
		       "not a text");
	expect_problem(REQUIRED "scope: { vouched = \"192.0.2.0/24\"; };", 3, "scope.vouched",
		       "not a list");
	expect_problem(REQUIRED "scope: { vouched = [ 5 ]; };", 3, "scope.vouched", "not a text");
}

/* Every number of the table, just within and just outside its range. */
Test(config, every_number_has_its_range)
{
	char text[512];

	for (unsigned i = 0; i < config_key_cnt; i++) {
		const struct config_key *key = &config_keys[i];
		const int64_t bad[] = {key->min - 1, key->max + 1, INT64_MAX, INT64_MIN + 1};
		char name[96];

		/* groups that the required lines have already cannot be opened twice */
		if (key->kind != CONFIG_INT || strcmp(key->group, "network") == 0 ||
		    strcmp(key->group, "dataplane") == 0)
			continue;
		snprintf(name, sizeof(name), "%s.%s", key->group, key->name);
		for (unsigned j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			snprintf(text, sizeof(text), REQUIRED "%s: { %s = %lldL; };", key->group,
				 key->name, (long long)bad[j]);
			expect_problem(text, 3, name, "out of range");
		}
	}
}

#define NETWORK(text)                                                                           \
	"dataplane: { port = \"net_null0\"; };\nnetwork: { engine_addresses = [ \"192.0.2.1\" " \
	"];\n receiver_addresses = [ \"192.0.2.2\" ];\n " text "};\n"

Test(config, ports)
{
	expect_problem(NETWORK("port_first = 30000; port_last = 29999;"), 4, "network.port_first",
		       "above port_last");
	expect_problem(NETWORK("port_first = 7000; port_last = 8000;\n engine_port = 8000;"), 5,
		       "network.engine_port", "reserved range");
	expect_problem(NETWORK("port_last = 65536;"), 4, "network.port_last", "out of range");
	expect_problem(NETWORK("payload_limit = 63;"), 4, "network.payload_limit", "64..8832");
	cr_expect_eq(load(NETWORK("port_first = 30000; port_last = 30000;")), 0, "%s", why);
}

#define ADDRESSES(engine, receiver)                                                    \
	"dataplane: { port = \"net_null0\"; };\nnetwork: { engine_addresses = " engine \
	";\n receiver_addresses = " receiver "; };\n"

Test(config, addresses)
{
	static const char one[] = "network.receiver_addresses", two[] = "network.engine_addresses";

	cr_expect_eq(load(ADDRESSES("[ \"192.0.2.1\", \"2001:db8::1\" ]",
				    "[ \"192.0.2.2\", \"2001:db8::2\", \"2001:db8::3\" ]")),
		     0, "%s", why);
	cr_expect_eq(config.receiver_address_cnt, 3);
	cr_expect_eq(config.receiver_address[0].family, 4);
	cr_expect_eq(config.receiver_address[2].family, 6);
	cr_expect_eq(config.receiver_address[2].bytes[15], 3);
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"192.0.2\" ]"), 3, one, "not an address");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"::ffff:192.0.2.2\" ]"), 3, one,
		       "not an address");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ ]"), 3, one, "0 elements");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"192.0.2.1\" ]"), 3, one, "engine's own");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"2001:db8::2\" ]"), 3, one, "IPv6");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"224.0.0.1\" ]"), 3, one, "unicast");
	expect_problem(ADDRESSES("[ \"192.0.2.1\" ]", "[ \"192.0.2.2\", \"192.0.2.2\" ]"), 3, one,
		       "twice");
	expect_problem(ADDRESSES("[ \"192.0.2.1\", \"192.0.2.9\" ]", "[ \"192.0.2.2\" ]"), 2, two,
		       "one family");
	expect_problem(ADDRESSES("[ \"::\" ]", "[ \"2001:db8::2\" ]"), 2, two, "unicast");
}

Test(config, texts)
{
	char text[1024], longest[300];

	expect_problem(REQUIRED "instance: { name = \"Big\"; };", 3, "instance.name", "a-z");
	expect_problem(REQUIRED "instance: { name = \"\"; };", 3, "instance.name", "empty");
	expect_problem(REQUIRED "instance: { name = \"a/../b\"; };", 3, "instance.name", "a-z");
	expect_problem(REQUIRED "instance: { log_level = \"loud\"; };", 3, "instance.log_level",
		       "debug");
	expect_problem(REQUIRED "instance: { run_dir = \"run\"; };", 3, "instance.run_dir",
		       "absolute");
	expect_problem(NETWORK("interface = \"eth0/1\";"), 4, "network.interface", "interface");
	expect_problem(NETWORK("interface = \"abcdefghijklmnop\";"), 4, "network.interface",
		       "too long");
	memset(longest, 'd', sizeof(longest));
	memcpy(longest, "/", 1);
	longest[99] = '\0';
	snprintf(text, sizeof(text), REQUIRED "instance: {\n run_dir = \"%s\"; };", longest);
	expect_problem(text, 4, "instance.run_dir", "too long for sockets");
	expect_problem(REQUIRED "control: { control_socket = \"/run/fanwire/client.sock\"; };", 3,
		       "control.client_socket", "same path");
}

Test(config, macs)
{
	cr_assert_eq(load(NETWORK("static_mac = \"02:00:00:00:0a:Ff\";")), 0, "%s", why);
	cr_expect(config.has_static_mac);
	cr_expect_eq(config.static_mac[5], 0xff);
	cr_assert_eq(load(NETWORK("static_mac = \"\";")), 0, "%s", why);
	cr_expect_not(config.has_static_mac);
	expect_problem(NETWORK("static_mac = \"02:00:00:00:0a\";"), 4, "network.static_mac",
		       "station");
	expect_problem(NETWORK("static_mac = \"02:00:00:00:0a:ff:\";"), 4, "network.static_mac",
		       "station");
	expect_problem(NETWORK("static_mac = \"ff:ff:ff:ff:ff:ff\";"), 4, "network.static_mac",
		       "station");
}

#define CORES(list)                                                                              \
	"network: { engine_addresses = [ \"192.0.2.1\" ]; receiver_addresses = [ \"192.0.2.2\" " \
	"]; };\ndataplane: { port = \"net_null0\";\n cores = " list "; };\n"

Test(config, cores)
{
	cr_assert_eq(load(CORES("[ 3, 2 ]")), 0, "%s", why);
	cr_expect_eq(config.core_cnt, 2);
	cr_expect_eq(config.cores[0], 3);
	expect_problem(CORES("[ ]"), 3, "dataplane.cores", "1..16");
	expect_problem(CORES("[ 1, 2, 1 ]"), 3, "dataplane.cores", "twice");
	expect_problem(CORES("[ -1 ]"), 3, "dataplane.cores", "out of range");
	expect_problem(CORES("[ 128 ]"), 3, "dataplane.cores", "out of range");
	expect_problem(CORES("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"), 3, "dataplane.cores",
		       "17 elements");
}

Test(config, limits)
{
	expect_problem(REQUIRED "limits: { max_users = 10;\n max_groups = 9; };", 4,
		       "limits.max_groups", "max_users");
	expect_problem(REQUIRED "limits: { max_users = 200000; };", 3, "limits.max_groups",
		       "max_users");
	cr_assert_eq(load(REQUIRED "limits: { max_sessions = 257; };"), 0, "%s", why);
	cr_expect_eq(config.max_sessions, 512);
	cr_assert_eq(load(REQUIRED "limits: { max_sessions = 1; };"), 0, "%s", why);
	cr_expect_eq(config.max_sessions, 1);
}

static bool vouches(const char *text)
{
	struct fan_address address;

	cr_assert_eq(fan_address_parse(&address, text), 0);
	return fan_config_vouches(&config, &address);
}

Test(config, vouched_prefixes)
{
	cr_assert_eq(load(REQUIRED "scope: { vouched = [ \"198.18.4.0/22\", \"2001:db8::/61\", "
				   "\"192.0.2.7/32\" ]; };"),
		     0, "%s", why);
	cr_expect(vouches("198.18.4.1") && vouches("198.18.7.255") && vouches("192.0.2.7"));
	cr_expect_not(vouches("198.18.8.0") || vouches("198.18.3.255") || vouches("192.0.2.6"));
	cr_expect(vouches("2001:db8:0:7::1"));
	cr_expect_not(vouches("2001:db8:0:8::1"));
	cr_assert_eq(load(REQUIRED "scope: { vouched = [ \"::/0\" ]; };"), 0, "%s", why);
	cr_expect(vouches("2001:db8::1"));
	cr_expect_not(vouches("192.0.2.1"), "a prefix of one family says nothing of the other");
	cr_assert_eq(load(REQUIRED), 0);
	cr_expect_not(vouches("192.0.2.1"));
	expect_problem(REQUIRED "scope: { vouched = [ \"198.18.0.0\" ]; };", 3, "scope.vouched",
		       "prefix");
	expect_problem(REQUIRED "scope: { vouched = [ \"198.18.0.0/33\" ]; };", 3, "scope.vouched",
		       "prefix");
	expect_problem(REQUIRED "scope: { vouched = [ \"198.18.0.0/\" ]; };", 3, "scope.vouched",
		       "prefix");
	expect_problem(REQUIRED "scope: { vouched = [ \"198.18.0.0/-1\" ]; };", 3, "scope.vouched",
		       "prefix");
	expect_problem(REQUIRED "scope: { vouched = [ \"198.18.0.1/24\" ]; };", 3, "scope.vouched",
		       "bits");
}

/* All of them, each with its line, and a count of those that do not fit. */
Test(config, every_problem_is_named)
{
	char text[32768] = REQUIRED;
	size_t len = strlen(text);

	expect_problem(REQUIRED "limits: {\n a = 1;\n max_users = 0;\n b = 2;\n};", 4, "limits.a",
		       "unknown");
	cr_expect(strstr(why, ":5: limits.max_users: 0 is out of range"), "%s", why);
	cr_expect(strstr(why, ":6: limits.b: unknown key"), "%s", why);

	len += (size_t)sprintf(text + len, "limits: {\n");
	for (unsigned i = 0; i < 500; i++)
		len += (size_t)sprintf(text + len, "unknown_key_%u = 1;\n", i);
	sprintf(text + len, "};\n");
	cr_expect_eq(load(text), -EINVAL);
	cr_expect_lt(strlen(why), sizeof(why));
	cr_expect(strstr(why, "limits.unknown_key_0: "));
	cr_expect(strstr(why, "more\n"), "%s", why + strlen(why) - 40);
}

Test(config, file_that_cannot_be_read)
{
	cr_expect_eq(fan_config_load(&config, "/nonexistent.conf", why), -ENOENT);
	cr_expect(strstr(why, "/nonexistent.conf"), "%s", why);
	cr_expect_eq(fan_config_load(&config, "/nonexistent.conf", NULL), -ENOENT);
}

Test(config, addresses_as_text)
{
	static const char *const texts[] = {"192.0.2.1", "2001:db8::1", "::1"};
	struct fan_address address;
	char text[46];

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		cr_assert_eq(fan_address_parse(&address, texts[i]), 0);
		fan_address_format(text, address.bytes, address.family);
		cr_expect_str_eq(text, texts[i]);
	}
	cr_expect_eq(fan_address_parse(&address, "192.0.2.1/24"), -EINVAL);
	cr_expect_eq(fan_address_parse(&address, ""), -EINVAL);
	cr_expect_eq(address.family, 6, "a refused text changed the address");
}
