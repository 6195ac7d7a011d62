/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log lines for people on standard error: "PROGRAM: LEVEL subject: message", or, where
 * JOURNAL_STREAM is set, "<PRIORITY>LEVEL subject: message" for the journal. Control characters
 * become '?'. Never called from the worker loop. Any thread, after fan_log_init().
 */
#pragma once

enum fan_log_level { FAN_LOG_ERROR, FAN_LOG_WARNING, FAN_LOG_INFO, FAN_LOG_DEBUG };

/* `program` is kept, not copied. `level`: error, warning, info, debug; anything else: info. */
void fan_log_init(const char *program, const char *level);
void fan_log(enum fan_log_level level, const char *subject, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
