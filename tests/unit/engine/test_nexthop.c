/* SPDX-License-Identifier: BSD-3-Clause */
/* Next hops against the real kernel, in a network namespace of the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/engine/nexthop.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;
static struct nexthops *hops;

static void run(const char *command)
{
	cr_assert_eq(system(command), 0, "%s", command);
}

static void setup(void)
{
	char why[1024];

	cr_assert_eq(unshare(CLONE_NEWNET), 0);
	run("ip link add hop0 type veth peer name hop1 && ip link set hop0 up && "
	    "ip link set hop1 up && ip addr add 198.18.0.1/24 dev hop0 && "
	    "ip route add 198.18.9.0/24 via 198.18.0.9 mtu 1300 && "
	    "ip link add away0 type veth peer name away1 && ip link set away0 up && "
	    "ip addr add 203.0.113.1/24 dev away0");
	fixture_init(&f);
	strcpy(f.config.interface, "hop0");
	cr_assert_eq(registry_open(&f.engine.registry, &f.config, why), 0, "%s", why);
	cr_assert_eq(nexthops_open(&hops, f.base, f.engine.registry, &f.config, why), 0, "%s", why);
}

static void teardown(void)
{
	nexthops_close(hops);
	registry_close(f.engine.registry);
	fixture_fini(&f);
}

TestSuite(nexthop, .init = setup, .fini = teardown);

typedef int (*getter)(struct nexthops *, const struct message_address *, uint32_t *, char *);

static int get_by(getter ask_for, const char *text, uint32_t *idx)
{
	struct message_address address = {0};
	struct fan_address parsed;
	char why[MESSAGE_REASON_MAX];
	int err;

	cr_assert_eq(fan_address_parse(&parsed, text), 0);
	memcpy(address.bytes, parsed.bytes, 16);
	address.family = parsed.family;
	err = ask_for(hops, &address, idx, why);
	if (err)
		cr_assert_gt(strlen(why), 20);
	return err;
}

static int get(const char *text, uint32_t *idx)
{
	return get_by(nexthops_get, text, idx);
}

/* As one of many. */
static uint32_t get_bulk(const char *text)
{
	uint32_t idx = UINT32_MAX;

	cr_assert_eq(get_by(nexthops_get_bulk, text, &idx), 0, "%s", text);
	return idx;
}

static bool becomes(uint32_t idx, bool resolved)
{
	for (unsigned i = 0; i < 200 && nexthops_resolved(hops, idx) != resolved; i++) {
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		usleep(10000);
	}
	return nexthops_resolved(hops, idx) == resolved;
}

static const struct fan_nexthop *hop(uint32_t idx)
{
	return &registry_table(f.engine.registry)->nexthops[idx];
}

Test(nexthop, a_neighbour_on_the_link_follows_the_kernel)
{
	uint32_t idx, again;

	cr_assert_eq(get("198.18.0.2", &idx), 0);
	cr_assert_not(nexthops_resolved(hops, idx));
	cr_assert_eq(hop(idx)->mtu, 1500);
	run("ip neigh replace 198.18.0.2 lladdr 02:00:00:00:00:05 dev hop0 nud permanent");
	cr_assert(becomes(idx, true));
	cr_assert_eq(hop(idx)->mac & ~FAN_NEXTHOP_RESOLVED, UINT64_C(0x050000000002));
	run("ip neigh replace 198.18.0.2 lladdr 02:00:00:00:00:06 dev hop0 nud permanent");
	for (unsigned i = 0; i < 200 && (hop(idx)->mac >> 40 & 0xff) != 6; i++) {
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		usleep(10000);
	}
	cr_assert_eq(hop(idx)->mac >> 40 & 0xff, 6);
	cr_assert_eq(get("198.18.0.2", &again), 0);
	cr_assert_eq(again, idx);
	run("ip neigh del 198.18.0.2 dev hop0");
	cr_assert(becomes(idx, false));
}

