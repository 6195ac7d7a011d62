/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwirectl's commands: one table (commands.c) drives parsing, help and dispatch.
 * A process of one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define EXIT_DONE    0
#define EXIT_USAGE   1 /* the command line is wrong */
#define EXIT_REFUSED 2 /* refused or failed */

#define POSITIONAL_MAX 2
#define OPTIONS_MAX    128 /* given on one command line */

struct ctl {
	bool json;	    /* one JSON object a line */
	const char *socket; /* control.sock */
	char client_socket[256];
};

struct option {
	const char *name;  /* with its dashes */
	const char *value; /* what it takes, for the help; NULL: nothing */
	const char *help;
};

struct arguments {
	const char *positional[POSITIONAL_MAX];
	unsigned cnt;
	struct {
		const struct option *option;
		const char *value;
	} options[OPTIONS_MAX];
	unsigned option_cnt;
};

struct command {
	const char *name;	      /* one or two words */
	const char *arguments;	      /* for the help */
	unsigned least, most;	      /* positional arguments */
	const char *help;	      /* first sentence: the summary */
	const struct option *options; /* ends with a nameless one; NULL: none */
	int (*run)(const struct ctl *ctl, const struct arguments *arguments);
};

extern const struct command commands[]; /* ends with a nameless one */
extern const struct option global_options[];

/* Value of an option (its name for one that takes none), the nth of its kind; NULL: not given. */
const char *arguments_option(const struct arguments *arguments, const char *name, unsigned nth);
/* A whole number of an option in least..most: true, *number untouched where it was not given. */
bool arguments_number(const struct ctl *ctl, const struct arguments *arguments, const char *name,
		      unsigned long long least, unsigned long long most,
		      unsigned long long *number);
/* Seconds, fractions allowed, as milliseconds. */
bool arguments_seconds(const struct ctl *ctl, const struct arguments *arguments, const char *name,
		       int *milliseconds);

/* Parses and runs: the exit status. */
int command_main(int argc, char **argv);

/* help.c */
void help_all(void);
void help_command(const struct command *command);

/* One command each. */
int run_status(const struct ctl *ctl, const struct arguments *arguments);
int run_token(const struct ctl *ctl, const struct arguments *arguments);
int run_publisher_add(const struct ctl *ctl, const struct arguments *arguments);
int run_publisher_list(const struct ctl *ctl, const struct arguments *arguments);
int run_publisher_remove(const struct ctl *ctl, const struct arguments *arguments);
int run_publish(const struct ctl *ctl, const struct arguments *arguments);
int run_tail(const struct ctl *ctl, const struct arguments *arguments);
int run_connections(const struct ctl *ctl, const struct arguments *arguments);
int run_disconnect(const struct ctl *ctl, const struct arguments *arguments);
int run_import(const struct ctl *ctl, const struct arguments *arguments);
int run_vouched_list(const struct ctl *ctl, const struct arguments *arguments);
int run_vouched_remove(const struct ctl *ctl, const struct arguments *arguments);
int run_revoke(const struct ctl *ctl, const struct arguments *arguments);
int run_keys_show(const struct ctl *ctl, const struct arguments *arguments);
int run_keys_rotate(const struct ctl *ctl, const struct arguments *arguments);
int run_explain(const struct ctl *ctl, const struct arguments *arguments);
int run_audit(const struct ctl *ctl, const struct arguments *arguments);
int run_top(const struct ctl *ctl, const struct arguments *arguments);
int run_selftest(const struct ctl *ctl, const struct arguments *arguments);
int run_doctor(const struct ctl *ctl, const struct arguments *arguments);
