/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/engine/fixture.h"

#include <criterion/criterion.h>
#include <event2/event.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/marks.h"
#include "control/engine/nexthop.h"
#include "control/engine/publishers.h"
#include "control/engine/rotation.h"
#include "control/engine/sessions.h"
#include "control/engine/store.h"
#include "control/engine/token.h"
#include "control/engine/top.h"
#include "control/engine/users.h"
#include "control/engine/vouched.h"
#include "control/link.h"
#include "control/registry/registry.h"

void fixture_init(struct fixture *f)
{
	struct fan_config *c = &f->config;

	memset(f, 0, sizeof(*f));
	f->state.fd = -1;
	cr_assert_geq(sodium_init(), 0);
	fan_log_init("test", "error");
	strcpy(f->dir, "/dev/shm/fanwire-engine-XXXXXX");
	cr_assert_not_null(mkdtemp(f->dir));
	strcpy(c->instance, "test");
	strcpy(c->run_dir, f->dir);
	strcpy(c->region_dir, f->dir);
	strcpy(c->state_dir, f->dir);
	strcpy(c->token_audience, "fanwire");
	cr_assert_eq(fan_address_parse(&c->engine_address[0], "198.18.0.1"), 0);
	c->engine_address_cnt = 1;
	c->has_static_mac = true; /* a port without a kernel interface: no netlink here */
	memcpy(c->static_mac, "\x02\0\0\0\0\1", 6);
	c->payload_limit = FAN_PAYLOAD_DEFAULT;
	c->max_users = 64;
	c->max_connections = 64;
	c->max_connections_per_user = 10;
	c->max_threads_per_connection = 4;
	c->max_groups = 256;
	c->max_publishers = 4;
	c->max_sessions = 8;
	c->max_sessions_per_publisher = 3;
	c->publisher_bytes_per_second = 1000000;
	c->lease_s = 60;
	c->linger_s = 2;
	c->reattach_s = 10;
	c->challenge_timeout_s = 5;
	c->token_ttl_s = 3600;
	c->key_overlap_s = 60;
	c->http_body_max = 65536;
	f->base = event_base_new();
	f->messages = calloc(FIXTURE_MESSAGES_MAX, sizeof(*f->messages));
	f->now = moment_now();
	f->next_ref = f->next_cookie = 100;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void fixture_fini(struct fixture *f)
{
	dataplane_stop(f);
	event_base_free(f->base);
	free(f->messages);
	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void answer_mark(struct fixture *f)
{
	const struct message *mark = told(f, MESSAGE_MARK, 0, 0);
	struct message answer = {.type = MESSAGE_MARKED};

	cr_assert_not_null(mark);
	answer.ref = mark->ref;
	link_to_engine(f->engine.link, &answer);
}

static void on_told(void *arg, const struct message *message)
{
	struct fixture *f = arg;
	struct message *copy = &f->messages[f->message_cnt++];

	cr_assert_leq(f->message_cnt, FIXTURE_MESSAGES_MAX);
	memset(copy, 0, sizeof(*copy));
	memcpy(copy, message, message_len(message->type));
	if (message->type == MESSAGE_MARK && !f->mute)
		answer_mark(f);
}

static void on_asked(void *arg, const struct message *message)
{
	struct fixture *f = arg;

	if (message->type == MESSAGE_SESSION_OPEN || message->type == MESSAGE_SESSION_ATTACH ||
	    message->type == MESSAGE_SESSION_DETACH || message->type == MESSAGE_SESSION_END)
		sessions_on_message(f->engine.sessions, message, f->now);
	else if (message->type == MESSAGE_MARKED)
		marks_on_message(f->engine.marks, message);
	else
		registrations_on_message(f->engine.registrations, message, f->now);
}

void fixture_start(struct fixture *f)
{
	struct engine *e = &f->engine;
	char path[128], why[1024] = "";
	struct store_owner owner;

	memset(e, 0, sizeof(*e));
	e->config = &f->config;
	e->base = f->base;
	e->started = f->now;
	f->message_cnt = 0;
	snprintf(path, sizeof(path), "%s/keys", f->dir);
	cr_assert_eq(keys_load(&e->keys, path, why), 0, "%s", why);
	keys_id(&e->keys, owner.id);
	keys_row_key(&e->keys, owner.row_key);
	owner.fresh = e->keys.fresh;
	if (owner.fresh)
		cr_assert_eq(keys_save(&e->keys, path, why), 0, "%s", why);
	snprintf(path, sizeof(path), "%s/fanwire.db", f->dir);
	cr_assert_eq(store_open(&e->store, f->base, path, &owner, why), 0, "%s", why);
	cr_assert_eq(audit_open(e->store, &e->audit, why), 0, "%s", why);
	cr_assert_eq(users_open(&e->users, e->store, f->config.max_users, why), 0, "%s", why);
	cr_assert_eq(publishers_open(&e->publishers, e->store, f->config.max_publishers, why), 0);
	cr_assert_eq(registry_open(&e->registry, &f->config, why), 0, "%s", why);
	cr_assert_eq(rotation_open(&e->rotation, e, why), 0, "%s", why);
	cr_assert_eq(nexthops_open(&e->nexthops, f->base, e->registry, &f->config, why), 0);
	e->link = link_create(f->base);
	link_set_agent(e->link, on_told, f);
	link_set_engine(e->link, on_asked, f);
	e->marks = marks_create(e->link);
	cr_assert_eq(registrations_open(&e->registrations, e, f->now, why), 0, "%s", why);
	cr_assert_eq(vouched_open(&e->vouched, e, why), 0, "%s", why);
	cr_assert_eq(sessions_open(&e->sessions, e, f->now), 0);
	registry_housekeeping(e->registry, f->now.mono_ns);
	e->top = top_create();
}

void fixture_stop(struct fixture *f)
{
	struct engine *e = &f->engine;

	store_flush(e->store);
	vouched_close(e->vouched);
	e->vouched = NULL;
	marks_destroy(e->marks);
	top_destroy(e->top);
	sessions_close(e->sessions);
	registrations_close(e->registrations);
	link_destroy(e->link);
	nexthops_close(e->nexthops);
	registry_close(e->registry);
	publishers_close(e->publishers);
	users_close(e->users);
	store_close(e->store);
	audit_close(e->audit);
	rotation_close(e->rotation);
}

struct fan_worker_state *fixture_worker(struct fixture *f)
{
	char *base = f->state.base;

	return (void *)(base + ((struct fan_state *)f->state.base)->workers_off);
}

static void worker_pass(struct fixture *f)
{
	__atomic_fetch_add(&fixture_worker(f)->quiescent, 2, __ATOMIC_SEQ_CST);
	fixture_worker(f)->heartbeat_ns = f->now.mono_ns;
	((struct fan_state *)f->state.base)->request_tail =
		registry_root(f->engine.registry)->request_head;
}

void dataplane_start(struct fixture *f)
{
	const struct fan_registry *root = registry_root(f->engine.registry);
	size_t workers = sizeof(struct fan_state);
	size_t groups = workers + FAN_WORKERS_MAX * sizeof(struct fan_worker_state);
	size_t sessions = groups + root->group_cnt * sizeof(struct fan_group_state);
	size_t size = sessions + root->session_cnt * sizeof(struct fan_session_state);
	struct fan_state *state;
	char path[128], why[256];

	snprintf(path, sizeof(path), "%s/%s", f->dir, FAN_STATE_FILE);
	remove(path);
	cr_assert_eq(fan_region_create(&f->state, path, FAN_REGION_MAGIC_STATE,
				       sizeof(struct fan_state), size, why),
		     0, "%s", why);
	state = f->state.base;
	state->registry_epoch = root->header.creation_epoch;
	state->workers_off = workers;
	state->groups_off = groups;
	state->sessions_off = sessions;
	state->group_cnt = root->group_cnt;
	state->session_cnt = root->session_cnt;
	state->worker_cnt = 1;
	state->run = 1;
	fixture_worker(f)->quiescent = 1;
	worker_pass(f);
	state->request_tail = root->request_head;
	fan_region_set_ready(&f->state);
	settle(f, 100);
}

void dataplane_stop(struct fixture *f)
{
	fan_region_close(&f->state);
}

void settle(struct fixture *f, uint64_t after_ms)
{
	f->now.mono_ns += after_ms * 1000000;
	f->now.unix_s += after_ms / 1000;
	for (unsigned i = 0; i < 4; i++) {
		if (f->state.base && !f->stalled)
			worker_pass(f);
		registry_housekeeping(f->engine.registry, f->now.mono_ns);
		registrations_tick(f->engine.registrations, f->now);
		vouched_tick(f->engine.vouched, f->now);
		sessions_tick(f->engine.sessions, f->now);
		rotation_tick(f->engine.rotation, f->now);
		event_base_loop(f->base, EVLOOP_NONBLOCK);
		store_flush(f->engine.store);
		event_base_loop(f->base, EVLOOP_NONBLOCK);
	}
}

void token_for(struct fixture *f, const char *user, uint64_t ttl_s, char text[MESSAGE_TOKEN_MAX])
{
	struct token_claims claims = {
		.user_len = strlen(user), .expires_s = f->now.unix_s + ttl_s, .generation = 1};
	uint8_t handle[FAN_HANDLE_LEN];
	const struct user *known;

	strcpy(claims.user, user);
	fan_handle(handle, user, strlen(user));
	known = users_find(f->engine.users, handle);
	if (known)
		claims.generation = known->generation;
	cr_assert_eq(token_make(text, TOKEN_SUBSCRIBE, f->config.token_audience, &claims,
				f->now.unix_s, f->engine.keys.token),
		     0);
}

uint64_t ask(struct fixture *f, const char *user, uint64_t id)
{
	struct message message = {.type = MESSAGE_REGISTER, .ref = f->next_ref++, .id = id};

	token_for(f, user, 3600, message.u.client.token);
	message.u.client.uid = 1000;
	link_to_engine(f->engine.link, &message);
	settle(f, 0);
	return message.ref;
}

uint64_t bind_grant(struct fixture *f, uint64_t ref)
{
	const struct message *granted = told(f, MESSAGE_GRANT, ref, 0);
	struct message message = {.type = MESSAGE_BOUND, .ref = ref};
	struct fan_address address;

	cr_assert_not_null(granted, "no grant: %s",
			   told(f, MESSAGE_REFUSE, ref, 0) ? told(f, MESSAGE_REFUSE, ref, 0)->reason
							   : "");
	message.id = granted->id;
	fan_address_parse(&address, "198.18.0.2");
	memcpy(message.u.bound.address.bytes, address.bytes, 16);
	message.u.bound.address.family = 4;
	message.u.bound.address.port = (uint16_t)(20000 + ref);
	message.u.bound.cookie = f->next_cookie++;
	link_to_engine(f->engine.link, &message);
	settle(f, 0);
	return message.id;
}

void echo(struct fixture *f, uint64_t id)
{
	const struct registration *r = registrations_find(f->engine.registrations, id);

	cr_assert_not_null(r);
	registrations_on_echo(f->engine.registrations, id, r->salt, f->now);
	settle(f, 0);
}

uint64_t subscribe(struct fixture *f, const char *user, uint64_t id, uint64_t *ref)
{
	uint64_t own = ask(f, user, id), given = bind_grant(f, own);

	settle(f, 20);
	echo(f, given);
	cr_assert_not_null(told(f, MESSAGE_ACTIVE, own, given), "not active");
	if (ref)
		*ref = own;
	return given;
}

const struct message *told(const struct fixture *f, enum message_type type, uint64_t ref,
			   uint64_t id)
{
	for (unsigned i = f->message_cnt; i-- > 0;)
		if (f->messages[i].type == type && (!ref || f->messages[i].ref == ref) &&
		    (!id || f->messages[i].id == id))
			return &f->messages[i];
	return NULL;
}

unsigned told_count(const struct fixture *f, enum message_type type)
{
	unsigned cnt = 0;

	for (unsigned i = 0; i < f->message_cnt; i++)
		cnt += f->messages[i].type == type;
	return cnt;
}

int endpoints(const struct fixture *f, const char *user)
{
	const struct fan_table *table = registry_table(f->engine.registry);
	const struct fan_group *group;
	uint8_t handle[FAN_HANDLE_LEN];
	uint32_t cnt;

	fan_handle(handle, user, strlen(user));
	group = fan_table_lookup(table, handle, FAN_CHANNEL_ALL,
				 fan_table_hash(table->seed, handle, FAN_CHANNEL_ALL));
	if (!group)
		return -1;
	fan_group_endpoints(table, group, &cnt);
	return (int)cnt;
}

unsigned audited(struct fixture *f, const char *event)
{
	json_t *records, *record;
	unsigned cnt = 0;
	size_t i;

	store_flush(f->engine.store);
	records = audit_list(f->engine.audit, NULL, 0, 10000);
	json_array_foreach (records, i, record)
		cnt += strcmp(json_string_value(json_object_get(record, "event")), event) == 0;
	json_decref(records);
	return cnt;
}
