/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/shim.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_mempool.h>
#include <rte_udp.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/shm/state.h"

#define SUBJECT	    "shim"
#define REORDER_MAX 64
#define READY_MAX   1024 /* power of two */
#define QUIET_MS    20	 /* without a packet: what is held leaves */

/* FANWIRE_SHIM="seed=7,rx_loss=0.05,...": shares are 0..1 of the packets. */
struct settings {
	uint64_t seed;
	uint64_t calm;	    /* the first so many packets of a worker and direction pass */
	double loss[2];	    /* rx_loss, tx_loss; both: loss */
	double burst_enter; /* burst=ENTER/LEAVE: a packet begins, ends a run in which all is lost
			     */
	double burst_leave;
	double dup;	      /* sent twice */
	uint64_t reorder;     /* held back until at most so many others have passed */
	double reorder_share; /* of the packets that are */
	double flip;	      /* one bit of the UDP payload is changed, and the checksum fits */
};

struct counts {
	uint64_t packets, lost, repeated, held, flipped, no_room;
};

struct held {
	struct rte_mbuf *mbuf;
	uint64_t until; /* packet number; free where mbuf is NULL */
};

/* One direction of one worker. */
struct stage {
	uint64_t seed, number, last_tsc;
	bool in_burst;
	unsigned first, cnt; /* of ready */
	struct counts counts;
	struct held held[REORDER_MAX];
	unsigned held_cnt;
	struct rte_mbuf *ready[READY_MAX];
};

enum { RECEIVE, TRANSMIT };

static struct settings settings;
static struct stage stages[FAN_WORKERS_MAX][2];

/* ---- chance ---- */

/* What a packet's number decides; one draw each, whatever became of the others. */
enum draw {
	DRAW_LOSS,
	DRAW_BURST,
	DRAW_DUP,
	DRAW_HOLD,
	DRAW_DISTANCE,
	DRAW_FLIP,
	DRAW_BIT,
	DRAW_CNT
};

/* splitmix64. */
static uint64_t draw(const struct stage *stage, enum draw what)
{
	uint64_t x = stage->seed + (stage->number * DRAW_CNT + what) * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static bool chance(const struct stage *stage, enum draw what, double share)
{
	return (double)(draw(stage, what) >> 11) * 0x1p-53 < share;
}

/* ---- one packet ---- */

static void ready_put(struct stage *stage, struct rte_mbuf *mbuf)
{
	if (stage->cnt == READY_MAX) {
		stage->counts.no_room++;
		rte_pktmbuf_free(mbuf);
		return;
	}
	stage->ready[(stage->first + stage->cnt++) % READY_MAX] = mbuf;
}

static bool is_lost(struct stage *stage, int direction)
{
	if (chance(stage, DRAW_BURST,
		   stage->in_burst ? settings.burst_leave : settings.burst_enter))
		stage->in_burst = !stage->in_burst;
	return stage->in_burst || chance(stage, DRAW_LOSS, settings.loss[direction]);
}

/* The UDP header of a frame, and its end; NULL: not one. */
static struct rte_udp_hdr *udp_of(struct rte_mbuf *mbuf, uint8_t **end)
{
	uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *), *udp;
	const struct rte_ether_hdr *ether = (const struct rte_ether_hdr *)frame;

	*end = frame + mbuf->data_len;
	if (ether->ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV4))
		udp = frame + sizeof(*ether) + sizeof(struct rte_ipv4_hdr);
	else if (ether->ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV6))
		udp = frame + sizeof(*ether) + sizeof(struct rte_ipv6_hdr);
	else
		return NULL;
	return udp + sizeof(struct rte_udp_hdr) < *end ? (struct rte_udp_hdr *)udp : NULL;
}

