// SPDX-License-Identifier: BSD-3-Clause
/* The scope filter alone: the port guard is not attached, and real datagrams cross the loopback. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define PORT	   24000
#define PORT_LAST  24049
#define PACKET_MAX 2048

static struct host host;
static struct scoped_socket bob;
static int sender;

static void setup(void)
{
	host_init(&host, PORT, PORT_LAST);
	host.config.port_guard = false;
	host_open(&host);
	bob = host_scoped(&host, 4, PORT, "bob");
	sender = host_udp(4, ENGINE4, 0);
}

static void teardown(void)
{
	close(sender);
	close(bob.fd);
	host_fini(&host);
}

TestSuite(filter, .init = setup, .fini = teardown, .timeout = 60);

/* Sends it to Bob; the one counter that rises must be `verdict`, and Bob gets it or gets nothing.
 */
static void expect(const uint8_t *packet, size_t len, enum scope_verdict verdict)
{
	uint8_t got[PACKET_MAX];
	struct tally before = host_tally(&host);

	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	host_expect_verdict(&host, &before, verdict, 1);
	if (verdict == SCOPE_ACCEPTED) {
		cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), (ssize_t)len);
		cr_assert_arr_eq(got, packet, len, "not the bytes that were sent");
	}
	cr_assert_eq(recv(bob.fd, got, sizeof(got), MSG_DONTWAIT), -1);
	cr_assert_eq(errno, EAGAIN);
}

static void expect_delivery(const struct fan_delivery *delivery, enum scope_verdict verdict)
{
	uint8_t packet[PACKET_MAX];
	size_t len = host_packet_of(packet, delivery, "bob");

	expect(packet, len, verdict);
}

Test(filter, own_packets_of_every_type_and_length_pass)
{
	static const uint8_t types[] = {FAN_TYPE_DELIVERY, FAN_TYPE_CHALLENGE, FAN_TYPE_STATUS};
	static const size_t lens[] = {0, 1, 7, 8, 500, FAN_PAYLOAD_DEFAULT};
	struct fan_delivery delivery;

	for (size_t t = 0; t < 3; t++)
		for (size_t l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
			host_delivery(&delivery, "bob", lens[l]);
			delivery.type = types[t];
			expect_delivery(&delivery, SCOPE_ACCEPTED);
		}
}

Test(filter, a_packet_of_alice_is_dropped_and_audited)
{
	uint8_t packet[PACKET_MAX];
	size_t len = host_packet(packet, "alice", 20);

	expect(packet, len, SCOPE_DROP_FOREIGN_USER);
}

/* Form, generations and tag are all right: that it names Alice is all that stops it. */
Test(filter, a_packet_of_alice_with_bobs_own_tag_never_reaches_him)
{
	uint8_t packet[PACKET_MAX], own[PACKET_MAX], got[PACKET_MAX];
	size_t own_len = host_packet(own, "bob", 30), len;
	struct tally before = host_tally(&host);
	struct fan_delivery delivery;

	host_delivery(&delivery, "alice", 20);
	len = host_packet_of(packet, &delivery, "bob");
	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	cr_assert_eq(host_send(sender, RECEIVER4, PORT, own, own_len), 0);
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), (ssize_t)own_len, "not his own");
	cr_assert_arr_eq(got, own, own_len);
	cr_assert_eq(host_tally(&host).verdicts[SCOPE_DROP_FOREIGN_USER],
		     before.verdicts[SCOPE_DROP_FOREIGN_USER] + 1);
}

