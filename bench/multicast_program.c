/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwire-bench-multicast: the baseline of bench/multicast.h on DPDK's null port. */
#include <errno.h>
#include <getopt.h>
#include <rte_cycles.h>
#include <rte_version.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/multicast.h"
#include "bench/rig.h"
#include "bench/step.h"

#define CHUNK	   512 /* events made ahead, as fanwire-bench-core's fan-out stage */
#define FANOUT_MAX 4096

static const char help[] =
	"usage: fanwire-bench-multicast [OPTION]...\n"
	"Copies a second of DPDK's ipv4_multicast sample behind rte_hash, on the null port.\n"
	"  --way clone|reference  how the payload is shared (reference)\n"
	"  --users N              keys in the hash (65536)\n"
	"  --fanout N             targets of each (3)\n"
	"  --payload N            bytes of an event, 0..1132 (128); a delivery's header is added\n"
	"  --tx-burst N           copies given to the port at once, 1..256 (256)\n"
	"  --core N               CPU to run on (the last one)\n"
	"Then, on standard input: run MS, quit.\n";

struct program {
	struct rig rig;
	struct rig_options options;
	struct multicast multicast;
	bool clone;
	unsigned tx_burst;
	uint64_t random;
	uint16_t event_len;
	/* of the run under way */
	uint64_t cycles, until, events;
	int err;
};

/* ---- a run, on the worker's lcore ---- */

/* xorshift64*, Vigna 2016: as bench/feed.c draws. */
static uint32_t user_draw(struct program *p)
{
	p->random ^= p->random >> 12;
	p->random ^= p->random << 25;
	p->random ^= p->random >> 27;
	return (uint32_t)((p->random * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % p->options.users;
}

static int events_make(struct program *p, struct rte_mbuf **events)
{
	if (rte_pktmbuf_alloc_bulk(p->rig.plane.pool, events, CHUNK))
		return -ENOMEM;
	for (unsigned i = 0; i < CHUNK; i++) {
		uint8_t *data = (uint8_t *)rte_pktmbuf_append(events[i], p->event_len);

		memset(data, 'x', p->event_len);
		multicast_key(data, user_draw(p));
	}
	return 0;
}

static int work(void *arg)
{
	struct rte_mbuf *events[CHUNK];
	struct program *p = arg;

	while (p->cycles < p->until) {
		uint64_t start;

		p->err = events_make(p, events);
		if (p->err)
			break;
		start = rte_rdtsc_precise();
		for (unsigned i = 0; i < CHUNK; i += p->options.burst)
			multicast_burst(&p->multicast, events + i,
					RTE_MIN(p->options.burst, CHUNK - i));
		multicast_flush(&p->multicast);
		p->cycles += rte_rdtsc_precise() - start;
		p->events += CHUNK;
	}
	return 0;
}

static int on_run(void *context, unsigned ms, json_t *told, char *why, size_t why_size)
{
	struct program *p = context;
	struct rte_eth_stats before, after;
	uint64_t copies;

	p->cycles = p->events = 0;
	p->until = rte_get_tsc_hz() / 1000 * ms;
	rte_eth_stats_get(p->rig.plane.port_id, &before);
	rig_call(work, p);
	rte_eth_stats_get(p->rig.plane.port_id, &after);
	copies = after.opackets - before.opackets;
	if (p->err || copies != p->events * p->options.fanout) {
		snprintf(why, why_size,
			 "of %llu events to %u targets each the port took %llu copies (%llu "
			 "missed): are there enough packet buffers?",
			 (unsigned long long)p->events, p->options.fanout,
			 (unsigned long long)copies, (unsigned long long)p->multicast.missed);
		return -EPROTO;
	}
	json_object_set_new(
		told, "copies_per_second",
		json_real((double)copies * (double)rte_get_tsc_hz() / (double)p->cycles));
	json_object_set_new(told, "cycles_per_copy", json_real((double)p->cycles / (double)copies));
	json_object_set_new(told, "cycles_per_event",
			    json_real((double)p->cycles / (double)p->events));
	json_object_set_new(told, "copies", json_integer((json_int_t)copies));
	return 0;
}

/* ---- options ---- */

static unsigned number_take(const char *option, const char *text, unsigned long least,
			    unsigned long most)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end || number < least || number > most)
		exit(step_fail("--%s %s: a number from %lu to %lu is needed", option, text, least,
			       most));
	return (unsigned)number;
}

