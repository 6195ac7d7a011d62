/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl/command.h"
#include "control/ctl/output.h"

/* ---- options --------------------------------------------------------------------------------- */

const char *arguments_option(const struct arguments *arguments, const char *name, unsigned nth)
{
	for (unsigned i = 0; i < arguments->option_cnt; i++) {
		if (strcmp(arguments->options[i].option->name, name) == 0 && nth-- == 0)
			return arguments->options[i].value;
	}
	return NULL;
}

bool arguments_number(const struct ctl *ctl, const struct arguments *arguments, const char *name,
		      unsigned long long least, unsigned long long most, unsigned long long *number)
{
	const char *text = arguments_option(arguments, name, 0);
	unsigned long long value;
	char *end;

	if (!text)
		return true;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || !*text || *text == '-' || value < least || value > most) {
		output_error(ctl, "usage", "%s %s: a whole number from %llu to %llu is wanted",
			     name, text, least, most);
		return false;
	}
	*number = value;
	return true;
}

bool arguments_seconds(const struct ctl *ctl, const struct arguments *arguments, const char *name,
		       int *milliseconds)
{
	const char *text = arguments_option(arguments, name, 0);
	double value;
	char *end;

	if (!text)
		return true;
	value = strtod(text, &end);
	if (*end || !*text || !isfinite(value) || value <= 0 || value > 86400) {
		output_error(ctl, "usage",
			     "%s %s: seconds, more than 0 and at most 86400, are wanted", name,
			     text);
		return false;
	}
	*milliseconds = (int)ceil(value * 1000);
	return true;
}

/* ---- command line ---------------------------------------------------------------------------- */

static const struct option *find_option(const struct option *options, const char *name, size_t len)
{
	for (; options && options->name; options++) {
		if (strlen(options->name) == len && strncmp(options->name, name, len) == 0)
			return options;
	}
	return NULL;
}

/* The command of the first one or two words; *used says how many those are. */
static const struct command *find_command(const char *const *words, unsigned cnt, unsigned *used)
{
	char two[64];

	for (const struct command *command = commands; cnt && command->name; command++) {
		*used = 1;
		if (strcmp(command->name, words[0]) == 0)
			return command;
		*used = 2;
		if (cnt > 1 &&
		    snprintf(two, sizeof(two), "%s %s", words[0], words[1]) < (int)sizeof(two) &&
		    strcmp(command->name, two) == 0)
			return command;
	}
	return NULL;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] != 0;
}

/*
 * The command stands before its own options, but global options with values may stand before the
 * command: so the words are gathered first with the global table only.
 */
static const struct command *command_of(int argc, char **argv)
{
	const char *words[2] = {0};
	unsigned cnt = 0, used;

	for (int i = 1; i < argc && cnt < 2; i++) {
		const struct option *option;

		if (!is_option(argv[i])) {
			words[cnt++] = argv[i];
			continue;
		}
		option = find_option(global_options, argv[i], strlen(argv[i]));
		if (option && option->value)
			i++;
		else if (!option && cnt)
			break; /* the command's own */
	}
	return find_command(words, cnt, &used);
}

struct parse {
	struct ctl *ctl;
	const struct command *command;
	struct arguments *arguments;
	const char *words[POSITIONAL_MAX + 3];
	unsigned word_cnt;
	bool help, version;
};

static bool take_global(struct parse *parse, const char *name, const char *value)
{
	if (strcmp(name, "-j") == 0 || strcmp(name, "--json") == 0)
		parse->ctl->json = true;
	else if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0)
		parse->help = true;
	else if (strcmp(name, "--version") == 0)
		parse->version = true;
	else if (strcmp(name, "--socket") == 0)
		parse->ctl->socket = value;
	else
		snprintf(parse->ctl->client_socket, sizeof(parse->ctl->client_socket), "%s", value);
	return true;
}

/* One option at argv[*idx]; moves *idx on where its value is the next word. */
static bool take_option(struct parse *parse, int argc, char **argv, int *idx)
{
	const char *word = argv[*idx], *equals = strchr(word, '=');
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct option *global = find_option(global_options, word, len);
	const struct option *option = global;
	const char *value = NULL;

	if (!option && parse->command)
		option = find_option(parse->command->options, word, len);
	if (!option) {
		output_error(parse->ctl, "usage", "unknown option %s; see fanwirectl help%s%s",
			     word, parse->command ? " " : "",
			     parse->command ? parse->command->name : "");
		return false;
	}
	if (option->value && !equals && *idx + 1 < argc)
		value = argv[++*idx];
	else if (option->value && equals)
		value = equals + 1;
	if (!option->value != !value || (equals && !option->value)) {
		output_error(parse->ctl, "usage", "%s takes %s%s", option->name,
			     option->value ? "a value: " : "no value",
			     option->value ? option->value : "");
		return false;
	}
	if (value && !*value) {
		output_error(parse->ctl, "usage", "%s takes a value: %s; it is empty", option->name,
			     option->value);
		return false;
	}
	if (global)
		return take_global(parse, option->name, value);
	if (parse->arguments->option_cnt == OPTIONS_MAX) {
		output_error(parse->ctl, "usage", "more than %d options", OPTIONS_MAX);
		return false;
	}
	parse->arguments->options[parse->arguments->option_cnt].option = option;
	parse->arguments->options[parse->arguments->option_cnt++].value =
		option->value ? value : option->name;
	return true;
}

