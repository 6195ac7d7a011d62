/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/vouch_line.h"

static struct vouch_line line;
static char bytes[2048], why[256];

/* Exactly the line's bytes, so that a read beyond them is found. */
static int take(const char *text)
{
	size_t len = strlen(text);
	char *exact = malloc(len ? len : 1);
	int err;

	memcpy(exact, text, len);
	why[0] = '\0';
	err = vouch_line_read(exact, len, &line, why);
	if (!err) {
		snprintf(bytes, sizeof(bytes), "%.*s", line.user_len, line.user);
		line.user = bytes;
	}
	free(exact);
	return err;
}

static void expect(const char *text, const char *user, unsigned port, uint64_t id)
{
	cr_assert_eq(take(text), 0, "%s: %s", text, why);
	cr_assert_str_eq(line.user, user);
	cr_assert_eq(line.port, port);
	cr_assert_eq(line.id, id);
}

Test(vouch_line, the_plain_form_and_any_other_say_the_same)
{
	expect("{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5000}", "u", 5000, 0);
	cr_assert_eq(line.address.family, 4);
	expect(" { \"port\" : 1 , \"id\":\"00000000000000ff\",\"address\":\"2001:db8::1\","
	       "\"user\":\"a b\"}\r",
	       "a b", 1, 255);
	cr_assert_eq(line.address.family, 6);
	expect("{\"user\":\"\\u00fc\\\"\",\"address\":\"192.0.2.1\",\"port\":65535}", "ü\"", 65535,
	       0);
	expect("{\"user\":\"ü\",\"address\":\"192.0.2.1\",\"port\":2}", "ü", 2, 0);
	expect("{\"us\\u0065r\":\"u\",\"address\":\"192.0.2.1\",\"port\":3}", "u", 3, 0);
}

Test(vouch_line, what_is_wrong_is_said)
{
	static const char *const cases[][2] = {
		{"", "not JSON"},
		{"[]", "not a JSON object"},
		{"{}", "user is missing"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\"}", "port is missing"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5} x", "not JSON"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5", "not JSON"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5.5}", "port must be a whole"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":05}", "not JSON"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":0}", "port must be 1"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":65536}", "port must be 1"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":99999999999}", "port must be"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":\"5\"}", "port must be a"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.\",\"port\":5}", "address must be"},
		{"{\"user\":\"u\",\"address\":\"::ffff:192.0.2.1\",\"port\":5}", "address must be"},
		{"{\"user\":\"\",\"address\":\"192.0.2.1\",\"port\":5}", "user must be 1"},
		{"{\"user\":\"u\",\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5}",
		 "duplicate"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5,\"x\":1}", "unknown member"},
		{"{\"user\":\"\xff\",\"address\":\"192.0.2.1\",\"port\":5}", "not JSON"},
		{"{\"user\":\"a\\u0000b\",\"address\":\"192.0.2.1\",\"port\":5}", "not JSON"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5,\"id\":\"1\"}",
		 "id must be"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5,"
		 "\"id\":\"ffffffffffffffff\"}",
		 "id must be"},
		{"{\"user\":\"u\",\"address\":\"192.0.2.1\",\"port\":5,"
		 "\"id\":\"0000000000000000\"}",
		 "id must be"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(take(cases[i][0]), -EINVAL, "%s was taken", cases[i][0]);
		cr_assert_not_null(strstr(why, cases[i][1]), "%s: %s", cases[i][0], why);
	}
}

Test(vouch_line, a_name_is_255_bytes_at_most)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"user\":\"%0255d\",\"address\":\"192.0.2.1\",\"port\":5}",
		 0);
	cr_assert_eq(take(text), 0, "%s", why);
	cr_assert_eq(line.user_len, 255);
	snprintf(text, sizeof(text), "{\"user\":\"%0256d\",\"address\":\"192.0.2.1\",\"port\":5}",
		 0);
	cr_assert_eq(take(text), -EINVAL);
}

/* Each cut of a good line is refused, and each changed byte is no more than another line. */
Test(vouch_line, cut_and_changed_lines_hurt_nobody)
{
	static const char good[] = "{\"user\":\"u\\u00e9\",\"address\":\"192.0.2.1\",\"port\":5000,"
				   "\"id\":\"00000000000000ff\"}";
	char text[sizeof(good)];

	for (size_t len = 0; len < sizeof(good) - 1; len++) {
		memcpy(text, good, len);
		text[len] = '\0';
		cr_assert_eq(take(text), -EINVAL);
	}
	for (size_t at = 0; at < sizeof(good) - 1; at++) {
		memcpy(text, good, sizeof(good));
		text[at] = '"';
		take(text);
	}
}
