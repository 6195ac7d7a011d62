/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dataplane's counters: one list gives the enum, the names in JSON and metrics, and the help
 * text. A drop has a reason; a packet that goes nowhere without a counter is a bug.
 */
#pragma once

#define FAN_COUNTERS(X)                                                                      \
	X(rx_packets, "packets received from the port")                                      \
	X(rx_bytes, "bytes received from the port")                                          \
	X(tx_packets, "packets given to the port")                                           \
	X(tx_bytes, "bytes given to the port")                                               \
	X(publishes_accepted, "publishes accepted, in their publisher's order")              \
	X(publishes_repeated, "retransmitted publishes answered with their original result") \
	X(events_sequenced, "events that were given a sequence")                             \
	X(events_no_group, "publishes for a user or channel without a group")                \
	X(events_logged, "events written to the event log")                                  \
	X(log_bytes, "bytes of the event log that were written")                             \
	X(log_heavy, "events logged beside the others': their user used up his share")       \
	X(seal_keys_derived, "keys of streams derived, since they were not kept")            \
	X(seal_schedules_made, "key schedules of streams made, since they were not kept")    \
	X(replay_requests, "requests for replay that were accepted")                         \
	X(replay_sent, "events sent again to who had asked")                                 \
	X(replay_lost, "events asked for that the log does not have (any more)")             \
	X(replay_torn, "torn log records met: a replay ends at such")                        \
	X(statuses_sent, "statuses given to the port: a stream's end")                       \
	X(statuses_skipped, "statuses of groups that came while a queue was full")           \
	X(drop_replay_source, "request for replay from elsewhere than its connection")       \
	X(drop_replay_tag, "request for replay with a wrong tag")                            \
	X(drop_replay_budget, "requests for replay in one burst over what is checked")       \
	X(drop_replay_full, "request for replay while too many wait")                        \
	X(drop_replay_repeated, "request for replay that came again, or late")               \
	X(drop_replay_unknown, "request for replay of no group, or not of its connection")   \
	X(copies_attempted, "connections of the events' groups")                             \
	X(copies_sent, "copies given to the port")                                           \
	X(acks_sent, "acknowledgements given to the port")                                   \
	X(challenges_sent, "challenges given to the port")                                   \
	X(echoes_accepted, "challenges answered rightly")                                    \
	X(handovers, "publishes handed to the worker that owns their group or session")      \
	X(drop_not_ours, "neither UDP to our address and port nor anything we answer")       \
	X(drop_ip_header, "bad IP or UDP header, or an IP fragment")                         \
	X(drop_short, "shorter than the header says")                                        \
	X(drop_long, "longer than the header says")                                          \
	X(drop_version, "another version of the wire format")                                \
	X(drop_type, "unknown type")                                                         \
	X(drop_flags, "unknown flags")                                                       \
	X(drop_length, "a length over its limit")                                            \
	X(drop_session_unknown, "no such publisher session")                                 \
	X(drop_session_closed, "publisher session closed while its publish was worked on")   \
	X(drop_session_address, "a publisher session used from another address")             \
	X(drop_publish_tag, "publish not sealed under its session key")                      \
	X(drop_publish_gap, "publish ahead of its publisher's order")                        \
	X(drop_publish_pending, "retransmission of a publish that is being worked on")       \
	X(drop_publish_scope, "one-user publisher named another user")                       \
	X(drop_publish_size, "payload over the site's limit")                                \
	X(drop_publish_channel, "channel of an unknown kind")                                \
	X(drop_unattended, "fanwired has been away longer than max_unattended")              \
	X(drop_endpoint_foreign, "endpoint's user is not the group's: never sent")           \
	X(drop_endpoint_range, "registry reference out of range: never followed")            \
	X(drop_nexthop, "next hop not resolved")                                             \
	X(drop_mtu, "copy larger than the next hop's MTU")                                   \
	X(drop_no_mbuf, "packet buffers exhausted")                                          \
	X(drop_tx_full, "transmit queue full")                                               \
	X(drop_session_share, "publish of a session that sends far more than its share")     \
	X(drop_session_budget, "publish of a publisher that has spent its budget of copies") \
	X(drop_group_busy, "publish for a group whose fan-outs have a queue that is full")   \
	X(drop_handover_full, "ring to another worker full")                                 \
	X(drop_echo_forged, "echo with a wrong proof or from another address")               \
	X(drop_report_full, "report ring to fanwired full")                                  \
	X(drop_request_late, "challenge asked for too long ago: never sent")

enum fan_counter {
#define X(name, help) FAN_COUNTER_##name,
	FAN_COUNTERS (X)
#undef X
		FAN_COUNTER_CNT
};

#define FAN_COUNTER_CNT_MAX 128 /* slots in the state region; room to add without another ABI */
_Static_assert(FAN_COUNTER_CNT <= FAN_COUNTER_CNT_MAX, "counters outgrew their slots");

/* Name and help text of a counter; idx < FAN_COUNTER_CNT. */
const char *fan_counter_name(unsigned idx);
const char *fan_counter_help(unsigned idx);
