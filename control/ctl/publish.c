/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/fanwire.h"
#include "common/wire/handle.h"
#include "control/ctl/api.h"
#include "control/ctl/channel.h"
#include "control/ctl/output.h"

/* Standard input, one byte past the limit at most, so that too much shows. NULL: said why. */
static char *read_payload(const struct ctl *ctl, size_t *len)
{
	size_t room = FAN_EVENT_MAX + 1;
	char *payload = malloc(room);

	*len = payload ? fread(payload, 1, room, stdin) : 0;
	if (payload && !ferror(stdin))
		return payload;
	output_error(ctl, "input", "cannot read standard input: %s", strerror(errno));
	free(payload);
	return NULL;
}

/* No group: nobody is there whom the channel could mean. */
static void print_nobody(const struct fan_event_spec *event, const char *channel)
{
	char *user = output_escape(event->user, strlen(event->user));
	char *name = channel ? output_escape(channel, strlen(channel)) : NULL;

	if (event->connection)
		printf("sent to 0 connections: %s has no connection %s", user, name + 1);
	else if (name)
		printf("sent to 0 connections: nobody of %s's is in the channel %s", user, name);
	else
		printf("sent to 0 connections: nobody is connected as %s", user);
	printf("; see fanwirectl explain %s%s%s\n", user, name ? " --channel " : "",
	       name ? name : "");
	free(user);
	free(name);
}

static void print_receipt(const struct ctl *ctl, const struct fan_event_spec *event,
			  const char *channel, const struct fan_receipt *receipt)
{
	char epoch[17];
	json_t *object;

	fan_id_format(epoch, receipt->epoch);
	if (!ctl->json) {
		if (receipt->epoch == 0)
			print_nobody(event, channel);
		else
			printf("sent to %u of %u connections, sequence %" PRIu64 " of epoch %s\n",
			       receipt->sent, receipt->attempted, receipt->sequence, epoch);
		return;
	}
	object = json_pack("{s:s, s:I, s:I, s:I}", "epoch", epoch, "sequence",
			   (json_int_t)receipt->sequence, "attempted",
			   (json_int_t)receipt->attempted, "sent", (json_int_t)receipt->sent);
	output_json(object);
	json_decref(object);
}

/* A grant for this one user, good for this one call. */
static json_t *get_grant(const struct ctl *ctl, const char *user)
{
	json_t *body = json_pack("{s:s}", "user", user);

	if (!body) {
		output_error(ctl, "usage", "the user's name is not UTF-8; names are");
		return NULL;
	}
	return api_call(ctl, "POST", "/v1/grants", NULL, body);
}

static int publish(const struct ctl *ctl, const struct fan_event_spec *event, const char *channel,
		   int timeout_ms)
{
	json_t *answer = get_grant(ctl, event->user);
	struct fan_credential credential = {
		.grant = json_string_value(json_object_get(answer, "grant"))};
	struct fan_receipt receipt;
	int status;

	if (!answer)
		return EXIT_REFUSED;
	status = fan_publish_once(ctl->client_socket, &credential, event, &receipt, timeout_ms);
	json_decref(answer);
	if (status < 0) {
		output_error(ctl, "publish", "%s", fan_error());
		return EXIT_REFUSED;
	}
	print_receipt(ctl, event, channel, &receipt);
	return EXIT_DONE;
}

int run_publish(const struct ctl *ctl, const struct arguments *arguments)
{
	const char *text = arguments->cnt > 1 ? arguments->positional[1] : "";
	struct fan_event_spec event = {
		.user = arguments->positional[0], .payload = text, .payload_len = strlen(text)};
	unsigned long long kind = 0;
	const char *channel = arguments_option(arguments, "--channel", 0);
	char *input = NULL;
	int timeout_ms = 0, status;

	if (!channel_parse(ctl, channel, &event.thread, &event.connection) ||
	    !arguments_number(ctl, arguments, "--kind", 0, UINT16_MAX, &kind) ||
	    !arguments_seconds(ctl, arguments, "--timeout", &timeout_ms))
		return EXIT_USAGE;
	if (strcmp(text, "-") == 0) {
		input = read_payload(ctl, &event.payload_len);
		if (!input)
			return EXIT_REFUSED;
		event.payload = input;
	}
	event.kind = (uint16_t)kind;
	status = publish(ctl, &event, channel, timeout_ms);
	free(input);
	return status;
}
