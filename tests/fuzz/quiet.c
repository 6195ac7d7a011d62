/* SPDX-License-Identifier: BSD-3-Clause */
/* Log lines are made, and not written: millions of inputs are refused with one. */
#include <stdarg.h>
#include <stdio.h>

#include "common/log.h"

void __wrap_fan_log(enum fan_log_level level, const char *subject, const char *format, ...);

void __wrap_fan_log(enum fan_log_level level, const char *subject, const char *format, ...)
{
	char line[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
}
