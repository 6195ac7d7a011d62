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

static void draw_rates(const json_t *rates, bool drops)
{
	const char *name;
	json_t *rate;

	attron(A_BOLD);
	printw("\n%-28s %14s\n", drops ? "DROPPED, BY REASON" : "COUNTER", "PER SECOND");
	attroff(A_BOLD);
	json_object_foreach ((json_t *)rates, name, rate) {
		if ((strncmp(name, "drop_", 5) == 0) != drops || json_number_value(rate) <= 0)
			continue;
		printw("%-28s %14.1f\n", name, json_number_value(rate));
	}
}

static void draw_users(const json_t *users)
{
	attron(A_BOLD);
	printw("\n%-28s %14s %14s %12s\n", "USER", "EVENTS/S", "COPIES/S", "CONNECTIONS");
	attroff(A_BOLD);
	for (size_t i = 0; i < json_array_size(users); i++) {
		const json_t *user = json_array_get(users, i);
		const char *name = json_string_value(json_object_get(user, "user"));
		char *escaped;

		if (!name) /* only its handle is known any more */
			name = json_string_value(json_object_get(user, "handle"));
		escaped = output_escape(name ? name : "?", name ? strlen(name) : 1);
		printw("%-28.28s %14.1f %14.1f %12lld\n", escaped,
		       json_number_value(json_object_get(user, "events_per_second")),
		       json_number_value(json_object_get(user, "copies_per_second")),
		       (long long)json_integer_value(json_object_get(user, "connections")));
		free(escaped);
	}
}

static void draw(const json_t *view)
{
	const json_t *rates = json_object_get(view, "rates");

	erase();
	printw("fanwire: over the last %.1f s; q quits\n",
	       json_number_value(json_object_get(view, "interval_seconds")));
	draw_rates(rates, false);
	draw_rates(rates, true);
	draw_users(json_object_get(view, "users"));
	refresh();
}

static int run_screen(const struct top *top)
{
	char why[512];
	json_t *view = get_view(top, why);

	if (!view)
		return finish(top, view, why);
	initscr();
	cbreak();
	noecho();
	curs_set(0);
	timeout(top->interval_ms);
	for (unsigned long long i = 0; view && (!top->count || i < top->count); i++) {
		int key;

		draw(view);
		key = getch();
		if (key == 'q' || key == 'Q')
			break;
		json_decref(view);
		view = get_view(top, why);
	}
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
