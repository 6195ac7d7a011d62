/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishes lines of standard input to one user, each as an event, and says who got it.
 *
 *     fanwirectl publisher add orders                     (prints the secret once)
 *     FANWIRE_SECRET=... example-publish orders alice < lines
 */
#include <fanwire.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int publish_lines(struct fan_publisher *publisher, const char *user)
{
	char line[65536];

	while (fgets(line, sizeof(line), stdin)) {
		struct fan_event_spec event = {
			.user = user, .payload = line, .payload_len = strcspn(line, "\n")};
		struct fan_receipt receipt;

		if (fan_publish(publisher, &event, &receipt, 0) < 0) {
			fprintf(stderr, "publish: %s\n", fan_error());
			return 2;
		}
		printf("epoch %016" PRIx64 " sequence %" PRIu64 ": sent to %u of %u connections\n",
		       receipt.epoch, receipt.sequence, receipt.sent, receipt.attempted);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct fan_credential credential = {0};
	struct fan_publisher *publisher;
	int status;

	if (argc != 3 || !getenv("FANWIRE_SECRET")) {
		fprintf(stderr, "usage: FANWIRE_SECRET=SECRET %s PUBLISHER USER < LINES\n",
			argv[0]);
		return 1;
	}
	credential.name = argv[1];
	credential.secret = getenv("FANWIRE_SECRET");
	if (fan_publisher_open(&publisher, NULL, &credential) < 0) {
		fprintf(stderr, "open: %s\n", fan_error());
		return 2;
	}
	status = publish_lines(publisher, argv[2]);
	fan_publisher_close(publisher);
	return status;
}
