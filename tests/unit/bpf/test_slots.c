// SPDX-License-Identifier: BSD-3-Clause
/*
 * Slots, where the kernel finds a scope without a call, and the hash behind them: who has no slot
 * is judged like who has one, and a slot that is written in place is never half seen.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT	   24400
#define PORT_LAST  24449
#define PACKET_MAX 2048

static struct host host;
static struct scoped_socket bob;
static int sender;

static void setup(void)
{
	host_init(&host, PORT, PORT_LAST);
	host_open(&host);
	bob = host_scoped(&host, 4, PORT, "bob");
	sender = host_udp(4, ENGINE4, 0);
}

static void teardown(void)
{
	char why[1024];

	close(sender);
	close(bob.fd);
	host_fini(&host);
	scope_maps_remove(&host.config, why);
}

TestSuite(slots, .init = setup, .fini = teardown, .timeout = 60);

/* A scoped socket whose cookie has the same slot as `cookie`: sockets are made until it comes. */
static struct scoped_socket sharing_slot(uint64_t cookie, uint16_t port, const char *user)
{
	struct scoped_socket made = {-1, 0};
	cpu_set_t one;
	uint64_t last;
	int fd;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one); /* each CPU hands out cookies of its own block */
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	for (unsigned tries = 0; tries < 8 * SCOPE_SLOT_CNT; tries++) {
		fd = host_udp(4, NULL, 0);
		cr_assert_eq(socket_cookie(fd, &last), 0);
		close(fd);
		if ((last + 1 - cookie) % SCOPE_SLOT_CNT)
			continue;
		made = host_scoped(&host, 4, port, user);
		if ((made.cookie - cookie) % SCOPE_SLOT_CNT == 0)
			return made;
		scope_del(host.maps, made.cookie); /* somebody else's socket came between */
		close(made.fd);
	}
	cr_assert_fail("no cookie shares the slot");
	return made;
}

/* Whether a delivery to `user` that is sent to the port comes out of the socket. */
static bool comes_through(int fd, uint16_t port, const char *user)
{
	uint8_t packet[PACKET_MAX], got[PACKET_MAX];
	size_t len = host_packet(packet, user, 20);

	cr_assert_eq(host_send(sender, RECEIVER4, port, packet, len), 0);
	return host_receive(fd, got, sizeof(got)) == (ssize_t)len;
}

Test(slots, sockets_that_share_a_slot_keep_their_own_scopes)
{
	struct scoped_socket alice = sharing_slot(bob.cookie, PORT + 1, "alice");
	struct scope scope;

	/* The slot is Alice's now, and Bob's scope stands in the hash alone. */
	cr_assert(comes_through(alice.fd, PORT + 1, "alice"));
	cr_assert(comes_through(bob.fd, PORT, "bob"));
	cr_assert_not(comes_through(alice.fd, PORT + 1, "bob"));
	cr_assert_not(comes_through(bob.fd, PORT, "alice"));
	/* Bob takes the slot. */
	host_scope(&scope, "bob");
	scope.user_generation = 2;
	cr_assert_eq(scope_set(host.maps, bob.cookie, &scope), 0);
	cr_assert_not(comes_through(bob.fd, PORT, "bob"));
	scope.user_generation = 1;
	cr_assert_eq(scope_set(host.maps, bob.cookie, &scope), 0);
	cr_assert(comes_through(bob.fd, PORT, "bob"));
	cr_assert(comes_through(alice.fd, PORT + 1, "alice"));
	/* The end of one, with the slot or without, is the end of that one. */
	cr_assert_eq(scope_del(host.maps, alice.cookie), 0);
	cr_assert_not(comes_through(alice.fd, PORT + 1, "alice"));
	cr_assert(comes_through(bob.fd, PORT, "bob"));
	cr_assert_eq(scope_del(host.maps, bob.cookie), 0);
	cr_assert_not(comes_through(bob.fd, PORT, "bob"));
	close(alice.fd);
}

#define SETS_MIN 2000

static void *set_again(void *stop)
{
	struct scope scope;
	unsigned sets = 0;

	host_scope(&scope, "bob");
	while (!__atomic_load_n((bool *)stop, __ATOMIC_ACQUIRE) || sets < SETS_MIN) {
		if (scope_set(host.maps, bob.cookie, &scope))
			return "a scope could not be set again";
		sets++;
	}
	return NULL;
}

/* What is written in place is never half seen: neither a drop nor, therefore, half a key. */
Test(slots, a_scope_that_is_set_again_meanwhile_drops_nothing)
{
	enum { PACKETS = 20000 };
	uint8_t packet[PACKET_MAX], got[PACKET_MAX];
	size_t len = host_packet(packet, "bob", 20);
	struct tally before = host_tally(&host);
	bool stop = false;
	pthread_t setter;
	void *failure;

	cr_assert_eq(pthread_create(&setter, NULL, set_again, &stop), 0);
	for (unsigned i = 0; i < PACKETS; i++) {
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
		while (recv(bob.fd, got, sizeof(got), MSG_DONTWAIT) > 0)
			;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	cr_assert_eq(pthread_join(setter, &failure), 0);
	cr_assert_null(failure, "%s", (const char *)failure);
	host_expect_verdict(&host, &before, SCOPE_ACCEPTED, PACKETS);
}
