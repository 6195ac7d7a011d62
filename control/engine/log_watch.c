/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/log_watch.h"

#include "common/shm/state.h"
#include "control/registry/registry.h"

#define EACH_NS ENGINE_NS_PER_S

static uint64_t logged(const struct engine *engine)
{
	const struct fan_worker_state *worker;
	uint64_t sum = 0;

	for (unsigned i = 0; (worker = registry_worker(engine->registry, i)); i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++)
			sum += __atomic_load_n(&worker->log_head[ring], __ATOMIC_RELAXED);
	return sum;
}

/* Half of what it was, half of what this second was: a burst is seen, and is forgotten in ten. */
void log_watch_tick(struct engine *engine, struct moment now)
{
	struct log_watch *watch = &engine->log_watch;
	uint64_t sum, gap_ns = now.mono_ns - watch->at_ns;

	if (gap_ns < EACH_NS)
		return;
	sum = logged(engine);
	if (watch->at_ns && sum >= watch->logged) /* less: another state region */
		watch->bytes_per_s =
			(watch->bytes_per_s +
			 (double)(sum - watch->logged) * ENGINE_NS_PER_S / (double)gap_ns) /
			2;
	if (watch->bytes_per_s < 1)
		watch->bytes_per_s = 0;
	watch->logged = sum;
	watch->at_ns = now.mono_ns;
}

void log_watch_status(const struct engine *engine, struct log_status *status)
{
	const struct fan_state *state = registry_state(engine->registry);

	*status = (struct log_status){.logged = logged(engine),
				      .bytes_per_s = engine->log_watch.bytes_per_s};
	if (state)
		status->capacity = __atomic_load_n(&state->log_bytes, __ATOMIC_ACQUIRE);
	if (status->bytes_per_s > 0)
		status->retention_seconds = (double)status->capacity / status->bytes_per_s;
}
