/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes on control.sock, to the real server with a real engine behind it: it answers in HTTP
 * and JSON, or closes; and afterwards it answers the next one.
 */
#include <criterion/criterion.h>
#include <event2/event.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/engine/http.h"
#include "tests/unit/engine/fixture.h"

#define TURNS	    64
#define ANSWERS_MAX (4 << 20)
#define CHECK_EVERY 256
#define INPUT_MAX   8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fixture f;
static char *answers;

/* There is no agent behind this engine: its walls stand, and it has nothing. */
void __wrap_agent_status(struct agent *agent, struct agent_status *status);

void __wrap_agent_status(struct agent *agent, struct agent_status *status)
{
	memset(status, 0, sizeof(*status));
	status->filter = status->guard = WALL_ON;
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void clean_up(void)
{
	http_close(f.engine.http);
	fixture_stop(&f);
	fixture_fini(&f);
	free(answers);
}

static void prepare(void)
{
	char why[1024];

	if (answers) {
		f.message_cnt = 0; /* nobody reads what the agent was told */
		return;
	}
	answers = malloc(ANSWERS_MAX);
	require(answers != NULL);
	fixture_init(&f);
	fixture_start(&f);
	dataplane_start(&f);
	require(http_open(&f.engine.http, &f.engine, why) == 0);
	atexit(clean_up);
}

/* What comes back until the server closes, or has nothing more to say. */
static size_t exchange(const uint8_t *bytes, size_t len)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	size_t got = 0;
	ssize_t n = 0;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", f.dir);
	require(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	for (unsigned i = 0; i < TURNS; i++) {
		if (len) {
			ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

			bytes += sent > 0 ? sent : 0;
			len -= sent > 0 ? (size_t)sent : 0;
			if (!len)
				shutdown(fd, SHUT_WR);
		}
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		while (got < ANSWERS_MAX - 1 &&
		       (n = recv(fd, answers + got, ANSWERS_MAX - 1 - got, 0)) > 0)
			got += (size_t)n;
		if (n == 0)
			break;
	}
	close(fd);
	for (unsigned i = 0; i < 4; i++)
		event_base_loop(f.base, EVLOOP_NONBLOCK);
	answers[got] = '\0';
	return got;
}

/* The first answer of perhaps several: a status line; its body, where it has one, is JSON. */
static int check_answer(size_t len)
{
	char *body = strstr(answers, "\r\n\r\n"), *length = strcasestr(answers, "content-length:");
	char *type = strcasestr(answers, "content-type: application/json");
	int status = 0;

	if (!len)
		return 0;
	require(sscanf(answers, "HTTP/%*u.%*u %3d ", &status) == 1);
	require(status >= 100 && status < 600);
	if (body && length && length < body && type && type < body) {
		size_t body_len = strtoul(length + strlen("content-length:"), NULL, 10);
		size_t there = len - (size_t)(body + 4 - answers);

		if (body_len && there >= body_len) {
			json_t *json = json_loadb(body + 4, body_len, JSON_DECODE_ANY, NULL);

			require(json != NULL);
			json_decref(json);
		}
	}
	return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char look[] =
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	static unsigned runs;

	if (len > INPUT_MAX)
		return 0;
	prepare();
	(void)check_answer(exchange(data, len));
	if (runs++ % CHECK_EVERY == 0)
		require(check_answer(exchange((const uint8_t *)look, sizeof(look) - 1)) == 200);
	return 0;
}
