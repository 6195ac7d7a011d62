/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set once by fan_log_init(), before there are threads. */
static const char *log_program = "fanwire";
static enum fan_log_level log_threshold = FAN_LOG_INFO;
static int log_journal;

static const struct {
	const char *name;
	int priority; /* of syslog, what the journal reads */
} levels[] = {
	[FAN_LOG_ERROR] = {"error", 3},
	[FAN_LOG_WARNING] = {"warning", 4},
	[FAN_LOG_INFO] = {"info", 6},
	[FAN_LOG_DEBUG] = {"debug", 7},
};

void fan_log_init(const char *program, const char *level)
{
	log_program = program;
	log_journal = getenv("JOURNAL_STREAM") != NULL;
	log_threshold = FAN_LOG_INFO;
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (level && strcmp(level, levels[i].name) == 0)
			log_threshold = (enum fan_log_level)i;
	}
}

/* Bytes that vsnprintf() and its like left in a buffer of `room`, its NUL not counted. */
static size_t printed(int rc, size_t room)
{
	if (rc < 0)
		return 0;
	return (size_t)rc < room ? (size_t)rc : room - 1;
}

void fan_log(enum fan_log_level level, const char *subject, const char *format, ...)
{
	char line[2048];
	size_t room = sizeof(line) - 1; /* for the newline */
	size_t start, len;
	va_list args;

	if (level > log_threshold)
		return;
	if (log_journal)
		start = printed(snprintf(line, room, "<%d>", levels[level].priority), room);
	else
		start = printed(snprintf(line, room, "%s: ", log_program), room);
	len = start +
	      printed(snprintf(line + start, room - start, "%s %s: ", levels[level].name, subject),
		      room - start);
	va_start(args, format);
	len += printed(vsnprintf(line + len, room - len, format, args), room - len);
	va_end(args);
	for (size_t i = start; i < len; i++) { /* a name in a message must not forge a line */
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	}
	line[len++] = '\n';
	/* one write, so that lines of two threads do not mix; nowhere to report a failure to */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
