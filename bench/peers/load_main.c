/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-load: publishes and receives (load.h), driven line by line (step.h).
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/peers/load_run.h"
#include "bench/step.h"

static const struct option options_known[] = {
	{"transport", required_argument, NULL, 't'},
	{"client-socket", required_argument, NULL, 'c'},
	{"publisher", required_argument, NULL, 'P'},
	{"secret", required_argument, NULL, 's'},
	{"tokens", required_argument, NULL, 'T'},
	{"address", required_argument, NULL, 'a'},
	{"port", required_argument, NULL, 'p'},
	{"receive-address", required_argument, NULL, 'A'},
	{"receive-port", required_argument, NULL, 'R'},
	{"users", required_argument, NULL, 'u'},
	{"fanout", required_argument, NULL, 'f'},
	{"payload", required_argument, NULL, 'l'},
	{"window", required_argument, NULL, 'w'},
	{"rate", required_argument, NULL, 'r'},
	{"poisson", no_argument, NULL, 'i'},
	{NULL, 0, NULL, 0},
};

static unsigned number_take(unsigned least, unsigned most)
{
	char *end;
	unsigned long number = strtoul(optarg, &end, 10);

	if (*optarg == '\0' || *end || number < least || number > most)
		exit(step_fail("\"%s\": a number from %u to %u is needed", optarg, least, most));
	return (unsigned)number;
}

static void option_take(struct load_options *o, int option)
{
	switch (option) {
	case 't':
		o->transport = optarg;
		break;
	case 'c':
		o->client_socket = optarg;
		break;
	case 'P':
		o->publisher = optarg;
		break;
	case 's':
		o->secret = optarg;
		break;
	case 'T':
		o->tokens = optarg;
		break;
	case 'a':
		o->address = optarg;
		break;
	case 'p':
		o->port = number_take(1, 65535);
		break;
	case 'A':
		o->receive_address = optarg;
		break;
	case 'R':
		o->receive_port = number_take(1, 65535);
		break;
	case 'u':
		o->users = number_take(1, 65536);
		break;
	case 'f':
		o->fanout = number_take(1, 64);
		break;
	case 'l':
		o->payload = number_take(sizeof(struct load_mark), LOAD_PAYLOAD_MAX);
		break;
	case 'w':
		o->window = number_take(1, 1 << 20);
		break;
	case 'r':
		o->rate = number_take(0, 10000000);
		break;
	case 'i':
		o->poisson = true;
		break;
	default:
		exit(step_fail("unknown option; see bench/peers/load_main.c"));
	}
}

static int load_init(struct load *load)
{
	const struct load_options *o = &load->options;

	for (const struct transport *const *one = load_transports; *one; one++)
		if (strcmp((*one)->name, o->transport) == 0)
			load->transport = *one;
	if (!load->transport)
		return load_error(load, -EINVAL, "--transport %s: this program has it not",
				  o->transport);
	if (o->window < o->fanout)
		return load_error(load, -EINVAL, "--window %u holds not one event of %u copies",
				  o->window, o->fanout);
	load->receiver_cnt = o->users * o->fanout;
	load->users = calloc(o->users, sizeof(*load->users));
	load->receivers = calloc(load->receiver_cnt, sizeof(*load->receivers));
	load->events = calloc((size_t)o->users * LOAD_EVENTS, sizeof(*load->events));
	load->copies = calloc(1, sizeof(*load->copies));
	load->last = calloc(1, sizeof(*load->last));
	if (!load->users || !load->receivers || !load->events || !load->copies || !load->last)
		return load_error(load, -ENOMEM, "no memory for %u receivers", load->receiver_cnt);
	memset(load->payload, 'x', sizeof(load->payload));
	load->random = 0x9e3779b97f4a7c15;
	return load->transport->open(load);
}

static void load_fini(struct load *load)
{
	if (load->transport)
		load->transport->close(load);
	free(load->users);
	free(load->receivers);
	free(load->events);
	free(load->copies);
	free(load->last);
}

static json_t *times_tell(const struct histogram *h)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "mean_us", histogram_mean(h) / 1e3,
			 "p50_us", (double)histogram_percentile(h, 50) / 1e3, "p90_us",
			 (double)histogram_percentile(h, 90) / 1e3, "p99_us",
			 (double)histogram_percentile(h, 99) / 1e3, "p999_us",
			 (double)histogram_percentile(h, 99.9) / 1e3, "max_us",
			 (double)h->most / 1e3, "count", (json_int_t)h->cnt);
}

static int run_once(void *context, unsigned ms, json_t *run, char *why, size_t why_size)
{
	struct load *load = context;
	struct load_figures figures;
	int err = load_run(load, ms, &figures);

	if (err) {
		snprintf(why, why_size, "%s", load->why);
		return err;
	}
	json_object_update_new(
		run, json_pack("{s:f, s:f, s:I, s:I, s:I}", "deliveries_per_s",
			       (double)figures.in_time / figures.seconds, "loss",
			       (double)figures.counts.lost /
				       (double)(figures.counts.received + figures.counts.lost),
			       "published", (json_int_t)figures.counts.published, "received",
			       (json_int_t)figures.counts.received, "lost",
			       (json_int_t)figures.counts.lost));
	if (!load->options.rate)
		return 0;
	json_object_set_new(run, "copies", times_tell(load->copies));
	json_object_set_new(run, "last", times_tell(load->last));
	json_object_set_new(run, "copies_us", histogram_tell(load->copies, 1e3));
	json_object_set_new(run, "last_us", histogram_tell(load->last, 1e3));
	return 0;
}

static json_t *settings_tell(const struct load_options *o)
{
	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:b}", "transport", o->transport, "users",
			 (int)o->users, "fanout", (int)o->fanout, "payload", (int)o->payload,
			 "window", (int)o->window, "rate", (int)o->rate, "poisson", o->poisson);
}

static void files_raise(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

int main(int argc, char **argv)
{
	struct load load = {.options = {.transport = "udp",
					.users = 64,
					.fanout = 3,
					.payload = 128,
					.window = 2048,
					.receive_port = 40000}};
	int option, status;

	while ((option = getopt_long(argc, argv, "", options_known, NULL)) != -1)
		option_take(&load.options, option);
	files_raise();
	if (load_init(&load))
		status = step_fail("%s", load.why);
	else
		status = step_serve(settings_tell(&load.options),
				    json_pack("{s:s}", "fanwire", FAN_VERSION), run_once, &load);
	load_fini(&load);
	return status;
}
