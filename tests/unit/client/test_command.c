/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwirectl's command line, as far as it goes without a daemon. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl/channel.h"
#include "control/ctl/command.h"
#include "control/ctl/output.h"

static char output[65536], errors[65536];

static void read_all(FILE *file, char *text, size_t room)
{
	text[fread(text, 1, room - 1, file)] = 0;
}

/* Runs a command line of blank-separated words; what it prints is in `output` and `errors`. */
static int run(const char *line)
{
	char copy[512], *argv[32] = {"fanwirectl"}, *rest = copy;
	int argc = 1, status;

	setenv("FANWIRE_CONTROL_SOCKET", "/nonexistent/control.sock", 1);
	snprintf(copy, sizeof(copy), "%s", line);
	while (*rest && (argv[argc] = strsep(&rest, " ")) && rest)
		argc++;
	argc += *line != 0;
	fflush(stdout);
	status = command_main(argc, argv);
	fflush(stdout);
	fflush(stderr);
	read_all(cr_get_redirected_stdout(), output, sizeof(output));
	read_all(cr_get_redirected_stderr(), errors, sizeof(errors));
	return status;
}

static void redirect(void)
{
	cr_redirect_stdout();
	cr_redirect_stderr();
}

TestSuite(command, .init = redirect);

Test(command, knows_wrong_usage)
{
	static const char *const lines[] = {
		"",
		"nonsense",
		"status extra",
		"token",
		"token alice --ttl",
		"token alice --ttl 0",
		"token alice --ttl -1",
		"token alice --ttl 1x",
		"tail alice --token t --policy fast",
		"tail alice --token t --since 12",
		"tail alice --token t --since :12",
		"tail alice --token t --since 0:12",
		"tail alice --token t --since 12:",
		"tail alice --token t --since 12:3x",
		"tail alice --token t --since 12345678901234567:3",
		"tail alice --token t --since 12:18446744073709551616",
		"tail alice --token t --since =12:3",
		"tail alice --token t --since @12=12:3",
		"token alice --nonsense",
		"publish",
		"publish alice x --kind 65536",
		"publish alice x --channel @12",
		"publish alice x --channel @ffffffffffffffff",
		"publish alice x --channel=",
		"tail alice",
		"tail alice --token @/nonexistent/file",
		"tail alice --token t --count 0",
		"tail alice --token t --timeout nan",
		"tail alice --token t --timeout 0",
		"tail alice --token t --channel @0000000000000001 --channel "
		"@0000000000000002",
		"audit --limit x",
		"audit --follow=yes",
		"disconnect 12",
		"publisher",
		"publisher nonsense",
		"help nonsense",
		"--socket",
		"publish alice one two three four"};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		cr_assert_eq(run(lines[i]), EXIT_USAGE, "\"%s\" is not wrong usage", lines[i]);
}

Test(command, says_that_the_daemon_is_not_there)
{
	cr_assert_eq(run("status"), EXIT_REFUSED);
	cr_assert_not_null(strstr(errors, "/nonexistent/control.sock"));
	cr_assert_not_null(strstr(errors, "start it"));
	cr_assert_str_eq(output, "");
}

Test(command, takes_json_before_and_after)
{
	static const char *const lines[] = {"-j status", "status -j", "--json status",
					    "--socket /nonexistent/control.sock status --json"};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		json_t *object;

		cr_assert_eq(run(lines[i]), EXIT_REFUSED);
		object = json_loads(errors, 0, NULL);
		cr_assert_not_null(object, "\"%s\" told no JSON object: %s", lines[i], errors);
		cr_assert_str_eq(json_string_value(json_object_get(object, "error")),
				 "unreachable");
		cr_assert(json_is_string(json_object_get(object, "message")));
		json_decref(object);
	}
}

Test(command, names_the_socket_that_was_asked_for)
{
	cr_assert_eq(run("status --socket=/elsewhere/c.sock"), EXIT_REFUSED);
	cr_assert_not_null(strstr(errors, "/elsewhere/c.sock"));
}

Test(command, helps_with_each_command_and_option)
{
	char line[64];

	cr_assert_eq(run("help"), EXIT_DONE);
	for (const struct command *c = commands; c->name; c++)
		cr_assert_not_null(strstr(output, c->name), "%s is not listed", c->name);
	for (const struct command *c = commands; c->name; c++) {
		snprintf(line, sizeof(line), "help %s", c->name);
		cr_assert_eq(run(line), EXIT_DONE);
		cr_assert_not_null(strstr(output, c->help));
		for (const struct option *o = c->options; o && o->name; o++)
			cr_assert_not_null(strstr(output, o->name), "%s of %s", o->name, c->name);
		snprintf(line, sizeof(line), "%s --help", c->name);
		cr_assert_eq(run(line), EXIT_DONE);
		cr_assert_not_null(strstr(output, c->help));
	}
}

Test(command, tells_its_version)
{
	cr_assert_eq(run("--version"), EXIT_DONE);
	cr_assert_eq(strncmp(output, "fanwirectl ", 11), 0);
}

Test(command, two_dashes_end_the_options)
{
	cr_assert_eq(run("publish alice -x"), EXIT_USAGE);
	cr_assert_eq(run("publish alice -- -x"), EXIT_REFUSED, "refused, since no daemon is there");
}

Test(output, escapes_what_could_move_a_terminal)
{
	static const char text[] = "a\x1b[2J\n\x7f\xc2\x9b\xff\xc3\xa4\xe2\x82\xac";
	char *escaped = output_escape(text, sizeof(text) - 1);

	cr_assert_str_eq(escaped, "a\\x1b[2J\\x0a\\x7f\\xc2\\x9b\\xff\xc3\xa4\xe2\x82\xac");
	free(escaped);
}

Test(channel, tells_threads_from_connections)
{
	struct ctl ctl = {0};
	const char *thread;
	uint64_t connection;

	cr_assert(channel_parse(&ctl, NULL, &thread, &connection));
	cr_assert(thread == NULL && connection == 0);
	cr_assert(channel_parse(&ctl, "room", &thread, &connection));
	cr_assert_str_eq(thread, "room");
	cr_assert_eq(connection, 0);
	cr_assert(channel_parse(&ctl, "@00000000000000aa", &thread, &connection));
	cr_assert_null(thread);
	cr_assert_eq(connection, 0xaa);
}