Test(filter, every_bit_flip_of_a_valid_header_is_refused)
{
	uint8_t packet[PACKET_MAX], got[PACKET_MAX];
	size_t len = host_packet(packet, "bob", 20);
	struct tally before = host_tally(&host), after;
	uint64_t dropped = 0;

	for (unsigned bit = 0; bit < FAN_DELIVERY_LEN * 8; bit++) {
		packet[bit / 8] ^= (uint8_t)(1 << (bit % 8));
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
		packet[bit / 8] ^= (uint8_t)(1 << (bit % 8));
	}
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1, "a flipped header passed");
	after = host_tally(&host);
	for (unsigned i = 0; i < SCOPE_VERDICT_CNT; i++)
		dropped += after.verdicts[i] - before.verdicts[i];
	cr_assert_eq(dropped, FAN_DELIVERY_LEN * 8, "only %lu were seen", dropped);
	cr_assert_eq(after.verdicts[SCOPE_ACCEPTED], before.verdicts[SCOPE_ACCEPTED]);
	/* Where each field's flips go: nothing hides behind an earlier check. */
	cr_assert_eq(after.verdicts[SCOPE_DROP_VERSION] - before.verdicts[SCOPE_DROP_VERSION], 8);
	cr_assert_eq(after.verdicts[SCOPE_DROP_FOREIGN_USER] -
			     before.verdicts[SCOPE_DROP_FOREIGN_USER],
		     128);
	cr_assert_eq(after.verdicts[SCOPE_DROP_LENGTH] - before.verdicts[SCOPE_DROP_LENGTH], 16);
	expect(packet, len, SCOPE_ACCEPTED);
}

Test(filter, every_short_length_is_refused)
{
	uint8_t packet[PACKET_MAX];
	size_t full = host_packet(packet, "bob", 20);

	for (size_t len = 0; len < full; len++)
		expect(packet, len, len < FAN_DELIVERY_LEN ? SCOPE_DROP_SHORT : SCOPE_DROP_LENGTH);
	for (size_t len = full + 1; len < full + 20; len++)
		expect(packet, len, SCOPE_DROP_LENGTH);
}

Test(filter, other_versions_and_types_are_refused)
{
	uint8_t packet[PACKET_MAX];
	size_t len = host_packet(packet, "bob", 0);
	struct scope scope;

	host_scope(&scope, "bob");
	for (unsigned value = 0; value < 256; value++) {
		packet[0] = (uint8_t)value;
		fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
		expect(packet, len, value == 1 ? SCOPE_ACCEPTED : SCOPE_DROP_VERSION);
	}
	packet[0] = 1;
	for (unsigned value = 0; value < 256; value++) {
		packet[1] = (uint8_t)value;
		fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
		expect(packet, len,
		       value >= 0x10 && value <= FAN_TYPE_LOST ? SCOPE_ACCEPTED : SCOPE_DROP_TYPE);
	}
}

Test(filter, other_user_generations_are_refused)
{
	struct fan_delivery delivery;

	host_delivery(&delivery, "bob", 0);
	for (uint32_t generation = 0; generation < 4; generation++) {
		delivery.user_generation = generation;
		expect_delivery(&delivery,
				generation == 1 ? SCOPE_ACCEPTED : SCOPE_DROP_USER_GENERATION);
	}
	delivery.user_generation = UINT32_MAX;
	expect_delivery(&delivery, SCOPE_DROP_USER_GENERATION);
}

Test(filter, a_revocation_drops_what_was_accepted_before)
{
	struct fan_delivery delivery;
	struct scope scope;

	host_delivery(&delivery, "bob", 0);
	expect_delivery(&delivery, SCOPE_ACCEPTED);
	host_scope(&scope, "bob");
	scope.user_generation = 2;
	cr_assert_eq(scope_set(host.maps, bob.cookie, &scope), 0);
	expect_delivery(&delivery, SCOPE_DROP_USER_GENERATION);
}

Test(filter, present_and_previous_key_pass_and_no_other)
{
	uint8_t packet[PACKET_MAX];
	struct fan_delivery delivery;
	struct scope scope;
	size_t len;

	host_scope(&scope, "bob"); /* its key becomes the previous one, of generation 1 */
	scope.key_generation = 2;
	memset(scope.tag_key, 0x5a, sizeof(scope.tag_key));
	cr_assert_eq(scope_set(host.maps, bob.cookie, &scope), 0);

	host_delivery(&delivery, "bob", 5);
	expect_delivery(&delivery, SCOPE_ACCEPTED);
	delivery.key_generation = 2;
	expect_delivery(&delivery, SCOPE_DROP_TAG); /* new generation's number, old key */
	len = host_packet_of(packet, &delivery, "bob");
	fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
	expect(packet, len, SCOPE_ACCEPTED);
	packet[3] = 1; /* old generation's number, new key */
	fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
	expect(packet, len, SCOPE_DROP_TAG);
	delivery.key_generation = 3;
	expect_delivery(&delivery, SCOPE_DROP_KEY_GENERATION);
	delivery.key_generation = 0;
	expect_delivery(&delivery, SCOPE_DROP_KEY_GENERATION);
}