Test(nexthop, one_that_the_kernel_knew_before_is_resolved_at_once)
{
	uint32_t idx;

	run("ip neigh add 198.18.0.3 lladdr 02:00:00:00:00:03 dev hop0 nud permanent");
	cr_assert_eq(get("198.18.0.3", &idx), 0);
	cr_assert(nexthops_resolved(hops, idx));
}

Test(nexthop, behind_a_gateway_it_is_the_gateway_with_the_routes_mtu)
{
	uint32_t one, two;
	struct fan_address gateway;

	cr_assert_eq(get("198.18.9.1", &one), 0);
	cr_assert_eq(get("198.18.9.2", &two), 0);
	cr_assert_eq(one, two);
	fan_address_parse(&gateway, "198.18.0.9");
	cr_assert_eq(memcmp(hop(one)->address, gateway.bytes, 16), 0);
	cr_assert_eq(hop(one)->mtu, 1300);
}

Test(nexthop, what_the_interface_does_not_reach_is_refused)
{
	uint32_t idx;

	cr_assert_neq(get("198.18.0.1", &idx), 0, "our own address");
	cr_assert_neq(get("203.0.113.7", &idx), 0, "by another interface");
	cr_assert_eq(get("fd00::1", &idx), -EAFNOSUPPORT);
}

Test(nexthop, a_restart_takes_up_what_changed_meanwhile)
{
	char why[1024];
	uint32_t idx;

	cr_assert_eq(get("198.18.0.2", &idx), 0);
	nexthops_close(hops);
	run("ip neigh replace 198.18.0.2 lladdr 02:00:00:00:00:07 dev hop0 nud permanent");
	cr_assert_eq(nexthops_open(&hops, f.base, f.engine.registry, &f.config, why), 0);
	cr_assert(nexthops_resolved(hops, idx));
}

/* The other end of the link as a host of its own, 198.18.0.2; kill() ends it. */
static pid_t add_peer(void)
{
	int ready[2];
	char command[256], go;
	pid_t peer;

	cr_assert_eq(pipe(ready), 0);
	peer = fork();
	if (peer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	cr_assert_eq(read(ready[0], &go, 1), 1);
	close(ready[0]);
	close(ready[1]);
	snprintf(command, sizeof(command),
		 "ip link set hop1 netns %d && nsenter -t %d -n sh -c 'ip link set hop1 up && "
		 "ip addr add 198.18.0.2/24 dev hop1'",
		 peer, peer);
	run(command);
	return peer;
}

/* Whether the kernel has an answer of the neighbour: after a loss, only because it asked again. */
static bool kernel_knows(void)
{
	return system("ip neigh show 198.18.0.2 dev hop0 | grep -q lladdr") == 0;
}

Test(nexthop, one_that_is_taken_out_is_asked_for_again_at_once)
{
	static const char *const losses[] = {"ip neigh del 198.18.0.2 dev hop0",
					     "ip neigh flush dev hop0"};
	pid_t peer = add_peer();
	struct timespec before, after;
	uint32_t idx;

	cr_assert_eq(get("198.18.0.2", &idx), 0);
	cr_assert(becomes(idx, true));
	for (unsigned i = 0; i < 6; i++) {
		run(losses[i % 2]);
		cr_assert_not(kernel_knows());
		clock_gettime(CLOCK_MONOTONIC, &before);
		/* Loss and answer may be heard of in one turn of the loop, so the kernel is asked.
		 */
		for (unsigned turn = 0; turn < 200 && !kernel_knows(); turn++) {
			event_base_loop(f.base, EVLOOP_NONBLOCK);
			usleep(1000);
		}
		clock_gettime(CLOCK_MONOTONIC, &after);
		cr_assert(kernel_knows(), "not asked for again");
		cr_assert_lt((after.tv_sec - before.tv_sec) * 1000 +
				     (after.tv_nsec - before.tv_nsec) / 1000000,
			     500);
		cr_assert(becomes(idx, true));
	}
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
}

Test(nexthop, one_that_does_not_answer_is_found_when_it_does)
{
	char command[128];
	pid_t peer = add_peer();
	bool found = false;
	uint32_t idx;

	snprintf(command, sizeof(command), "nsenter -t %d -n ip link set hop1 arp off", peer);
	run(command);
	cr_assert_eq(get("198.18.0.2", &idx), 0);
	for (unsigned i = 0; i < 2; i++) /* the kernel gives up after three seconds */
		found |= becomes(idx, true);
	cr_assert_not(found);
	snprintf(command, sizeof(command), "nsenter -t %d -n ip link set hop1 arp on", peer);
	run(command);
	for (unsigned i = 0; i < 5 && !found; i++)
		found = becomes(idx, true);
	cr_assert(found);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
}

/* ---- many at once ---------------------------------------------------------------------------- */

Test(nexthop, many_take_the_way_that_each_would_take)
{
	char text[32];
	uint32_t idx;

	nexthops_bulk_begin(hops);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned host = 1; host < 255; host++) {
			snprintf(text, sizeof(text), "198.18.9.%u", host);
			cr_assert_eq(get(text, &idx), 0);
			cr_assert_eq(get_bulk(text), idx, "%s", text);
		}
		for (unsigned host = 2; host < 40; host++) {
			snprintf(text, sizeof(text), "198.18.0.%u", host);
			cr_assert_eq(get(text, &idx), 0);
			cr_assert_eq(get_bulk(text), idx, "%s", text);
		}
	}
	cr_assert_eq(get_bulk("198.18.9.1"), get_bulk("198.18.9.254"));
	cr_assert_neq(get_bulk("198.18.0.2"), get_bulk("198.18.0.3"));
	cr_assert_eq(get_by(nexthops_get_bulk, "203.0.113.7", &idx), -ENETUNREACH);
	cr_assert_eq(get_by(nexthops_get_bulk, "192.0.2.1", &idx), -ENETUNREACH);
	cr_assert_eq(get_by(nexthops_get_bulk, "2001:db8::1", &idx), -EAFNOSUPPORT);
}

