/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "control/agent/ports.h"

#define QUARANTINE 1000u /* ns; the tests bring the clock */

static const uint8_t alice[16] = {1}, bob[16] = {2};

static void init(void)
{
	cr_assert(sodium_init() >= 0);
}

static struct ports *make(unsigned v4, unsigned v6, unsigned port_cnt)
{
	struct fan_config config = {.port_first = 24500,
				    .port_last = (uint16_t)(24500 + port_cnt - 1),
				    .receiver_address_cnt = v4 + v6};
	char text[46];

	for (unsigned i = 0; i < v4 + v6; i++) {
		snprintf(text, sizeof(text), i < v4 ? "192.0.2.%u" : "2001:db8::%u", i + 1);
		cr_assert_eq(fan_address_parse(&config.receiver_address[i], text), 0);
	}
	struct ports *ports = ports_create(&config, QUARANTINE);

	cr_assert(ports);
	return ports;
}

TestSuite(ports, .init = init);

Test(ports, rests_for_the_quarantine_and_for_the_engine)
{
	struct ports *ports = make(1, 0, 1);
	struct port port;

	cr_assert_eq(ports_take(ports, 4, alice, 7, 100, &port), 0);
	cr_assert_eq(port.port, 24500);
	cr_assert_eq(port.address.family, 4);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 100, &port), -ENOSPC);
	ports_release(ports, port.idx, true, 200);

	/* Time alone does not free it, whoever asks. */
	cr_assert_eq(ports_take(ports, 4, bob, 8, 200 + 10 * QUARANTINE, &port), -ENOSPC);
	cr_assert_eq(ports_take(ports, 4, alice, 8, 200 + 10 * QUARANTINE, &port), -ENOSPC);
	/* Another connection's word does not free it. */
	ports_reusable(ports, 8);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 200 + 10 * QUARANTINE, &port), -ENOSPC);
	ports_reusable(ports, 7);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 200 + 10 * QUARANTINE, &port), 0);
	ports_destroy(ports);
}

Test(ports, engine_alone_does_not_free_it_for_others)
{
	struct ports *ports = make(1, 0, 1);
	struct port port;

	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &port), 0);
	ports_release(ports, port.idx, true, 100);
	ports_reusable(ports, 7);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 100 + QUARANTINE - 1, &port), -ENOSPC);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 100 + QUARANTINE, &port), 0);
	ports_destroy(ports);
}

Test(ports, last_user_has_it_back_first)
{
	struct ports *ports = make(1, 0, 3);
	struct port first, again, other;

	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &first), 0);
	ports_release(ports, first.idx, true, 100);
	/* Not before the engine's word: then a fresh one. */
	cr_assert_eq(ports_take(ports, 4, alice, 8, 101, &again), 0);
	cr_assert_neq(again.port, first.port);
	ports_reusable(ports, 7);
	cr_assert_eq(ports_take(ports, 4, bob, 9, 102, &other), 0);
	cr_assert_neq(other.port, first.port);
	cr_assert_eq(ports_take(ports, 4, alice, 10, 103, &again), 0);
	cr_assert_eq(again.port, first.port);
	ports_destroy(ports);
}

Test(ports, longest_free_goes_first)
{
	struct ports *ports = make(1, 0, 3);
	struct port port[3], next;

	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(ports_take(ports, 4, alice, i + 1, 0, &port[i]), 0);
	for (unsigned i = 0; i < 3; i++)
		ports_release(ports, port[2 - i].idx, true, 10 + i);
	for (unsigned i = 0; i < 3; i++)
		ports_reusable(ports, i + 1);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(ports_take(ports, 4, bob, 10 + i, 5000, &next), 0);
		cr_assert_eq(next.idx, port[2 - i].idx);
	}
	ports_destroy(ports);
}

Test(ports, failed_bind_is_not_tried_again_at_once)
{
	struct ports *ports = make(1, 0, 2);
	struct port port, next;

	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &port), 0);
	ports_release(ports, port.idx, false, 0);
	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &next), 0);
	cr_assert_neq(next.idx, port.idx);
	cr_assert_eq(ports_take(ports, 4, alice, 8, 0, &next), -ENOSPC);
	/* It needs nobody's word: the table never knew it. */
	cr_assert_eq(ports_take(ports, 4, alice, 8, QUARANTINE, &next), 0);
	cr_assert_eq(next.idx, port.idx);
	ports_destroy(ports);
}

