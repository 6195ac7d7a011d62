/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/agent/request.h"

static struct client_request request;
static char why[MESSAGE_REASON_MAX];

static int parse(const char *text)
{
	return client_request_parse(&request, text, strlen(text), why);
}

Test(request, subscribe_with_everything)
{
	cr_assert_eq(parse("{\"op\":\"subscribe\",\"token\":\"eyJ\",\"threads\":[\"room-7\",\"b\"],"
			   "\"single\":true,\"connection\":\"00000000000000ff\",\"family\":6}"),
		     0, "%s", why);
	cr_assert_eq(request.op, REQUEST_SUBSCRIBE);
	cr_assert_str_eq(request.token, "eyJ");
	cr_assert_eq(request.thread_cnt, 2);
	cr_assert_str_eq(request.threads[0], "room-7");
	cr_assert_str_eq(request.threads[1], "b");
	cr_assert(request.single);
	cr_assert_eq(request.connection, 0xff);
	cr_assert_eq(request.family, 6);
}

Test(request, subscribe_with_a_token_only)
{
	cr_assert_eq(parse("{\"token\":\"t\",\"op\":\"subscribe\"}"), 0, "%s", why);
	cr_assert_eq(request.thread_cnt, 0);
	cr_assert_not(request.single);
	cr_assert_eq(request.connection, 0);
	cr_assert_eq(request.family, 0);
}

Test(request, bypass_names_its_place)
{
	cr_assert_eq(parse("{\"op\":\"bypass\",\"token\":\"t\",\"address\":\"198.18.9.1\","
			   "\"port\":20001,\"threads\":[\"room\"]}"),
		     0, "%s", why);
	cr_assert_eq(request.op, REQUEST_BYPASS);
	cr_assert_eq(request.address.family, 4);
	cr_assert_eq(request.address.port, 20001);
	cr_assert_eq(request.address.bytes[12], 198);
	cr_assert_eq(request.thread_cnt, 1);
	cr_assert_neq(parse("{\"op\":\"bypass\",\"token\":\"t\",\"address\":\"198.18.9.1\"}"), 0);
	cr_assert_str_eq(why, "a \"bypass\" request needs \"port\"");
	cr_assert_neq(parse("{\"op\":\"bypass\",\"token\":\"t\",\"port\":1}"), 0);
	cr_assert_neq(parse("{\"op\":\"bypass\",\"token\":\"t\",\"address\":\"::1\",\"port\":0}"),
		      0);
	cr_assert_neq(parse("{\"op\":\"bypass\",\"token\":\"t\",\"address\":\"x\",\"port\":9}"), 0);
	cr_assert_neq(parse("{\"op\":\"subscribe\",\"token\":\"t\",\"port\":9}"), 0);
}

Test(request, the_other_operations)
{
	cr_assert_eq(parse("{\"op\":\"renew\"}"), 0, "%s", why);
	cr_assert_eq(request.op, REQUEST_RENEW);
	cr_assert_str_empty(request.token);
	cr_assert_eq(parse("{\"op\":\"renew\",\"token\":\"t\"}"), 0, "%s", why);
	cr_assert_str_eq(request.token, "t");
	cr_assert_eq(
		parse("{\"op\":\"attach\",\"connection\":\"3fffffffffffffff\",\"token\":\"t\"}"), 0,
		"%s", why);
	cr_assert_eq(request.connection, FAN_CONNECTION_ID_MASK);
	cr_assert_eq(parse("{\"op\":\"publish_open\",\"name\":\"orders\",\"secret\":\"s\"}"), 0,
		     "%s", why);
	cr_assert_str_eq(request.name, "orders");
	cr_assert_str_eq(request.secret, "s");
	cr_assert_eq(parse("{\"op\":\"publish_open\",\"grant\":\"g\",\"family\":4}"), 0, "%s", why);
	cr_assert_str_eq(request.token, "g");
	cr_assert_str_empty(request.name);
	cr_assert_eq(parse("{\"op\":\"publish_attach\",\"session\":\"ffffffffffffffff\",\"grant\":"
			   "\"g\"}"),
		     0, "%s", why);
	cr_assert_eq(request.session, UINT64_MAX);
}

