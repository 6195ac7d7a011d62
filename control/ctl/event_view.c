/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/ctl/event_view.h"

#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/handle.h"
#include "control/ctl/output.h"

/* "all", the thread's name, or @ and the connection's id. */
static const char *channel_name(const struct fan_event *event, char name[24])
{
	if (event->thread)
		return event->thread;
	if (event->channel == FAN_CHANNEL_ALL)
		return "all";
	name[0] = '@';
	fan_id_format(name + 1, event->channel & FAN_CONNECTION_ID_MASK);
	return name;
}

static void set_payload(json_t *object, const struct fan_event *event)
{
	json_t *text = json_stringn(event->payload_len ? event->payload : "", event->payload_len);
	size_t room;
	char *base64;

	if (text) {
		json_object_set_new(object, "payload", text);
		return;
	}
	room = sodium_base64_encoded_len(event->payload_len, sodium_base64_VARIANT_ORIGINAL);
	base64 = malloc(room);
	if (base64) {
		sodium_bin2base64(base64, room, event->payload, event->payload_len,
				  sodium_base64_VARIANT_ORIGINAL);
		json_object_set_new(object, "payload_base64", json_string(base64));
	}
	free(base64);
}

/* The last of a range that has no end that anybody knows is null. */
static json_t *lost_json(const char *channel, const char *epoch, const struct fan_event *event)
{
	json_t *last = event->lost_last == UINT64_MAX ? json_null()
						      : json_integer((json_int_t)event->lost_last);

	return json_pack("{s:{s:s, s:s, s:I, s:o}}", "lost", "channel", channel, "epoch", epoch,
			 "first", (json_int_t)event->lost_first, "last", last);
}

static json_t *event_json(const char *user, const struct fan_event *event)
{
	char epoch[17], publisher[17], name[24];
	const char *channel = channel_name(event, name);
	json_t *object;

	fan_id_format(epoch, event->epoch);
	fan_id_format(publisher, event->publisher);
	if (event->type == FAN_EVENT_LOST)
		return lost_json(channel, epoch, event);
	object = json_pack("{s:s, s:s, s:s, s:I, s:i, s:s}", "user", user, "channel", channel,
			   "epoch", epoch, "sequence", (json_int_t)event->sequence, "kind",
			   (int)event->kind, "publisher", publisher);
	if (event->recovered)
		json_object_set_new(object, "recovered", json_true());
	set_payload(object, event);
	return object;
}

static void print_lost(const struct fan_event *event)
{
	char name[24];

	printf("%s lost %" PRIu64 " to ", channel_name(event, name), event->lost_first);
	if (event->lost_last == UINT64_MAX)
		printf("the end of epoch %016" PRIx64 "\n", event->epoch);
	else
		printf("%" PRIu64 "\n", event->lost_last);
}

static void print_data(const struct fan_event *event)
{
	char name[24];
	char *payload = output_escape(event->payload ? event->payload : "", event->payload_len);

	printf("%s %" PRIu64 "%s %s\n", channel_name(event, name), event->sequence,
	       event->recovered ? " recovered" : "", payload);
	free(payload);
}

void event_print(const struct ctl *ctl, const char *user, const struct fan_event *event)
{
	json_t *object;

	if (ctl->json) {
		object = event_json(user, event);
		output_json(object);
		json_decref(object);
		return;
	}
	if (event->type == FAN_EVENT_LOST)
		print_lost(event);
	else
		print_data(event);
	fflush(stdout);
}

/* ---- from where to go on --------------------------------------------------------------------- */

void event_places_note(struct event_places *places, const struct fan_event *event)
{
	struct event_place *place = NULL;

	if (event->type == FAN_EVENT_LOST && event->lost_last == UINT64_MAX)
		return; /* of an epoch that is over: nothing to go on after */
	for (unsigned i = 0; i < places->cnt && !place; i++) {
		if (places->places[i].channel == event->channel)
			place = &places->places[i];
	}
	if (!place && places->cnt < EVENT_VIEW_CHANNELS) {
		place = &places->places[places->cnt++];
		place->channel = event->channel;
		place->thread = event->thread ? strdup(event->thread) : NULL;
	}
	if (!place)
		return;
	if (place->epoch != event->epoch || place->sequence < event->sequence)
		place->sequence =
			event->sequence; /* fragments are told as lost late, below others */
	place->epoch = event->epoch;
	place->unfinished = event->unfinished;
}

/* In quotes for a shell where that needs it. */
static void print_word(FILE *out, const char *word)
{
	bool plain = !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789_-./:@")];

	if (plain) {
		fputs(word, out);
		return;
	}
	fputc('\'', out);
	for (; *word; word++)
		fputs(*word == '\'' ? "'\\''" : (char[]){*word, 0}, out);
	fputc('\'', out);
}

void event_places_say(const struct event_places *places)
{
	if (!places->cnt)
		return;
	fputs("resume with:", stderr);
	for (unsigned i = 0; i < places->cnt; i++) {
		const struct event_place *place = &places->places[i];

		fputs(" --since ", stderr);
		if (place->thread)
			print_word(stderr, place->thread);
		else if (place->channel != FAN_CHANNEL_ALL)
			fprintf(stderr, "@%016" PRIx64, place->channel & FAN_CONNECTION_ID_MASK);
		fprintf(stderr, "%s%016" PRIx64 ":%" PRIu64,
			place->channel == FAN_CHANNEL_ALL ? "" : "=", place->epoch,
			place->sequence);
		if (place->unfinished && place->unfinished <= place->sequence)
			fprintf(stderr, ":%" PRIu64, place->unfinished);
	}
	fputc('\n', stderr);
}

void event_places_fini(struct event_places *places)
{
	for (unsigned i = 0; i < places->cnt; i++)
		free(places->places[i].thread);
	places->cnt = 0;
}
