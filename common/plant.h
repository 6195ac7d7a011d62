/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */
/*
 * Planted bugs: each switch takes one safeguard away, at the place where it stands, so that a named
 * test can be seen to fail without it (tests/model/plants.json, run by tests/model/plants.py).
 *
 * Only a build with -Dplant=true knows them; there the environment variable FANWIRE_PLANT names the
 * one that is on, or several with commas between them, and a name that is none ends the program. In
 * every other build fan_planted() is the constant false and nothing of it is left
 * (tests/model/no_plants.py). In BPF programs the loader sets fan_plant_present.
 */
#ifndef FANWIRE_COMMON_PLANT_H
#define FANWIRE_COMMON_PLANT_H

#include <stdbool.h>

/* What is wrong where one of them is on. Those of BPF programs too. */
enum fan_plant {
#define FAN_PLANTS(PLANT)                                                                          \
	PLANT(KEY_NOT_COMPARED)		    /* a lookup believes the fingerprint */                \
	PLANT(ENDPOINT_NOT_COMPARED)	    /* a copy goes to an endpoint of whatever user */      \
	PLANT(EARLY_RECLAIM)		    /* what is unlinked is reused at once */               \
	PLANT(FILTER_PASSES_FOREIGN)	    /* scope_filter compares no user */                    \
	PLANT(FILTER_PASSES_OLD_GENERATION) /* scope_filter compares no user generation */         \
	PLANT(FILTER_KEEPS_OLD_KEYS) /* scope_filter takes any key generation for the previous one \
				      */                                                           \
	PLANT(FILTER_PASSES_WRONG_TAG)	    /* scope_filter believes any tag */                    \
	PLANT(SEAL_EPOCH_NOT_COMPARED)	    /* the key of an earlier stream of the group seals */  \
	PLANT(SEAL_GENERATION_NOT_COMPARED) /* the key of an earlier key generation seals */       \
	PLANT(SEAL_WITHOUT_HANDLE)	    /* whose event it is, is no additional data */         \
	PLANT(SEAL_NONCE_CONSTANT)	    /* every event of a stream has one nonce */            \
	PLANT(TAG_KEY_STALE)		    /* the group's tag key, of whatever generation */      \
	PLANT(SWITCH_BEFORE_FILTERS)	    /* a rotation tells nobody before it switches */       \
	PLANT(OLD_KEYS_STAY)	 /* a rotation retires nothing: both stay in the filters */        \
	PLANT(TAILS_AFTER_TABLE) /* tails are read once the connection is in the table */          \
	PLANT(SCOPE_OUTLIVES_REVOCATION) /* the scope of an ended connection stays */              \
	PLANT(BLOCK_BEFORE_FILL)	 /* a block is published before it is filled */            \
	PLANT(COUNT_BEFORE_POSITION)	 /* a group's count is stored before its position */       \
	PLANT(GENERATION_NOT_COMPARED)	 /* a deletion believes the connection's id alone */       \
	PLANT(ENDPOINT_STAYS)		 /* an ended connection keeps its endpoint in the table */ \
	PLANT(REVOKE_KEEPS_GROUPS)	 /* a revoked user's groups stay in the table */           \
	PLANT(INTENT_NOT_WRITTEN)	 /* a change in progress is not written down */            \
	PLANT(PINS_FORGOTTEN)  /* the quiescence word is advanced while a fan-out holds a block */ \
	PLANT(LEASE_IGNORED)   /* an active connection never ends by its lease */                  \
	PLANT(PORT_NOT_RESTED) /* a port is another user's without its quarantine */               \
	PLANT(BIND_BEFORE_FILTER)	/* a socket is bound before its filter is attached */      \
	PLANT(FILTER_NOT_LOCKED)	/* the filter is attached and not locked */                \
	PLANT(GUARD_NOT_ATTACHED)	/* port_guard is loaded and attached nowhere */            \
	PLANT(USER_GENERATION_KEPT)	/* a revocation leaves the user's generation */            \
	PLANT(ECHO_NOT_CHECKED)		/* an echo activates without the right proof */            \
	PLANT(PUBLISH_SCOPE_IGNORED)	/* a one-user grant publishes to anybody */                \
	PLANT(PUBLISHER_BUDGET_IGNORED) /* a publisher's copies are charged to nobody */           \
	PLANT(FOREIGN_ID_TAKEN)		/* a connection id may be asked for by anybody */          \
	PLANT(TOKEN_NOT_VERIFIED)	/* any token is believed, whoever signed it */             \
	PLANT(TOKEN_EXPIRY_IGNORED)	/* a token holds for ever */                               \
	PLANT(TOKEN_AUDIENCE_IGNORED)	/* a token made for another use will do */                 \
	PLANT(TOKEN_GENERATION_IGNORED) /* a token outlives its user's revocation */               \
	PLANT(CHALLENGE_SALT_IGNORED)	/* an echo of an earlier challenge activates */            \
	PLANT(DEATH_IGNORED)		/* a subscriber that has gone stays registered */          \
	PLANT(PUBLISH_TAG_IGNORED)	/* a publish is believed that its key did not seal */      \
	PLANT(RECORD_NOT_COMPARED)    /* a replay believes a position, whosever record is there */ \
	PLANT(REPLAY_TAG_IGNORED)     /* anybody's request for replay is served */                 \
	PLANT(REPLAY_COUNTER_IGNORED) /* a captured request is served again */                     \
	PLANT(REPLAY_BUDGET_IGNORED)  /* a connection may have as much replayed as it likes */     \
	PLANT(REPLAY_SOURCE_IGNORED)  /* a request for replay counts wherever it is from */        \
	PLANT(REPLAY_METER_KEPT)      /* a new registration has what the last one spent */         \
	PLANT(REPLAY_UNFAIR)	      /* who asks first keeps all places that replay has */        \
	PLANT(LOST_OF_ANOTHER_EPOCH)  /* what an ended stream lost is told of the next one */      \
	PLANT(LOST_SILENT)	      /* what the log has no more is not told */                   \
	PLANT(LOG_SHARE_IGNORED)      /* one user's flood may take the whole log */                \
	PLANT(EVENT_NOT_LOGGED)	      /* an event is delivered that no log has */                  \
	PLANT(OLD_EPOCH_ENTERED)      /* the library takes any other epoch for a newer one */      \
	PLANT(SEAL_SWITCH_IGNORED) /* what was logged in the clear is replayed where all is sealed \
				    */

#define PLANT_NAME(name) PLANT_##name,
	FAN_PLANTS(PLANT_NAME) PLANT_CNT
#undef PLANT_NAME
};

#ifndef FAN_PLANT
static inline bool fan_planted(enum fan_plant which)
{
	(void)which;
	return false;
}
#elif defined(__bpf__)
/* One program a file; the loader sets it. */
const volatile unsigned long long fan_plant_present = 0;
#define fan_planted(which) (fan_plant_present >> (which)&1)
#else
_Static_assert(PLANT_CNT < 64, "a bit each, and one that says that they were read");

/* Any thread. Those that FANWIRE_PLANT names: bit n is the n-th of the list. */
unsigned long long fan_plant_present(void);

static inline bool fan_planted(enum fan_plant which)
{
	return fan_plant_present() >> which & 1;
}
#endif

#endif