Test(request, descriptors_belong_to_attaching)
{
	cr_assert(client_request_has_descriptor(REQUEST_ATTACH));
	cr_assert(client_request_has_descriptor(REQUEST_PUBLISH_ATTACH));
	cr_assert_not(client_request_has_descriptor(REQUEST_SUBSCRIBE));
	cr_assert_not(client_request_has_descriptor(REQUEST_RENEW));
	cr_assert_not(client_request_has_descriptor(REQUEST_PUBLISH_OPEN));
}

/* Each is refused, and the message speaks of what is named here. */
struct bad {
	char text[128];
	char says[32];
};

ParameterizedTestParameters(request, refused)
{
	static struct bad bad[] = {
		{"", "JSON"},
		{"x", "JSON"},
		{"[]", "object"},
		{"\"op\"", "JSON"},
		{"{}", "op"},
		{"{\"op\":1}", "op"},
		{"{\"op\":\"\"}", "op"},
		{"{\"op\":\"Subscribe\",\"token\":\"t\"}", "op"},
		{"{\"op\":\"renew\"} {}", "JSON"},
		{"{\"op\":\"renew\",\"op\":\"renew\"}", "duplicate"},
		{"{\"op\":\"renew\",\"token\":\"\\u0000\"}", "JSON"},
		{"{\"op\":\"renew\",\"token\":\"\xff\"}", "JSON"},
		{"{\"op\":\"renew\",\"x\":1}", "\"x\""},
		{"{\"op\":\"renew\",\"connection\":\"0000000000000001\"}", "\"connection\""},
		{"{\"op\":\"renew\",\"token\":\"\"}", "token"},
		{"{\"op\":\"renew\",\"token\":null}", "token"},
		{"{\"op\":\"subscribe\"}", "token"},
		{"{\"op\":\"subscribe\",\"token\":1}", "token"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"user\":\"bob\"}", "user"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":\"a\"}", "threads"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":[1]}", "threads"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":[\"\"]}", "threads"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":[\"a\",\"a\"]}", "twice"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"single\":1}", "single"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"single\":\"true\"}", "single"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"family\":5}", "family"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"family\":4.0}", "family"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"family\":\"4\"}", "family"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"connection\":7}", "connection"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"connection\":\"7\"}", "connection"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"connection\":\"00000000000000FF\"}",
		 "connection"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"connection\":\"0000000000000000\"}",
		 "connection"},
		{"{\"op\":\"subscribe\",\"token\":\"t\",\"connection\":\"4000000000000000\"}",
		 "connection"},
		{"{\"op\":\"attach\",\"token\":\"t\"}", "connection"},
		{"{\"op\":\"attach\",\"connection\":\"0000000000000001\"}", "token"},
		{"{\"op\":\"publish_open\"}", "grant"},
		{"{\"op\":\"publish_open\",\"name\":\"n\"}", "secret"},
		{"{\"op\":\"publish_open\",\"secret\":\"s\"}", "name"},
		{"{\"op\":\"publish_open\",\"grant\":\"g\",\"name\":\"n\",\"secret\":\"s\"}",
		 "either"},
		{"{\"op\":\"publish_open\",\"name\":\"\",\"secret\":\"s\"}", "name"},
		{"{\"op\":\"publish_open\",\"name\":\"n\",\"secret\":[]}", "secret"},
		{"{\"op\":\"publish_attach\",\"grant\":\"g\"}", "session"},
		{"{\"op\":\"publish_attach\",\"session\":1,\"grant\":\"g\"}", "session"},
		{"{\"op\":\"publish_attach\",\"session\":\"0000000000000001\"}", "either"},
	};

	return cr_make_param_array(struct bad, bad, sizeof(bad) / sizeof(bad[0]));
}

