/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Prints the events of the user whom a token names, and of the threads named, until it ends.
 *
 *     FANWIRE_TOKEN=$(fanwirectl -j token alice | jq -r .token) example-subscribe [THREAD...]
 */
#include <fanwire.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_event(const struct fan_event *event)
{
	const char *thread = event->thread ? event->thread : "all";

	if (event->type == FAN_EVENT_LOST)
		printf("%s: lost %" PRIu64 " to %" PRIu64 "\n", thread, event->lost_first,
		       event->lost_last);
	else if (event->type == FAN_EVENT_ENDED)
		printf("ended: %.*s\n", (int)event->payload_len, (const char *)event->payload);
	else
		printf("%s %" PRIu64 ": %.*s\n", thread, event->sequence, (int)event->payload_len,
		       (const char *)event->payload);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct fan_subscribe_options options = {.token = getenv("FANWIRE_TOKEN"),
						.threads = (const char *const *)(argv + 1),
						.thread_cnt = (size_t)(argc - 1)};
	struct fan_subscription *subscription;
	struct fan_event event = {0};

	if (!options.token) {
		fprintf(stderr, "usage: FANWIRE_TOKEN=TOKEN %s [THREAD...]\n", argv[0]);
		return 1;
	}
	if (fan_subscribe(&subscription, NULL, &options) < 0) {
		fprintf(stderr, "subscribe: %s\n", fan_error());
		return 2;
	}
	fprintf(stderr, "listening for %s\n", fan_subscription_user(subscription));
	while (event.type != FAN_EVENT_ENDED && fan_receive(subscription, &event, -1) == 1)
		print_event(&event);
	fan_subscription_close(subscription);
	return 0;
}
