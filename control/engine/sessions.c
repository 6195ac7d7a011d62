/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/sessions.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/audit.h"
#include "control/engine/meters.h"
#include "control/engine/nexthop.h"
#include "control/engine/publishers.h"
#include "control/engine/token.h"
#include "control/engine/users.h"
#include "control/link.h"
#include "control/registry/registry.h"

/* `publisher` of a session that a grant opened: the grant's number under this mark. */
#define PUBLISHER_GRANT (UINT64_C(1) << 63)

struct session {
	struct session *next;
	uint64_t id, ref, publisher, state_epoch, meter;
	uint64_t absent_ns; /* not attached: how long it is waited for */
	uint32_t uid;
	bool of_user; /* of a grant for one user */
	uint8_t user[FAN_HANDLE_LEN];
	bool attached;
	bool returned; /* it was back once, in this run */
};

struct sessions {
	struct engine *engine;
	struct session *first;
	struct meters meters;
	uint64_t started_ns;
};

struct credential { /* what a name and secret, or a grant, have proved */
	uint64_t publisher;
	char user[FAN_NAME_MAX + 1]; /* "": any */
};

static struct session *find(const struct sessions *all, uint64_t id)
{
	struct session *s = all->first;

	while (s && s->id != id)
		s = s->next;
	return s;
}

static const struct fan_session *record_of(const struct sessions *all, uint64_t id)
{
	return fan_table_session(registry_table(all->engine->registry), id);
}

static void refuse(struct sessions *all, uint64_t ref, enum message_error error, const char *reason)
{
	struct message answer = {.type = MESSAGE_REFUSE, .ref = ref, .error = error};

	snprintf(answer.reason, sizeof(answer.reason), "%s", reason);
	link_to_agent(all->engine->link, &answer);
}

/* Takes it out; tells the agent where it does not know yet. */
static void end(struct sessions *all, struct session *session, enum message_end why,
		const char *reason)
{
	struct message ended = {
		.type = MESSAGE_SESSION_ENDED, .ref = session->ref, .id = session->id, .end = why};
	struct session **link = &all->first;
	int err = registry_session_close(all->engine->registry, session->id);

	if (err)
		fan_log(FAN_LOG_WARNING, "session", "a session was not in the table: %s",
			strerror(-err));
	snprintf(ended.reason, sizeof(ended.reason), "%s", reason);
	link_to_agent(all->engine->link, &ended);
	while (*link != session)
		link = &(*link)->next;
	*link = session->next;
	meters_close(&all->meters, session->meter);
	free(session);
}

/* A grant for one user is his: it ends with his revocation, as his tokens do. */
static bool is_revoked(const struct sessions *all, const struct token_claims *claims)
{
	uint8_t handle[FAN_HANDLE_LEN];

	if (!claims->user_len)
		return false;
	fan_handle(handle, claims->user, claims->user_len);
	return claims->generation != users_generation(all->engine->users, handle);
}

static enum message_error check_grant(const struct sessions *all, const char *text, bool attach,
				      struct moment now, struct credential *credential,
				      char why[MESSAGE_REASON_MAX])
{
	struct token_claims claims;
	enum message_error error = token_verify(&claims, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH,
						text, now.unix_s, all->engine->keys.token, why);

	/* a grant is short-lived, the session it opened is not: who comes back may show the old one
	 */
	if (error && !(attach && error == MESSAGE_ERROR_TOKEN_EXPIRED))
		return error;
	if (is_revoked(all, &claims)) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "the user was revoked after this grant was made; ask for a fresh one");
		return MESSAGE_ERROR_TOKEN_INVALID;
	}
	credential->publisher = PUBLISHER_GRANT | claims.number;
	memcpy(credential->user, claims.user, sizeof(credential->user));
	return MESSAGE_ERROR_NONE;
}

static enum message_error check_credential(const struct sessions *all,
					   const struct message *message, struct moment now,
					   struct credential *credential,
					   char why[MESSAGE_REASON_MAX])
{
	const struct publisher *publisher;

	if (message->u.session_open.token[0])
		return check_grant(all, message->u.session_open.token,
				   message->type == MESSAGE_SESSION_ATTACH, now, credential, why);
	publisher = publishers_check(all->engine->publishers, message->u.session_open.name,
				     message->u.session_open.secret);
	if (!publisher) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "unknown publisher or wrong secret; an administrator adds one with "
			 "fanwirectl publisher add");
		return MESSAGE_ERROR_CREDENTIAL;
	}
	credential->publisher = publisher->id;
	snprintf(credential->user, sizeof(credential->user), "%s", publisher->user);
	return MESSAGE_ERROR_NONE;
}

