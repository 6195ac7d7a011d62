/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

static int pipe_fd[2], saved;

static void init(void)
{
	unsetenv("JOURNAL_STREAM");
	saved = dup(STDERR_FILENO);
	cr_assert_eq(pipe(pipe_fd), 0);
	dup2(pipe_fd[1], STDERR_FILENO);
	close(pipe_fd[1]);
}
TestSuite(log, .init = init);

/* What was logged since init(); ends the redirection. */
static const char *logged(void)
{
	static char text[8192];
	ssize_t len;

	dup2(saved, STDERR_FILENO);
	len = read(pipe_fd[0], text, sizeof(text) - 1);
	text[len < 0 ? 0 : len] = '\0';
	return text;
}

Test(log, lines_have_program_level_and_subject)
{
	fan_log_init("fanwired", "warning");
	fan_log(FAN_LOG_ERROR, "region", "%s is full", "x");
	fan_log(FAN_LOG_INFO, "region", "not of this level");
	fan_log(FAN_LOG_WARNING, "agent", "%d%%", 5);
	cr_expect_str_eq(logged(), "fanwired: error region: x is full\n"
				   "fanwired: warning agent: 5%\n");
}

Test(log, journal_gets_priorities)
{
	setenv("JOURNAL_STREAM", "1:2", 1);
	fan_log_init("fanwired", "nonsense");
	fan_log(FAN_LOG_INFO, "agent", "hello");
	fan_log(FAN_LOG_DEBUG, "agent", "not by default");
	cr_expect_str_eq(logged(), "<6>info agent: hello\n");
}

Test(log, a_name_cannot_forge_a_line)
{
	fan_log_init("fanwired", "info");
	fan_log(FAN_LOG_INFO, "audit", "user %s", "x\n<3>error: y\x1b[2J");
	cr_expect_str_eq(logged(), "fanwired: info audit: user x?<3>error: y?[2J\n");
}

Test(log, long_messages_are_cut_to_one_line)
{
	char *message = malloc(5001);
	const char *line;

	memset(message, 'a', 5000);
	message[5000] = '\0';
	fan_log_init("fanwired", "info");
	fan_log(FAN_LOG_INFO, "long", "%s", message);
	line = logged();
	cr_expect_eq(strlen(line), 2047);
	cr_expect_eq(strchr(line, '\n'), line + 2046);
	free(message);
}