static const struct option option_table[] = {
	{"way", required_argument, NULL, 'w'},
	{"users", required_argument, NULL, 'u'},
	{"fanout", required_argument, NULL, 'f'},
	{"payload", required_argument, NULL, 'p'},
	{"tx-burst", required_argument, NULL, 't'},
	{"core", required_argument, NULL, 'c'},
	{NULL, 0, NULL, 0},
};

static void option_take(struct program *p, int option, const char *name)
{
	switch (option) {
	case 'w':
		p->clone = strcmp(optarg, "clone") == 0;
		if (!p->clone && strcmp(optarg, "reference") != 0)
			exit(step_fail("--way %s: clone or reference is needed", optarg));
		break;
	case 'u':
		p->options.users = number_take(name, optarg, 1, 16000000);
		break;
	case 'f':
		p->options.fanout = number_take(name, optarg, 1, FANOUT_MAX);
		break;
	case 'p':
		p->options.payload_len = number_take(name, optarg, 0, FAN_PAYLOAD_DEFAULT);
		break;
	case 't':
		p->tx_burst = number_take(name, optarg, 1, MULTICAST_BURST_MAX);
		break;
	case 'c':
		p->options.core = number_take(name, optarg, 0, CPU_SETSIZE - 1);
		break;
	default:
		fputs(help, stderr);
		exit(1);
	}
}

static void options_parse(struct program *p, int argc, char **argv)
{
	int option, idx = 0;

	*p = (struct program){
		.options = {.users = 65536,
			    .fanout = 3,
			    .payload_len = 128,
			    .burst = 64,
			    .core = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1},
		.tx_burst = MULTICAST_BURST_MAX,
		.random = UINT64_C(0x9e3779b97f4a7c15), /* fixed: runs can be compared */
	};
	while ((option = getopt_long(argc, argv, "", option_table, &idx)) != -1)
		option_take(p, option, option_table[idx].name);
	if (optind != argc)
		exit(step_fail("\"%s\" is no option", argv[optind]));
	p->event_len = (uint16_t)(FAN_DELIVERY_LEN + p->options.payload_len);
	p->options.memory_mb = multicast_memory_mb(p->options.users, p->options.fanout);
}

/* ---- main ---- */

static json_t *settings_tell(const struct program *p)
{
	const struct rig_options *o = &p->options;

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "way",
			 p->clone ? "clone" : "reference", "users", (json_int_t)o->users, "fanout",
			 (json_int_t)o->fanout, "payload_bytes", (json_int_t)o->payload_len,
			 "burst", (json_int_t)o->burst, "tx_burst", (json_int_t)p->tx_burst, "core",
			 (json_int_t)o->core, "on_huge_pages", p->rig.plane.config.huge_pages,
			 "port", p->rig.plane.config.port);
}

int main(int argc, char **argv)
{
	struct program *p = calloc(1, sizeof(*p));
	char why[256];
	int status;

	if (!p)
		return step_fail("out of memory");
	options_parse(p, argc, argv);
	if (rig_start(&p->rig, &p->options, why))
		return step_fail("%s", why);
	if (multicast_init(&p->multicast, p->options.users, p->options.fanout, p->rig.plane.port_id,
			   p->clone, p->tx_burst))
		return step_fail("no room for %u users × %u targets in %u MiB of DPDK's memory",
				 p->options.users, p->options.fanout, p->options.memory_mb);
	status = step_serve(settings_tell(p), json_pack("{s:s}", "dpdk", rte_version()), on_run, p);
	multicast_fini(&p->multicast);
	rig_stop(&p->rig);
	free(p);
	return status;
}