ParameterizedTest(struct bad *bad, request, refused)
{
	cr_assert_eq(parse(bad->text), -EINVAL, "taken: %s", bad->text);
	cr_assert(strstr(why, bad->says), "%s: \"%s\" does not say %s", bad->text, why, bad->says);
	cr_assert(strlen(why) < MESSAGE_REASON_MAX);
}

static int parse_string(const char *format, size_t len)
{
	char *value = calloc(1, len + 1), *text = NULL;
	int err;

	memset(value, 'a', len);
	cr_assert(asprintf(&text, format, value) > 0);
	err = parse(text);
	free(value);
	free(text);
	return err;
}

Test(request, lengths_at_their_limits)
{
	const char *token = "{\"op\":\"renew\",\"token\":\"%s\"}";
	const char *name = "{\"op\":\"publish_open\",\"secret\":\"s\",\"name\":\"%s\"}";
	const char *secret = "{\"op\":\"publish_open\",\"name\":\"n\",\"secret\":\"%s\"}";
	const char *thread = "{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":[\"%s\"]}";

	cr_assert_eq(parse_string(token, MESSAGE_TOKEN_MAX - 1), 0);
	cr_assert_eq(strlen(request.token), MESSAGE_TOKEN_MAX - 1);
	cr_assert_eq(parse_string(token, MESSAGE_TOKEN_MAX), -EINVAL);
	cr_assert_eq(parse_string(name, 255), 0);
	cr_assert_eq(parse_string(name, 256), -EINVAL);
	cr_assert_eq(parse_string(secret, 127), 0);
	cr_assert_eq(parse_string(secret, 128), -EINVAL);
	cr_assert_eq(parse_string(thread, 255), 0);
	cr_assert_eq(parse_string(thread, 256), -EINVAL);
}

static int parse_threads(unsigned cnt)
{
	char text[8192] = "{\"op\":\"subscribe\",\"token\":\"t\",\"threads\":[";

	for (unsigned i = 0; i < cnt; i++)
		sprintf(text + strlen(text), "%s\"t%u\"", i ? "," : "", i);
	strcat(text, "]}");
	return parse(text);
}

Test(request, threads_at_their_limit)
{
	cr_assert_eq(parse_threads(MESSAGE_THREADS_MAX), 0);
	cr_assert_eq(request.thread_cnt, MESSAGE_THREADS_MAX);
	cr_assert_eq(parse_threads(MESSAGE_THREADS_MAX + 1), -EINVAL);
}

Test(request, oversize_and_deep_nesting)
{
	static char text[CLIENT_PACKET_MAX + 2];

	memset(text, ' ', sizeof(text));
	memcpy(text, "{\"op\":\"renew\"}", 14);
	cr_assert_eq(client_request_parse(&request, text, CLIENT_PACKET_MAX, why), 0);
	cr_assert_eq(client_request_parse(&request, text, CLIENT_PACKET_MAX + 1, why), -EINVAL);
	memset(text, '[', sizeof(text));
	cr_assert_eq(client_request_parse(&request, text, CLIENT_PACKET_MAX, why), -EINVAL);
}

Test(request, message_holds_no_control_characters_of_the_client)
{
	cr_assert_eq(parse("{\"op\":\"renew\",\"a\\u001b[31m\\u000ab\":1}"), -EINVAL);
	for (const char *c = why; *c; c++)
		cr_assert(*c >= ' ' && *c < 127);
}

Test(request, names_of_errors_and_ends_are_complete)
{
	for (int i = 0; i < MESSAGE_ERROR_CNT; i++)
		cr_assert(message_error_name(i) && *message_error_name(i));
	for (int i = 0; i < MESSAGE_END_CNT; i++)
		cr_assert(message_end_name(i) && *message_end_name(i));
	cr_assert_str_eq(message_error_name(MESSAGE_ERROR_NO_PORT), "no_port");
	cr_assert_str_eq(message_end_name(MESSAGE_END_REPLACED), "replaced");
	cr_assert_str_eq(message_error_name(12345), "internal");
	cr_assert_str_eq(message_end_name(12345), "engine");
}
