/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/metrics.h"
#include "control/engine/log_watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "control/engine/door.h"
#include "control/engine/engine.h"
#include "control/engine/nexthop.h"
#include "control/engine/sessions.h"
#include "control/engine/store.h"
#include "control/engine/vouched.h"
#include "control/registry/registry.h"

#define CONNECTIONS_MAX 16
#define TIMEOUT_S	5

struct metrics {
	struct evhttp *server;
	struct door *door;
	struct engine *engine;
};

static void family(struct evbuffer *out, const char *name, const char *type, const char *help)
{
	evbuffer_add_printf(out, "# HELP fanwire_%s %s\n# TYPE fanwire_%s %s\n", name, help, name,
			    type);
}

static void gauge(struct evbuffer *out, const char *name, const char *help, uint64_t value)
{
	family(out, name, "gauge", help);
	evbuffer_add_printf(out, "fanwire_%s %" PRIu64 "\n", name, value);
}

static void labelled(struct evbuffer *out, const char *name, const char *label, const char *of,
		     uint64_t value)
{
	evbuffer_add_printf(out, "fanwire_%s{%s=\"%s\"} %" PRIu64 "\n", name, label, of, value);
}

static void write_dataplane(struct evbuffer *out, const struct engine *engine)
{
	char name[96];

	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++) {
		snprintf(name, sizeof(name), "%s_total", fan_counter_name(i));
		family(out, name, "counter", fan_counter_help(i));
		evbuffer_add_printf(out, "fanwire_%s %" PRIu64 "\n", name,
				    engine_counter(engine, i));
	}
	gauge(out, "dataplane_up", "1 while the dataplane runs",
	      engine_dataplane_state(engine, moment_now()) == DATAPLANE_RUNNING);
}

static void write_kernel(struct evbuffer *out, const struct engine *engine)
{
	const struct agent_status *status = &engine->agent_status;

	family(out, "filter_packets_total", "counter", "packets by verdict of the scope filter");
	for (unsigned i = 0; i < 16 && agent_verdict_name(i); i++)
		labelled(out, "filter_packets_total", "verdict", agent_verdict_name(i),
			 status->verdicts[i]);
	family(out, "guard_total", "counter", "what the port guard denied");
	for (unsigned i = 0; i < 8 && agent_guard_name(i); i++)
		labelled(out, "guard_total", "verdict", agent_guard_name(i), status->guards[i]);
	family(out, "ports", "gauge", "ports of the receivers' pool");
	labelled(out, "ports", "state", "used", status->ports_used);
	labelled(out, "ports", "state", "resting", status->ports_resting);
	labelled(out, "ports", "state", "held", status->ports_held);
	labelled(out, "ports", "state", "free", status->ports_free);
}

static void write_registry(struct evbuffer *out, const struct engine *engine)
{
	struct registry_counts counts;
	struct vouched_status vouched;
	unsigned total, unresolved;

	registry_counts(engine->registry, &counts);
	nexthops_counts(engine->nexthops, &total, &unresolved);
	family(out, "connections", "gauge", "connections by state");
	labelled(out, "connections", "state", "pending", counts.connections_pending);
	labelled(out, "connections", "state", "active", counts.connections_active);
	labelled(out, "connections", "state", "ending", counts.connections_ending);
	vouched_status(engine->vouched, &vouched);
	gauge(out, "connections_vouched", "those that an administrator vouches for", vouched.total);
	gauge(out, "users", "users with a connection", counts.users);
	gauge(out, "groups", "groups in the table", counts.groups);
	gauge(out, "groups_lingering", "groups without a connection", counts.groups_lingering);
	gauge(out, "sessions", "open publisher sessions", sessions_count(engine->sessions, 0));
	gauge(out, "nexthops_unresolved", "next hops without a MAC address", unresolved);
}

static void write_log(struct evbuffer *out, const struct engine *engine)
{
	struct log_status status;

	log_watch_status(engine, &status);
	gauge(out, "log_capacity_bytes", "event log, all workers", status.capacity);
	gauge(out, "log_bytes_per_second", "events logged, over the last seconds",
	      (uint64_t)status.bytes_per_s);
	gauge(out, "log_retention_seconds", "capacity at that rate; 0: nothing is logged",
	      (uint64_t)status.retention_seconds);
	family(out, "log_bytes_total", "counter", "bytes logged");
	evbuffer_add_printf(out, "fanwire_log_bytes_total %" PRIu64 "\n", status.logged);
}

