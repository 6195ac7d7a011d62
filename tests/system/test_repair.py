# SPDX-License-Identifier: BSD-3-Clause
"""What a subscriber missed comes again from the log, in order, or is told as lost; and he goes on where he was."""
import json
import random
import re
import signal
import subprocess
import time

import wire
from instance import wait_for

MANY = 6000  # of 1,000 bytes: more than a socket holds


class Tail:
    """`fanwirectl -j tail`, listening; its events are read when it has ended or been asked to."""

    def __init__(self, instance, user, *options, output):
        self.output = output
        with open(output, "wb") as file:
            self.process = subprocess.Popen(
                instance.ctl_command("-j", "tail", user, "--token", instance.token(user), *options),
                stdout=file, stderr=subprocess.PIPE, text=True, env=instance.ctl_env())
        assert "listening" in self.process.stderr.readline()

    def send_signal(self, number):
        self.process.send_signal(number)

    def finish(self, timeout=60):
        """(events and losses in order, what it says on standard error)"""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
        said = self.process.stderr.read()
        return [json.loads(line) for line in self.output.read_text().splitlines()], said

    def close(self):
        self.process.kill()


def tail_of(instance, user, tmp_path, *options):
    tail = Tail(instance, user, *options, output=tmp_path / f"tail-{time.monotonic_ns()}")
    instance.opened.append(tail)
    return tail


def resume_options(said):
    return re.search(r"^resume with: (.*)$", said, re.M).group(1).split()


def publish_many(publisher, user, count=MANY):
    payload = bytes(1000)
    for first in range(0, count, 200):
        packets = {}
        for _ in range(min(200, count - first)):
            packet = publisher.seal(user, payload)
            packets[publisher.number] = packet
        assert all(result.status == "ok" for result in publisher.wait(packets, 20))


def test_losses_on_the_way_are_repaired_in_order(instance):
    """Of what comes a third is dropped: deliveries, statuses, lost ranges. Written from the pages alone."""
    chance = random.Random(7)
    subscriber = instance.subscribe("lossy", repair=True)
    subscriber.loses = lambda packet: chance.random() < 0.33
    publisher = instance.publisher()
    for number in range(300):
        publisher.publish("lossy", f"event {number}")
    events = subscriber.wait_events(300, timeout=30)
    assert [e.payload.decode() for e in events] == [f"event {n}" for n in range(300)]
    assert subscriber.lost == []
    assert any(e.flags & wire.REPLAYED for e in events), "nothing was lost: the test proves nothing"
    assert subscriber.unopened == []


def test_one_that_was_too_slow_catches_up_and_slows_nobody(instance, tmp_path):
    """It is stopped while more comes than its socket holds. The other one has all of it meanwhile."""
    slow = tail_of(instance, "slow", tmp_path, "--count", MANY)
    quick = instance.subscribe("slow", repair=True)
    publisher = instance.publisher()
    slow.send_signal(signal.SIGSTOP)
    publish_many(publisher, "slow")
    assert len(quick.wait_events(MANY, timeout=20)) == MANY, "the others have waited for it"
    slow.send_signal(signal.SIGCONT)
    events, _ = slow.finish()
    assert [e.get("sequence") for e in events] == list(range(1, MANY + 1))
    recovered = [e for e in events if e.get("recovered")]
    assert 100 < len(recovered) < MANY


def test_the_latest_policy_tells_what_it_went_without(instance, tmp_path):
    tail = tail_of(instance, "latest", tmp_path, "--policy", "latest")
    publisher = instance.publisher()
    tail.send_signal(signal.SIGSTOP)
    publish_many(publisher, "latest")
    tail.send_signal(signal.SIGCONT)
    time.sleep(1)
    publisher.publish("latest", "the end")
    time.sleep(1)
    tail.send_signal(signal.SIGINT)
    entries, said = tail.finish()
    place, lost = 0, 0
    for entry in entries:  # complete and in order, as events or as losses
        first, last = (entry["lost"]["first"], entry["lost"]["last"]) if "lost" in entry else 2 * (entry["sequence"],)
        assert first == place + 1
        place, lost = last, lost + ("lost" in entry)
        assert not entry.get("recovered")
    assert place == MANY + 1 and lost > 0
    assert f":{MANY + 1}" in resume_options(said)[1]


def test_the_disconnect_policy_leaves_when_it_was_too_slow(instance, tmp_path):
    tail = tail_of(instance, "leaver", tmp_path, "--policy", "disconnect")
    tail.send_signal(signal.SIGSTOP)
    publish_many(instance.publisher(), "leaver")
    tail.send_signal(signal.SIGCONT)
    entries, said = tail.finish(20)
    assert tail.process.returncode == 2 and "slow" in said
    assert "lost" in entries[-1] or any("lost" in entry for entry in entries)
    assert instance.connections("leaver") == []


def test_a_tail_goes_on_where_the_last_one_was(instance, tmp_path):
    publisher = instance.publisher()
    first = tail_of(instance, "again", tmp_path, "--channel", "room", "--count", 2)
    publisher.publish("again", "one")
    publisher.publish("again", "in the room", channel=wire.thread_channel("room"))
    _, said = first.finish(20)
    for text in ("two", "three"):
        assert publisher.publish("again", text).status == "ok"  # nobody is there
    publisher.publish("again", "room two", channel=wire.thread_channel("room"))
    second = tail_of(instance, "again", tmp_path, *resume_options(said), "--count", 4)
    publisher.publish("again", "four")
    events, _ = second.finish(20)
    assert [(e["payload"], e.get("recovered", False)) for e in events if e["channel"] == "all"] == [
        ("two", True), ("three", True), ("four", False)]
    assert [(e["payload"], e.get("recovered", False)) for e in events if e["channel"] == "room"] == [("room two", True)]