Test(ports, families_are_apart)
{
	struct ports *ports = make(1, 1, 1);
	struct port port;

	cr_assert_eq(ports_take(ports, 6, alice, 1, 0, &port), 0);
	cr_assert_eq(port.address.family, 6);
	cr_assert_eq(ports_take(ports, 6, alice, 2, 0, &port), -ENOSPC);
	ports_release(ports, port.idx, false, 0);
	cr_assert_eq(ports_take(ports, 4, alice, 2, 0, &port), 0);
	cr_assert_eq(port.address.family, 4);
	ports_destroy(ports);
}

Test(ports, hold_takes_that_very_one)
{
	struct ports *ports = make(2, 0, 2);
	struct fan_address second;
	struct ports_counts counts;
	struct port port, next;

	cr_assert_eq(fan_address_parse(&second, "192.0.2.2"), 0);
	cr_assert_eq(ports_hold(ports, &second, 24501, alice, 5, &port), 0);
	cr_assert_eq(port.port, 24501);
	cr_assert_eq(ports_hold(ports, &second, 24501, alice, 5, &port), -ENOENT);
	cr_assert_eq(ports_hold(ports, &second, 24502, alice, 6, &port), -ENOENT);
	cr_assert_eq(ports_hold(ports, &second, 24499, alice, 6, &port), -ENOENT);
	cr_assert_eq(fan_address_parse(&second, "192.0.2.9"), 0);
	cr_assert_eq(ports_hold(ports, &second, 24500, alice, 6, &port), -ENOENT);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(ports_take(ports, 4, bob, 10 + i, 0, &next), 0);
		cr_assert_neq(next.idx, port.idx);
	}
	ports_count(ports, 0, &counts);
	cr_assert_eq(counts.used, 4);
	cr_assert_eq(counts.free + counts.resting, 0);
	ports_destroy(ports);
}

Test(ports, same_id_twice_is_freed_in_order)
{
	struct ports *ports = make(1, 0, 2);
	struct port old, new, next;

	/* A connection was replaced, and its successor ended too: two pairs rest under one id. */
	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &old), 0);
	ports_release(ports, old.idx, true, 10);
	cr_assert_eq(ports_take(ports, 4, alice, 7, 20, &new), 0);
	ports_release(ports, new.idx, true, 30);
	ports_reusable(ports, 7);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 5000, &next), 0);
	cr_assert_eq(next.idx, old.idx);
	cr_assert_eq(ports_take(ports, 4, bob, 9, 5000, &next), -ENOSPC);
	ports_reusable(ports, 7);
	cr_assert_eq(ports_take(ports, 4, bob, 9, 5000, &next), 0);
	ports_destroy(ports);
}

Test(ports, rests_of_the_last_process_go_on)
{
	struct ports *ports = make(1, 0, 2);
	struct port port;
	struct fan_address address;

	ports_rest(ports, 0, alice, 100);
	ports_rest(ports, 1, bob, 200);
	cr_assert_eq(ports_take(ports, 4, alice, 1, 300, &port), 0);
	cr_assert_eq(port.idx, 0);
	cr_assert_eq(ports_take(ports, 4, alice, 2, 300, &port), -ENOSPC);
	/* One that was released, but may still be sent to: the engine holds it. */
	cr_assert_eq(fan_address_parse(&address, "192.0.2.1"), 0);
	cr_assert_eq(ports_hold(ports, &address, 24501, bob, 3, &port), 0);
	ports_release(ports, port.idx, true, 300);
	cr_assert_eq(ports_take(ports, 4, bob, 4, 300 + QUARANTINE, &port), -ENOSPC);
	cr_assert_eq(ports_hold(ports, &address, 24501, bob, 3, &port), -ENOENT);
	cr_assert(ports_reusable(ports, 3));
	cr_assert_not(ports_reusable(ports, 3));
	cr_assert_eq(ports_take(ports, 4, bob, 4, 300 + QUARANTINE, &port), 0);
	ports_destroy(ports);
}

