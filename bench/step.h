/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A measuring program is driven line by line, so that several can be set up at once and run in
 * turn. It sets up, prints {"ready": {"settings": ..., "versions": ...}}, and then answers each
 * `run MS` of its standard input with one line, {"run": {"METRIC": number, ...}}, until `quit` or
 * the end of the input. Between runs it blocks in read(). Where it cannot go on it prints {"error":
 * "..."} and exits with status 1. Nothing else goes to standard output: messages go to standard
 * error. One thread.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

/*
 * One timed run of about ms milliseconds: its figures into run (json_object_set_new) and 0, or
 * -errno and in why a sentence: what failed, where, what to do.
 */
typedef int step_run_fn(void *context, unsigned ms, json_t *run, char *why, size_t why_size);

/*
 * Says that the program is ready (takes both objects), runs until `quit`, and returns the exit
 * status. The caller then cleans up.
 */
int step_serve(json_t *settings, json_t *versions, step_run_fn *run, void *context);

/* Says ready only (takes both objects), for a program that serves others and measures nothing. */
void step_ready(json_t *settings, json_t *versions);

/* Prints the error line; returns 1, the exit status. */
int step_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
