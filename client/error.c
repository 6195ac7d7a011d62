/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "client/fanwire.h"

static _Thread_local char sentence[512] = "no error";

int client_error(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	return status;
}

const char *fan_error(void)
{
	return sentence;
}