Test(ports, releasing_twice_is_harmless)
{
	struct ports *ports = make(1, 0, 2);
	struct ports_counts counts;
	struct port port;

	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, &port), 0);
	ports_release(ports, port.idx, true, 10);
	ports_release(ports, port.idx, true, 10);
	ports_release(ports, PORT_NONE, true, 10);
	ports_count(ports, 10, &counts);
	cr_assert_eq(counts.used, 0);
	cr_assert_eq(counts.resting, 1);
	cr_assert_eq(counts.free, 1);
	ports_destroy(ports);
}

/* ---- held by who had it last ---- */

static struct ports_counts counted(struct ports *ports, uint64_t now_ns)
{
	struct ports_counts counts;

	ports_count(ports, now_ns, &counts);
	cr_assert_eq(counts.used + counts.resting + counts.held + counts.free, 2);
	return counts;
}

/* Taken by alice at 0, released at 100, and let go of by the engine. */
static struct ports *make_rested(struct port *port)
{
	struct ports *ports = make(1, 0, 2);

	cr_assert_eq(ports_take(ports, 4, alice, 7, 0, port), 0);
	cr_assert_eq(ports_charged(ports, alice), 1);
	ports_release(ports, port->idx, true, 100);
	cr_assert_eq(ports_charged(ports, alice), 0);
	cr_assert(ports_reusable(ports, 7));
	return ports;
}

Test(ports, what_its_user_kept_open_is_charged_to_him)
{
	struct port port, next, suspect;
	struct ports *ports = make_rested(&port);

	/* He comes again at once, and his own port turns out to be bound. */
	cr_assert_eq(ports_take(ports, 4, alice, 8, 101, &next), 0);
	cr_assert_eq(next.idx, port.idx);
	cr_assert_eq(memcmp(ports_busy(ports, next.idx), alice, 16), 0);
	cr_assert_eq(ports_charged(ports, alice), 1);
	cr_assert_eq(counted(ports, 101).held, 1);
	/* No time frees it, but that it is seen unbound: then it rests, and is his again. */
	cr_assert_eq(counted(ports, 100 + 10 * QUARANTINE).held, 1);
	cr_assert(ports_suspect(ports, true, 20000, &suspect));
	cr_assert_eq(suspect.idx, port.idx);
	cr_assert_eq(suspect.port, port.port);
	ports_busy(ports, suspect.idx);
	cr_assert_eq(ports_charged(ports, alice), 1);
	ports_idle(ports, suspect.idx, 20000);
	cr_assert_eq(ports_charged(ports, alice), 0);
	cr_assert_eq(counted(ports, 20000).resting, 1);
	cr_assert_not(ports_suspect(ports, true, 20000, &suspect));
	cr_assert_eq(ports_take(ports, 4, bob, 9, 20001, &next), 0);
	cr_assert_neq(next.idx, port.idx);
	cr_assert_eq(ports_take(ports, 4, bob, 10, 20000 + QUARANTINE - 1, &next), -ENOSPC);
	cr_assert_eq(ports_take(ports, 4, alice, 10, 20001, &next), 0);
	cr_assert_eq(next.idx, port.idx);
	ports_destroy(ports);
}

/* At the end of its rest it is looked at once, and another who is given it before that is not
 * charged for it. */