Test(filter, a_socket_without_scope_gets_nothing)
{
	struct fan_delivery delivery;

	host_delivery(&delivery, "bob", 0);
	cr_assert_eq(scope_del(host.maps, bob.cookie), 0);
	expect_delivery(&delivery, SCOPE_DROP_NO_SCOPE);
}

static struct foreign_key seen[16];
static uint64_t seen_cnt[16];
static unsigned seen_len;

static void on_foreign(void *arg, const struct foreign_key *key, uint64_t cnt)
{
	cr_assert_lt(seen_len, 16);
	seen[seen_len] = *key;
	seen_cnt[seen_len++] = cnt;
}

static void expect_seen(const char *victim, const char *source, uint64_t cnt)
{
	struct fan_address address;
	struct scope owner, claimed;

	host_scope(&owner, "bob");
	host_scope(&claimed, victim);
	cr_assert_eq(fan_address_parse(&address, source), 0);
	for (unsigned i = 0; i < seen_len; i++)
		if (!memcmp(seen[i].victim, claimed.handle, 16) &&
		    !memcmp(seen[i].owner, owner.handle, 16) &&
		    !memcmp(seen[i].source, address.bytes, 16) && seen_cnt[i] == cnt)
			return;
	cr_assert_fail("no drop for %s from %s counted %lu", victim, source, cnt);
}

Test(filter, foreign_drops_are_aggregated_with_both_handles_and_the_source)
{
	uint8_t packet[PACKET_MAX];
	int elsewhere = host_udp(4, ELSEWHERE4, 0), sender6 = host_udp(6, ENGINE6, 0);
	struct scoped_socket bob6 = host_scoped(&host, 6, PORT, "bob");
	size_t len = host_packet(packet, "alice", 20);
	struct tally before = host_tally(&host);

	for (int i = 0; i < 3; i++)
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	cr_assert_eq(host_send(elsewhere, RECEIVER4, PORT, packet, len), 0);
	cr_assert_eq(host_send(sender6, RECEIVER6, PORT, packet, len), 0);
	len = host_packet(packet, "carol", 20);
	packet[95] ^= 1; /* a forgery that names another user is audited whatever its tag */
	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	host_expect_verdict(&host, &before, SCOPE_DROP_FOREIGN_USER, 6);

	cr_assert_eq(scope_foreign_drain(host.maps, 2, on_foreign, NULL), 2);
	cr_assert_eq(scope_foreign_drain(host.maps, 16, on_foreign, NULL), 2);
	cr_assert_eq(scope_foreign_drain(host.maps, 16, on_foreign, NULL), 0);
	expect_seen("alice", ENGINE4, 3);
	expect_seen("alice", ELSEWHERE4, 1);
	expect_seen("alice", ENGINE6, 1);
	expect_seen("carol", ENGINE4, 1);
	close(bob6.fd);
	close(sender6);
	close(elsewhere);
}

Test(filter, the_record_of_foreign_drops_is_bounded)
{
	uint8_t packet[PACKET_MAX];
	size_t len = host_packet(packet, "alice", 0);
	struct tally before = host_tally(&host);
	unsigned cnt = 0, sent = 5000;
	int got;

	for (unsigned i = 0; i < sent; i++) {
		memcpy(packet + 8, &i, sizeof(i));
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
	}
	host_expect_verdict(&host, &before, SCOPE_DROP_FOREIGN_USER, sent);
	do {
		seen_len = 0;
		got = scope_foreign_drain(host.maps, 16, on_foreign, NULL);
		cnt += (unsigned)got;
	} while (got == 16);
	cr_assert_gt(cnt, 0);
	cr_assert_leq(cnt, 1024);
	/* One that comes after the flood is recorded all the same. */
	len = host_packet(packet, "alice", 0);
	expect(packet, len, SCOPE_DROP_FOREIGN_USER);
	seen_len = 0;
	cr_assert_eq(scope_foreign_drain(host.maps, 16, on_foreign, NULL), 1);
	expect_seen("alice", ENGINE4, 1);
}

