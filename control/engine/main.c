/* SPDX-License-Identifier: BSD-3-Clause */
/* fanwired: the control daemon. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/log.h"
#include "control/engine/engine.h"
#include "control/engine/http.h"
#include "control/engine/privileges.h"
#include "control/engine/registrations.h"

#define DEFAULT_CONFIG "/etc/fanwire/fanwire.conf"
/* Exit statuses, as of all our programs. */
#define LOCK_WAIT_MS 5000
#define LOCK_POLL_MS 50

#define EXIT_USAGE  1 /* or the configuration is wrong */
#define EXIT_FAILED 2

static const char usage[] =
	"usage: fanwired [--config FILE] [--foreground]\n"
	"       fanwired --check-config [FILE]\n"
	"       fanwired --print-routes | --version | --help\n"
	"\n"
	"The control daemon of Fanwire: registrations, publishers, the control API and the scoped\n"
	"sockets of this host. It stays in the foreground and logs to standard error; a service\n"
	"manager puts it into the background.\n"
	"\n"
	"  --config FILE          configuration (default " DEFAULT_CONFIG ")\n"
	"  --check-config [FILE]  say OK or each problem; exit status 0 or 1\n"
	"  --foreground           accepted for clarity: it never leaves it\n"
	"  --print-routes         the control API's routes, METHOD and path a line\n"
	"  --version, --help\n"
	"\n"
	"exit status: 0 done, 1 wrong usage or configuration, 2 failed\n";

enum action { ACTION_RUN, ACTION_CHECK, ACTION_ROUTES, ACTION_VERSION, ACTION_HELP };
struct arguments {
	enum action action;
	const char *config;
};

static int parse_arguments(int argc, char **argv, struct arguments *arguments)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"check-config", optional_argument, NULL, 'k'},
						{"foreground", no_argument, NULL, 'f'},
						{"print-routes", no_argument, NULL, 'r'},
						{"version", no_argument, NULL, 'V'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	int option;

	*arguments = (struct arguments){.config = DEFAULT_CONFIG};
	while ((option = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (option) {
		case 'k':
			arguments->action = ACTION_CHECK;
			/* fall through */
		case 'c':
			if (optarg)
				arguments->config = optarg;
			break;
		case 'f':
			break;
		case 'r':
			arguments->action = ACTION_ROUTES;
			break;
		case 'V':
			arguments->action = ACTION_VERSION;
			break;
		case 'h':
			arguments->action = ACTION_HELP;
			break;
		default:
			return -EINVAL;
		}
	}
	/* --check-config FILE, with a blank */
	if (arguments->action == ACTION_CHECK && optind < argc)
		arguments->config = argv[optind++];
	return optind == argc ? 0 : -EINVAL;
}

static int check_config(const char *path)
{
	struct fan_config config;
	char why[4096];

	if (fan_config_load(&config, path, why)) {
		fputs(why, stderr); /* whole lines */
		return EXIT_USAGE;
	}
	printf("%s: OK\n", path);
	return 0;
}

/* One instance a run directory; the lock is the kernel's, and ends with the process. */
static int take_lock(const struct fan_config *config)
{
	char path[FAN_PATH_MAX + 32];
	int fd, err;

	snprintf(path, sizeof(path), "%s/fanwired.lock", config->run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		fan_log(FAN_LOG_ERROR, "start", "cannot open %s: %s", path, strerror(errno));
		return -errno;
	}
	/* one that was killed holds it until the kernel has taken it and its sockets apart */
	for (unsigned waited_ms = 0; (err = flock(fd, LOCK_EX | LOCK_NB)) && errno == EWOULDBLOCK &&
				     waited_ms < LOCK_WAIT_MS;
	     waited_ms += LOCK_POLL_MS)
		usleep(LOCK_POLL_MS * 1000);
	if (err == 0) {
		if (ftruncate(fd, 0) == 0)
			dprintf(fd, "%d\n", getpid()); /* for people; the lock is what counts */
		return fd;
	}
	fan_log(FAN_LOG_ERROR, "start",
		"another fanwired runs in %s (its process id stands in %s); stop it first, or give "
		"this instance a run_dir of its own",
		config->run_dir, path);
	close(fd);
	return -EBUSY;
}

static void on_signal(evutil_socket_t signal_number, short what, void *arg)
{
	fan_log(FAN_LOG_INFO, "stop", "%s: registrations stay for the next start",
		strsignal((int)signal_number));
	event_base_loopbreak(arg);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	struct engine *engine = arg;

	sd_notifyf(0, "WATCHDOG=1\nSTATUS=%" PRIu32 " connections, dataplane %s",
		   registrations_count(engine->registrations),
		   dataplane_state_name(engine->watch.state));
}

/* Tells the service manager each half of its patience, or each five seconds. */
static struct event *start_watchdog(struct event_base *base, struct engine *engine)
{
	struct timeval each = {.tv_sec = 5};
	struct event *watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, engine);
	uint64_t patience_us = 0;

	if (sd_watchdog_enabled(0, &patience_us) > 0 && patience_us) {
		each.tv_sec = (time_t)(patience_us / 2 / 1000000);
		each.tv_usec = (suseconds_t)(patience_us / 2 % 1000000);
	}
	if (watchdog)
		event_add(watchdog, &each);
	return watchdog;
}