def test_resuming_cuts_no_event_whose_beginning_was_there(instance, tmp_path):
    """Of two publishers: the event of one is whole between the fragments of the other. Library and Python alike."""
    slow, quick = instance.publisher(), instance.publisher()

    def fragment(publisher, text, flags):
        packet = publisher.seal("cut", text, flags=flags)
        assert publisher.wait({publisher.number: packet})[0].status == "ok"

    first = tail_of(instance, "cut", tmp_path, "--count", 1)
    python = instance.subscribe("cut", repair=True)
    fragment(slow, "begun before, ", wire.BEGIN)
    fragment(quick, "whole ", wire.BEGIN)
    fragment(quick, "between", wire.END)
    events, said = first.finish(20)
    assert [e["payload"] for e in events] == ["whole between"]
    assert [e.payload for e in python.wait_events(1)] == [b"whole between"]
    cursor = python.cursor(wire.ALL)
    assert cursor[1:] == (3, 1) and resume_options(said)[1].endswith(":3:1")
    python.close()
    fragment(slow, "ended after", wire.END)
    second = tail_of(instance, "cut", tmp_path, *resume_options(said), "--count", 1)
    python = instance.subscribe("cut", repair=True, cursors={wire.ALL: cursor})
    events, said = second.finish(20)
    assert [e.get("payload") for e in events] == ["begun before, ended after"] and events[0]["recovered"]
    assert re.search(r":4$", resume_options(said)[1])
    assert [e.payload for e in python.wait_events(1)] == [b"begun before, ended after"]
    time.sleep(0.2)
    assert (len(python.events), python.lost) == (1, [])


def test_a_cursor_of_another_epoch_is_told_as_lost(instance, tmp_path):
    publisher = instance.publisher()
    holder = instance.subscribe("stale")
    publisher.publish("stale", "of this epoch")
    tail = tail_of(instance, "stale", tmp_path, "--since", "123456789abcdef:5", "--count", 1)
    entries, _ = tail.finish(20)
    assert entries[0] == {"lost": {"channel": "all", "epoch": "0123456789abcdef", "first": 6, "last": None}}
    assert entries[1]["payload"] == "of this epoch" and entries[1]["recovered"]
    assert len(holder.wait_events(1)) == 1


def test_a_cursor_beyond_the_stream_is_told(instance, tmp_path):
    """Of no stream that there is: in band, and the stream goes on; numbers that JSON does not have are refused."""
    publisher, first = instance.publisher(), tail_of(instance, "beyond", tmp_path, "--count", "1")
    epoch = f"{publisher.publish('beyond', '1').epoch:016x}"
    first.finish()
    tail = tail_of(instance, "beyond", tmp_path, "--since", f"{epoch}:41", "--count", "1", "--timeout", "20")
    publisher.publish("beyond", "2")
    (lost, event), _ = tail.finish()
    assert lost == {"lost": {"channel": "all", "epoch": epoch, "first": 42, "last": None}}
    assert (event["epoch"], event["sequence"], event["payload"]) == (epoch, 2, "2")
    refused = instance.ctl("tail", "beyond", "--token", instance.token("beyond"), "--since", f"{epoch}:{2**63}", check=False)
    assert refused.returncode == 1 and "--since" in refused.stderr


def test_resuming_outlives_a_killed_dataplane(make_instance, tmp_path):
    """Both who was there and who had gone: the log is in a region that the dataplane's death does not touch."""
    instance = make_instance().up()
    publisher = instance.publisher()
    stays = instance.subscribe("phoenix", repair=True)
    first = tail_of(instance, "phoenix", tmp_path, "--count", 1)
    publisher.publish("phoenix", "one")
    _, said = first.finish(20)
    stays.loses = lambda packet: True
    publisher.publish("phoenix", "two")
    publisher.publish("phoenix", "three")
    instance.kill("dataplane")
    stays.loses = lambda packet: False
    instance.start("dataplane")
    instance.wait()
    second = tail_of(instance, "phoenix", tmp_path, *resume_options(said), "--count", 3)
    publisher.publish("phoenix", "four", timeout=20)
    events, _ = second.finish(20)
    assert [e["payload"] for e in events] == ["two", "three", "four"]
    assert [e["sequence"] for e in events] == [2, 3, 4] and events[0]["recovered"] and events[1]["recovered"]
    assert [e.payload for e in stays.wait_events(4, timeout=30)] == [b"one", b"two", b"three", b"four"]
    assert stays.lost == []


def test_how_long_the_log_holds_is_told(make_instance):
    """Its size is as configured; what it holds is that, divided by the rate of what is logged, and unknown without any."""
    instance = make_instance(config={"dataplane.log_mb": 2}).up()
    before = instance.status()["log"]
    assert before["capacity_bytes"] == 2 << 20 and before["retention_seconds"] is None
    instance.subscribe("logged")
    publisher = instance.publisher()
    for number in range(100):
        publisher.publish("logged", bytes(1000))
    log = instance.status()["log"]
    assert 100 * 1100 <= log["logged_bytes"] - before["logged_bytes"] <= 100 * 1300  # header, payload, and where it belongs
    log = wait_for(lambda: (now := instance.status()["log"])["bytes_per_second"] > 0 and now, 5)
    assert log and abs(log["retention_seconds"] * log["bytes_per_second"] / log["capacity_bytes"] - 1) < 0.001
    assert re.search(r"^log: 2 MiB, [\d.]+ MiB/s: \d+ s$", instance.ctl("status").stdout, re.M)
