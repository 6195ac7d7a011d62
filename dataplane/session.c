/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/session.h"

#include <rte_prefetch.h>

#include "common/plant.h"
#include "dataplane/admission.h"
#include "dataplane/flows.h"
#include "dataplane/handover.h"
#include "dataplane/open.h"

/* ---- session, state, key ---- */

const struct fan_session *session_get(const struct worker *w, uint64_t id)
{
	const struct fan_session *session = fan_table_session(&w->plane->table, id);

	/* Opened against another state region: its order and nonces are not known here. */
	if (session && session->state_epoch != w->plane->state->header.creation_epoch)
		return NULL;
	return session;
}

static uint32_t session_slot(const struct worker *w, uint64_t id)
{
	return (uint32_t)id & w->plane->table.session_mask;
}

struct fan_session_state *session_state(const struct worker *w, uint64_t id)
{
	struct fan_session_state *state = &w->plane->session_states[session_slot(w, id)];

	if (unlikely(state->session != id)) {
		/* Whose it is comes last: dying half way through leaves nobody's state. */
		__atomic_store_n(&state->session, 0, __ATOMIC_RELEASE);
		memset(state, 0, sizeof(*state));
		__atomic_store_n(&state->session, id, __ATOMIC_RELEASE);
	}
	return state;
}

const struct gcm_key_data *session_key(struct worker *w, const struct fan_session *session,
				       uint64_t id)
{
	struct key_schedule *schedule = &w->plane->key_schedules[session_slot(w, id)];

	if (unlikely(schedule->session != id)) {
		IMB_AES256_GCM_PRE(w->crypto, session->key, &schedule->gcm);
		schedule->session = id;
	}
	return &schedule->gcm;
}

/* ---- results ---- */

static struct fan_result_record *record_at(struct fan_session_state *state, uint64_t sequence)
{
	return &state->results[sequence & (FAN_RESULTS_KEPT - 1)];
}

/* Where the epoch of the stream goes later on, which is random: the two are never alike. */
static uint64_t run_mark(const struct worker *w)
{
	return w->plane->state->run;
}

/* Work begins: the record says so before the sequence counts as accepted. */
static void record_begin(struct worker *w, struct fan_session_state *state, uint64_t sequence)
{
	struct fan_result_record *record = record_at(state, sequence);

	__atomic_store_n(&record->phase, FAN_RESULT_PHASE_EMPTY, __ATOMIC_RELEASE);
	record->epoch = run_mark(w);
	record->sequence = 0;
	record->attempted = record->sent = 0;
	record->status = FAN_RESULT_INTERRUPTED;
	record->publisher_sequence_low = (uint32_t)sequence;
	__atomic_store_n(&record->phase, FAN_RESULT_PHASE_PENDING, __ATOMIC_RELEASE);
	__atomic_store_n(&state->accepted, sequence, __ATOMIC_RELEASE);
}

/* Tells the run of a record that is logged; no number of copies sent is as large. */
static uint32_t logged_mark(const struct worker *w)
{
	return ~w->plane->state->run;
}

void session_logged(struct worker *w, const struct packet *packet)
{
	const struct fan_result *result = &packet->result;
	uint64_t id = packet->publish.session;
	struct fan_session_state *state = &w->plane->session_states[session_slot(w, id)];
	struct fan_result_record *record = record_at(state, result->publisher_sequence);

	if (session_owner(w->plane, id) != w->idx || state->session != id ||
	    record->phase != FAN_RESULT_PHASE_PENDING ||
	    record->publisher_sequence_low != (uint32_t)result->publisher_sequence)
		return;
	record->epoch = result->epoch;
	record->sequence = result->sequence;
	record->sent = logged_mark(w);
	__atomic_store_n(&record->phase, FAN_RESULT_PHASE_LOGGED, __ATOMIC_RELEASE);
}

/* Whether a publish is worked on now. `sent` is the mark's until the record is done, and then it is
 * written before the phase: half of either is no mark of this run. */
static bool record_is_open(const struct worker *w, const struct fan_result_record *record)
{
	if (record->phase == FAN_RESULT_PHASE_PENDING)
		return record->epoch == run_mark(w);
	return record->phase == FAN_RESULT_PHASE_LOGGED && record->sent == logged_mark(w);
}

static void record_finish(struct fan_session_state *state, const struct fan_result *result)
{
	struct fan_result_record *record = record_at(state, result->publisher_sequence);

	if ((record->phase != FAN_RESULT_PHASE_PENDING &&
	     record->phase != FAN_RESULT_PHASE_LOGGED) ||
	    record->publisher_sequence_low != (uint32_t)result->publisher_sequence)
		return; /* so late that the slot is another's */
	record->epoch = result->epoch;
	record->sequence = result->sequence;
	record->attempted = result->attempted;
	record->sent = result->sent;
	record->status = result->status;
	__atomic_store_n(&record->phase, FAN_RESULT_PHASE_DONE, __ATOMIC_RELEASE);
}

