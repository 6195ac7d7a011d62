/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables of docs/shared-memory.md are the structs: every row, every byte. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/shm/registry.h"
#include "common/shm/state.h"

#define PAGE FAN_SOURCE_ROOT "/docs/shared-memory.md"

struct field {
	const char *of, *name;
	size_t off, len;
};

#define FIELD(of, name)                                                               \
	{                                                                             \
#of, #name, offsetof(struct of, name), sizeof(((struct of *)0)->name) \
	}

/* clang-format off: a row a struct */
static const struct field fields[] = {
	FIELD(fan_region_header, magic),
	FIELD(fan_region_header, abi),
	FIELD(fan_region_header, header_len),
	FIELD(fan_region_header, size),
	FIELD(fan_region_header, creation_epoch),
	FIELD(fan_region_header, ready),
	FIELD(fan_region_header, resizing),
	FIELD(fan_region_header, pad),
	FIELD(fan_bucket, fp),
	FIELD(fan_bucket, chain),
	FIELD(fan_bucket, group),
	FIELD(fan_group, handle),
	FIELD(fan_group, channel),
	FIELD(fan_group, incarnation),
	FIELD(fan_group, endpoints),
	FIELD(fan_group, tag_key),
	FIELD(fan_group, user_generation),
	FIELD(fan_group, key_generation),
	FIELD(fan_group, pad),
	FIELD(fan_endpoint, handle),
	FIELD(fan_endpoint, address),
	FIELD(fan_endpoint, connection),
	FIELD(fan_endpoint, record),
	FIELD(fan_endpoint, port),
	FIELD(fan_endpoint, hop),
	FIELD(fan_nexthop, mac),
	FIELD(fan_nexthop, source),
	FIELD(fan_nexthop, address),
	FIELD(fan_nexthop, ifindex),
	FIELD(fan_nexthop, mtu),
	FIELD(fan_nexthop, family),
	FIELD(fan_nexthop, pad),
	FIELD(fan_session, id),
	FIELD(fan_session, state_epoch),
	FIELD(fan_session, key),
	FIELD(fan_session, user),
	FIELD(fan_session, address),
	FIELD(fan_session, port),
	FIELD(fan_session, family),
	FIELD(fan_session, scope),
	FIELD(fan_session, nexthop),
	FIELD(fan_session, publisher),
	FIELD(fan_session, meter),
	FIELD(fan_session, budget),
	FIELD(fan_session, pad),
	FIELD(fan_connection, id),
	FIELD(fan_connection, cookie),
	FIELD(fan_connection, address),
	FIELD(fan_connection, generation),
	FIELD(fan_connection, user_generation),
	FIELD(fan_connection, lease),
	FIELD(fan_connection, token_expiry_s),
	FIELD(fan_connection, since_s),
	FIELD(fan_connection, port),
	FIELD(fan_connection, hop),
	FIELD(fan_request, type),
	FIELD(fan_request, nexthop),
	FIELD(fan_request, connection),
	FIELD(fan_request, salt),
	FIELD(fan_request, handle),
	FIELD(fan_request, address),
	FIELD(fan_request, tag_key),
	FIELD(fan_request, user_generation),
	FIELD(fan_request, port),
	FIELD(fan_request, family),
	FIELD(fan_request, key_generation),
	FIELD(fan_request, deadline_ns),
	FIELD(fan_request, pad),
	FIELD(fan_intent, op),
	FIELD(fan_intent, pad),
	FIELD(fan_intent, args),
	FIELD(fan_registry, header),
	FIELD(fan_registry, hash_seed),
	FIELD(fan_registry, buckets_off),
	FIELD(fan_registry, groups_off),
	FIELD(fan_registry, endpoints_off),
	FIELD(fan_registry, connections_off),
	FIELD(fan_registry, sessions_off),
	FIELD(fan_registry, nexthops_off),
	FIELD(fan_registry, requests_off),
	FIELD(fan_registry, bucket_cnt),
	FIELD(fan_registry, overflow_cnt),
	FIELD(fan_registry, group_cnt),
	FIELD(fan_registry, endpoint_cnt),
	FIELD(fan_registry, connection_cnt),
	FIELD(fan_registry, session_cnt),
	FIELD(fan_registry, nexthop_cnt),
	FIELD(fan_registry, request_cnt),
	FIELD(fan_registry, challenge_key),
	FIELD(fan_registry, pad0),
	FIELD(fan_registry, heartbeat_ns),
	FIELD(fan_registry, max_unattended_ns),
	FIELD(fan_registry, request_head),
	FIELD(fan_registry, report_tail),
	FIELD(fan_registry, seal),
	FIELD(fan_registry, pad1),
	FIELD(fan_registry, key_roots),
	FIELD(fan_registry, replay_root),
	FIELD(fan_key_roots, generation),
	FIELD(fan_key_roots, pad),
	FIELD(fan_key_roots, tag_root),
	FIELD(fan_key_roots, seal_root),
	FIELD(fan_key_roots, pad2),
	FIELD(fan_registry, next_incarnation),
	FIELD(fan_registry, next_generation),
	FIELD(fan_registry, key_generation),
	FIELD(fan_registry, intent),
	FIELD(fan_report, type),
	FIELD(fan_report, pad),
	FIELD(fan_report, connection),
	FIELD(fan_report, salt),
	FIELD(fan_report, pad2),
	FIELD(fan_worker_state, quiescent),
	FIELD(fan_worker_state, heartbeat_ns),
	FIELD(fan_worker_state, loops),
	FIELD(fan_worker_state, busy_loops),
	FIELD(fan_worker_state, log_head),
	FIELD(fan_worker_state, pad),
	FIELD(fan_worker_state, counters),
	FIELD(fan_worker_state, report_head),
	FIELD(fan_worker_state, reports),
	FIELD(fan_group_state, incarnation),
	FIELD(fan_group_state, epoch),
	FIELD(fan_group_state, sequence),
	FIELD(fan_group_state, copies),
	FIELD(fan_group_state, log_tail),
	FIELD(fan_log_record, position),
	FIELD(fan_log_record, check),
	FIELD(fan_log_record, image_len),
	FIELD(fan_log_record, pad),
	FIELD(fan_log_record, incarnation),
	FIELD(fan_log_record, sequence),
	FIELD(fan_log_record, previous),
	FIELD(fan_log_record, skip),
	FIELD(fan_result_record, epoch),
	FIELD(fan_result_record, sequence),
	FIELD(fan_result_record, attempted),
	FIELD(fan_result_record, sent),
	FIELD(fan_result_record, publisher_sequence_low),
	FIELD(fan_result_record, status),
	FIELD(fan_result_record, phase),
	FIELD(fan_result_record, pad),
	FIELD(fan_session_state, session),
	FIELD(fan_session_state, accepted),
	FIELD(fan_session_state, ack_counter),
	FIELD(fan_session_state, over_budget),
	FIELD(fan_session_state, pad),
	FIELD(fan_session_state, results),
	FIELD(fan_state, header),
	FIELD(fan_state, registry_epoch),
	FIELD(fan_state, workers_off),
	FIELD(fan_state, groups_off),
	FIELD(fan_state, sessions_off),
	FIELD(fan_state, logs_off),
	FIELD(fan_state, log_bytes),
	FIELD(fan_state, log_workers),
	FIELD(fan_state, seal),
	FIELD(fan_state, group_cnt),
	FIELD(fan_state, session_cnt),
	FIELD(fan_state, worker_cnt),
	FIELD(fan_state, run),
	FIELD(fan_state, request_tail),
	FIELD(fan_state, pid),
	FIELD(fan_state, port_name),
};
/* clang-format on */

