/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/publisher.h"

#define NEGLECT_NS (5 * CLOCK_MS_NS)
#define SEND_BATCH 32
#define ACK_BATCH  16
#define ACK_ROUNDS 64
#define ACK_MAX	   (FAN_ACK_LEN + 8 + FAN_ACK_RESULT_MAX * FAN_ACK_RESULT_LEN + FAN_TAG_LEN)

int window_init(struct fan_publisher *p)
{
	p->packet_len = FAN_PUBLISH_LEN + p->payload_limit + FAN_TAG_LEN;
	p->packets = calloc(PUBLISHER_WINDOW, p->packet_len);
	if (!p->packets)
		return -ENOMEM;
	for (size_t i = 0; i < PUBLISHER_WINDOW; i++)
		p->window[i].packet = p->packets + i * p->packet_len;
	p->base = p->next = p->send_from = 1;
	recovery_init(&p->recovery);
	return 0;
}

void window_fini(struct fan_publisher *p)
{
	free(p->packets);
	p->packets = NULL;
}

void window_forget(struct fan_publisher *p)
{
	p->base = p->send_from = p->next;
	p->in_flight_cnt = 0;
}

/* Seals the next fragment of the event that is being cut into the next slot. */
static int cut_one(struct fan_publisher *p)
{
	struct publisher_cut *cut = &p->cut;
	struct publisher_datagram *d = window_at(p, p->next);
	struct fan_publish header = cut->header;
	size_t left = cut->len - cut->off;
	size_t len = left < p->payload_limit ? left : p->payload_limit;
	int status;

	header.flags = (cut->off == 0 ? FAN_FLAG_BEGIN : 0) | (len == left ? FAN_FLAG_END : 0);
	header.payload_len = (uint16_t)len;
	header.session = p->session;
	header.publisher_sequence = p->next;
	fan_publish_encode(d->packet, &header);
	status = seal_close(&p->seal, FAN_DIRECTION_PUBLISH, p->next, d->packet, FAN_PUBLISH_LEN,
			    cut->data + cut->off, len, d->packet + FAN_PUBLISH_LEN);
	if (status < 0)
		return status;
	d->ticket = cut->ticket;
	d->len = (uint32_t)(FAN_PUBLISH_LEN + len + FAN_TAG_LEN);
	d->sent_cnt = 0;
	d->in_flight = 0;
	d->vague = d->done = false;
	p->next++;
	cut->off += len;
	if (--cut->fragments_left == 0) {
		free(cut->payload);
		memset(cut, 0, sizeof(*cut));
	}
	return 0;
}

/* An ICMP error of an earlier datagram, which reading has cleared. */
static bool passing_error(int error)
{
	return error == EINTR || error == ECONNREFUSED || error == EHOSTUNREACH ||
	       error == ENETUNREACH;
}

/* A send that fails is as good as lost on the way: the time-out sees to it. */
static void send_batch(struct fan_publisher *p, struct mmsghdr *messages, unsigned cnt)
{
	unsigned sent = 0;

	while (sent < cnt) {
		int n = sendmmsg(p->udp, messages + sent, cnt - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			p->send_error = errno;
			if (!passing_error(errno))
				return;
			n = 1; /* go on behind it */
		}
		sent += (unsigned)n;
	}
}

/* How many copies of it leave now. */
static unsigned copies_of(const struct fan_publisher *p, uint64_t sequence)
{
	return sequence > p->accepted ? p->recovery.copies : 1;
}

/* ---- over budget ---- */

/*
 * The engine holds back what follows its cumulative number, and has dropped what was behind it.
 * Nothing was lost, so how much may be in flight and what was measured stay as they are; one
 * datagram asks again when the wait is over, and that it is accepted opens the window.
 */
static void hold(struct fan_publisher *p, uint32_t wait_ms, uint64_t now_ns)
{
	uint64_t first = p->accepted + 1 > p->base ? p->accepted + 1 : p->base;

	for (uint64_t s = first; s < p->next; s++) {
		if (!window_at(p, s)->in_flight)
			continue;
		window_at(p, s)->vague = true;
		window_lose(p, s);
	}
	p->recovery.gap_told = false;
	p->held = true;
	p->held_until_ns = now_ns + (wait_ms ? wait_ms : 1) * CLOCK_MS_NS;
}

/* The last publisher sequence that may be sent now. */
static uint64_t sendable(struct fan_publisher *p, uint64_t now_ns)
{
	if (now_ns < p->held_until_ns)
		return p->accepted;
	p->held_until_ns = 0;
	return p->held ? p->accepted + 1 : UINT64_MAX;
}

uint64_t window_deadline(const struct fan_publisher *p)
{
	return clock_earlier(recovery_deadline(p),
			     p->held_until_ns ? p->held_until_ns : CLOCK_NEVER);
}

/* ---- sending ---- */

static void transmit(struct fan_publisher *p, uint64_t now_ns)
{
	struct mmsghdr messages[SEND_BATCH];
	struct iovec iov[SEND_BATCH];
	uint64_t last = sendable(p, now_ns);
	unsigned cnt = 0;

	for (; p->send_from < p->next && p->send_from <= last &&
	       p->in_flight_cnt < p->recovery.congestion;
	     p->send_from++) {
		struct publisher_datagram *d = window_at(p, p->send_from);

		if (d->done || d->in_flight)
			continue;
		d->in_flight = (uint8_t)copies_of(p, p->send_from);
		d->sent_ns = now_ns;
		d->sent_cnt++;
		p->in_flight_cnt += d->in_flight;
		for (unsigned i = 0; i < d->in_flight; i++) {
			iov[cnt] = (struct iovec){.iov_base = d->packet, .iov_len = d->len};
			messages[cnt] = (struct mmsghdr){.msg_hdr = {.msg_name = &p->engine,
								     .msg_namelen = p->engine_len,
								     .msg_iov = &iov[cnt],
								     .msg_iovlen = 1}};
			if (++cnt == SEND_BATCH) {
				send_batch(p, messages, cnt);
				cnt = 0;
			}
		}
	}
	send_batch(p, messages, cnt);
}

