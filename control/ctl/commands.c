/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/ctl/command.h"

#define END       \
	{         \
		0 \
	}

static const struct option token_options[] = {
	{"--ttl", "SECONDS", "how long the token is valid (default: times.token_ttl)"}, END};
static const struct option publisher_add_options[] = {
	{"--user", "USER", "the publisher may name this user only"}, END};
static const struct option publish_options[] = {
	{"--channel", "NAME|@ID", "a thread, or one connection (default: all connections)"},
	{"--kind", "N", "the application's own number, 0 to 65535 (default 0)"},
	{"--timeout", "SECONDS", "how long to wait for the acknowledgement (default 5)"},
	END};
static const struct option tail_options[] = {
	{"--token", "TOKEN|@FILE", "the user's token, or a file that has it (required)"},
	{"--channel", "NAME|@ID", "join a thread too, or be connection ID; may be repeated"},
	{"--since", "[CHANNEL=]E:N[:U]",
	 "go on after event N of epoch E (of thread CHANNEL, or of @ID), as tail says it at its "
	 "end; may be repeated"},
	{"--policy", "NAME",
	 "about events that were missed: catch-up (default) waits for them, latest does without, "
	 "disconnect leaves"},
	{"--count", "N", "leave after N events (exit 0)"},
	{"--timeout", "SECONDS", "leave after so long (exit 2 if --count was not reached)"},
	END};
static const struct option import_options[] = {
	{"--batch", "N", "lines a request, each request all or none (default 8192, at most 16384)"},
	{"--patience", "SECONDS", "how long to wait for fanwired to be there again (default 60)"},
	{"--quiet", NULL, "no progress on standard error"},
	END};
static const struct option vouched_remove_options[] = {
	{"--id", "ID", "this connection"},
	{"--user", "USER", "all of this user"},
	{"--batch", "N", "all that an import's batch added; audit shows its number"},
	{"--row", "N", "the one of this row, also where the row is damaged; doctor tells"},
	END};
static const struct option explain_options[] = {
	{"--channel", "NAME|@ID", "a thread, or one connection (default: all connections)"}, END};
static const struct option audit_options[] = {
	{"--limit", "N", "the latest N records (default 100)"},
	{"--event", "NAME", "only these, e.g. foreign_drop, revoke, start"},
	{"--follow", NULL, "go on printing records as they come"},
	END};
static const struct option top_options[] = {
	{"--interval", "SECONDS", "between two views (default 1)"},
	{"--count", "N", "leave after N views"},
	{"--limit", "N", "users to show (default 10)"},
	END};

const struct option global_options[] = {
	{"-j", NULL, "one JSON object a line, for programs"},
	{"--json", NULL, "the same"},
	{"--socket", "PATH",
	 "control.sock (default: $FANWIRE_CONTROL_SOCKET, else "
	 "/run/fanwire/control.sock)"},
	{"--client-socket", "PATH",
	 "client.sock (default: $FANWIRE_CLIENT_SOCKET, else beside "
	 "control.sock)"},
	{"-h", NULL, "this help, or a command's"},
	{"--help", NULL, "the same"},
	{"--version", NULL, "the version"},
	END};

const struct command commands[] = {
	{"status", "", 0, 0, "What runs, who is connected, and which walls hold.", NULL,
	 run_status},
	{"token", "USER", 1, 1, "Make a token with which USER may subscribe.", token_options,
	 run_token},
	{"publisher add", "NAME", 1, 1, "Add a publisher; its secret is shown this once.",
	 publisher_add_options, run_publisher_add},
	{"publisher list", "", 0, 0, "List the publishers.", NULL, run_publisher_list},
	{"publisher remove", "NAME", 1, 1, "Remove a publisher and end its sessions.", NULL,
	 run_publisher_remove},
	{"publish", "USER [PAYLOAD|-]", 1, 2,
	 "Send one event to USER. With - the payload is read from standard input.", publish_options,
	 run_publish},
	{"tail", "USER", 1, 1,
	 "Subscribe as USER and print the events. Once listening it says so on standard error.",
	 tail_options, run_tail},
	{"connections", "[USER]", 0, 1, "List the connections, of one user or of all.", NULL,
	 run_connections},
	{"disconnect", "ID", 1, 1, "End one connection.", NULL, run_disconnect},
	{"import", "FILE|-", 1, 1,
	 "Vouch for connections: a line of JSON each, {\"user\":…,\"address\":…,\"port\":…} and "
	 "\"id\" where wanted. Importing a file again changes nothing.",
	 import_options, run_import},
	{"vouched list", "[USER]", 0, 1, "List vouched connections, of one user or of all.", NULL,
	 run_vouched_list},
	{"vouched remove", "", 0, 0, "Remove vouched connections, by one of the options.",
	 vouched_remove_options, run_vouched_remove},
	{"revoke", "USER", 1, 1,
	 "End every connection and token of USER. What is in flight to them is dropped.", NULL,
	 run_revoke},
	{"keys show", "", 0, 0, "Show the key generation in force and a rotation under way.", NULL,
	 run_keys_show},
	{"keys rotate", "", 0, 0,
	 "Put new keys in force. Nothing is lost by it; the old ones end times.key_overlap later.",
	 NULL, run_keys_rotate},
	{"explain", "USER", 1, 1,
	 "Show who would receive an event for USER, who would not, and why. Sends nothing.",
	 explain_options, run_explain},
	{"audit", "", 0, 0, "Print the audit records, newest last.", audit_options, run_audit},
	{"top", "", 0, 0, "A live view of rates, drops by reason and the busiest users.",
	 top_options, run_top},
	{"selftest", "", 0, 0,
	 "Prove that two canary users get their own events and that forged ones are blocked.", NULL,
	 run_selftest},
	{"doctor", "", 0, 0, "Look for what keeps Fanwire from running well, and say what to do.",
	 NULL, run_doctor},
	END};
