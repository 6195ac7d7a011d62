/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publisher sessions: who may publish, in which order, and with what result. The session's owner
 * alone touches its state and its key schedule.
 */
#pragma once

#include "dataplane/worker.h"

/* The event is in the log: whatever dies now, its publisher is told where it stands. */
void session_logged(struct worker *w, const struct packet *packet);

/*
 * The open session of an id, of this dataplane's state region; NULL otherwise. What it points to
 * stays as it is until the burst's end, but for its id, which becomes 0 the moment it is closed: so
 * the functions below are told the id that was asked for.
 */
const struct fan_session *session_get(const struct worker *w, uint64_t id);
/* The session's state, begun anew where the slot was another session's. */
struct fan_session_state *session_state(const struct worker *w, uint64_t id);
/* Its key schedule, expanded once a session. */
const struct gcm_key_data *session_key(struct worker *w, const struct fan_session *session,
				       uint64_t id);
