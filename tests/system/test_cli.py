# SPDX-License-Identifier: BSD-3-Clause
"""fanwirectl: every command, its exit statuses, -j before and after, and the names that hold in JSON."""
import base64
import contextlib
import json
import re
import sqlite3
import subprocess

import pytest

import wire
from instance import ROOT, wait_for

ID = re.compile(r"^[0-9a-f]{16}$")
HANDLE = re.compile(r"^[0-9a-f]{32}$")
COMMANDS = ["status", "token", "publisher add", "publisher list", "publisher remove", "publish", "tail", "connections",
            "disconnect", "revoke", "explain", "audit", "top", "selftest", "doctor"]


def start_tail(instance, user, *options):
    """`tail -j` that is listening: its process, once its registration is active."""
    before = len(instance.connections(user))
    tail = subprocess.Popen(
        instance.ctl_command("-j", "tail", user, "--token", instance.token(user), "--timeout", 20, *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=instance.ctl_env())
    assert wait_for(lambda: len([c for c in instance.connections(user) if c["state"] == "active"]) > before)
    return tail


def finish(tail):
    try:
        out, _ = tail.communicate(timeout=30)
    finally:
        tail.kill()
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_from_the_table(instance, command):
    everything = instance.ctl("help").stdout
    assert command in everything
    own = instance.ctl("help", *command.split()).stdout
    assert command in own and instance.ctl(*command.split(), "--help").stdout == own


@pytest.mark.parametrize("arguments", [
    [], ["fly"], ["token"], ["status", "extra"], ["publish"], ["publish", "u", "p", "--kind", "70000"],
    ["publish", "u", "p", "--kind", "x"], ["tail", "u"], ["disconnect"], ["publisher"], ["publisher", "fly"],
    ["token", "u", "--ttl"], ["token", "u", "--surprise", "1"], ["publish", "u", "p", "--channel", "@nothex"],
    ["disconnect", "nothex"], ["token", ""], ["token", "u", "--ttl", ""], ["connections", ""], ["audit", "--event", ""],
    ["tail", "u", "--token", ""], ["publisher", "add", ""], ["explain", "u", "--channel", ""]])
def test_wrong_usage_exits_1(instance, arguments):
    run = instance.ctl(*arguments, check=False)
    assert run.returncode == 1 and run.stderr.strip() and not run.stdout.strip(), (run.returncode, run.stdout, run.stderr)


def test_half_a_command_is_told_its_other_half(instance):
    for words in (["publisher"], ["publisher", "fly"]):
        run = instance.ctl(*words, check=False)
        assert "publisher what? add NAME, list, remove NAME" in run.stderr, run.stderr


def test_refused_or_failed_exits_2(instance):
    for arguments in (["disconnect", "00000000000000ff"], ["publisher", "remove", "nobody"],
                      ["tail", "u", "--token", "junk", "--timeout", "5"], ["--socket", "/nowhere", "status"]):
        run = instance.ctl(*arguments, check=False)
        assert run.returncode == 2 and run.stderr.strip(), (arguments, run.returncode, run.stderr)
    run = instance.ctl("-j", "disconnect", "00000000000000ff", check=False)
    assert run.returncode == 2 and {"error", "message"} <= set(json.loads(run.stderr))


def test_j_before_and_after(instance):
    before, after = instance.ctl("-j", "status").stdout, instance.ctl("status", "-j").stdout
    assert set(json.loads(before)) == set(json.loads(after))
    assert instance.ctl("status").stdout != before


def test_status(instance):
    (status,) = instance.ctl_json("status")
    assert {"control", "dataplane", "users", "connections", "counters", "walls"} <= set(status)
    assert set(status["walls"].values()) <= {"on", "off", "failed"} and len(status["walls"]) == 5
    assert "running" in instance.ctl("status").stdout


def test_token(instance):
    (answer,) = instance.ctl_json("token", "cli-token", "--ttl", 60)
    subscriber = instance.subscribe("cli-token", token=answer["token"])
    assert subscriber.answer["user"] == "cli-token"
    plain = instance.ctl("token", "cli-token").stdout
    assert plain.strip().count(".") == 2 and len(plain.split()) == 1  # fit for TOKEN=$(fanwirectl token U)


def test_publish_and_tail(instance):
    tails = [start_tail(instance, "cli-tail", "--count", 2) for _ in range(2)]
    (first,) = instance.ctl_json("publish", "cli-tail", "hällo", "--kind", 9)
    (second,) = instance.ctl_json("publish", "cli-tail", "-", input="from standard input")
    assert ID.match(first["epoch"]) and (first["sequence"], first["attempted"], first["sent"]) == (1, 2, 2)
    assert second["epoch"] == first["epoch"] and second["sequence"] == 2
    for tail in tails:
        events = finish(tail)
        assert tail.returncode == 0 and len(events) == 2
        assert {"user", "channel", "epoch", "sequence", "kind", "publisher", "payload"} <= set(events[0])
        assert (events[0]["user"], events[0]["payload"], events[0]["kind"]) == ("cli-tail", "hällo", 9)
        assert (events[0]["epoch"], events[0]["sequence"]) == (first["epoch"], 1) and ID.match(events[0]["publisher"])
        assert events[1]["payload"] == "from standard input"


def test_payloads_that_are_no_text_come_as_base64(instance):
    tail = start_tail(instance, "cli-bytes", "--count", 1)
    data = bytes(range(256))
    publisher = instance.publisher()
    publisher.publish("cli-bytes", data)
    (event,) = finish(tail)
    assert base64.b64decode(event["payload_base64"]) == data and "payload" not in event


def test_a_fragmented_events_sequence_is_its_last_fragments(instance):
    tail = start_tail(instance, "cli-big", "--count", 1)
    text = "x" * 100000
    (answer,) = instance.ctl_json("publish", "cli-big", "-", input=text)
    (event,) = finish(tail)
    assert event["payload"] == text and event["sequence"] == answer["sequence"] == -(-100000 // 1132)


def test_channels(instance):
    room = start_tail(instance, "cli-room", "--channel", "lobby", "--count", 3)
    (connection,) = instance.connections("cli-room")
    (to_room,) = instance.ctl_json("publish", "cli-room", "room", "--channel", "lobby")
    (to_all,) = instance.ctl_json("publish", "cli-room", "all")
    (to_other,) = instance.ctl_json("publish", "cli-room", "other", "--channel", "attic")
    assert (to_room["sent"], to_all["sent"], to_other["sent"]) == (1, 1, 0)
    instance.ctl("publish", "cli-room", "last", "--channel", "lobby")
    assert [(e["channel"], e["payload"]) for e in finish(room)] == [("lobby", "room"), ("all", "all"), ("lobby", "last")]
    assert ID.match(connection["id"])


def test_a_single_channel(instance):
    wanted = "00000000000cafe1"
    tail = start_tail(instance, "cli-single", "--channel", "@" + wanted, "--count", 1)
    assert [c["id"] for c in instance.connections("cli-single")] == [wanted]
    (answer,) = instance.ctl_json("publish", "cli-single", "you", "--channel", "@" + wanted)
    assert answer["sent"] == 1
    assert [(e["payload"], e["channel"]) for e in finish(tail)] == [("you", "@" + wanted)]


def test_every_tail_is_reached_by_its_id(instance):
    """The id is the one that `connections` shows, not one that somebody had to ask for. Counts stay each group's."""
    first, second = (start_tail(instance, "cli-ids", "--count", n) for n in (2, 1))
    ids = {c["id"] for c in instance.connections("cli-ids")}
    publishes = [instance.ctl_json("publish", "cli-ids", one, "--channel", "@" + one)[0] for one in sorted(ids)]
    assert [(p["attempted"], p["sent"]) for p in publishes] == [(1, 1), (1, 1)]
    (to_all,) = instance.ctl_json("publish", "cli-ids", "all")
    assert (to_all["attempted"], to_all["sent"]) in ((1, 1), (2, 2))  # the second one may have left by now
    got = [(e["channel"], e["payload"]) for tail in (first, second) for e in finish(tail)]
    assert sorted(got) == sorted([("@" + one, one) for one in ids] + [("all", "all")])


def test_publish_to_nobody_says_who_is_not_there(instance):
    for channel, words in (([], "nobody is connected as cli-none"), (["--channel", "den"], "the channel den"),
                           (["--channel", "@000000000000dead"], "no connection 000000000000dead")):
        out = instance.ctl("publish", "cli-none", "x", *channel).stdout
        assert out.startswith("sent to 0 connections") and words in out, out
        assert " ".join(["fanwirectl explain cli-none", *channel]) in out


def test_tail_tells_when_fanwired_is_away_and_back(make_instance):
    instance = make_instance().up()
    tail = start_tail(instance, "cli-away", "--count", 1)
    instance.kill("fanwired")
    assert "listening" in tail.stderr.readline()
    assert "fanwired is away" in tail.stderr.readline()
    instance.start("fanwired")
    instance.wait()
    assert "attached again" in tail.stderr.readline()
    assert instance.ctl_json("publish", "cli-away", "still here")[0]["sent"] == 1
    assert [e["payload"] for e in finish(tail)] == ["still here"]


def test_tail_gives_up_after_its_time(instance):
    run = instance.ctl("tail", "cli-late", "--token", instance.token("cli-late"), "--count", 1, "--timeout", 1, check=False)
    assert run.returncode == 2 and "0 of 1 events came within 1 s" in run.stderr


def test_tail_reads_a_token_from_a_file(instance, tmp_path):
    path = tmp_path / "token"
    path.write_text(instance.ctl("token", "cli-file").stdout)
    run = instance.ctl("tail", "cli-file", "--token", f"@{path}", "--timeout", 1, check=False)
    assert "refused" not in run.stderr and run.returncode == 0, run.stderr
    path.write_text("\n")
    run = instance.ctl("tail", "cli-file", "--token", f"@{path}", "--timeout", 1, check=False)
    assert run.returncode == 1 and f"{path} is empty" in run.stderr


def test_connections_and_disconnect(instance):
    subscribers = [instance.subscribe("cli-connections") for _ in range(3)]
    instance.subscribe("cli-bystander")
    listed = instance.ctl_json("connections", "cli-connections")
    assert {c["id"] for c in listed} == {s.id for s in subscribers}
    for connection in listed:
        assert {"id", "user", "address", "port", "state", "generation", "lease_seconds"} <= set(connection)
        assert ID.match(connection["id"]) and connection["state"] in ("pending", "active", "ending")
        assert round(connection["lease_seconds"], 3) == connection["lease_seconds"]
    status, answer = instance.api("GET", "/v1/connections?user=cli-connections")
    assert status == 200 and all(len(str(c["lease_seconds"])) <= 6 for c in answer["connections"]), answer
    assert "cli-bystander" in {c["user"] for c in instance.ctl_json("connections")}
    instance.ctl("disconnect", subscribers[0].id)
    assert subscribers[0].wait_ended()["reason"] == "disconnected"
    assert wait_for(lambda: len(instance.ctl_json("connections", "cli-connections")) == 2)


def test_revoke_ends_connections_and_tokens(instance):
    token = instance.token("cli-revoke")
    subscriber = instance.subscribe("cli-revoke", token=token)
    (answer,) = instance.ctl_json("revoke", "cli-revoke")
    assert answer["connections_ended"] == 1
    assert subscriber.wait_ended()["reason"] == "revoked"
    run = instance.ctl("tail", "cli-revoke", "--token", token, "--timeout", 5, check=False)
    assert run.returncode == 2


def test_explain_sends_nothing(instance):
    """Who would receive an event, who would not, and why."""
    subscriber = instance.subscribe("cli-explain", threads=["lobby"])
    pending = instance.subscribe("cli-explain", start=False, wait=False)
    (answer,) = instance.ctl_json("explain", "cli-explain")
    assert [c["id"] for c in answer["would_receive"]] == [subscriber.id]
    assert {c["id"] for c in answer["would_not"]} == {pending.id}
    assert all(c["reason"] for c in answer["would_receive"] + answer["would_not"])
    (thread,) = instance.ctl_json("explain", "cli-explain", "--channel", "lobby")
    assert [c["id"] for c in thread["would_receive"]] == [subscriber.id]
    (offline,) = instance.ctl_json("explain", "cli-nobody")
    assert offline["would_receive"] == [] and offline["would_not"] == []
    assert subscriber.wait_events(1, timeout=0.3) == []
    assert subscriber.id in instance.ctl("explain", "cli-explain").stdout


def test_publishers(instance):
    (added,) = instance.ctl_json("publisher", "add", "cli-publisher", "--user", "cli-owner")
    assert added["secret"]
    listed = {p["name"]: p for p in instance.ctl_json("publisher", "list")}
    assert listed["cli-publisher"]["user"] == "cli-owner" and added["secret"] not in json.dumps(listed)
    assert instance.ctl("publisher", "add", "cli-publisher", check=False).returncode == 2
    instance.ctl("publisher", "remove", "cli-publisher")
    assert "cli-publisher" not in {p["name"] for p in instance.ctl_json("publisher", "list")}


def test_audit(instance):
    alice = instance.subscribe("cli-alice")
    instance.publisher().publish("cli-alice", "x")
    alice.wait_events(1)
    bob = instance.subscribe("cli-bob")
    instance.as_engine().sendto(alice.packets[0], (bob.address, bob.port))
    victim = wire.handle("cli-alice").hex()

    def found():
        return [r for r in instance.ctl_json("audit") if r["event"] == "foreign_drop" and r["victim"] == victim]

    (record,) = wait_for(found)
    assert {"time", "event", "victim", "foreign", "source"} <= set(record)
    assert record["foreign"] == wire.handle("cli-bob").hex() and record["source"] == instance.engine4
    assert HANDLE.match(record["victim"])
    assert instance.ctl("revoke", "cli-audited")
    (only,) = instance.ctl_json("audit", "--event", "foreign_drop", "--limit", 1)
    assert only["row"] == record["row"]  # though the revocation is newer
    assert instance.ctl_json("audit", "--event", "no_such_event") == []
    revoked = [r for r in instance.ctl_json("audit") if r["event"] == "revoke" and r["user"] == "cli-audited"]
    assert revoked and revoked[-1]["uid"] == 0  # the caller's, from the kernel


def test_an_audit_line_can_be_taken_apart(instance):
    instance.ctl("revoke", 'cli with "blanks"')
    line = instance.ctl("audit", "--event", "revoke", "--limit", 1).stdout
    assert line == line.rstrip() + "\n" and 'user="cli with \\"blanks\\""' in line, line


def test_top_has_what_the_kernel_dropped(instance):
    bob = instance.subscribe("cli-top")
    top = subprocess.Popen(instance.ctl_command("-j", "top", "--count", 3), stdout=subprocess.PIPE, text=True,
                           env=instance.ctl_env())
    first = json.loads(top.stdout.readline())
    for _ in range(20):
        instance.as_engine().sendto(bytes([1, 16, 3, 1, 0, 0, 0, 0]) + wire.handle("cli-other") + bytes(76),
                                    (bob.address, bob.port))
    rest = [json.loads(line) for line in top.communicate(timeout=30)[0].splitlines()]
    assert {"accepted", "foreign_user"} <= set(first["filter"]) and set(first["guard"])
    assert any(view["filter"]["foreign_user"] > 0 for view in rest), rest


def test_top(instance):
    lines = instance.ctl_json("top", "--count", 2, "--interval", 0.3) if _fractions(instance) else \
        instance.ctl_json("top", "--count", 2)
    assert len(lines) == 2 and {"rates", "users"} <= set(lines[0])
    assert "drop_tx_full" in lines[0]["rates"]


def _fractions(instance):
    return instance.ctl("top", "--count", 1, "--interval", 0.3, "-j", check=False).returncode == 0


def test_selftest_proves_delivery_and_blocking(instance):
    (result,) = instance.ctl_json("selftest")
    assert result["passed"] is True and result["delivered"] > 0
    assert result["forged"] == result["blocked"] > 0
    assert no_canaries(instance)


def no_canaries(instance):
    return wait_for(lambda: not [c for c in instance.connections() if "selftest" in c["user"]])


def test_selftest_again_leaves_nothing_more(instance):
    """A canary is revoked, and a revoked user is remembered for ever: so it is the same two each time."""
    (database,) = (instance.dir / "state").glob("*.db")

    def remembered():
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return sorted(connection.execute("SELECT name FROM users"))

    instance.ctl("selftest")
    users = remembered()
    assert users, "none is remembered: the test proves nothing"
    for _ in range(3):
        (result,) = instance.ctl_json("selftest")
        assert result["passed"] is True
    assert remembered() == users
    assert no_canaries(instance)


def test_selftests_at_once_take_turns(instance):
    running = [subprocess.Popen(instance.ctl_command("selftest"), env=instance.ctl_env(), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(3)]
    outputs = [one.communicate(timeout=60)[0] for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], outputs
    assert no_canaries(instance)


def test_selftest_fails_where_delivery_is_broken(make_instance):
    """A test that cannot fail proves nothing: with the dataplane stopped, selftest does."""
    import signal

    instance = make_instance().up()
    instance.kill("dataplane", signal.SIGSTOP)
    run = instance.ctl("-j", "selftest", check=False)
    assert run.returncode == 2


def test_doctor(instance):
    run = instance.ctl("-j", "doctor", check=False)
    findings = [json.loads(line) for line in run.stdout.splitlines()]
    assert findings and all({"check", "state", "found"} <= set(f) for f in findings)
    assert not [f for f in findings if f["state"] == "failed"], findings
    assert run.returncode == 0


def test_doctor_names_a_daemon_that_is_gone(make_instance):
    instance = make_instance().up()
    instance.kill("dataplane")
    wait_for(lambda: instance.status()["dataplane"]["state"] == "stopped")
    run = instance.ctl("doctor", check=False)
    assert run.returncode == 2 and "dataplane" in run.stdout
    out = instance.ctl("status").stdout
    assert f"dataplane stopped (was process {instance.pid('dataplane')}): nothing is delivered" in out, out
    run = instance.ctl("tail", "cli-dead", "--token", instance.token("cli-dead"), "--timeout", 1, check=False)
    assert run.returncode == 2 and "fanwire-dataplane --config" in run.stderr


def test_dev_ctl_is_the_same_program():
    run = subprocess.run([str(ROOT / "dev"), "ctl", "help"], capture_output=True, text=True)
    assert run.returncode == 0 and "usage: fanwirectl" in run.stdout
