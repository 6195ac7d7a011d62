/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * import: streams a file of lines in batches. Each batch is all or none and harmless when it is
 * sent again, so that a fanwired that restarts meanwhile is waited for, and a file can be imported
 * anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

#define BATCH_DEFAULT 8192
#define BATCH_MAX     16384
#define BODY_MAX      (4u * 1024 * 1024)
#define PATIENCE_MS   60000
#define RETRY_MS      200
#define TELL_TTY_S    0.2
#define TELL_FILE_S   10.0

struct import {
	const struct ctl *ctl;
	const char *path;
	int fd;
	struct api_stream *stream;
	char *bytes; /* read and not yet sent */
	size_t len, room;
	bool ended; /* of the file */
	unsigned batch_max;
	int patience_ms;
	bool quiet;
	off_t size, sent; /* bytes; size 0: not known */
	uint64_t lines, added, replaced, unchanged;
	double started, told;
};

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Reads on until a whole batch surely is there, or the file has ended. */
static bool fill(struct import *import)
{
	while (!import->ended && import->len < import->room) {
		ssize_t got =
			read(import->fd, import->bytes + import->len, import->room - import->len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			output_error(import->ctl, "file", "%s cannot be read: %s", import->path,
				     strerror(errno));
			return false;
		}
		import->ended = got == 0;
		import->len += (size_t)got;
	}
	return true;
}

/* Bytes of the next batch, whole lines; *lines how many. 0: a line is too long. */
static size_t cut(const struct import *import, unsigned *lines)
{
	size_t len = 0;

	for (*lines = 0; *lines < import->batch_max && len < import->len; (*lines)++) {
		const char *from = import->bytes + len;
		const char *newline = memchr(from, '\n', import->len - len);
		size_t line = newline ? (size_t)(newline - from) + 1 : import->len - len;

		if ((!newline && !import->ended) || len + line > BODY_MAX)
			break;
		len += line;
	}
	return len;
}

/* ---- telling --------------------------------------------------------------------------------- */

static void tell(struct import *import, bool last)
{
	bool tty = isatty(STDERR_FILENO);
	double now = seconds(), spent = now - import->started;
	char share[32] = "";

	if (import->quiet || import->ctl->json ||
	    (!last && now - import->told < (tty ? TELL_TTY_S : TELL_FILE_S)))
		return;
	import->told = now;
	if (import->size)
		snprintf(share, sizeof(share), ", %.0f %%",
			 100.0 * (double)import->sent / (double)import->size);
	if (last && !tty)
		return; /* the summary says it all */
	fprintf(stderr, "%s%" PRIu64 " lines, %.0f/s%s%s", tty ? "\r" : "", import->lines,
		spent > 0 ? (double)import->lines / spent : 0, share,
		!tty || last ? "\n" : "\033[K");
	fflush(stderr);
}

static int summary(struct import *import)
{
	double spent = seconds() - import->started;
	double rate = spent > 0 ? (double)import->lines / spent : 0;

	tell(import, true);
	if (import->ctl->json) {
		json_t *object = json_pack(
			"{s:I, s:I, s:I, s:I, s:f, s:f}", "lines", (json_int_t)import->lines,
			"added", (json_int_t)import->added, "replaced",
			(json_int_t)import->replaced, "unchanged", (json_int_t)import->unchanged,
			"seconds", spent, "lines_per_second", rate);

		output_json(object);
		json_decref(object);
	} else {
		printf("%" PRIu64 " added, %" PRIu64 " replaced, %" PRIu64
		       " unchanged, in %.1f s (%.0f/s)\n",
		       import->added, import->replaced, import->unchanged, spent, rate);
	}
	return EXIT_DONE;
}

/* ---- sending --------------------------------------------------------------------------------- */

static uint64_t number(const json_t *answer, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(answer, key));
}

/* fanwired counts within the batch; whoever looks for the line counts within the file. */
static void refuse(const struct import *import, const char *name, const char *why)
{
	unsigned line;
	int after = 0;

	if (sscanf(why, "line %u: %n", &line, &after) == 1 && after)
		output_error(import->ctl, name,
			     "%s:%" PRIu64 ": %s (nothing of lines %" PRIu64
			     " and on was imported; "
			     "what came before was)",
			     import->path, import->lines + line, why + after, import->lines + 1);
	else
		output_error(import->ctl, name,
			     "%s (nothing of lines %" PRIu64 " and on was imported)", why,
			     import->lines + 1);
}

static bool passes(const char *name)
{
	return strcmp(name, "busy") == 0 || strcmp(name, "loading") == 0 ||
	       strcmp(name, "unreachable") == 0;
}

/* One batch, again and again while it is not its own fault that it is refused. */
static bool send_batch(struct import *import, size_t len)
{
	const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
	double give_up = seconds() + import->patience_ms / 1e3;
	char name[64], why[512];

	for (;;) {
		json_t *answer = api_stream_post(import->stream, import->bytes, len, name, why);

		if (answer) {
			import->added += number(answer, "added");
			import->replaced += number(answer, "replaced");
			import->unchanged += number(answer, "unchanged");
			json_decref(answer);
			return true;
		}
		if (!passes(name) || seconds() >= give_up) {
			refuse(import, name, why);
			return false;
		}
		nanosleep(&pause, NULL);
	}
}

static int run(struct import *import)
{
	import->started = import->told = seconds();
	for (;;) {
		unsigned lines;
		size_t len;

		if (!fill(import))
			return EXIT_REFUSED;
		if (!import->len)
			return summary(import);
		len = cut(import, &lines);
		if (!len) {
			output_error(import->ctl, "file", "%s:%" PRIu64 ": the line is too long",
				     import->path, import->lines + 1);
			return EXIT_REFUSED;
		}
		if (!send_batch(import, len))
			return EXIT_REFUSED;
		import->lines += lines;
		import->sent += (off_t)len;
		import->len -= len;
		memmove(import->bytes, import->bytes + len, import->len);
		tell(import, false);
	}
}

static bool open_file(struct import *import)
{
	struct stat st;

	import->fd = strcmp(import->path, "-") == 0 ? STDIN_FILENO
						    : open(import->path, O_RDONLY | O_CLOEXEC);
	if (import->fd < 0) {
		output_error(import->ctl, "file", "%s cannot be opened: %s", import->path,
			     strerror(errno));
		return false;
	}
	if (fstat(import->fd, &st) == 0 && S_ISREG(st.st_mode))
		import->size = st.st_size;
	return true;
}

int run_import(const struct ctl *ctl, const struct arguments *arguments)
{
	struct import import = {.ctl = ctl,
				.path = arguments->positional[0],
				.patience_ms = PATIENCE_MS,
				.room = BODY_MAX,
				.quiet = arguments_option(arguments, "--quiet", 0) != NULL};
	unsigned long long batch = BATCH_DEFAULT;
	int status = EXIT_REFUSED;

	if (!arguments_number(ctl, arguments, "--batch", 1, BATCH_MAX, &batch) ||
	    !arguments_seconds(ctl, arguments, "--patience", &import.patience_ms))
		return EXIT_USAGE;
	import.batch_max = (unsigned)batch;
	if (!open_file(&import))
		return EXIT_REFUSED;
	import.bytes = malloc(import.room);
	import.stream = api_stream_open(ctl, "/v1/vouched");
	if (import.bytes && import.stream)
		status = run(&import);
	else
		output_error(ctl, "internal", "out of memory");
	api_stream_close(import.stream);
	free(import.bytes);
	if (import.fd != STDIN_FILENO)
		close(import.fd);
	return status;
}
