/* SPDX-License-Identifier: BSD-3-Clause */
/* What DPDK's telemetry socket answers about us. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <rte_eal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/housekeeping.h"
#include "dataplane/telemetry.h"
#include "tests/unit/dataplane/pipeline.h"

static struct pipeline p;
static int socket_fd;

static void open_two(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	char hello[1024];

	pipeline_open(&p, 2);
	cr_assert_eq(telemetry_register(&p.plane), 0);
	snprintf(name.sun_path, sizeof(name.sun_path), "%s/dpdk_telemetry.v2",
		 rte_eal_get_runtime_dir());
	socket_fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	cr_assert_eq(connect(socket_fd, (struct sockaddr *)&name, sizeof(name)), 0);
	cr_assert_gt(recv(socket_fd, hello, sizeof(hello), 0), 0);
}

static void close_two(void)
{
	close(socket_fd);
	telemetry_forget();
	pipeline_close(&p);
}

TestSuite(telemetry, .init = open_two, .fini = close_two);

/* The answer's inner object. */
static json_t *ask(const char *command)
{
	char text[16384];
	json_t *answer, *inner;
	ssize_t len;

	cr_assert_gt(send(socket_fd, command, strlen(command), 0), 0);
	len = recv(socket_fd, text, sizeof(text), 0);
	cr_assert_gt(len, 0);
	answer = json_loadb(text, (size_t)len, 0, NULL);
	cr_assert_not_null(answer, "%s: no JSON", command);
	inner = json_incref(json_object_get(answer, command));
	json_decref(answer);
	cr_assert_not_null(inner, "%s: no such command", command);
	return inner;
}

static json_int_t number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	cr_assert(json_is_integer(value), "%s is no number", key);
	return json_integer_value(value);
}

Test(telemetry, counters_of_all_workers_together)
{
	json_t *counters;

	region_add_group(&p.regions, "alice", 0, 2, 4, 0, 25500);
	for (uint32_t slot = 0; slot < 2; slot++)
		publish(&p, &(struct publish_spec){.slot = slot, .sequence = 1, .user = "nobody"});
	worker_burst(p.plane.workers[1], NULL, 0);
	counters_flush(p.plane.workers[0]);
	counters_flush(p.plane.workers[1]);
	counters = ask("/fanwire/counters");
	cr_expect_eq(json_object_size(counters), FAN_COUNTER_CNT);
	cr_expect_eq(number(counters, "rx_packets"), 2);
	cr_expect_eq(number(counters, "publishes_accepted"), 2);
	json_decref(counters);
	while (worker_burst(p.plane.workers[0], NULL, 0) +
	       worker_burst(p.plane.workers[1], NULL, 0))
		;
}

Test(telemetry, workers_and_port)
{
	json_t *workers, *port;

	worker_enter(p.plane.workers[1]);
	workers = ask("/fanwire/workers");
	cr_expect_eq(json_object_size(workers), 2);
	cr_expect_eq(number(json_object_get(workers, "0"), "quiescent") % 2, 0);
	cr_expect_eq(number(json_object_get(workers, "1"), "quiescent") % 2, 1);
	json_decref(workers);
	worker_leave(p.plane.workers[1]);

	port = ask("/fanwire/port");
	cr_expect_str_eq(json_string_value(json_object_get(port, "name")), "net_ring_test");
	cr_expect_eq(number(port, "rx_queues"), 2);
	cr_expect_eq(number(port, "tx_queues"), 2);
	json_decref(port);

	telemetry_forget(); /* the regions are about to go */
	cr_expect(json_is_null(ask("/fanwire/port")));
}
