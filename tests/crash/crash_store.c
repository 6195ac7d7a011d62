/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The database after every crash: seeded turns of users, revocations, publishers and rows are
 * written, and each write that SQLite makes is noted (write_log.h). Then the files are made as they
 * stood
 *   - after each write, and in the middle of it: fanwired was killed;
 *   - with the writes since the last sync lost, torn or kept by chance: the machine lost its power;
 *   - with the -wal file cut at any length or gone, or a page of the database torn: damage.
 * fanwired's own code opens them. After a crash it must, and has exactly the state of the last turn
 * that was acknowledged, or of the one that was being written. After damage it refuses, or has the
 * state of some turn, in which no acknowledged revocation or removed publisher is undone.
 *
 * usage: crash-store [--seed N] [--rounds N]; the last line is JSON for ./dev prove.
 */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/publishers.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "tests/crash/write_log.h"

#define USERS	   12
#define PUBLISHERS 6
#define TURNS	   24

/* What matters of a database: compared whole. */
struct content {
	uint32_t generation[USERS]; /* 0: no row */
	uint8_t publisher[PUBLISHERS];
	uint32_t rows;
};

struct turn {
	struct content content; /* once it was acknowledged */
	size_t notes;		/* that were made until then */
};

enum damage { CRASH_KILL, CRASH_POWER, DAMAGE_WAL, DAMAGE_PAGE };

static struct event_base *base;
static struct turn turns[TURNS + 1];
static char dir[] = "/dev/shm/fanwire-crash-XXXXXX", path[64];
static uint64_t state, tried, through, refused;
static const struct store_owner owner_fresh = {.id = {7}, .fresh = true};

static uint32_t draw(uint32_t below)
{
	state ^= state << 13; /* xorshift64, Marsaglia 2003 */
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 32) % below);
}

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	printf("crash-store: %s\n", what);
	exit(2);
}

static void name_of(char name[16], char kind, unsigned idx)
{
	snprintf(name, 16, "%c%u", kind, idx);
}

/* ---- fanwired's part ---- */

struct open_store {
	struct store *store;
	struct audit *audit;
	struct users *users;
	struct publishers *publishers;
	sqlite3_stmt *add_row, *count_rows;
};

static void shut(struct open_store *s)
{
	users_close(s->users);
	publishers_close(s->publishers);
	audit_close(s->audit);
	store_close(s->store);
	memset(s, 0, sizeof(*s));
}

static int open_all(struct open_store *s, const struct store_owner *owner, char why[1024])
{
	int err;

	memset(s, 0, sizeof(*s));
	err = store_open(&s->store, base, path, owner, why);
	if (!err)
		err = audit_open(s->store, &s->audit, why);
	if (!err)
		err = users_open(&s->users, s->store, USERS, why);
	if (!err)
		err = publishers_open(&s->publishers, s->store, PUBLISHERS, why);
	if (err)
		shut(s);
	return err;
}

static void on_row(struct open_store *s, struct content *content)
{
	static const char add[] = "INSERT INTO vouched (id, user, generation, address, port, since)"
				  " VALUES (?, ?, 1, zeroblob(16), 5, 5)";
	char text[600];

	if (!s->add_row)
		s->add_row = store_prepare(s->store, add);
	memset(text, 'x', sizeof(text));
	sqlite3_bind_int64(s->add_row, 1, draw(1 << 30) + 1);
	sqlite3_bind_text(s->add_row, 2, text, (int)draw(sizeof(text)), SQLITE_TRANSIENT);
	must(store_write(s->store, s->add_row) == 0, "a row is refused");
	content->rows++;
}

static void on_removed(void *arg, const struct publisher *publisher, int status)
{
	must(status == 0, "a removal failed");
}

static void on_revoked(void *arg, struct user *user, int status)
{
	must(status == 0, "a revocation failed");
}

