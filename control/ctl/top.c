/* SPDX-License-Identifier: BSD-3-Clause */
#include <curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

struct top {
	const struct ctl *ctl;
	int interval_ms;
	unsigned long long count; /* views; 0: for ever */
	char limit[16];
};

/* Rates since the view before. NULL: *why says what was wrong. */
static json_t *get_view(const struct top *top, char why[512])
{
	const struct api_query query[] = {{"limit", top->limit}, {0}};

	return api_try(top->ctl, "GET", "/v1/top", query, NULL, why);
}

static int finish(const struct top *top, json_t *view, const char *why)
{
	if (!view) {
		output_error(top->ctl, "top", "%s", why);
		return EXIT_REFUSED;
	}
	json_decref(view);
	return EXIT_DONE;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static int run_lines(const struct top *top)
{
	char why[512];
	json_t *view = get_view(top, why); /* rates count from this call on */

	for (unsigned long long i = 0; view && (!top->count || i < top->count); i++) {
		json_decref(view);
		usleep((useconds_t)top->interval_ms * 1000);
		view = get_view(top, why);
		if (view)
			output_json(view);
	}
	return finish(top, view, why);
}

/* ---- screen ---------------------------------------------------------------------------------- */

/* The pad is larger than any screen: what has no room is cut off, and no line wraps. */
#define PAD_LINES   1200
#define PAD_COLUMNS 512

/* Names give way first: a narrow terminal still shows the figures. */
static int name_width(void)
{
	int room = COLS - 16;

	return room > 28 ? 28 : room < 8 ? 8 : room;
}

static void draw_rate(WINDOW *pad, const char *name, const json_t *rate)
{
	wprintw(pad, "%-*.*s %14.1f\n", name_width(), name_width(), name, json_number_value(rate));
}

static void draw_heading(WINDOW *pad, const char *heading)
{
	wattron(pad, A_BOLD);
	wprintw(pad, "\n%-*s %14s\n", name_width(), heading, "PER SECOND");
	wattroff(pad, A_BOLD);
}

/* Those that are not zero: the drops, or all others. */
static void draw_rates(WINDOW *pad, const json_t *rates, bool drops)
{
	const char *name;
	json_t *rate;

	json_object_foreach ((json_t *)rates, name, rate) {
		if ((strncmp(name, "drop_", 5) == 0) == drops && json_number_value(rate) > 0)
			draw_rate(pad, name, rate);
	}
}

/* What the kernel dropped, at the sockets ("accepted" is no drop) and at the ports. */
static void draw_kernel(WINDOW *pad, const json_t *rates, const char *where)
{
	const char *name;
	json_t *rate;

	json_object_foreach ((json_t *)rates, name, rate) {
		char whole[64];

		if (strcmp(name, "accepted") == 0 || json_number_value(rate) <= 0)
			continue;
		snprintf(whole, sizeof(whole), "%s %s", where, name);
		draw_rate(pad, whole, rate);
	}
}

static void draw_users(WINDOW *pad, const json_t *users)
{
	wattron(pad, A_BOLD);
	wprintw(pad, "\n%-28s %14s %14s %12s\n", "USER", "EVENTS/S", "COPIES/S", "CONNECTIONS");
	wattroff(pad, A_BOLD);
	for (size_t i = 0; i < json_array_size(users); i++) {
		const json_t *user = json_array_get(users, i);
		const char *name = json_string_value(json_object_get(user, "user"));
		char *escaped;

		if (!name) /* only its handle is known any more */
			name = json_string_value(json_object_get(user, "handle"));
		escaped = output_escape(name ? name : "?", name ? strlen(name) : 1);
		wprintw(pad, "%-28.28s %14.1f %14.1f %12lld\n", escaped,
			json_number_value(json_object_get(user, "events_per_second")),
			json_number_value(json_object_get(user, "copies_per_second")),
			(long long)json_integer_value(json_object_get(user, "connections")));
		free(escaped);
	}
}

static void show(WINDOW *pad)
{
	prefresh(pad, 0, 0, 0, 0, LINES - 1, COLS - 1);
}

static void draw(WINDOW *pad, const json_t *view)
{
	const json_t *rates = json_object_get(view, "rates");

	werase(pad);
	wprintw(pad, "fanwire: over the last %.1f s; q quits\n",
		json_number_value(json_object_get(view, "interval_seconds")));
	draw_heading(pad, "COUNTER");
	draw_rates(pad, rates, false);
	draw_heading(pad, "DROPPED, BY REASON");
	draw_rates(pad, rates, true);
	draw_kernel(pad, json_object_get(view, "filter"), "filter:");
	draw_kernel(pad, json_object_get(view, "guard"), "guard:");
	draw_users(pad, json_object_get(view, "users"));
	show(pad);
}

/* Waits for one interval: false when q was pressed. */
static bool pause_or_quit(WINDOW *pad, int interval_ms)
{
	int key;

	wtimeout(pad, interval_ms);
	key = wgetch(pad);
	return key != 'q' && key != 'Q';
}

static int run_screen(const struct top *top)
{
	char why[512];
	json_t *view = get_view(top, why); /* rates count from this call on */
	WINDOW *pad;

	if (!view)
		return finish(top, view, why);
	initscr();
	cbreak();
	noecho();
	curs_set(0);
	pad = newpad(PAD_LINES, PAD_COLUMNS);
	wprintw(pad, "fanwire: counting for %.1f s; q quits\n", top->interval_ms / 1000.0);
	show(pad);
	for (unsigned long long i = 0; view && (!top->count || i < top->count); i++) {
		if (!pause_or_quit(pad, top->interval_ms))
			break;
		json_decref(view);
		view = get_view(top, why);
		if (view)
			draw(pad, view);
	}
	delwin(pad);
	endwin(); /* before anything is said: the screen is put back by it */
	return finish(top, view, why);
}

int run_top(const struct ctl *ctl, const struct arguments *arguments)
{
	struct top top = {.ctl = ctl, .interval_ms = 1000};
	unsigned long long limit = 10;

	if (!arguments_seconds(ctl, arguments, "--interval", &top.interval_ms) ||
	    !arguments_number(ctl, arguments, "--count", 1, 1000000000, &top.count) ||
	    !arguments_number(ctl, arguments, "--limit", 1, 1000, &limit))
		return EXIT_USAGE;
	snprintf(top.limit, sizeof(top.limit), "%llu", limit);
	return ctl->json || !isatty(STDOUT_FILENO) ? run_lines(&top) : run_screen(&top);
}