static bool is_of_user(const struct session *session, const uint8_t user[FAN_HANDLE_LEN])
{
	return session->of_user && memcmp(session->user, user, FAN_HANDLE_LEN) == 0;
}

/* Whose sessions count together: a credential's, a grant's, all of a user's one-user grants. */
static void set_owner(struct session *session, uint64_t publisher, bool one_user,
		      const uint8_t user[FAN_HANDLE_LEN])
{
	session->publisher = publisher;
	session->of_user = one_user && (publisher & PUBLISHER_GRANT);
	if (session->of_user)
		memcpy(session->user, user, FAN_HANDLE_LEN);
}

static struct meter_owner owner_of(const struct session *session)
{
	struct meter_owner owner = {.publisher = session->of_user ? 0 : session->publisher};

	if (session->of_user)
		memcpy(owner.user, session->user, FAN_HANDLE_LEN);
	return owner;
}

static bool has_room(const struct sessions *all, const struct session *wanted,
		     char why[MESSAGE_REASON_MAX])
{
	uint32_t max = all->engine->config->max_sessions_per_publisher, cnt = 0;

	for (const struct session *s = all->first; s; s = s->next)
		cnt += wanted->of_user ? is_of_user(s, wanted->user)
				       : s->publisher == wanted->publisher;
	if (cnt < max)
		return true;
	snprintf(why, MESSAGE_REASON_MAX,
		 "%u sessions of this publisher are open, which is the limit "
		 "(max_sessions_per_publisher); close some, or publish through fewer",
		 cnt);
	return false;
}

static int open_record(struct sessions *all, const struct message *message,
		       const struct credential *credential, uint8_t key[FAN_KEY_LEN],
		       struct session *session, char why[MESSAGE_REASON_MAX])
{
	const struct meter_owner owner = owner_of(session);
	const struct message_address *address = &message->u.session_open.address;
	struct fan_session spec = {.port = address->port,
				   .family = address->family,
				   .scope = FAN_SCOPE_ANY,
				   .publisher = credential->publisher,
				   .budget = all->engine->config->publisher_bytes_per_second};
	int err = nexthops_get(all->engine->nexthops, address, &spec.nexthop, why);

	if (err)
		return err;
	spec.state_epoch = registry_state(all->engine->registry)->header.creation_epoch;
	memcpy(spec.address, address->bytes, sizeof(spec.address));
	if (credential->user[0]) {
		spec.scope = FAN_SCOPE_ONE;
		fan_handle(spec.user, credential->user, strlen(credential->user));
	}
	randombytes_buf(key, FAN_KEY_LEN);
	memcpy(spec.key, key, FAN_KEY_LEN);
	spec.meter = session->meter = meters_open(&all->meters, &owner);
	err = registry_session_open(all->engine->registry, &spec, &session->id);
	if (err) {
		meters_close(&all->meters, session->meter);
		snprintf(why, MESSAGE_REASON_MAX, "%.250s", registry_why(all->engine->registry));
	}
	sodium_memzero(spec.key, sizeof(spec.key));
	return err;
}

static void grant(struct sessions *all, const struct session *session,
		  const struct credential *credential, enum message_type type, const uint8_t *key)
{
	struct message answer = {.type = type, .ref = session->ref, .id = session->id};

	if (key)
		memcpy(answer.u.session.key, key, FAN_KEY_LEN);
	answer.u.session.one_user = credential->user[0] != '\0';
	memcpy(answer.u.session.user, credential->user, sizeof(credential->user));
	link_to_agent(all->engine->link, &answer);
	sodium_memzero(answer.u.session.key, FAN_KEY_LEN);
}