/* *touched: publishers that this turn has changed already, and that are not durable yet. */
static void change(struct open_store *s, struct content *content, uint32_t *touched)
{
	unsigned who = draw(USERS), which = draw(PUBLISHERS);
	char name[16], secret[PUBLISHER_SECRET_LEN + 1];
	struct audit_record record = {.event = "token", .uid = 5, .detail = "of the test"};
	struct user *user;

	switch (draw(5)) {
	case 0:
	case 1:
		name_of(name, 'u', who);
		must(users_get(s->users, name, strlen(name), &user) == 0, "a user is refused");
		if (content->generation[who] == 0)
			content->generation[who] = 1;
		if (draw(2)) {
			must(users_revoke(s->users, user, on_revoked, NULL) == 0, "revoke");
			content->generation[who]++;
		}
		break;
	case 2:
		if (*touched & 1u << which)
			return;
		*touched |= 1u << which;
		name_of(name, 'p', which);
		if (content->publisher[which])
			must(publishers_remove(s->publishers, name, on_removed, NULL) == 0,
			     "remove");
		else
			must(publishers_add(s->publishers, name, "", 5, secret) == 0, "add");
		content->publisher[which] ^= 1;
		break;
	case 3:
		must(audit_add(s->audit, &record) == 0, "audit");
		break;
	default:
		on_row(s, content);
	}
}

static void on_durable(void *arg, int status)
{
	*(bool *)arg = status == 0;
}

/* Turns of one to four changes, some of them the same user's; each acknowledged before the next. */
static void write_turns(void)
{
	struct content content = {0};
	struct open_store s;
	char why[1024];

	must(open_all(&s, &owner_fresh, why) == 0, why);
	turns[0] = (struct turn){content, write_log_cnt()};
	for (unsigned turn = 1; turn <= TURNS; turn++) {
		bool durable = false;
		uint32_t touched = 0;

		for (unsigned n = 1 + draw(4); n; n--)
			change(&s, &content, &touched);
		store_on_durable(s.store, on_durable, &durable);
		store_flush(s.store);
		must(durable, "a turn failed");
		turns[turn] = (struct turn){content, write_log_cnt()};
	}
	shut(&s);
}

/* ---- what is there afterwards ---- */

static uint32_t count(struct open_store *s, const char *sql)
{
	sqlite3_stmt *stmt = store_prepare(s->store, sql);
	uint32_t cnt;

	must(stmt && sqlite3_step(stmt) == SQLITE_ROW, sql);
	cnt = (uint32_t)sqlite3_column_int(stmt, 0);
	sqlite3_reset(stmt);
	return cnt;
}

static void read_content(struct open_store *s, struct content *content, bool with_rows)
{
	uint8_t handle[FAN_HANDLE_LEN];
	sqlite3_stmt *there = store_prepare(s->store, "SELECT 1 FROM users WHERE handle = ?");
	char name[16];

	memset(content, 0, sizeof(*content));
	for (unsigned i = 0; i < USERS; i++) {
		name_of(name, 'u', i);
		fan_handle(handle, name, strlen(name));
		sqlite3_bind_blob(there, 1, handle, sizeof(handle), SQLITE_STATIC);
		if (sqlite3_step(there) == SQLITE_ROW)
			content->generation[i] = users_generation(s->users, handle);
		sqlite3_reset(there);
	}
	for (unsigned i = 0; i < PUBLISHERS; i++) {
		name_of(name, 'p', i);
		content->publisher[i] = publishers_find(s->publishers, name) != NULL;
	}
	if (with_rows)
		content->rows = count(s, "SELECT count(*) FROM vouched");
}

static unsigned acknowledged(size_t notes)
{
	unsigned turn = 0;

	while (turn < TURNS && turns[turn + 1].notes <= notes)
		turn++;
	return turn;
}

/* An acknowledged end of somebody's rights holds: no lower generation, no publisher back. */
static bool undoes(const struct content *now, const struct content *told)
{
	for (unsigned i = 0; i < USERS; i++)
		if ((now->generation[i] ? now->generation[i] : 1) <
		    (told->generation[i] ? told->generation[i] : 1))
			return true;
	return memcmp(now->publisher, told->publisher, PUBLISHERS) != 0;
}