Test(ports, what_rested_is_looked_at)
{
	struct port port, next, suspect;
	struct ports *ports = make_rested(&port);

	cr_assert_not(ports_suspect(ports, false, 100 + QUARANTINE - 1, &suspect));
	cr_assert(ports_suspect(ports, false, 100 + QUARANTINE, &suspect));
	cr_assert_eq(suspect.idx, port.idx);
	cr_assert_eq(memcmp(ports_busy(ports, suspect.idx), alice, 16), 0);
	cr_assert_eq(ports_charged(ports, alice), 1);
	cr_assert_eq(counted(ports, 2000).held, 1);
	cr_assert_eq(counted(ports, 2000).free, 1);
	cr_assert_not(ports_suspect(ports, false, 2000, &suspect));
	ports_destroy(ports);

	ports = make_rested(&port);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 2000, &next), 0); /* the fresh one */
	cr_assert_eq(ports_take(ports, 4, bob, 9, 2000, &next), 0);
	cr_assert_eq(next.idx, port.idx);
	cr_assert_not(ports_suspect(ports, false, 2000, &suspect));
	cr_assert_eq(memcmp(ports_busy(ports, next.idx), alice, 16), 0);
	cr_assert_eq(ports_charged(ports, alice), 1);
	cr_assert_eq(ports_charged(ports, bob), 1);
	ports_destroy(ports);

	ports = make_rested(&port);
	cr_assert(ports_suspect(ports, false, 2000, &suspect));
	ports_idle(ports, suspect.idx, 2000);
	cr_assert_not(ports_suspect(ports, false, 2000, &suspect));
	cr_assert_eq(counted(ports, 2000).free, 2);
	cr_assert_eq(ports_take(ports, 4, bob, 8, 2000, &next), 0);
	cr_assert_eq(ports_take(ports, 4, bob, 9, 2000, &next), 0);
	cr_assert_eq(next.idx, port.idx);
	ports_busy(ports, next.idx); /* seen unbound since: alice is not to blame */
	cr_assert_eq(ports_charged(ports, alice), 0);
	ports_destroy(ports);
}

/* ---- random operations against a model that scans ---- */

#define MODEL_CNT   24 /* 2 IPv4 and 1 IPv6 addresses of 8 ports */
#define MODEL_USERS 5

struct model_slot {
	enum { FREE, USED, RESTING, HELD } state;
	uint8_t before; /* the user to blame where it cannot be bound */
	bool waits;	/* for ports_reusable() */
	uint8_t user;	/* 0: nobody */
	uint64_t connection, released_ns;
};

struct model {
	struct model_slot slots[MODEL_CNT];
	uint64_t now_ns, next_id;
};

static bool ready(const struct model *model, const struct model_slot *slot)
{
	return slot->state == FREE || (slot->state == RESTING && !slot->waits &&
				       model->now_ns - slot->released_ns >= QUARANTINE);
}

static uint8_t blamed(const struct model_slot *slot)
{
	return slot->state == FREE ? slot->before : slot->user;
}

static bool is_v6(unsigned idx)
{
	return idx >= 16;
}

static void model_take(struct model *model, struct ports *ports, uint8_t user, unsigned family)
{
	uint8_t handle[16] = {user};
	bool own = false, any = false;
	struct port port;
	int err = ports_take(ports, family, handle, model->next_id, model->now_ns, &port);

	for (unsigned i = 0; i < MODEL_CNT; i++) {
		struct model_slot *slot = &model->slots[i];

		if (is_v6(i) != (family == 6))
			continue;
		any |= ready(model, slot);
		own |= slot->state == RESTING && !slot->waits && slot->user == user &&
		       !ready(model, slot);
	}
	cr_assert_eq(err, any || own ? 0 : -ENOSPC);
	if (err)
		return;
	cr_assert(port.idx < MODEL_CNT);
	struct model_slot *got = &model->slots[port.idx];

	cr_assert_eq(is_v6(port.idx), family == 6);
	cr_assert_eq(port.address.family, family);
	cr_assert_neq(got->state, USED, "two owners");
	if (own)
		cr_assert(got->state == RESTING && got->user == user, "the last user comes first");
	else
		cr_assert(ready(model, got), "given away in quarantine");
	*got = (struct model_slot){
		.state = USED, .user = user, .before = blamed(got), .connection = model->next_id++};
}

static void model_release(struct model *model, struct ports *ports, unsigned idx, bool wait)
{
	struct model_slot *slot = &model->slots[idx];

	if (slot->state != USED)
		return;
	ports_release(ports, idx, wait, model->now_ns);
	slot->state = RESTING;
	slot->waits = wait;
	slot->released_ns = model->now_ns;
	if (!wait)
		slot->user = 0;
}

