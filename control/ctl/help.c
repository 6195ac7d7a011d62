/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>

#include "control/ctl/command.h"

static void print_options(const struct option *options)
{
	for (; options && options->name; options++)
		printf("  %s %-*s  %s\n", options->name, (int)(26 - strlen(options->name)),
		       options->value ? options->value : "", options->help);
}

static void print_summary(const struct command *command)
{
	const char *end = strchr(command->help, '.');
	char usage[64];

	snprintf(usage, sizeof(usage), "%s %s", command->name, command->arguments);
	printf("  %-27s  %.*s\n", usage, (int)(end - command->help), command->help);
}

void help_all(void)
{
	printf("usage: fanwirectl [OPTIONS] COMMAND [ARGUMENTS]\n\n"
	       "Administers a running Fanwire.\n\ncommands:\n");
	for (const struct command *command = commands; command->name; command++)
		print_summary(command);
	printf("\noptions, before or after the command:\n");
	print_options(global_options);
	printf("\nfanwirectl help COMMAND tells a command's own options.\n"
	       "exit status: 0 done, 1 wrong usage, 2 refused or failed\n");
}

void help_command(const struct command *command)
{
	printf("usage: fanwirectl %s%s%s%s\n\n%s\n", command->name, *command->arguments ? " " : "",
	       command->arguments, command->options ? " [OPTIONS]" : "", command->help);
	if (command->options)
		printf("\noptions:\n");
	print_options(command->options);
	printf("\noptions of every command:\n");
	print_options(global_options);
}