static bool is_right(const struct content *now, unsigned turn, enum damage damage)
{
	if (damage == CRASH_KILL || damage == CRASH_POWER)
		return memcmp(now, &turns[turn].content, sizeof(*now)) == 0 ||
		       (turn < TURNS && memcmp(now, &turns[turn + 1].content, sizeof(*now)) == 0);
	if (undoes(now, &turns[turn].content) &&
	    (turn == TURNS || undoes(now, &turns[turn + 1].content)))
		return false;
	for (unsigned i = 0; i <= TURNS && i <= turn + 1; i++)
		if (memcmp(now, &turns[i].content, sizeof(*now)) == 0)
			return true;
	return false;
}

/* What fanwired looks at when it loads the rows, beside serving: then it stops. */
static bool rows_are_whole(struct open_store *s)
{
	sqlite3_stmt *stmt = store_prepare(s->store, "PRAGMA quick_check(vouched)");
	bool whole = stmt && sqlite3_step(stmt) == SQLITE_ROW &&
		     strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0;

	sqlite3_reset(stmt);
	return whole;
}

/* And it goes on from there: a change is taken. */
static bool goes_on(struct open_store *s)
{
	struct audit_record record = {.event = "token", .uid = 5};
	bool durable = false;

	if (audit_add(s->audit, &record))
		return false;
	store_on_durable(s->store, on_durable, &durable);
	store_flush(s->store);
	return durable;
}

static void open_and_judge(const struct write_images *images, size_t notes, enum damage damage)
{
	static const char *const names[] = {"kill", "power", "damaged -wal", "torn page"};
	struct store_owner owner = {.id = {7}, .fresh = notes < turns[0].notes};
	unsigned turn = acknowledged(notes);
	struct content content;
	struct open_store s;
	char why[1024] = "";
	bool right;
	int err;

	must(write_images_store(images, path) == 0, "cannot write the files");
	tried++;
	err = open_all(&s, &owner, why);
	if (err) {
		right = damage >= DAMAGE_WAL && strlen(why) > 20;
		refused++;
	} else {
		bool whole = damage != DAMAGE_PAGE || rows_are_whole(&s);

		read_content(&s, &content, whole);
		if (!whole)
			content.rows = turns[turn].content.rows;
		right = is_right(&content, turn, damage);
		if (!whole || !goes_on(&s)) { /* later: then what it is asked is refused */
			right = right && damage == DAMAGE_PAGE;
			refused++;
		}
		shut(&s);
	}
	if (right)
		return;
	through++;
	printf("%s after write %zu (turn %u): %s\n", names[damage], notes, turn,
	       err ? why : "another state than any that it may have");
}

/* ---- crashes ---- */

static void kill_anywhere(void)
{
	struct write_images whole = {0}, torn = {0};

	for (size_t i = 0; i < write_log_cnt(); i++) {
		const struct write_note *n = write_log_at(i);

		open_and_judge(&whole, i, CRASH_KILL);
		if (n->kind == WRITE_BYTES && n->len > 1) {
			write_images_copy(&torn, &whole);
			write_images_apply(&torn, n, 1 + draw((uint32_t)n->len - 1));
			open_and_judge(&torn, i, CRASH_KILL);
		}
		write_images_apply(&whole, n, SIZE_MAX);
	}
	open_and_judge(&whole, write_log_cnt(), CRASH_KILL);
	write_images_free(&whole);
	write_images_free(&torn);
}

/* Until here all of the file's writes are on the disk, whatever happens. The -journal's deletion is
 * once the folder is synced, which SQLite does with the first sync of a -wal that it made. */
static size_t synced_until(size_t end, enum write_file file)
{
	enum write_file with = file == WRITE_JOURNAL ? WRITE_WAL : file;
	size_t at = 0;

	for (size_t i = 0; i < end; i++)
		if (write_log_at(i)->file == with && write_log_at(i)->kind == WRITE_SYNC)
			at = i;
	return at;
}

