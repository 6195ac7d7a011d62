/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/plane.h"

#include <errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <unistd.h>

#include "dataplane/budget.h"
#include "dataplane/handover.h"
#include "dataplane/log.h"
#include "dataplane/seal.h"

#define DRAIN_STEP_US	1000
#define DRAIN_STEPS_MAX 2000

int plane_init(struct plane *plane)
{
	int err = handover_init(plane);

	if (!err)
		err = seal_init(plane);
	if (!err)
		err = budget_init(plane);
	plane->kernels = kernels_best();
	log_init(plane);
	for (unsigned i = 0; !err && i < plane->worker_cnt; i++)
		err = worker_create(plane, i);
	return err;
}

int plane_launch(struct plane *plane)
{
	int err = 0;

	for (unsigned i = 0; !err && i < plane->worker_cnt; i++)
		err = rte_eal_remote_launch(worker_run, plane->workers[i], i + 1);
	return err;
}

void plane_drain(struct plane *plane)
{
	unsigned quiet = 0;

	__atomic_store_n(&plane->draining, true, __ATOMIC_RELAXED);
	/* Quiet twice in a row: a burst that was received just before has run by then. */
	for (unsigned i = 0; i < DRAIN_STEPS_MAX && quiet < 2; i++) {
		usleep(DRAIN_STEP_US);
		quiet = handover_is_quiet(plane) ? quiet + 1 : 0;
	}
	__atomic_store_n(&plane->stopping, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < plane->worker_cnt; i++)
		rte_eal_wait_lcore(i + 1);
}

void plane_fini(struct plane *plane)
{
	for (unsigned i = 0; i < plane->worker_cnt; i++)
		worker_destroy(plane->workers[i]);
	budget_fini(plane);
	seal_fini(plane);
	handover_fini(plane);
}