Test(nexthop, routes_and_rules_that_change_count_from_the_next_batch_on)
{
	uint32_t before = get_bulk("198.18.9.5"), routed, ruled;

	run("ip route add 198.18.9.5/32 via 198.18.0.8");
	nexthops_bulk_begin(hops);
	routed = get_bulk("198.18.9.5");
	cr_assert_neq(routed, before);
	cr_assert_eq(get_bulk("198.18.9.4"), before);
	cr_assert_eq(get_bulk("198.18.9.6"), before);
	run("ip route add 198.18.9.0/24 via 198.18.0.7 table 77 && "
	    "ip rule add to 198.18.9.7/32 table 77");
	nexthops_bulk_begin(hops);
	ruled = get_bulk("198.18.9.7");
	cr_assert(ruled != before && ruled != routed);
	cr_assert_eq(get_bulk("198.18.9.5"), routed);
	cr_assert_eq(get_bulk("198.18.9.8"), before);
	run("ip route del 198.18.9.5/32");
	nexthops_bulk_begin(hops);
	cr_assert_eq(get_bulk("198.18.9.5"), before);
}

Test(nexthop, neighbours_of_many_leave_room_for_others, .timeout = 60)
{
	uint32_t idx, last = 0;
	char text[32];
	int err = 0;

	run("ip addr add 10.7.0.1/16 dev hop0");
	nexthops_bulk_begin(hops);
	for (unsigned host = 2; host < FAN_NEXTHOPS_MAX && !err; host++) {
		snprintf(text, sizeof(text), "10.7.%u.%u", host >> 8, host & 255);
		err = get_by(nexthops_get_bulk, text, &idx);
		last = host;
	}
	cr_assert_eq(err, -ENOSPC);
	cr_assert_eq(last - 2, FAN_NEXTHOPS_MAX - 1024);
	cr_assert_eq(get_bulk("10.7.0.2"), 0, "one that is known stays so");
	cr_assert_eq(get("198.18.9.1", &idx), 0);
	cr_assert_eq(get_bulk("198.18.9.2"), idx);
}