static void lose_power(unsigned times)
{
	struct write_images images = {0};

	while (times--) {
		size_t end =
			turns[0].notes + draw((uint32_t)(write_log_cnt() - turns[0].notes) + 1);
		size_t safe[WRITE_FILE_CNT] = {synced_until(end, WRITE_DATABASE),
					       synced_until(end, WRITE_WAL),
					       synced_until(end, WRITE_JOURNAL)};
		uint32_t loss = draw(4);

		write_images_free(&images);
		for (size_t i = 0; i < end; i++) {
			const struct write_note *n = write_log_at(i);
			size_t cut = SIZE_MAX;

			if (i > safe[n->file] && draw(4) < loss)
				cut = n->kind == WRITE_BYTES
					      ? draw((uint32_t)n->len + 1) / 512 * 512
					      : 0;
			if (n->kind == WRITE_BYTES || cut)
				write_images_apply(&images, n, cut);
		}
		open_and_judge(&images, end, CRASH_POWER);
	}
	write_images_free(&images);
}

/* ---- damage ---- */

static void at_write(struct write_images *images, size_t end)
{
	write_images_free(images);
	for (size_t i = 0; i < end; i++)
		write_images_apply(images, write_log_at(i), SIZE_MAX);
}

static void cut_the_wal(void)
{
	struct write_images images = {0}, cut = {0};

	for (unsigned turn = 1; turn <= TURNS; turn++) {
		struct write_image *wal = &cut.file[WRITE_WAL];

		at_write(&images, turns[turn].notes);
		for (size_t len = 0; len <= images.file[WRITE_WAL].len;
		     len += 1 + draw(4096 + 24)) {
			write_images_copy(&cut, &images);
			wal->len = len;
			wal->there = len || draw(2);
			if (len > 64 && draw(4) == 0)
				wal->bytes[draw((uint32_t)len)] ^= (uint8_t)(1 + draw(255));
			open_and_judge(&cut, turns[turn].notes, DAMAGE_WAL);
		}
	}
	write_images_free(&images);
	write_images_free(&cut);
}

/* A page whose second part never came, or came as nothing or noise. */
static void tear_pages(unsigned times)
{
	struct write_images images = {0};

	while (times--) {
		struct write_image *db = &images.file[WRITE_DATABASE];
		size_t turn = 1 + draw(TURNS), page, from, len;
		bool noise = draw(2);

		at_write(&images, turns[turn].notes);
		if (db->len < 4096)
			continue;
		page = draw((uint32_t)(db->len / 4096));
		from = page * 4096 + 512 * draw(8);
		len = (page + 1) * 4096 - from;
		for (size_t i = 0; i < len; i++)
			db->bytes[from + i] = noise ? (uint8_t)draw(256) : 0;
		open_and_judge(&images, turns[turn].notes, DAMAGE_PAGE);
	}
	write_images_free(&images);
}

static void remove_files(void)
{
	static const char *const ends[] = {"", "-wal", "-journal", "-shm"};
	char name[80];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

static void round_of(uint64_t seed)
{
	uint64_t before = through;

	state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	remove_files();
	write_log_begin();
	write_turns();
	write_log_end();
	kill_anywhere();
	lose_power(150);
	cut_the_wal();
	tear_pages(200);
	write_log_free();
	if (through != before)
		printf("replay with: crash-store --seed %lu --rounds 1\n", (unsigned long)seed);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"rounds", required_argument, NULL, 'r'},
						{0}};
	unsigned long seed = 1, rounds = 1;
	struct timespec began, now;

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		must(option != '?', "usage: crash-store [--seed N] [--rounds N]");
		*(option == 's' ? &seed : &rounds) = strtoul(optarg, NULL, 10);
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	fan_log_init("crash-store", "error");
	must(freopen("/dev/null", "w", stderr) != NULL && sodium_init() >= 0, "cannot begin");
	must(mkdtemp(dir) != NULL, "/dev/shm");
	snprintf(path, sizeof(path), "%s/fanwire.db", dir);
	base = event_base_new();
	for (unsigned long i = 0; i < rounds; i++)
		round_of(seed + i);
	remove_files();
	rmdir(dir);
	event_base_free(base);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("{\"name\": \"crash-store\", \"tried\": %lu, \"unit\": \"databases\", "
	       "\"got_through\": %lu, \"seed\": %lu, \"seconds\": %.1f, \"refused\": %lu}\n",
	       (unsigned long)tried, (unsigned long)through, seed,
	       (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9,
	       (unsigned long)refused);
	return through ? 1 : 0;
}