/* A damaged packet that the checksum does not find: what is above has to. RFC 1624. */
static void flip(struct stage *stage, struct rte_mbuf *mbuf)
{
	uint8_t *end;
	struct rte_udp_hdr *udp = udp_of(mbuf, &end);
	uint64_t bit = draw(stage, DRAW_BIT);
	uint16_t before, after;
	uint8_t *payload, *word;
	uint32_t sum;

	if (!udp)
		return;
	payload = (uint8_t *)(udp + 1);
	bit %= (uint64_t)(end - payload) * 8;
	word = payload + (bit / 8 & ~UINT64_C(1));
	if (word + 2 > end) /* an odd last byte */
		return;
	memcpy(&before, word, 2);
	payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
	memcpy(&after, word, 2);
	sum = (uint32_t)(uint16_t)~udp->dgram_cksum + (uint16_t)~before + after;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if (udp->dgram_cksum != 0)
		udp->dgram_cksum = (uint16_t)sum == 0xffff ? 0xffff : (uint16_t)~sum;
	stage->counts.flipped++;
}

static void repeat(struct stage *stage, struct rte_mbuf *mbuf)
{
	struct rte_mbuf *copy = rte_pktmbuf_copy(mbuf, mbuf->pool, 0, UINT32_MAX);

	if (!copy)
		return;
	stage->counts.repeated++;
	ready_put(stage, copy);
}

/* false: no place is free. */
static bool hold(struct stage *stage, struct rte_mbuf *mbuf)
{
	if (stage->held_cnt == REORDER_MAX)
		return false;
	for (unsigned i = 0; i < REORDER_MAX; i++)
		if (!stage->held[i].mbuf) {
			stage->held[i].mbuf = mbuf;
			stage->held[i].until =
				stage->number + 1 + draw(stage, DRAW_DISTANCE) % settings.reorder;
			break;
		}
	stage->held_cnt++;
	stage->counts.held++;
	return true;
}

static void release(struct stage *stage, bool all)
{
	for (unsigned i = 0; stage->held_cnt && i < REORDER_MAX; i++)
		if (stage->held[i].mbuf && (all || stage->held[i].until <= stage->number)) {
			ready_put(stage, stage->held[i].mbuf);
			stage->held[i].mbuf = NULL;
			stage->held_cnt--;
		}
}

static void pass(struct stage *stage, int direction, struct rte_mbuf *mbuf)
{
	stage->number++;
	stage->counts.packets++;
	if (stage->number <= settings.calm) {
		ready_put(stage, mbuf);
		return;
	}
	if (is_lost(stage, direction)) {
		stage->counts.lost++;
		rte_pktmbuf_free(mbuf);
	} else {
		if (chance(stage, DRAW_DUP, settings.dup))
			repeat(stage, mbuf);
		if (chance(stage, DRAW_FLIP, settings.flip))
			flip(stage, mbuf);
		if (!settings.reorder || !chance(stage, DRAW_HOLD, settings.reorder_share) ||
		    !hold(stage, mbuf))
			ready_put(stage, mbuf);
	}
	release(stage, false);
}

static void pass_burst(struct stage *stage, int direction, struct rte_mbuf **mbufs, unsigned cnt)
{
	uint64_t now = rte_get_tsc_cycles();

	for (unsigned i = 0; i < cnt; i++)
		pass(stage, direction, mbufs[i]);
	if (cnt > 0)
		stage->last_tsc = now;
	else if (stage->held_cnt && now - stage->last_tsc > rte_get_tsc_hz() / 1000 * QUIET_MS)
		release(stage, true);
}

static struct rte_mbuf *ready_take(struct stage *stage)
{
	struct rte_mbuf *mbuf = stage->ready[stage->first++ % READY_MAX];

	stage->cnt--;
	return mbuf;
}

/* ---- the port ---- */

static void ready_send(struct stage *stage, uint16_t port, uint16_t queue)
{
	for (unsigned retries = 0; stage->cnt && retries < 1000;) {
		struct rte_mbuf *mbuf = stage->ready[stage->first % READY_MAX];

		if (rte_eth_tx_burst(port, queue, &mbuf, 1) == 1) {
			ready_take(stage);
			retries = 0;
		} else {
			retries++;
		}
	}
	while (stage->cnt) { /* the port takes nothing: as where it is full without this stage */
		stage->counts.no_room++;
		rte_pktmbuf_free(ready_take(stage));
	}
}

uint16_t shim_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t cnt)
{
	struct stage *stage = &stages[queue][TRANSMIT];

	pass_burst(stage, TRANSMIT, from, cnt);
	ready_send(stage, port, queue);
	return cnt;
}

