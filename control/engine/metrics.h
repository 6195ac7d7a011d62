/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Prometheus metrics: GET /metrics on 127.0.0.1:metrics_port, text format 0.0.4. No user's name
 * is a label. Event-loop thread only.
 */
#pragma once

struct engine;
struct metrics;

/* metrics_port 0: *metrics is NULL, and that is no error. */
int metrics_open(struct metrics **metrics, struct engine *engine, char why[1024]);
void metrics_close(struct metrics *metrics);