static int serve(struct event_base *base, const struct fan_config *config,
		 const struct privileges *privileges)
{
	struct event *on_term = evsignal_new(base, SIGTERM, on_signal, base);
	struct event *on_int = evsignal_new(base, SIGINT, on_signal, base);
	struct engine *engine = NULL;
	struct event *watchdog;
	char why[4096];
	int err = -ENOMEM;

	if (!on_term || !on_int)
		goto out;
	err = engine_create(&engine, base, config, why);
	if (err) {
		fan_log(FAN_LOG_ERROR, "start", "%s", why);
		goto out;
	}
	err = privileges_settle(privileges, why);
	if (err) {
		fan_log(FAN_LOG_ERROR, "start", "%s", why);
		engine_destroy(engine);
		goto out;
	}
	evsignal_add(on_term, NULL);
	evsignal_add(on_int, NULL);
	watchdog = start_watchdog(base, engine);
	sd_notify(0, "READY=1\nSTATUS=serving");
	fan_log(FAN_LOG_INFO, "start", "fanwired " FAN_VERSION ", instance %s, serves",
		config->instance);
	if (event_base_dispatch(base)) {
		fan_log(FAN_LOG_ERROR, "stop", "the event loop failed: %s", strerror(errno));
		err = -EIO;
	}
	sd_notify(0, "STOPPING=1");
	if (watchdog)
		event_free(watchdog);
	engine_destroy(engine);
out:
	if (on_term)
		event_free(on_term);
	if (on_int)
		event_free(on_int);
	return err;
}

/* What goes wrong within libevent can go wrong at each turn of its loop: ten lines a minute. */
static void on_libevent(int severity, const char *message)
{
	static uint64_t minute;
	static unsigned told;
	uint64_t now = moment_now().mono_ns / (60 * ENGINE_NS_PER_S);

	if (now != minute)
		told = 0;
	minute = now;
	if (severity != EVENT_LOG_DEBUG && ++told <= 10)
		fan_log(severity == EVENT_LOG_MSG ? FAN_LOG_INFO : FAN_LOG_WARNING, "libevent",
			"%s", message);
}

static int run(const char *path)
{
	struct event_config *event_config;
	struct privileges privileges;
	struct fan_config config;
	struct event_base *base;
	char why[4096];
	int lock, err;

	if (fan_config_load(&config, path, why)) {
		fputs(why, stderr); /* whole lines */
		return EXIT_USAGE;
	}
	fan_log_init("fanwired", config.log_level);
	event_set_log_callback(on_libevent);
	umask(0027);
	signal(SIGPIPE, SIG_IGN);
	privilege_harden();
	if (sodium_init() < 0)
		return EXIT_FAILED;
	err = privileges_directories(&config, why);
	lock = err ? err : take_lock(&config);
	if (lock >= 0)
		err = privileges_begin(&privileges, &config, why);
	if (err)
		fan_log(FAN_LOG_ERROR, "start", "%s", why);
	if (err || lock < 0)
		return EXIT_FAILED; /* and the kernel releases the lock */
	event_config = event_config_new();
	event_config_set_flag(event_config, EVENT_BASE_FLAG_PRECISE_TIMER);
	base = event_base_new_with_config(event_config);
	event_config_free(event_config);
	err = base ? serve(base, &config, &privileges) : -ENOMEM;
	if (base)
		event_base_free(base);
	close(lock);
	return err ? EXIT_FAILED : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct arguments arguments;

	if (parse_arguments(argc, argv, &arguments)) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	switch (arguments.action) {
	case ACTION_CHECK:
		return check_config(arguments.config);
	case ACTION_ROUTES:
		http_print_routes();
		return EXIT_SUCCESS;
	case ACTION_VERSION:
		puts("fanwired " FAN_VERSION);
		return EXIT_SUCCESS;
	case ACTION_HELP:
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	case ACTION_RUN:
		break;
	}
	return run(arguments.config);
}