/* A bind of the one that it was just given fails, or a look finds that. */
static void model_busy(struct model *model, struct ports *ports, unsigned idx)
{
	struct model_slot *slot = &model->slots[idx];

	if (slot->state != USED)
		return;
	cr_assert_eq(ports_busy(ports, idx)[0], slot->before);
	slot->state = HELD;
	slot->user = slot->before;
}

static void model_look(struct model *model, struct ports *ports, bool held, bool busy)
{
	struct port port;

	if (!ports_suspect(ports, held, model->now_ns, &port))
		return;
	struct model_slot *slot = &model->slots[port.idx];

	cr_assert(held ? slot->state == HELD : ready(model, slot));
	if (busy) {
		cr_assert_eq(ports_busy(ports, port.idx)[0], held ? slot->user : blamed(slot));
		slot->user = held ? slot->user : blamed(slot);
		slot->state = HELD;
		return;
	}
	ports_idle(ports, port.idx, model->now_ns);
	if (held)
		*slot = (struct model_slot){
			.state = RESTING, .user = slot->user, .released_ns = model->now_ns};
	else
		*slot = (struct model_slot){.state = FREE};
}

static void model_count(const struct model *model, struct ports *ports)
{
	struct ports_counts counts;
	unsigned used = 0, held = 0, free_cnt = 0, charged[MODEL_USERS + 1] = {0};

	for (unsigned i = 0; i < MODEL_CNT; i++) {
		const struct model_slot *slot = &model->slots[i];

		held += slot->state == HELD;
		if (slot->state == USED || slot->state == HELD)
			charged[slot->user]++;
		used += model->slots[i].state == USED;
		free_cnt += ready(model, &model->slots[i]);
	}
	ports_count(ports, model->now_ns, &counts);
	cr_assert_eq(counts.used, used);
	cr_assert_eq(counts.free, free_cnt);
	cr_assert_eq(counts.held, held);
	cr_assert_eq(counts.resting, MODEL_CNT - used - held - free_cnt);
	for (uint8_t user = 1; user <= MODEL_USERS; user++)
		cr_assert_eq(ports_charged(ports, (uint8_t[16]){user}), charged[user]);
}

Test(ports, random_operations_match_the_model, .timeout = 60)
{
	struct ports *ports = make(2, 1, 8);
	struct model model = {.next_id = 1};

	srandom(20261123);
	for (unsigned n = 0; n < 200000; n++) {
		unsigned idx = (unsigned)random() % MODEL_CNT;
		uint8_t user = (uint8_t)(1 + random() % MODEL_USERS);

		switch (random() % 10) {
		case 0:
		case 1:
		case 2:
			model_take(&model, ports, user, random() % 3 ? 4 : 6);
			break;
		case 8:
			model_busy(&model, ports, idx);
			break;
		case 9:
			model_look(&model, ports, random() % 2, random() % 2);
			break;
		case 3:
		case 4:
			model_release(&model, ports, idx, random() % 8);
			break;
		case 5:
		case 6:
			if (model.slots[idx].state == RESTING && model.slots[idx].waits) {
				ports_reusable(ports, model.slots[idx].connection);
				model.slots[idx].waits = false;
			}
			break;
		default:
			model.now_ns += (uint64_t)random() % (QUARANTINE / 2);
			model_count(&model, ports);
		}
	}
	ports_destroy(ports);
}

Test(ports, what_waits_for_the_engine_is_counted_by_user)
{
	static const uint8_t other[16] = {2};
	struct ports *ports = make(1, 0, 4);
	struct port port;

	for (uint64_t owner = 1; owner <= 2; owner++) {
		cr_assert_eq(ports_take(ports, 4, alice, owner, 0, &port), 0);
		cr_assert_eq(ports_settling(ports, alice), owner - 1);
		ports_release(ports, port.idx, true, 0);
		cr_assert_eq(ports_settling(ports, alice), owner);
	}
	cr_assert_eq(ports_settling(ports, other), 0);
	cr_assert(ports_reusable(ports, 1));
	cr_assert_eq(ports_settling(ports, alice), 1);
	cr_assert(ports_reusable(ports, 2));
	cr_assert_eq(ports_settling(ports, alice), 0);
	ports_destroy(ports);
}
