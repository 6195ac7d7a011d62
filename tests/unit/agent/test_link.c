/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <event2/event.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "control/link.h"

struct side {
	struct link *link;
	bool is_engine, inside;
	unsigned got, answers;
	uint64_t next; /* ref that must come next */
};

static void on_message(void *arg, const struct message *message)
{
	struct side *side = arg;
	struct message answer = {.type = MESSAGE_ACTIVE, .ref = message->ref + !side->is_engine};

	cr_assert_not(side->inside, "re-entered");
	side->inside = true;
	cr_assert_eq(message->ref, side->next++, "out of order");
	side->got++;
	if (side->answers) {
		side->answers--;
		unsigned got = side->got;

		if (side->is_engine)
			link_to_agent(side->link, &answer);
		else
			link_to_engine(side->link, &answer);
		cr_assert_eq(side->got, got);
	}
	side->inside = false;
}

static struct event_base *base;
static struct link *link_under_test;
static struct side agent, engine;

static void setup(void)
{
	base = event_base_new();
	link_under_test = link_create(base);
	cr_assert(base && link_under_test);
	agent = (struct side){.link = link_under_test};
	engine = (struct side){.link = link_under_test, .is_engine = true};
	link_set_agent(link_under_test, on_message, &agent);
	link_set_engine(link_under_test, on_message, &engine);
}

static void teardown(void)
{
	link_destroy(link_under_test);
	event_base_free(base);
}

static void run(void)
{
	/* Until nothing is left to do: the link's timer is pending while it holds a message. */
	cr_assert_geq(event_base_dispatch(base), 0);
}

TestSuite(link, .init = setup, .fini = teardown, .timeout = 10);

Test(link, nothing_is_delivered_within_the_call)
{
	struct message message = {.type = MESSAGE_ACTIVE};

	link_to_engine(link_under_test, &message);
	link_to_agent(link_under_test, &message);
	cr_assert_eq(engine.got + agent.got, 0);
	run();
	cr_assert_eq(engine.got, 1);
	cr_assert_eq(agent.got, 1);
}

Test(link, order_is_kept_and_all_arrive)
{
	engine.answers = 1000;
	for (unsigned i = 0; i < 1000; i++) {
		struct message message = {.type = MESSAGE_RENEWED, .ref = i};

		link_to_engine(link_under_test, &message);
	}
	run();
	cr_assert_eq(engine.got, 1000);
	cr_assert_eq(agent.got, 1000);
}

Test(link, ping_pong_does_not_starve_other_events)
{
	struct message message = {.type = MESSAGE_ACTIVE};

	/* Each side answers the other without end: one turn of the loop must end all the same. */
	engine.answers = agent.answers = UINT32_MAX;
	link_to_engine(link_under_test, &message);
	cr_assert_geq(event_base_loop(base, EVLOOP_NONBLOCK | EVLOOP_ONCE), 0);
	unsigned got = engine.got + agent.got;

	cr_assert_geq(got, 1);
	cr_assert_leq(got, 1024);
	engine.answers = agent.answers = 0;
	run();
}

static void on_copy(void *arg, const struct message *message)
{
	memcpy(arg, message, message_len(message->type));
}

Test(link, used_part_is_copied)
{
	static struct message sent = {.type = MESSAGE_REGISTER, .ref = 3, .id = 9}, got;

	strcpy(sent.u.client.token, "token");
	strcpy(sent.u.client.threads[MESSAGE_THREADS_MAX - 1], "last");
	sent.u.client.thread_cnt = MESSAGE_THREADS_MAX;
	sent.u.client.pid = 77;
	link_set_engine(link_under_test, on_copy, &got);
	link_to_engine(link_under_test, &sent);
	strcpy(sent.u.client.token, "changed since");
	run();
	cr_assert_eq(got.id, 9);
	cr_assert_str_eq(got.u.client.token, "token");
	cr_assert_str_eq(got.u.client.threads[MESSAGE_THREADS_MAX - 1], "last");
	cr_assert_eq(got.u.client.pid, 77);
}

Test(link, a_message_may_be_shorter_than_the_struct)
{
	/* The caller promises only the used part: what lies behind it is another, forbidden page.
	 */
	char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct message *message =
		(struct message *)(void *)(pages + 4096 - offsetof(struct message, u));
	static struct message got;

	cr_assert(pages != MAP_FAILED);
	message->type = MESSAGE_ENDED;
	message->id = 5;
	cr_assert_eq(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	link_set_agent(link_under_test, on_copy, &got);
	link_to_agent(link_under_test, message);
	munmap(pages, 8192);
	run();
	cr_assert_eq(got.id, 5);
}

Test(link, a_side_that_left_gets_nothing)
{
	struct message message = {.type = MESSAGE_ACTIVE};

	link_to_agent(link_under_test, &message);
	link_set_agent(link_under_test, NULL, NULL);
	run();
	cr_assert_eq(agent.got, 0);
	link_to_engine(link_under_test, &message); /* undelivered at destroy: freed */
}

Test(link, unknown_type_aborts, .signal = SIGABRT)
{
	struct message message = {.type = 999};

	link_to_agent(link_under_test, &message);
}
