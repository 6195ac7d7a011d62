/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log lines for people: "LEVEL subject: message" on standard error, prefixed for the journal
 * (<3>, <4>, ...) when JOURNAL_STREAM is set. Never called from the worker loop. Any thread.
 */
#pragma once

enum fan_log_level { FAN_LOG_ERROR, FAN_LOG_WARNING, FAN_LOG_INFO, FAN_LOG_DEBUG };

void fan_log_init(const char *program, const char *level);
void fan_log(enum fan_log_level level, const char *subject, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