/* ---- order ---- */

static void answer(struct worker *w, struct rte_mbuf *mbuf, bool answered)
{
	packet_of(mbuf)->answered = answered;
	stage_add(w->done, &w->done_cnt, mbuf);
}

/* A retransmission gets what the original got, and disturbs nothing. */
static void on_repeated(struct worker *w, struct fan_session_state *state, struct rte_mbuf *mbuf)
{
	struct fan_result *result = &packet_of(mbuf)->result;
	uint64_t sequence = result->publisher_sequence;
	const struct fan_result_record *record = record_at(state, sequence);

	if (state->accepted - sequence >= FAN_RESULTS_KEPT ||
	    record->publisher_sequence_low != (uint32_t)sequence ||
	    record->phase == FAN_RESULT_PHASE_EMPTY) {
		result->status = FAN_RESULT_EXPIRED;
	} else if (record_is_open(w, record)) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_publish_pending);
		return;
	} else if (record->phase == FAN_RESULT_PHASE_PENDING) {
		result->status = FAN_RESULT_INTERRUPTED;
	} else if (record->phase == FAN_RESULT_PHASE_LOGGED) { /* by replay, to whom it was not */
		result->epoch = record->epoch;
		result->sequence = record->sequence;
		result->status = FAN_RESULT_OK;
	} else {
		result->epoch = record->epoch;
		result->sequence = record->sequence;
		result->attempted = record->attempted;
		result->sent = record->sent;
		result->status = record->status;
	}
	COUNT(w, publishes_repeated);
	answer(w, mbuf, true);
}

/* May this be done at all? What may not is answered in its order like everything else. */
static uint16_t publish_judge(struct worker *w, const struct fan_session *session,
			      const struct fan_publish *publish)
{
	if (session->scope != FAN_SCOPE_ANY && !fan_planted(PLANT_PUBLISH_SCOPE_IGNORED) &&
	    memcmp(session->user, publish->handle, FAN_HANDLE_LEN) != 0) {
		COUNT(w, drop_publish_scope);
		return FAN_RESULT_SCOPE;
	}
	if (publish->payload_len > w->plane->config.payload_limit) {
		COUNT(w, drop_publish_size);
		return FAN_RESULT_TOO_LARGE;
	}
	if (!fan_channel_ok(publish->channel)) {
		COUNT(w, drop_publish_channel);
		return FAN_RESULT_CHANNEL;
	}
	if (w->unattended) {
		COUNT(w, drop_unattended);
		return FAN_RESULT_UNATTENDED;
	}
	return FAN_RESULT_OK;
}

static void event_add(struct worker *w, struct rte_mbuf *mbuf, const struct fan_group *group)
{
	w->groups[w->event_cnt] = group;
	stage_add(w->events, &w->event_cnt, mbuf);
}

/* What the copies of it come to now. */
static uint64_t cost_of(const struct worker *w, const struct packet *packet,
			const struct fan_group *group)
{
	uint32_t copies = 0;

	if (group)
		fan_group_endpoints(&w->plane->table, group, &copies);
	return (uint64_t)copies * (FAN_DELIVERY_LEN + packet->publish.payload_len);
}

/* Milliseconds for which its publisher's budget has no room for it; 0: it is charged. */
static uint32_t charge(struct worker *w, const struct fan_session *session,
		       const struct packet *packet, const struct fan_group *group)
{
	/* pairs with the release in control/registry: with a budget there is a meter */
	uint64_t rate = __atomic_load_n(&session->budget, __ATOMIC_ACQUIRE);
	uint64_t meter = __atomic_load_n(&session->meter, __ATOMIC_RELAXED), cost;

	if (rate == 0 || fan_planted(PLANT_PUBLISHER_BUDGET_IGNORED))
		return 0;
	cost = cost_of(w, packet, group);
	if (cost == 0)
		return 0;
	return budget_charge(&w->plane->budgets[meter & w->plane->table.session_mask],
			     &w->admission.sessions[session_slot(w, packet->publish.session)].ahead,
			     meter, rate, w->monotonic_ns, cost);
}

/* Not accepted, so it will be sent again; its publisher is told why, and for how long not. */
static void hold_back(struct worker *w, struct fan_session_state *state, struct rte_mbuf *mbuf,
		      uint32_t wait_ms)
{
	packet_of(mbuf)->wait_ms = wait_ms;
	__atomic_store_n(&state->over_budget, state->over_budget + 1, __ATOMIC_RELAXED);
	COUNT(w, drop_session_budget);
	answer(w, mbuf, false);
}