uint16_t shim_receive(uint16_t port, uint16_t queue, struct rte_mbuf **to, uint16_t cnt)
{
	struct stage *stage = &stages[queue][RECEIVE];
	struct rte_mbuf *fresh[256];
	uint16_t i, got = 0;

	if (stage->cnt < cnt)
		got = rte_eth_rx_burst(port, queue, fresh, RTE_MIN(cnt, (uint16_t)RTE_DIM(fresh)));
	pass_burst(stage, RECEIVE, fresh, got);
	if (stages[queue][TRANSMIT].held_cnt) /* which nothing may follow for a long time */
		shim_transmit(port, queue, NULL, 0);
	for (i = 0; i < cnt && stage->cnt; i++)
		to[i] = ready_take(stage);
	return i;
}

/* ---- settings ---- */

static bool setting_set(struct settings *s, const char *name, const char *value)
{
	const struct {
		const char *name;
		double *first, *second;
	} shares[] = {
		{"rx_loss", &s->loss[RECEIVE], NULL},
		{"tx_loss", &s->loss[TRANSMIT], NULL},
		{"loss", &s->loss[RECEIVE], &s->loss[TRANSMIT]},
		{"dup", &s->dup, NULL},
		{"flip", &s->flip, NULL},
		{"reorder_share", &s->reorder_share, NULL},
		{"burst", &s->burst_enter, &s->burst_leave},
	};
	const struct {
		const char *name;
		uint64_t *value, max;
	} numbers[] = {
		{"seed", &s->seed, UINT64_MAX},
		{"calm", &s->calm, UINT64_MAX},
		{"reorder", &s->reorder, REORDER_MAX},
	};
	char *end;

	for (unsigned i = 0; i < RTE_DIM(numbers); i++) {
		if (strcmp(name, numbers[i].name) != 0)
			continue;
		*numbers[i].value = strtoull(value, &end, 10);
		return *value && !*end && *numbers[i].value <= numbers[i].max;
	}
	for (unsigned i = 0; i < RTE_DIM(shares); i++) {
		if (strcmp(name, shares[i].name) != 0)
			continue;
		*shares[i].first = strtod(value, &end);
		if (shares[i].second)
			*shares[i].second = *end == '/' ? strtod(end + 1, &end) : *shares[i].first;
		return *value && !*end && *shares[i].first >= 0 && *shares[i].first <= 1;
	}
	return false;
}

int shim_start(void)
{
	const char *text = getenv("FANWIRE_SHIM");
	char copy[512], *rest = copy, *one;

	settings = (struct settings){.reorder_share = 0.1};
	snprintf(copy, sizeof(copy), "%s", text ? text : "");
	while ((one = strsep(&rest, ",")) != NULL && *one) {
		char *value = strchr(one, '=');

		if (value)
			*value++ = '\0';
		if (!value || !setting_set(&settings, one, value)) {
			fan_log(FAN_LOG_ERROR, SUBJECT, "FANWIRE_SHIM: no such setting: %s", one);
			return -EINVAL;
		}
	}
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned direction = 0; direction < 2; direction++)
			stages[i][direction].seed =
				settings.seed * UINT64_C(0xd1342543de82ef95) + i * 2 + direction;
	fan_log(FAN_LOG_WARNING, SUBJECT,
		"a test build: the network is as bad as FANWIRE_SHIM says: %s",
		text ? text : "(not set)");
	return 0;
}

static void stage_fini(struct stage *stage)
{
	release(stage, true);
	while (stage->cnt)
		rte_pktmbuf_free(ready_take(stage));
}

void shim_stop(void)
{
	static const char *const names[] = {"received", "sent"};

	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned direction = 0; direction < 2; direction++) {
			struct stage *stage = &stages[i][direction];
			const struct counts *counts = &stage->counts;

			stage_fini(stage);
			if (!counts->packets)
				continue;
			fan_log(FAN_LOG_INFO, SUBJECT,
				"worker %u %s %lu: lost %lu, repeated %lu, held back %lu, flipped "
				"%lu, "
				"no room %lu",
				i, names[direction], counts->packets, counts->lost,
				counts->repeated, counts->held, counts->flipped, counts->no_room);
		}
}