void window_lose(struct fan_publisher *p, uint64_t sequence)
{
	struct publisher_datagram *d = window_at(p, sequence);

	p->in_flight_cnt -= d->in_flight;
	d->in_flight = 0;
	if (p->send_from > sequence)
		p->send_from = sequence;
}

int window_pump(struct fan_publisher *p, uint64_t now_ns)
{
	while (p->cut.ticket && p->next - p->base < PUBLISHER_WINDOW) {
		int status = cut_one(p);

		if (status < 0)
			return status;
	}
	transmit(p, now_ns);
	return 0;
}

void window_enter(struct fan_publisher *p, uint64_t now_ns)
{
	if (p->left_ns && now_ns - p->left_ns > NEGLECT_NS)
		p->neglected_ns = p->left_ns;
	p->left_ns = 0;
}

static void take_result(struct fan_publisher *p, const struct fan_result *result, uint64_t now_ns)
{
	struct publisher_datagram *d;

	/* those of the window before are still in their slots */
	if (result->publisher_sequence >= p->next ||
	    p->next - result->publisher_sequence > PUBLISHER_WINDOW)
		return;
	d = window_at(p, result->publisher_sequence);
	if (d->done)
		recovery_on_repeated(p, d);
	if (d->done || d->sent_cnt == 0)
		return;
	recovery_on_result(p, d, now_ns);
	d->done = true;
	p->in_flight_cnt -= d->in_flight;
	d->in_flight = 0;
	publisher_resolve(p, d->ticket, d->packet[2] & FAN_FLAG_END, result);
	while (p->base < p->next && window_at(p, p->base)->done)
		p->base++;
	if (p->send_from < p->base)
		p->send_from = p->base;
}

/* Sliding window of counters as in RFC 4303, 3.4.3. */
static bool counter_fresh(const struct fan_publisher *p, uint64_t counter)
{
	if (counter > p->ack_highest)
		return true;
	if (counter == 0 || p->ack_highest - counter >= ACK_HISTORY)
		return false;
	return !(p->ack_seen[counter % ACK_HISTORY / 64] >> (counter % 64) & 1);
}

static void counter_mark(struct fan_publisher *p, uint64_t counter)
{
	uint64_t ahead = counter > p->ack_highest ? counter - p->ack_highest : 0;

	if (ahead >= ACK_HISTORY)
		memset(p->ack_seen, 0, sizeof(p->ack_seen));
	else
		for (uint64_t c = p->ack_highest + 1; c < counter; c++)
			p->ack_seen[c % ACK_HISTORY / 64] &= ~(UINT64_C(1) << (c % 64));
	p->ack_seen[counter % ACK_HISTORY / 64] |= UINT64_C(1) << (counter % 64);
	if (ahead)
		p->ack_highest = counter;
}

static void take_ack(struct fan_publisher *p, const uint8_t *packet, size_t len, uint64_t now_ns)
{
	uint8_t body[ACK_MAX];
	struct fan_result result;
	struct fan_ack ack;
	uint64_t accepted, before;
	size_t body_len;
	bool over_budget;

	if (fan_ack_decode(packet, len, &ack) != FAN_WIRE_OK || ack.session != p->session ||
	    !counter_fresh(p, ack.counter))
		return;
	body_len = len - FAN_ACK_LEN - FAN_TAG_LEN;
	if (seal_open(&p->seal, FAN_DIRECTION_ACK, ack.counter, packet, FAN_ACK_LEN,
		      packet + FAN_ACK_LEN, body_len, body) < 0)
		return; /* forged or damaged: as if it had not come */
	counter_mark(p, ack.counter);
	memcpy(&accepted, body, sizeof(accepted));
	before = p->accepted;
	over_budget = ack.flags & FAN_ACK_OVER_BUDGET;
	recovery_on_accepted(p, be64toh(accepted), ack.count == 0 && !over_budget);
	if (p->accepted > before) {
		p->held = false;
		p->held_until_ns = 0;
	}
	for (unsigned i = 0; i < ack.count; i++) {
		fan_result_decode(body, i, &result);
		take_result(p, &result, now_ns);
	}
	if (over_budget && be64toh(accepted) == p->accepted)
		hold(p, ack.wait_ms, now_ns);
}

void window_receive(struct fan_publisher *p, uint64_t now_ns)
{
	uint8_t packets[ACK_BATCH][ACK_MAX + 1]; /* one more, so that a longer one shows */
	struct mmsghdr messages[ACK_BATCH];
	struct iovec iov[ACK_BATCH];
	unsigned rounds = 0;
	int n;

	do {
		for (unsigned i = 0; i < ACK_BATCH; i++) {
			iov[i] = (struct iovec){packets[i], sizeof(packets[i])};
			messages[i] =
				(struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
		}
		n = recvmmsg(p->udp, messages, ACK_BATCH, MSG_DONTWAIT, NULL);
		for (int i = 0; i < n; i++)
			take_ack(p, packets[i], messages[i].msg_len, now_ns);
		/* bounded: a flood must not keep the caller from its deadline */
	} while (++rounds < ACK_ROUNDS && (n == ACK_BATCH || (n < 0 && passing_error(errno))));
	recovery_judge(p, now_ns);
}