static void on_next(struct worker *w, const struct fan_session *session,
		    struct fan_session_state *state, struct rte_mbuf *mbuf,
		    const struct fan_group *group)
{
	struct packet *packet = packet_of(mbuf);
	unsigned owner = group_owner(w->plane, packet->hash);
	uint32_t wait_ms;

	if (owner != w->idx && !handover_room(w, owner)) { /* not accepted: it will be sent again */
		packet_drop(w, mbuf, FAN_COUNTER_drop_handover_full);
		return;
	}
	if ((unlikely(w->flow_cnt) && flow_is_full(w, packet->hash)) ||
	    (owner != w->idx && handover_group_busy(w, packet->hash))) { /* likewise */
		packet_drop(w, mbuf, FAN_COUNTER_drop_group_busy);
		return;
	}
	packet->result.status = publish_judge(w, session, &packet->publish);
	if (packet->result.status == FAN_RESULT_OK) {
		wait_ms = charge(w, session, packet, group);
		if (unlikely(wait_ms)) {
			hold_back(w, state, mbuf, wait_ms);
			return;
		}
	}
	record_begin(w, state, packet->publish.publisher_sequence);
	COUNT(w, publishes_accepted);
	packet->answered = true;
	if (packet->result.status != FAN_RESULT_OK)
		answer(w, mbuf, true);
	else if (owner == w->idx)
		event_add(w, mbuf, group);
	else
		handover_event(w, owner, mbuf);
}

/* Whose session is it, and does it come from where that one may send from? NULL: dropped. */
static const struct fan_session *session_of(struct worker *w, struct rte_mbuf *mbuf)
{
	const struct packet *packet = packet_of(mbuf);
	const struct fan_session *session = session_get(w, packet->publish.session);

	if (!session) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_session_unknown);
		return NULL;
	}
	if (session->port != packet->source_port ||
	    memcmp(session->address, packet->source, sizeof(packet->source)) != 0) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_session_address);
		return NULL;
	}
	return session;
}

/* Authentic first, then in order: what is not authentic causes no answer of any kind. */
static void open_one(struct worker *w, const struct fan_session *session, struct rte_mbuf *mbuf,
		     const struct fan_group *group)
{
	struct packet *packet = packet_of(mbuf);
	uint64_t sequence = packet->publish.publisher_sequence;
	struct fan_session_state *state;

	if (!publish_open(w->crypto, session_key(w, session, packet->publish.session), packet->wire,
			  packet->publish.payload_len, sequence) &&
	    !fan_planted(PLANT_PUBLISH_TAG_IGNORED)) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_publish_tag);
		return;
	}
	state = session_state(w, packet->publish.session);
	packet->result = (struct fan_result){.publisher_sequence = sequence};
	packet->wait_ms = 0;
	if (sequence == state->accepted + 1) {
		on_next(w, session, state, mbuf, group);
	} else if (sequence <= state->accepted) {
		on_repeated(w, state, mbuf);
	} else { /* tells the publisher from where to send again */
		COUNT(w, drop_publish_gap);
		answer(w, mbuf, false);
	}
}

static void session_prefetch(const struct worker *w, uint32_t slot)
{
	rte_prefetch0(&w->plane->table.sessions[slot]);
	rte_prefetch0(&w->plane->session_states[slot]);
	rte_prefetch0(&w->plane->key_schedules[slot]);
}

/* One that has waited: its session may have ended meanwhile. */
static void open_waiting(struct worker *w, struct rte_mbuf *mbuf)
{
	const struct fan_session *session = session_of(w, mbuf);
	const struct packet *packet = packet_of(mbuf);

	if (session)
		open_one(w, session, mbuf,
			 fan_table_lookup(&w->plane->table, packet->publish.handle,
					  packet->publish.channel, packet->hash));
}

/* Of a session that has been held back and is so no longer: in their order, before what follows. */
static void open_all_waiting(struct worker *w, uint32_t slot)
{
	struct rte_mbuf *mbuf;

	while ((mbuf = admission_take(w, slot)))
		open_waiting(w, mbuf);
}

void session_open_burst(struct worker *w)
{
	struct admission_turn turn = {0};
	const struct fan_session *session;
	struct rte_mbuf *mbuf;
	uint32_t slot;

	for (unsigned i = 0; i < w->publish_cnt; i++)
		session_prefetch(w, session_slot(w, packet_of(w->publishes[i])->publish.session));
	for (unsigned i = 0; i < w->publish_cnt; i++) {
		mbuf = w->publishes[i];
		session = session_of(w, mbuf);
		if (!session)
			continue;
		slot = session_slot(w, session->id);
		if (!admission_admit(w, mbuf, slot))
			continue;
		if (unlikely(w->admission.sessions[slot].waiting))
			open_all_waiting(w, slot);
		open_one(w, session, mbuf, w->named[i]);
	}
	w->publish_cnt = 0;
	turn.left = w->admission.list_cnt;
	while ((mbuf = admission_next(w, &turn)))
		open_waiting(w, mbuf);
}

/* Results of what was worked on here or came back from others are kept before they are told. */
void session_finish_burst(struct worker *w)
{
	for (unsigned i = 0; i < w->done_cnt; i++) {
		const struct packet *packet = packet_of(w->done[i]);
		uint64_t id = packet->publish.session;

		if (packet->answered && session_get(w, id))
			record_finish(session_state(w, id), &packet->result);
	}
}
