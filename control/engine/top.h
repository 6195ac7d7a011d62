/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rates for GET /v1/top: the difference between two readings of the dataplane's counters and
 * groups, at least 0.2 s apart. Event-loop thread only.
 */
#pragma once

struct top;

struct top *top_create(void);
void top_destroy(struct top *top);
