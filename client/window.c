/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/publisher.h"

#define RTO_FIRST_NS	 (20 * CLOCK_MS_NS)
#define RTO_LEAST_NS	 (5 * CLOCK_MS_NS)
#define RTO_MOST_NS	 (500 * CLOCK_MS_NS)
#define CONGESTION_FIRST 32
#define SEND_BATCH	 32
#define ACK_BATCH	 16
#define ACK_ROUNDS	 64
#define ACK_MAX		 (FAN_ACK_LEN + 8 + FAN_ACK_RESULT_MAX * FAN_ACK_RESULT_LEN + FAN_TAG_LEN)

static struct publisher_datagram *datagram_at(struct fan_publisher *p, uint64_t sequence)
{
	return &p->window[sequence % PUBLISHER_WINDOW];
}

int window_init(struct fan_publisher *p)
{
	p->packet_len = FAN_PUBLISH_LEN + p->payload_limit + FAN_TAG_LEN;
	p->packets = calloc(PUBLISHER_WINDOW, p->packet_len);
	if (!p->packets)
		return -ENOMEM;
	for (size_t i = 0; i < PUBLISHER_WINDOW; i++)
		p->window[i].packet = p->packets + i * p->packet_len;
	p->base = p->next = p->send_from = 1;
	p->congestion = CONGESTION_FIRST;
	p->threshold = PUBLISHER_WINDOW;
	p->rto_ns = RTO_FIRST_NS;
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
	struct publisher_datagram *d = datagram_at(p, p->next);
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
	d->in_flight = d->done = false;
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

static void transmit(struct fan_publisher *p, uint64_t now_ns)
{
	struct mmsghdr messages[SEND_BATCH];
	struct iovec iov[SEND_BATCH];
	unsigned cnt = 0;

	for (; p->send_from < p->next && p->in_flight_cnt < p->congestion; p->send_from++) {
		struct publisher_datagram *d = datagram_at(p, p->send_from);

		if (d->done || d->in_flight)
			continue;
		d->in_flight = true;
		d->sent_ns = now_ns;
		d->sent_cnt++;
		p->in_flight_cnt++;
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
	send_batch(p, messages, cnt);
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

/* RFC 6298, from datagrams that were sent once only (Karn). */
static void measure(struct fan_publisher *p, uint64_t sample_ns)
{
	uint64_t deviation;

	if (p->rtt_ns == 0) {
		p->rtt_ns = sample_ns ? sample_ns : 1;
		p->rtt_var_ns = sample_ns / 2;
	} else {
		deviation = p->rtt_ns > sample_ns ? p->rtt_ns - sample_ns : sample_ns - p->rtt_ns;
		p->rtt_var_ns = (3 * p->rtt_var_ns + deviation) / 4;
		p->rtt_ns = (7 * p->rtt_ns + sample_ns) / 8;
	}
	p->rto_ns = p->rtt_ns + 4 * p->rtt_var_ns;
	if (p->rto_ns < RTO_LEAST_NS)
		p->rto_ns = RTO_LEAST_NS;
	if (p->rto_ns > RTO_MOST_NS)
		p->rto_ns = RTO_MOST_NS;
}

void window_enter(struct fan_publisher *p, uint64_t now_ns)
{
	if (p->left_ns && now_ns - p->left_ns > RTO_LEAST_NS)
		p->neglected_ns = p->left_ns;
	p->left_ns = 0;
}

static void widen(struct fan_publisher *p)
{
	if (p->congestion >= PUBLISHER_WINDOW)
		return;
	if (p->congestion < p->threshold) {
		p->congestion++;
	} else if (++p->congestion_part >= p->congestion) {
		p->congestion_part = 0;
		p->congestion++;
	}
}

static void take_result(struct fan_publisher *p, const struct fan_result *result, uint64_t now_ns)
{
	struct publisher_datagram *d;

	if (result->publisher_sequence < p->base || result->publisher_sequence >= p->next)
		return;
	d = datagram_at(p, result->publisher_sequence);
	if (d->done || d->sent_cnt == 0)
		return;
	d->done = true;
	p->in_flight_cnt -= d->in_flight;
	d->in_flight = false;
	p->backoff = 0;
	if (d->sent_cnt == 1 && d->sent_ns > p->neglected_ns)
		measure(p, now_ns - d->sent_ns);
	widen(p);
	publisher_resolve(p, d->ticket, d->packet[2] & FAN_FLAG_END, result);
	while (p->base < p->next && datagram_at(p, p->base)->done)
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
	uint64_t accepted;
	size_t body_len;

	if (fan_ack_decode(packet, len, &ack) != FAN_WIRE_OK || ack.session != p->session ||
	    !counter_fresh(p, ack.counter))
		return;
	body_len = len - FAN_ACK_LEN - FAN_TAG_LEN;
	if (seal_open(&p->seal, FAN_DIRECTION_ACK, ack.counter, packet, FAN_ACK_LEN,
		      packet + FAN_ACK_LEN, body_len, body) < 0)
		return; /* forged or damaged: as if it had not come */
	counter_mark(p, ack.counter);
	memcpy(&accepted, body, sizeof(accepted));
	accepted = be64toh(accepted);
	if (accepted > p->accepted && accepted < p->next)
		p->accepted = accepted;
	for (unsigned i = 0; i < ack.count; i++) {
		fan_result_decode(body, i, &result);
		take_result(p, &result, now_ns);
	}
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
}

/* The oldest datagram in flight is the first from base on: sending goes in order. */
static struct publisher_datagram *oldest_in_flight(const struct fan_publisher *p)
{
	for (uint64_t s = p->base; s < p->next; s++) {
		const struct publisher_datagram *d = &p->window[s % PUBLISHER_WINDOW];

		if (d->in_flight)
			return (struct publisher_datagram *)d;
	}
	return NULL;
}

static uint64_t timeout_ns(const struct fan_publisher *p)
{
	uint64_t rto_ns = p->rto_ns << (p->backoff < 8 ? p->backoff : 8);

	return rto_ns < RTO_MOST_NS ? rto_ns : RTO_MOST_NS;
}

uint64_t window_deadline(const struct fan_publisher *p)
{
	const struct publisher_datagram *d = oldest_in_flight(p);

	return d ? d->sent_ns + timeout_ns(p) : CLOCK_NEVER;
}

void window_expire(struct fan_publisher *p, uint64_t now_ns)
{
	/* behind a gap all is lost; where only a result is missing, what is overdue itself */
	bool gap = p->base > p->accepted;
	uint64_t overdue_ns;

	if (now_ns < window_deadline(p))
		return;
	overdue_ns = now_ns - timeout_ns(p);
	for (uint64_t s = p->base; s < p->next; s++) {
		struct publisher_datagram *d = datagram_at(p, s);

		if (!d->in_flight || (!gap && d->sent_ns > overdue_ns))
			continue;
		p->in_flight_cnt--;
		d->in_flight = false;
	}
	p->send_from = p->base;
	p->backoff++;
	p->threshold = p->congestion / 2 > 2 ? p->congestion / 2 : 2;
	p->congestion = p->backoff > 1 ? (p->congestion + 1) / 2 : p->threshold;
}