static const struct {
	const char *name;
	size_t len;
} structs[] = {
	{"fan_region_header", sizeof(struct fan_region_header)},
	{"fan_bucket", sizeof(struct fan_bucket)},
	{"fan_key_roots", sizeof(struct fan_key_roots)},
	{"fan_log_record", sizeof(struct fan_log_record)},
	{"fan_group", sizeof(struct fan_group)},
	{"fan_endpoint", sizeof(struct fan_endpoint)},
	{"fan_nexthop", sizeof(struct fan_nexthop)},
	{"fan_session", sizeof(struct fan_session)},
	{"fan_connection", sizeof(struct fan_connection)},
	{"fan_request", sizeof(struct fan_request)},
	{"fan_intent", sizeof(struct fan_intent)},
	{"fan_registry", sizeof(struct fan_registry)},
	{"fan_report", sizeof(struct fan_report)},
	{"fan_worker_state", sizeof(struct fan_worker_state)},
	{"fan_group_state", sizeof(struct fan_group_state)},
	{"fan_result_record", sizeof(struct fan_result_record)},
	{"fan_session_state", sizeof(struct fan_session_state)},
	{"fan_state", sizeof(struct fan_state)},
};

#define FIELD_CNT  (sizeof(fields) / sizeof(fields[0]))
#define STRUCT_CNT (sizeof(structs) / sizeof(structs[0]))