static void on_open(struct sessions *all, const struct message *message, struct moment now)
{
	char why[MESSAGE_REASON_MAX] = "";
	struct credential credential;
	uint8_t key[FAN_KEY_LEN], handle[FAN_HANDLE_LEN] = {0};
	struct session *session;
	enum message_error error = check_credential(all, message, now, &credential, why);
	int err;

	if (error) {
		refuse(all, message->ref, error, why);
		return;
	}
	if (!registry_state(all->engine->registry) ||
	    !registry_dataplane_alive(all->engine->registry)) {
		refuse(all, message->ref, MESSAGE_ERROR_NO_DATAPLANE,
		       "the dataplane is not running; start it: ./dev up, or "
		       "fanwire-dataplane --config FILE");
		return;
	}
	session = calloc(1, sizeof(*session));
	if (!session) {
		refuse(all, message->ref, MESSAGE_ERROR_INTERNAL, "out of memory");
		return;
	}
	if (credential.user[0])
		fan_handle(handle, credential.user, strlen(credential.user));
	set_owner(session, credential.publisher, credential.user[0] != '\0', handle);
	if (!has_room(all, session, why)) {
		refuse(all, message->ref, MESSAGE_ERROR_LIMIT_USER, why);
		free(session);
		return;
	}
	err = open_record(all, message, &credential, key, session, why);
	if (err) {
		refuse(all, message->ref,
		       err == -ENOSPC ? MESSAGE_ERROR_LIMIT_OVERALL : MESSAGE_ERROR_INTERNAL, why);
		free(session);
		return;
	}
	session->ref = message->ref;
	session->state_epoch = registry_state(all->engine->registry)->header.creation_epoch;
	session->uid = message->u.session_open.uid;
	session->attached = true;
	session->next = all->first;
	all->first = session;
	grant(all, session, &credential, MESSAGE_SESSION_GRANT, key);
	sodium_memzero(key, sizeof(key));
}

static void on_attach(struct sessions *all, const struct message *message, struct moment now)
{
	const struct message_address *address = &message->u.session_open.address;
	struct session *session = find(all, message->id);
	const struct fan_session *record = session ? record_of(all, session->id) : NULL;
	char why[MESSAGE_REASON_MAX] = "";
	struct credential credential;
	enum message_error error = check_credential(all, message, now, &credential, why);

	if (error) {
		refuse(all, message->ref, error, why);
		return;
	}
	if (!record || session->publisher != credential.publisher ||
	    record->port != address->port ||
	    memcmp(record->address, address->bytes, sizeof(record->address)) != 0) {
		refuse(all, message->ref, MESSAGE_ERROR_CONNECTION_UNKNOWN,
		       "there is no such session of this publisher at this socket; open a new one");
		return;
	}
	if (session->attached) {
		refuse(all, message->ref, MESSAGE_ERROR_BUSY,
		       "this session is attached already; close the other connection first");
		return;
	}
	session->ref = message->ref;
	session->uid = message->u.session_open.uid;
	session->attached = true;
	if (!session->returned)
		all->engine->returned_ns = now.mono_ns;
	session->returned = true;
	grant(all, session, &credential, MESSAGE_SESSION_ATTACHED, NULL);
}

static uint64_t reattach_ns(const struct sessions *all)
{
	return all->engine->config->reattach_s * ENGINE_NS_PER_S;
}

/* Its client left while it came back: as before, and with the time of one that is to come back. */
static void on_detach(struct sessions *all, const struct message *message, struct moment now)
{
	struct session *session = find(all, message->id);

	if (!session || !session->attached || session->ref != message->ref)
		return;
	session->attached = false;
	session->absent_ns = now.mono_ns + reattach_ns(all);
}

static void on_end(struct sessions *all, const struct message *message)
{
	struct session *session = find(all, message->id);

	if (session && session->attached && session->ref == message->ref)
		end(all, session, MESSAGE_END_CLOSED, "closed by the publisher");
}

void sessions_on_message(struct sessions *all, const struct message *message, struct moment now)
{
	switch (message->type) {
	case MESSAGE_SESSION_OPEN:
		on_open(all, message, now);
		return;
	case MESSAGE_SESSION_ATTACH:
		on_attach(all, message, now);
		return;
	case MESSAGE_SESSION_DETACH:
		on_detach(all, message, now);
		return;
	case MESSAGE_SESSION_END:
		on_end(all, message);
		return;
	default:
		fan_log(FAN_LOG_WARNING, "session", "the agent sent message %d: ignored",
			message->type);
	}
}