static void write_control(struct evbuffer *out, const struct engine *engine)
{
	struct store_counts counts;

	store_counts(engine->store, &counts);
	family(out, "database_commits_total", "counter", "transactions that became durable");
	evbuffer_add_printf(out, "fanwire_database_commits_total %" PRIu64 "\n", counts.commits);
	family(out, "database_failures_total", "counter", "transactions that could not be written");
	evbuffer_add_printf(out, "fanwire_database_failures_total %" PRIu64 "\n", counts.failures);
	gauge(out, "database_cache_bytes",
	      "the database's pages in memory; they fill some 2 MiB, and are reused then",
	      counts.cache_bytes);
	gauge(out, "key_generation", "key generation in force",
	      registry_root(engine->registry)->key_generation);
	family(out, "wall", "gauge", "0 on, 1 off, 2 failed");
	for (unsigned i = 0; i < WALL_CNT; i++)
		labelled(out, "wall", "wall", wall_name(i), engine->walls.state[i]);
}

static void on_request(struct evhttp_request *request, void *arg)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	const struct metrics *metrics = arg;
	struct evbuffer *out;

	if (!path || strcmp(path, "/metrics") != 0) {
		evhttp_send_error(request, path ? HTTP_NOTFOUND : HTTP_BADREQUEST, NULL);
		return;
	}
	out = evbuffer_new();
	if (!out) {
		evhttp_send_error(request, HTTP_INTERNAL, NULL);
		return;
	}
	engine_walls_refresh(metrics->engine, moment_now());
	write_dataplane(out, metrics->engine);
	write_kernel(out, metrics->engine);
	write_registry(out, metrics->engine);
	write_log(out, metrics->engine);
	write_control(out, metrics->engine);
	evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
			  "text/plain; version=0.0.4");
	evhttp_send_reply(request, HTTP_OK, NULL, out);
	evbuffer_free(out);
}

/* Every user of the machine can connect: they get few connections, and those little time. */
static int serve(struct metrics *metrics, uint16_t port)
{
	static const struct door_rules rules = {"metrics", CONNECTIONS_MAX, TIMEOUT_S};
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct evconnlistener *listener = evconnlistener_new_bind(
		metrics->engine->base, NULL, NULL,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, CONNECTIONS_MAX,
		(struct sockaddr *)&address, sizeof(address));

	if (!listener)
		return errno ? -errno : -EIO;
	if (!evhttp_bind_listener(metrics->server, listener)) {
		evconnlistener_free(listener);
		return -ENOMEM;
	}
	evhttp_set_max_body_size(metrics->server, 0);
	evhttp_set_max_headers_size(metrics->server, 8192);
	evhttp_set_timeout(metrics->server, TIMEOUT_S);
	evhttp_set_allowed_methods(metrics->server, EVHTTP_REQ_GET);
	evhttp_set_gencb(metrics->server, on_request, metrics);
	return door_open(&metrics->door, metrics->engine->base, metrics->server, listener, &rules);
}

int metrics_open(struct metrics **out, struct engine *engine, char why[1024])
{
	uint16_t port = engine->config->metrics_port;
	struct metrics *metrics;
	int err = -ENOMEM;

	*out = NULL;
	if (!port)
		return 0;
	metrics = calloc(1, sizeof(*metrics));
	if (!metrics)
		return err;
	metrics->engine = engine;
	metrics->server = evhttp_new(engine->base);
	if (metrics->server)
		err = serve(metrics, port);
	if (err) {
		snprintf(
			why, 1024,
			"cannot serve metrics on 127.0.0.1:%u: %s; choose another metrics_port, or "
			"0 for none",
			port, strerror(-err));
		metrics_close(metrics);
		return err;
	}
	*out = metrics;
	return 0;
}

void metrics_close(struct metrics *metrics)
{
	if (!metrics)
		return;
	if (metrics->server)
		evhttp_free(metrics->server);
	door_close(metrics->door);
	free(metrics);
}