static const struct field *find_field(const char *of, const char *name)
{
	for (size_t i = 0; i < FIELD_CNT; i++) {
		if (strcmp(fields[i].of, of) == 0 && strcmp(fields[i].name, name) == 0)
			return &fields[i];
	}
	return NULL;
}

static size_t len_of(const char *name)
{
	for (size_t i = 0; i < STRUCT_CNT; i++) {
		if (strcmp(structs[i].name, name) == 0)
			return structs[i].len;
	}
	return 0;
}

/* What has been read of the page. */
struct page {
	char current[64]; /* struct whose table is being read, or "" */
	size_t len;	  /* of that struct, as the page says */
	size_t pos;	  /* end of its last row */
	size_t struct_cnt, field_cnt;
};

static void end_table(struct page *page)
{
	if (page->current[0])
		cr_expect_eq(page->pos, page->len, "%s: rows end at %zu of %zu", page->current,
			     page->pos, page->len);
	page->current[0] = '\0';
}

static void on_heading(struct page *page, const char *line)
{
	end_table(page);
	if (sscanf(line, "### `%63[a-z_]`, %zu bytes", page->current, &page->len) != 2) {
		page->current[0] = '\0';
		return;
	}
	page->pos = 0;
	page->struct_cnt++;
	cr_expect_eq(page->len, len_of(page->current), "%s: the page says %zu bytes, it has %zu",
		     page->current, page->len, len_of(page->current));
}

static void on_row(struct page *page, const char *line)
{
	char name[64] = "";
	const struct field *field;
	size_t off, len;

	if (sscanf(line, "| %zu | %zu | `%63[a-z_0-9]`", &off, &len, name) < 2)
		return; /* the table's head */
	cr_expect_eq(off, page->pos, "%s at %zu: rows have a hole or overlap", page->current, off);
	page->pos = off + len;
	if (!name[0])
		return; /* left out for alignment */
	field = find_field(page->current, name);
	cr_assert_not_null(field, "%s.%s: the page has it, the struct has not", page->current,
			   name);
	cr_expect_eq(off, field->off, "%s.%s: at %zu, not %zu", page->current, name, field->off,
		     off);
	cr_expect_eq(len, field->len, "%s.%s: %zu bytes, not %zu", page->current, name, field->len,
		     len);
	page->field_cnt++;
}

Test(layout, page_and_structs_are_the_same)
{
	struct page page = {.struct_cnt = 0};
	char line[1024];
	FILE *file = fopen(PAGE, "re");

	cr_assert_not_null(file, "cannot open %s", PAGE);
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#')
			on_heading(&page, line);
		else if (page.current[0] && line[0] == '|')
			on_row(&page, line);
	}
	end_table(&page);
	fclose(file);
	cr_expect_eq(page.struct_cnt, STRUCT_CNT, "the page has %zu structs of %zu",
		     page.struct_cnt, STRUCT_CNT);
	cr_expect_eq(page.field_cnt, FIELD_CNT, "the page has %zu fields of %zu", page.field_cnt,
		     FIELD_CNT);
}

/* What readers rely on for speed and atomicity. */
Test(layout, words_that_change_are_aligned_and_apart)
{
	cr_expect_eq(offsetof(struct fan_group, endpoints) % 8, 0);
	cr_expect_eq(offsetof(struct fan_nexthop, mac) % 8, 0);
	cr_expect_eq(offsetof(struct fan_session, id) % 8, 0);
	cr_expect_eq(offsetof(struct fan_worker_state, quiescent) % 64, 0);
	cr_expect_neq(offsetof(struct fan_registry, heartbeat_ns) / 64,
		      offsetof(struct fan_registry, request_head) / 64);
	cr_expect_neq(offsetof(struct fan_registry, request_head) / 64,
		      offsetof(struct fan_registry, report_tail) / 64);
	cr_expect_neq(offsetof(struct fan_worker_state, report_head) / 64,
		      offsetof(struct fan_worker_state, quiescent) / 64);
}