/* Two datagrams of `len` each in one send; the loopback keeps them joined. */
static void send_joined(const uint8_t *packets, size_t len)
{
	int segment = (int)len;

	cr_assert_eq(setsockopt(sender, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	cr_assert_eq(host_send(sender, RECEIVER4, PORT, packets, 2 * len), 0);
}

Test(filter, a_super_packet_is_refused)
{
	uint8_t packets[2 * PACKET_MAX], got[2 * PACKET_MAX];
	size_t len = host_packet(packets, "bob", 20);
	struct tally before;
	int on = 1;

	/* The first is right; the second, Alice's, would ride along behind the filter's back. */
	host_packet(packets + len, "alice", 20);
	before = host_tally(&host);
	send_joined(packets, len);
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), (ssize_t)len, "segmented: one passes");
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1);

	cr_assert_eq(setsockopt(bob.fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)), 0);
	before = host_tally(&host);
	send_joined(packets, len);
	host_expect_verdict(&host, &before, SCOPE_DROP_SUPER_PACKET, 1);
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1, "a super-packet passed");
	/* Nor does a header pass that claims the length of both. */
	len = host_packet(packets, "bob", 120);
	before = host_tally(&host);
	send_joined(packets, len / 2);
	host_expect_verdict(&host, &before, SCOPE_DROP_SUPER_PACKET, 1);
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1, "a super-packet passed");
}

Test(filter, ipv6_sockets_are_filtered_alike)
{
	uint8_t packet[PACKET_MAX], got[PACKET_MAX];
	struct scoped_socket bob6 = host_scoped(&host, 6, PORT, "bob");
	int sender6 = host_udp(6, ENGINE6, 0);
	size_t len = host_packet(packet, "bob", 33);
	struct tally before = host_tally(&host);

	cr_assert_eq(host_send(sender6, RECEIVER6, PORT, packet, len), 0);
	host_expect_verdict(&host, &before, SCOPE_ACCEPTED, 1);
	cr_assert_eq(host_receive(bob6.fd, got, sizeof(got)), (ssize_t)len);
	packet[99] ^= 0x80;
	before = host_tally(&host);
	cr_assert_eq(host_send(sender6, RECEIVER6, PORT, packet, len), 0);
	host_expect_verdict(&host, &before, SCOPE_DROP_TAG, 1);
	cr_assert_eq(host_receive(bob6.fd, got, sizeof(got)), -1);
	close(bob6.fd);
	close(sender6);
}

Test(filter, two_users_on_one_host_get_their_own)
{
	uint8_t packet[PACKET_MAX], got[PACKET_MAX];
	struct scoped_socket alice = host_scoped(&host, 4, PORT + 1, "alice");
	size_t len;

	for (int i = 0; i < 100; i++) { /* each packet to both ports */
		len = host_packet(packet, i % 2 ? "alice" : "bob", (size_t)i);
		cr_assert_eq(host_send(sender, RECEIVER4, PORT, packet, len), 0);
		cr_assert_eq(host_send(sender, RECEIVER4, PORT + 1, packet, len), 0);
	}
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(host_receive(i % 2 ? alice.fd : bob.fd, got, sizeof(got)), 100 + i);
		len = host_packet(packet, i % 2 ? "alice" : "bob", (size_t)i);
		cr_assert_arr_eq(got, packet, len);
	}
	cr_assert_eq(host_receive(alice.fd, got, sizeof(got)), -1);
	cr_assert_eq(host_receive(bob.fd, got, sizeof(got)), -1);
	close(alice.fd);
}
