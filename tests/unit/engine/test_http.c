/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control/engine/http.h"
#include "control/engine/publishers.h"
#include "control/engine/users.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;

static void setup(void)
{
	char why[1024];

	fixture_init(&f);
	fixture_start(&f);
	dataplane_start(&f);
	cr_assert_eq(http_open(&f.engine.http, &f.engine, why), 0, "%s", why);
}

static void teardown(void)
{
	http_close(f.engine.http);
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(http, .init = setup, .fini = teardown);

struct answer {
	int status;
	json_t *body;
};

static int open_client(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", f.dir);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Sends these bytes and reads until the server closes, which the caller's headers ask for. */
static size_t exchange(const char *bytes, size_t len, char *out, size_t size)
{
	int fd = open_client();
	size_t sent = 0, got = 0;

	for (unsigned i = 0; i < 2000; i++) {
		ssize_t n = sent < len ? send(fd, bytes + sent, len - sent, MSG_NOSIGNAL) : 0;

		sent += n > 0 ? (size_t)n : 0;
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		n = recv(fd, out + got, size - 1 - got, 0);
		if (n == 0)
			break;
		got += n > 0 ? (size_t)n : 0;
		if (n < 0)
			usleep(500);
	}
	close(fd);
	event_base_loop(f.base, EVLOOP_NONBLOCK);
	out[got] = '\0';
	return got;
}

static struct answer call(const char *method, const char *path, const char *body)
{
	char request[4096], out[65536];
	struct answer answer = {0};
	const char *start;
	int len = snprintf(request, sizeof(request),
			   "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			   "Content-Length: %zu\r\n\r\n%s",
			   method, path, strlen(body), body);

	cr_assert_gt(exchange(request, (size_t)len, out, sizeof(out)), 0, "%s %s: no answer",
		     method, path);
	answer.status = atoi(out + 9);
	start = strstr(out, "\r\n\r\n");
	answer.body = json_loads(start + 4, 0, NULL);
	return answer;
}

static void refused(const char *method, const char *path, const char *body, int status,
		    const char *error)
{
	struct answer answer = call(method, path, body);

	cr_assert_eq(answer.status, status, "%s %s: %d", method, path, answer.status);
	cr_assert_str_eq(json_string_value(json_object_get(answer.body, "error")), error);
	cr_assert_gt(json_string_length(json_object_get(answer.body, "message")), 10);
	json_decref(answer.body);
}

static const char *text_of(const struct answer *answer, const char *key)
{
	const char *text = json_string_value(json_object_get(answer->body, key));

	cr_assert_not_null(text, "no %s", key);
	return text;
}

Test(http, what_is_wrong_is_said)
{
	char name[260];

	refused("GET", "/v1/nothing", "", 404, "not_found");
	refused("GET", "/", "", 404, "not_found");
	refused("PUT", "/v1/tokens", "", 405, "method_not_allowed");
	refused("DELETE", "/v1/status", "", 405, "method_not_allowed");
	refused("POST", "/v1/tokens", "{\"user\":", 400, "bad_request");
	refused("POST", "/v1/tokens", "[]", 400, "bad_request");
	refused("POST", "/v1/tokens", "", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":7}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"\"}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\",\"uesr\":\"b\"}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\",\"user\":\"b\"}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\\u0000b\"}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_seconds\":0}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_seconds\":-1}", 400, "bad_request");
	refused("POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_seconds\":1.5}", 400, "bad_request");
	refused("POST", "/v1/grants", "{\"ttl_seconds\":3601}", 400, "bad_request");
	refused("GET", "/v1/explain", "", 400, "bad_request");
	refused("GET", "/v1/explain?user=a%00b", "", 400, "bad_request");
	refused("GET", "/v1/explain?user=%ff", "", 400, "bad_request");
	refused("GET", "/v1/explain?user=a&channel=@xyz", "", 400, "bad_request");
	refused("GET", "/v1/connections?limit=0", "", 400, "bad_request");
	refused("GET", "/v1/connections?limit=1x", "", 400, "bad_request");
	refused("GET", "/v1/connections?after=12", "", 400, "bad_request");
	refused("GET", "/v1/audit?nonsense=1", "", 400, "bad_request");
	refused("DELETE", "/v1/connections/zz", "", 404, "not_found");
	refused("DELETE", "/v1/connections/0000000000000001", "", 404, "not_found");
	refused("DELETE", "/v1/publishers/nobody", "", 404, "not_found");
	memset(name, 'x', 256);
	name[256] = '\0';
	{
		char body[300];

		snprintf(body, sizeof(body), "{\"user\":\"%s\"}", name);
		refused("POST", "/v1/tokens", body, 400, "bad_request");
	}
	cr_assert_eq(users_count(f.engine.users), 0);
}

Test(http, a_huge_body_is_refused_and_the_next_caller_served)
{
	size_t len = 4 << 20;
	char *bytes = malloc(len), out[4096];
	int at = snprintf(bytes, len,
			  "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
			  "Content-Length: %d\r\n\r\n",
			  100000);
	struct answer answer;

	memset(bytes + at, ' ', len - (size_t)at);
	exchange(bytes, (size_t)at + 100000, out, sizeof(out));
	cr_assert_eq(atoi(out + 9), 413, "%s", out);
	cr_assert_not_null(strstr(out, "too_large"));
	at = snprintf(bytes, len,
		      "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		      "Content-Length: %zu\r\n\r\n",
		      len - 200);
	memset(bytes + at, ' ', len - (size_t)at);
	if (exchange(bytes, len, out, sizeof(out)))
		cr_assert_neq(atoi(out + 9), 200);
	free(bytes);
	answer = call("POST", "/v1/tokens", "{\"user\":\"alice\"}");
	cr_assert_eq(answer.status, 200);
	json_decref(answer.body);
}

Test(http, the_socket_is_for_root_and_the_group)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/control.sock", f.dir);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 0007, 0);
	cr_assert_eq(st.st_uid, 0);
}

Test(http, changes_are_audited_with_the_callers_uid)
{
	struct answer answer = call("POST", "/v1/tokens", "{\"user\":\"alice\"}");
	json_t *record;

	cr_assert_eq(answer.status, 200);
	json_decref(answer.body);
	answer = call("GET", "/v1/audit?limit=1", "");
	record = json_array_get(json_object_get(answer.body, "records"), 0);
	cr_assert_str_eq(json_string_value(json_object_get(record, "event")), "token");
	cr_assert_str_eq(json_string_value(json_object_get(record, "user")), "alice");
	cr_assert_eq(json_integer_value(json_object_get(record, "uid")), getuid());
	json_decref(answer.body);
}

Test(http, publishers)
{
	struct answer answer =
		call("POST", "/v1/publishers", "{\"name\":\"a/b c\",\"user\":\"alice\"}");
	const struct publisher *known = publishers_find(f.engine.publishers, "a/b c");

	cr_assert_eq(answer.status, 201);
	cr_assert_eq(strlen(text_of(&answer, "secret")), PUBLISHER_SECRET_LEN);
	cr_assert_eq(publishers_check(f.engine.publishers, "a/b c", text_of(&answer, "secret")),
		     known);
	json_decref(answer.body);
	refused("POST", "/v1/publishers", "{\"name\":\"a/b c\"}", 409, "exists");
	answer = call("GET", "/v1/publishers", "");
	cr_assert_eq(json_array_size(json_object_get(answer.body, "publishers")), 1);
	cr_assert_null(json_object_get(
		json_array_get(json_object_get(answer.body, "publishers"), 0), "secret"));
	json_decref(answer.body);
	answer = call("DELETE", "/v1/publishers/a%2Fb%20c", "");
	cr_assert_eq(answer.status, 200);
	json_decref(answer.body);
	cr_assert_null(publishers_find(f.engine.publishers, "a/b c"));
}

Test(http, connections_are_listed_page_by_page_and_ended)
{
	uint64_t id = subscribe(&f, "alice", 0x11, NULL);
	struct answer answer;
	json_t *list;

	subscribe(&f, "bob", 0x22, NULL);
	subscribe(&f, "bob", 0x33, NULL);
	answer = call("GET", "/v1/connections?limit=2", "");
	list = json_object_get(answer.body, "connections");
	cr_assert_eq(json_array_size(list), 2);
	cr_assert_str_eq(text_of(&answer, "next"), "0000000000000022");
	json_decref(answer.body);
	answer = call("GET", "/v1/connections?limit=2&after=0000000000000022", "");
	list = json_object_get(answer.body, "connections");
	cr_assert_eq(json_array_size(list), 1);
	cr_assert(json_is_null(json_object_get(answer.body, "next")));
	json_decref(answer.body);
	answer = call("GET", "/v1/connections?user=bob", "");
	cr_assert_eq(json_array_size(json_object_get(answer.body, "connections")), 2);
	json_decref(answer.body);
	answer = call("DELETE", "/v1/connections/0000000000000011", "");
	cr_assert_eq(answer.status, 200);
	json_decref(answer.body);
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_DISCONNECTED);
	cr_assert_eq(endpoints(&f, "alice"), 0);
	cr_assert_eq(endpoints(&f, "bob"), 2);
}

