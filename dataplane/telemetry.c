/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/telemetry.h"

#include <pthread.h>
#include <rte_telemetry.h>

/* DPDK's callbacks have no argument of ours, and its thread lives until the process ends. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct plane *told; /* under the lock; NULL: the regions are gone */

static int counters_tell(struct rte_tel_data *data)
{
	rte_tel_data_start_dict(data);
	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++) {
		uint64_t sum = 0;

		for (unsigned j = 0; j < told->worker_cnt; j++)
			sum += __atomic_load_n(&told->worker_states[j].counters[i],
					       __ATOMIC_RELAXED);
		rte_tel_data_add_dict_u64(data, fan_counter_name(i), sum);
	}
	return 0;
}

static void worker_tell(struct rte_tel_data *data, const struct fan_worker_state *state)
{
	rte_tel_data_start_dict(data);
	rte_tel_data_add_dict_u64(data, "quiescent",
				  __atomic_load_n(&state->quiescent, __ATOMIC_RELAXED));
	rte_tel_data_add_dict_u64(data, "heartbeat_ns",
				  __atomic_load_n(&state->heartbeat_ns, __ATOMIC_RELAXED));
	rte_tel_data_add_dict_u64(data, "loops", __atomic_load_n(&state->loops, __ATOMIC_RELAXED));
	rte_tel_data_add_dict_u64(data, "busy_loops",
				  __atomic_load_n(&state->busy_loops, __ATOMIC_RELAXED));
}

static int workers_tell(struct rte_tel_data *data)
{
	rte_tel_data_start_dict(data);
	for (unsigned i = 0; i < told->worker_cnt; i++) {
		struct rte_tel_data *worker = rte_tel_data_alloc();
		char name[16];

		if (!worker)
			return -1;
		snprintf(name, sizeof(name), "%u", i);
		worker_tell(worker, &told->worker_states[i]);
		rte_tel_data_add_dict_container(data, name, worker, 0);
	}
	return 0;
}

static int port_tell(struct rte_tel_data *data)
{
	struct rte_eth_stats stats = {0};

	rte_tel_data_start_dict(data);
	rte_tel_data_add_dict_string(data, "name", (const char *)told->state->port_name);
	rte_tel_data_add_dict_u64(data, "rx_queues", told->rx_queue_cnt);
	rte_tel_data_add_dict_u64(data, "tx_queues", told->tx_queue_cnt);
	rte_tel_data_add_dict_u64(data, "buffers_in_use", rte_mempool_in_use_count(told->pool));
	if (rte_eth_stats_get(told->port_id, &stats) == 0) {
		rte_tel_data_add_dict_u64(data, "ipackets", stats.ipackets);
		rte_tel_data_add_dict_u64(data, "opackets", stats.opackets);
		rte_tel_data_add_dict_u64(data, "imissed", stats.imissed);
		rte_tel_data_add_dict_u64(data, "ierrors", stats.ierrors);
		rte_tel_data_add_dict_u64(data, "oerrors", stats.oerrors);
	}
	return 0;
}

static int answer(int (*tell)(struct rte_tel_data *), struct rte_tel_data *data)
{
	int err = -1;

	pthread_mutex_lock(&lock);
	if (told)
		err = tell(data);
	pthread_mutex_unlock(&lock);
	return err;
}

static int on_counters(const char *cmd, const char *params, struct rte_tel_data *data)
{
	return answer(counters_tell, data);
}

static int on_workers(const char *cmd, const char *params, struct rte_tel_data *data)
{
	return answer(workers_tell, data);
}

static int on_port(const char *cmd, const char *params, struct rte_tel_data *data)
{
	return answer(port_tell, data);
}

static void told_set(const struct plane *plane)
{
	pthread_mutex_lock(&lock);
	told = plane;
	pthread_mutex_unlock(&lock);
}

int telemetry_register(const struct plane *plane)
{
	int err;

	told_set(plane);
	err = rte_telemetry_register_cmd("/fanwire/counters", on_counters,
					 "Counters of all workers together. Takes no parameters");
	if (!err)
		err = rte_telemetry_register_cmd("/fanwire/workers", on_workers,
						 "Each worker's loop. Takes no parameters");
	if (!err)
		err = rte_telemetry_register_cmd("/fanwire/port", on_port,
						 "The port and its buffers. Takes no parameters");
	return err;
}

void telemetry_forget(void)
{
	told_set(NULL);
}
