/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publisher sessions: who may publish, in which order, and with what result. The session's owner
 * alone touches its state and its key schedule.
 */
#pragma once

#include "dataplane/worker.h"

/* The open session of an id, of this dataplane's state region; NULL otherwise. */
const struct fan_session *session_get(const struct worker *w, uint64_t id);
/* Its state, begun anew where the slot was another session's. */
struct fan_session_state *session_state(const struct worker *w, const struct fan_session *session);
/* Its key schedule, expanded once a session. */
const struct gcm_key_data *session_key(struct worker *w, const struct fan_session *session);
