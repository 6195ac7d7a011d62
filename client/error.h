/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sentence behind fan_error(): one buffer a thread, written where something fails.
 * Any thread; each sees its own.
 */
#pragma once

/* Keeps the sentence and returns `status`, so that a failing function can return it in one line. */
int client_error(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