Test(http, revocation_ends_the_users_connections_and_counts_when_he_is_offline)
{
	struct answer answer;

	subscribe(&f, "alice", 0, NULL);
	subscribe(&f, "bob", 0, NULL);
	answer = call("POST", "/v1/revocations", "{\"user\":\"alice\"}");
	cr_assert_eq(answer.status, 200);
	cr_assert_eq(json_integer_value(json_object_get(answer.body, "user_generation")), 2);
	cr_assert_eq(json_integer_value(json_object_get(answer.body, "connections_ended")), 1);
	json_decref(answer.body);
	cr_assert_eq(endpoints(&f, "alice"), -1, "the group is gone, not lingering");
	cr_assert_eq(endpoints(&f, "bob"), 1);
	answer = call("POST", "/v1/revocations", "{\"user\":\"nobody yet\"}");
	cr_assert_eq(json_integer_value(json_object_get(answer.body, "user_generation")), 2);
	json_decref(answer.body);
	cr_assert_eq(audited(&f, "revoke"), 2);
}

Test(http, a_revocation_is_answered_when_the_agent_has_acted)
{
	static const char request[] = "POST /v1/revocations HTTP/1.1\r\nHost: x\r\n"
				      "Content-Length: 16\r\n\r\n{\"user\":\"alice\"}";
	unsigned ended = 0, mark = 0;
	char out[4096];
	int fd;

	subscribe(&f, "alice", 0, NULL);
	subscribe(&f, "alice", 0, NULL);
	f.mute = true;
	fd = open_client();
	cr_assert_eq(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
	for (unsigned i = 0; i < 100; i++) {
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
	cr_assert_eq(recv(fd, out, sizeof(out), 0), -1, "answered before the agent has acted");
	for (unsigned i = 0; i < f.message_cnt; i++) {
		ended = f.messages[i].type == MESSAGE_ENDED ? i : ended;
		mark = f.messages[i].type == MESSAGE_MARK ? i : mark;
	}
	cr_assert_eq(told_count(&f, MESSAGE_ENDED), 2);
	cr_assert_gt(mark, ended);
	answer_mark(&f);
	for (unsigned i = 0; i < 100; i++) {
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
	cr_assert_gt(recv(fd, out, sizeof(out), 0), 0);
	cr_assert_eq(atoi(out + 9), 200);
	close(fd);
}

/* Whether a note of the explanation holds this text. */
static bool noted(const struct answer *answer, const char *text)
{
	const json_t *note;
	bool found = false;
	size_t i;

	json_array_foreach (json_object_get(answer->body, "notes"), i, note)
		found |= strstr(json_string_value(note), text) != NULL;
	return found;
}

Test(http, explain_calls_a_group_lingering_only_when_it_is_empty)
{
	struct message end = {.type = MESSAGE_END};
	struct answer answer;

	end.id = subscribe(&f, "alice", 0, &end.ref);
	fixture_worker(&f)->quiescent &= ~UINT64_C(1); /* the dataplane is not running */
	answer = call("GET", "/v1/explain?user=alice", "");
	cr_assert_eq(json_array_size(json_object_get(answer.body, "would_receive")), 0);
	cr_assert(noted(&answer, "the dataplane is not running"));
	cr_assert_not(noted(&answer, "lingers"));
	json_decref(answer.body);
	fixture_worker(&f)->quiescent |= 1;
	registrations_on_message(f.engine.registrations, &end, f.now);
	answer = call("GET", "/v1/explain?user=alice", "");
	cr_assert(noted(&answer, "lingers"));
	json_decref(answer.body);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The limit is on those that are open: who comes after those that have left need not wait. */
Test(http, connections_one_after_the_other_do_not_wait)
{
	unsigned slow = 0;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t from_ms = now_ms();
		struct answer answer = call("GET", "/v1/publishers", "");

		cr_assert_eq(answer.status, 200);
		json_decref(answer.body);
		slow += now_ms() - from_ms >= 90;
	}
	cr_assert_lt(slow, 4, "%u of 300 waited", slow); /* a busy machine makes one wait */
}

Test(http, explain_says_who_and_who_not_and_why)
{
	uint64_t pending;
	struct answer answer;
	json_t *list;

	answer = call("GET", "/v1/explain?user=alice", "");
	cr_assert(json_is_null(json_object_get(answer.body, "group")));
	cr_assert_gt(json_array_size(json_object_get(answer.body, "notes")), 0);
	json_decref(answer.body);
	subscribe(&f, "alice", 0x11, NULL);
	pending = bind_grant(&f, ask(&f, "alice", 0));
	answer = call("GET", "/v1/explain?user=alice", "");
	list = json_object_get(answer.body, "would_not");
	cr_assert_eq(json_array_size(list), 1);
	{
		char id[17];

		fan_id_format(id, pending);
		cr_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 0), "id")),
				 id);
	}
	list = json_object_get(answer.body, "would_receive");
	cr_assert_eq(json_array_size(list), 1);
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(list, 0), "id")),
			 "0000000000000011");
	json_decref(answer.body);
	answer = call("GET", "/v1/explain?user=alice&channel=room", "");
	cr_assert_eq(json_array_size(json_object_get(answer.body, "would_receive")), 0);
	cr_assert_eq(json_array_size(json_object_get(answer.body, "would_not")), 2);
	json_decref(answer.body);
}

Test(http, top_tells_rates_and_the_busiest)
{
	struct fan_group_state *groups =
		(struct fan_group_state *)((char *)f.state.base +
					   ((struct fan_state *)f.state.base)->groups_off);
	const struct fan_table *table = registry_table(f.engine.registry);
	struct answer answer;
	json_t *users;
	uint32_t idx = 0;

	subscribe(&f, "alice", 0, NULL);
	while (table->groups[idx].channel != FAN_CHANNEL_ALL || !table->groups[idx].incarnation)
		idx++;
	groups[idx] = (struct fan_group_state){
		.incarnation = table->groups[idx].incarnation, .epoch = 1, .sequence = 10};
	json_decref(call("GET", "/v1/top", "").body);
	usleep(250000);
	groups[idx].sequence = 30;
	groups[idx].copies = 60;
	answer = call("GET", "/v1/top", "");
	users = json_object_get(answer.body, "users");
	cr_assert_eq(json_array_size(users), 1);
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(users, 0), "user")),
			 "alice");
	cr_assert_float_eq(
		json_real_value(json_object_get(json_array_get(users, 0), "copies_per_second")) *
			json_real_value(json_object_get(answer.body, "interval_seconds")),
		60.0, 0.01);
	json_decref(answer.body);
}