void sessions_tick(struct sessions *all, struct moment now)
{
	const struct fan_state *state = registry_state(all->engine->registry);

	for (struct session *session = all->first, *next; session; session = next) {
		next = session->next;
		if (state && state->header.creation_epoch != session->state_epoch)
			end(all, session, MESSAGE_END_ENGINE,
			    "the dataplane began anew and knows no earlier session; open a new "
			    "one");
		else if (!session->attached &&
			 engine_is_absent(all->engine, session->absent_ns, now))
			end(all, session, MESSAGE_END_ABSENT,
			    "the publisher did not come back after fanwired's restart");
	}
}

void sessions_extend(struct sessions *all, uint64_t gap_ns)
{
	for (struct session *session = all->first; session; session = session->next)
		session->absent_ns += gap_ns;
}

unsigned sessions_end_publisher(struct sessions *all, uint64_t publisher)
{
	unsigned ended = 0;

	for (struct session *session = all->first, *next; session; session = next) {
		next = session->next;
		if (session->publisher != publisher)
			continue;
		end(all, session, MESSAGE_END_REVOKED, "the publisher was removed");
		ended++;
	}
	return ended;
}

unsigned sessions_end_user(struct sessions *all, const uint8_t user[FAN_HANDLE_LEN])
{
	unsigned ended = 0;

	for (struct session *session = all->first, *next; session; session = next) {
		next = session->next;
		if (!is_of_user(session, user))
			continue;
		end(all, session, MESSAGE_END_REVOKED, "the user was revoked");
		ended++;
	}
	return ended;
}

unsigned sessions_count(const struct sessions *all, uint64_t publisher)
{
	unsigned cnt = 0;

	for (const struct session *session = all->first; session; session = session->next)
		cnt += !publisher || session->publisher == publisher;
	return cnt;
}

uint64_t sessions_over_budget(const struct sessions *all, uint64_t publisher)
{
	const struct fan_state *state = registry_state(all->engine->registry);
	const struct fan_session_state *states;
	uint64_t cnt = 0;

	if (!state)
		return 0;
	states = (const void *)((const char *)state + state->sessions_off);
	for (const struct session *session = all->first; session; session = session->next) {
		const struct fan_session_state *own =
			&states[session->id & (state->session_cnt - 1)];

		if (session->publisher == publisher && own->session == session->id)
			cnt += __atomic_load_n(&own->over_budget, __ATOMIC_RELAXED);
	}
	return cnt;
}

/* A session of the last run; one whose credential was removed in between does not come back. */
static int take_up(struct sessions *all, const struct fan_session *record)
{
	const struct publisher *p = publishers_first(all->engine->publishers);
	struct meter_owner owner;
	struct session *session;

	while (p && p->id != record->publisher)
		p = p->next;
	if (!p && !(record->publisher & PUBLISHER_GRANT))
		return registry_session_close(all->engine->registry, record->id);
	session = calloc(1, sizeof(*session));
	if (!session)
		return -ENOMEM;
	session->id = record->id;
	set_owner(session, record->publisher, record->scope == FAN_SCOPE_ONE, record->user);
	session->state_epoch = record->state_epoch;
	owner = owner_of(session);
	session->meter = meters_adopt(&all->meters, &owner, record->meter);
	session->absent_ns = all->started_ns + reattach_ns(all);
	session->next = all->first;
	all->first = session;
	return registry_session_budget(all->engine->registry, session->id, session->meter,
				       all->engine->config->publisher_bytes_per_second);
}

int sessions_open(struct sessions **out, struct engine *engine, struct moment now)
{
	struct sessions *all = calloc(1, sizeof(*all));
	const struct fan_session *record;
	uint32_t cursor = 0;
	int err = 0;

	if (!all)
		return -ENOMEM;
	all->engine = engine;
	all->started_ns = now.mono_ns;
	err = meters_init(&all->meters, registry_table(engine->registry)->session_mask + 1);
	while (!err && (record = registry_session_next(engine->registry, &cursor)))
		err = take_up(all, record);
	if (err) {
		sessions_close(all);
		return err;
	}
	*out = all;
	return 0;
}

void sessions_close(struct sessions *all)
{
	if (!all)
		return;
	for (struct session *next; all->first; all->first = next) {
		next = all->first->next;
		free(all->first);
	}
	meters_fini(&all->meters);
	free(all);
}
