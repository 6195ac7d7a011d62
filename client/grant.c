/* SPDX-License-Identifier: BSD-3-Clause */
/* What a subscription asks fanwired for, and what it is granted (docs/client-socket.md). */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/error.h"
#include "client/subscription.h"

json_t *grant_request(const struct fan_subscribe_options *options)
{
	json_t *threads = json_array();
	json_t *request;
	char id[17];

	for (size_t i = 0; i < options->thread_cnt; i++)
		json_array_append_new(threads, json_string(options->threads[i]));
	request = json_pack("{s:s, s:s, s:o, s:b}", "op", "subscribe", "token", options->token,
			    "threads", threads, "single", options->single != 0);
	if (options->connection) {
		fan_id_format(id, options->connection);
		json_object_set_new(request, "connection", json_string(id));
	}
	if (options->family)
		json_object_set_new(request, "family", json_integer(options->family));
	return request;
}

json_t *grant_attach_request(const struct fan_subscription *s)
{
	char id[17];

	fan_id_format(id, s->id);
	return json_pack("{s:s, s:s, s:s}", "op", "attach", "connection", id, "token", s->token);
}

/* ---- streams --------------------------------------------------------------------------------- */

static struct stream *add_stream(struct fan_subscription *s, uint64_t channel, int policy)
{
	struct stream *stream = &s->streams[s->stream_cnt++];
	uint64_t seed;

	randombytes_buf(&seed, sizeof(seed));
	stream_init(stream, channel, policy, &s->room, seed);
	return stream;
}

int grant_make_streams(struct fan_subscription *s, const struct fan_subscribe_options *options)
{
	if (options->policy < FAN_CATCH_UP || options->policy > FAN_DISCONNECT)
		return client_error(-EINVAL, "%d is no policy; see FAN_CATCH_UP in fanwire.h",
				    options->policy);
	s->streams = calloc(2 + options->thread_cnt, sizeof(*s->streams));
	if (!s->streams)
		return client_error(-ENOMEM, "out of memory for a subscription");
	s->room = STREAM_ROOM;
	add_stream(s, FAN_CHANNEL_ALL, options->policy);
	for (size_t i = 0; i < options->thread_cnt; i++) {
		const char *name = options->threads[i];
		struct stream *stream;
		uint64_t channel;

		if (!name || fan_thread_channel(&channel, name, strlen(name)) < 0)
			return client_error(-EINVAL, "a thread's name has 1 to %d bytes",
					    FAN_NAME_MAX);
		stream = add_stream(s, channel, options->policy);
		stream->thread = strdup(name);
		if (!stream->thread)
			return client_error(-ENOMEM, "out of memory for a subscription");
	}
	return 0;
}

static struct stream *stream_of(struct fan_subscription *s, uint64_t channel)
{
	for (size_t i = 0; i < s->stream_cnt; i++) {
		if (s->streams[i].channel == channel)
			return &s->streams[i];
	}
	return NULL;
}

static int resume(struct fan_subscription *s, const struct fan_cursor *cursor)
{
	uint64_t channel = cursor->channel;
	struct stream *stream;

	if (cursor->thread &&
	    fan_thread_channel(&channel, cursor->thread, strlen(cursor->thread)) < 0)
		return client_error(-EINVAL, "a cursor's thread has a name of 1 to %d bytes",
				    FAN_NAME_MAX);
	stream = stream_of(s, channel);
	if (!stream || cursor->epoch == 0 || cursor->sequence > INT64_MAX)
		return client_error(-EINVAL,
				    "a cursor is of no channel that is joined, or of no epoch; "
				    "join its thread, or be the connection that it was of");
	stream_resume(stream, cursor->epoch, cursor->sequence, cursor->unfinished);
	return 0;
}

/* ---- what fanwired gives --------------------------------------------------------------------- */

void grant_take_keys(struct fan_subscription *s, const json_t *message)
{
	const json_t *seal = json_object_get(message, "seal");
	const json_t *entries = json_object_get(message, "keys"), *entry;
	const char *replay = json_string_value(json_object_get(message, "replay_key"));
	struct unseal_key keys[UNSEAL_GIVEN] = {0};
	unsigned cnt = 0;
	size_t idx;

	json_array_foreach (entries, idx, entry) {
		const char *text = json_string_value(json_object_get(entry, "key"));
		uint64_t generation;

		if (cnt < UNSEAL_GIVEN &&
		    client_socket_number(entry, "generation", UINT8_MAX, &generation) &&
		    fan_unhex(keys[cnt].key, FAN_KEY_LEN, text) == 0)
			keys[cnt++].generation = (uint8_t)generation;
	}
	if (cnt)
		unseal_set_keys(&s->unseal, keys, cnt);
	sodium_memzero(keys, sizeof(keys));
	/* a site may change it, while all stands still: fanwired says it, and nobody else */
	if (json_is_boolean(seal))
		s->seal = json_is_true(seal);
	if (replay && fan_unhex(s->replay_key, sizeof(s->replay_key), replay) == 0) {
		for (size_t i = 0; i < s->stream_cnt; i++)
			s->streams[i].mendable = true;
	}
}

void grant_take_tails(struct fan_subscription *s, const json_t *message, bool first,
		      uint64_t now_ns)
{
	const json_t *entries = json_object_get(message, "tails"), *entry;
	struct stream_word word = {0};
	uint64_t channel;
	size_t idx;

	client_socket_number(message, "time_ns", INT64_MAX, &word.time_ns);
	json_array_foreach (entries, idx, entry) {
		struct stream *stream;

		if (!client_socket_id(entry, "channel", &channel) ||
		    !client_socket_id(entry, "epoch", &word.epoch) ||
		    !client_socket_number(entry, "sequence", INT64_MAX, &word.sequence))
			continue;
		stream = stream_of(s, channel);
		if (stream && first)
			stream_begin(stream, &word, now_ns, &s->reassembly);
		else if (stream &&
			 stream_answer(stream, &word, s->asked_ns, now_ns, &s->reassembly))
			subscription_hasten(s);
	}
}

/* Larger than any of this registration so far, also in a process before; nobody sets it back. */
static uint64_t counter_first(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * CLOCK_S_NS + (uint64_t)ts.tv_nsec;
}

int grant_take(struct fan_subscription *s, const struct fan_subscribe_options *options,
	       const json_t *answer)
{
	const char *user = json_string_value(json_object_get(answer, "user"));
	uint64_t lease_s, limit;
	int status;

	if (!user || !client_socket_id(answer, "connection", &s->id) || !s->id ||
	    fan_handle(s->handle, user, strlen(user)) < 0 ||
	    !client_socket_number(answer, "lease_seconds", 86400, &lease_s) ||
	    !client_socket_number(answer, "payload_limit", FAN_PAYLOAD_MAX, &limit))
		return client_error(-EPROTO, "fanwired's answer lacks an id, user, lease or limit; "
					     "are both of the same version?");
	snprintf(s->user, sizeof(s->user), "%s", user);
	s->lease_s = lease_s ? (uint32_t)lease_s : 1;
	s->renew_ns = clock_now_ns() + s->lease_s * CLOCK_S_NS / 3;
	if (options->single) /* its channel is known only now */
		add_stream(s, FAN_CHANNEL_SINGLE | s->id, options->policy);
	s->replay_counter = counter_first();
	grant_take_keys(s, answer);
	for (size_t i = 0; i < options->cursor_cnt; i++) {
		status = resume(s, &options->cursors[i]);
		if (status < 0)
			return status;
	}
	return s->transport->open(s, answer, (uint32_t)limit);
}
