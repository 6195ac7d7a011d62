/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All workers of a process together: made once the regions, EAL and the pool are there, launched,
 * drained and taken apart. Main lcore only.
 */
#pragma once

#include "dataplane/worker.h"

/* Rings and workers. 0 or -errno. */
int plane_init(struct plane *plane);
/* One lcore each, from lcore 1. 0 or -errno. */
int plane_launch(struct plane *plane);
/* Receives no more, finishes what is under way (bounded), leaves the loops. */
void plane_drain(struct plane *plane);
void plane_fini(struct plane *plane);