static bool take_line(struct parse *parse, int argc, char **argv)
{
	bool options_over = false;

	for (int i = 1; i < argc; i++) {
		if (!options_over && strcmp(argv[i], "--") == 0) {
			options_over = true;
		} else if (!options_over && is_option(argv[i])) {
			if (!take_option(parse, argc, argv, &i))
				return false;
		} else if (parse->word_cnt < sizeof(parse->words) / sizeof(parse->words[0])) {
			parse->words[parse->word_cnt++] = argv[i];
		} else {
			output_error(parse->ctl, "usage",
				     "too many words from \"%s\" on; quote a "
				     "payload that has blanks",
				     argv[i]);
			return false;
		}
	}
	return true;
}

static int run_help(const struct ctl *ctl, const char *const *words, unsigned cnt)
{
	const struct command *command;
	bool found = false;
	unsigned used;

	if (cnt == 0) {
		help_all();
		return EXIT_DONE;
	}
	command = find_command(words, cnt, &used);
	if (command) {
		help_command(command);
		return EXIT_DONE;
	}
	for (command = commands; command->name; command++) { /* "help publisher": all of it */
		size_t len = strlen(words[0]);

		if (strncmp(command->name, words[0], len) || command->name[len] != ' ')
			continue;
		help_command(command);
		printf("\n");
		found = true;
	}
	if (found)
		return EXIT_DONE;
	output_error(ctl, "usage", "no command \"%s\"; fanwirectl help lists them", words[0]);
	return EXIT_USAGE;
}

/* "publisher" alone: what may follow. false: there is no such command at all. */
static bool tell_second_words(const struct ctl *ctl, const char *word)
{
	char list[256] = "";
	size_t len = strlen(word), end = 0;

	for (const struct command *command = commands; command->name; command++) {
		if (strncmp(command->name, word, len) || command->name[len] != ' ')
			continue;
		end += (size_t)snprintf(list + end, sizeof(list) - end, "%s%s%s%s", end ? ", " : "",
					command->name + len + 1, *command->arguments ? " " : "",
					command->arguments);
	}
	if (end)
		output_error(ctl, "usage", "%s what? %s", word, list);
	return end != 0;
}

static int run_line(struct parse *parse)
{
	const struct command *command;
	struct arguments *arguments = parse->arguments;
	unsigned used = 0;

	if (parse->version) {
		printf("fanwirectl %s\n", FAN_VERSION);
		return EXIT_DONE;
	}
	if (parse->word_cnt && strcmp(parse->words[0], "help") == 0)
		return run_help(parse->ctl, parse->words + 1, parse->word_cnt - 1);
	if (parse->help)
		return run_help(parse->ctl, parse->words, parse->word_cnt);
	command = find_command(parse->words, parse->word_cnt, &used);
	if (!command && parse->word_cnt && tell_second_words(parse->ctl, parse->words[0]))
		return EXIT_USAGE;
	if (!command) {
		output_error(parse->ctl, "usage", "%s%s%s; fanwirectl help lists the commands",
			     parse->word_cnt ? "no command \"" : "no command was given",
			     parse->word_cnt ? parse->words[0] : "", parse->word_cnt ? "\"" : "");
		return EXIT_USAGE;
	}
	arguments->cnt = parse->word_cnt - used;
	if (arguments->cnt < command->least || arguments->cnt > command->most) {
		output_error(parse->ctl, "usage",
			     "usage: fanwirectl %s%s%s; see fanwirectl help %s", command->name,
			     *command->arguments ? " " : "", command->arguments, command->name);
		return EXIT_USAGE;
	}
	for (unsigned i = 0; i < arguments->cnt; i++)
		arguments->positional[i] = parse->words[used + i];
	if (arguments->cnt && !*arguments->positional[0]) { /* a name always; a payload may be */
		output_error(parse->ctl, "usage", "%s is empty; see fanwirectl help %s",
			     command->arguments, command->name);
		return EXIT_USAGE;
	}
	return command->run(parse->ctl, arguments);
}

/* client.sock beside control.sock, unless it was named. */
static void find_client_socket(struct ctl *ctl)
{
	const char *named = getenv("FANWIRE_CLIENT_SOCKET");
	const char *slash = strrchr(ctl->socket, '/');

	if (ctl->client_socket[0])
		return;
	if (named && *named)
		snprintf(ctl->client_socket, sizeof(ctl->client_socket), "%s", named);
	else
		snprintf(ctl->client_socket, sizeof(ctl->client_socket), "%.*sclient.sock",
			 slash ? (int)(slash - ctl->socket + 1) : 0, ctl->socket);
}

int command_main(int argc, char **argv)
{
	const char *named = getenv("FANWIRE_CONTROL_SOCKET");
	struct ctl ctl = {.socket = named && *named ? named : "/run/fanwire/control.sock"};
	struct arguments arguments = {0};
	struct parse parse = {
		.ctl = &ctl, .command = command_of(argc, argv), .arguments = &arguments};

	for (int i = 1; i < argc; i++) /* so that a wrong command line is told in JSON too */
		ctl.json |= strcmp(argv[i], "-j") == 0 || strcmp(argv[i], "--json") == 0;
	if (!take_line(&parse, argc, argv))
		return EXIT_USAGE;
	find_client_socket(&ctl);
	return run_line(&parse);
}
