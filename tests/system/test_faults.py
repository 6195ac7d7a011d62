# SPDX-License-Identifier: BSD-3-Clause
"""Either daemon or a subscriber dies at any moment; what still exists goes on."""
import json
import os
import signal
import subprocess
import threading
import time

import peer
from instance import wait_for

HERE = os.path.dirname(__file__)
# The bound that docs/operations.md states for a delivery, and for an acknowledgement, while fanwired is dead.
LATE_SECONDS = 1.0


class Traffic:
    """Numbered events to one user, from a thread, until stopped; remembers when each was answered."""

    def __init__(self, publisher, user, pause=0.005):
        self.publisher, self.user, self.pause = publisher, user, pause
        self.count, self.slowest, self.wrong = 0, 0.0, []
        self.published_ns = []  # by number
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopped.wait(self.pause):
            start = time.monotonic()
            self.published_ns.append(time.time_ns())
            try:
                result = self.publisher.publish(self.user, str(self.count), timeout=20)
            except Exception as bad:  # noqa: BLE001 shown by the test
                self.wrong.append(repr(bad))
                return
            self.slowest = max(self.slowest, time.monotonic() - start)
            if result.status != "ok":
                self.wrong.append(result)
            self.count += 1

    def latest(self, events):
        """The longest way of an event from its publisher to this subscriber, in seconds, resends and all."""
        return max(e.arrived_ns - self.published_ns[int(e.payload)] for e in events) / 1e9

    def stop(self):
        self.stopped.set()
        self.thread.join()
        assert not self.wrong, self.wrong[:3]
        return self.count


def spawn_subscriber(instance, user):
    """A subscriber in a process of its own; its id is the first line that it prints."""
    script = ("import sys, time; sys.path.insert(0, sys.argv[1]); import peer\n"
              "s = peer.Subscriber(sys.argv[2], sys.argv[3]).wait_active(); print(s.id, s.port, flush=True); time.sleep(600)")
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", script, HERE, str(instance.client_socket), instance.token(user)],
        stdout=subprocess.PIPE, text=True)
    connection, port = process.stdout.readline().split()
    return process, connection, int(port)


def reap(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_kill_of_fanwired_under_traffic_loses_no_delivery(make_instance):
    """`kill -9` of `fanwired` under traffic: no delivery lost or late by more than the stated bound; subscribers
    re-attach and every registration is there; one that died during the outage is gone 10 s after it."""
    instance = make_instance().up()
    subscribers = [instance.subscribe("survivor") for _ in range(3)]
    bystander = instance.subscribe("bystander")
    dying, dying_id, _ = spawn_subscriber(instance, "survivor")
    before = {c["id"]: c["generation"] for c in instance.connections()}
    traffic = Traffic(instance.publisher(), "survivor")
    time.sleep(0.5)
    instance.kill("fanwired")
    reap(dying)
    time.sleep(1)
    assert all(s.wait_broken() for s in subscribers)
    instance.start("fanwired")
    instance.wait()
    restarted = time.monotonic()
    for subscriber in (*subscribers, bystander):
        answer = subscriber.attach()
        assert (answer["connection"], answer["state"]) == (subscriber.id, "active")
    traffic.publisher.attach()
    after = {c["id"]: c["generation"] for c in instance.connections()}
    assert after == before, "each registration is there, the dead one too while it may still come back"
    gone = wait_for(lambda: dying_id not in {c["id"] for c in instance.connections()}, timeout=14)
    took = time.monotonic() - restarted
    assert gone and took < 12, f"gone after {took:.1f} s"
    assert set(before) - {dying_id} == {c["id"] for c in instance.connections()}
    count = traffic.stop()
    assert traffic.slowest < LATE_SECONDS, f"an acknowledgement took {traffic.slowest:.2f} s"
    for subscriber in subscribers:
        events = subscriber.wait_events(count)
        assert [int(e.payload) for e in events] == list(range(count))
        assert [e.sequence for e in events] == list(range(1, count + 1))
        assert traffic.latest(events) < LATE_SECONDS, f"a delivery took {traffic.latest(events):.2f} s"
        # The engine's own time of each event lies between the two, so it is no other's that was measured.
        for event in events:
            assert traffic.published_ns[int(event.payload)] - 10**8 < event.time_ns < event.arrived_ns + 10**8
        assert not subscriber.foreign
    assert not bystander.events


def test_library_subscribers_reattach_by_themselves(make_instance):
    """Subscribers re-attach by themselves: `fanwirectl tail` over libfanwire, across a kill -9 and a later publish."""
    instance = make_instance().up()
    token = instance.token("tailing")
    tail = subprocess.Popen(instance.ctl_command("-j", "tail", "tailing", "--token", token, "--count", 2, "--timeout", 40),
                            stdout=subprocess.PIPE, text=True, env=instance.ctl_env())
    try:
        (connection,) = wait_for(lambda: [c for c in instance.connections("tailing") if c["state"] == "active"])
        assert instance.publisher().publish("tailing", "before").sent == 1
        instance.restart("fanwired")
        time.sleep(11)  # past the time in which it must have come back
        (after,) = instance.connections("tailing")
        assert (after["id"], after["generation"], after["port"]) == (
            connection["id"], connection["generation"], connection["port"])
        assert instance.publisher().publish("tailing", "after").sent == 1
        assert tail.wait(10) == 0
        assert '"before"' in (out := tail.stdout.read()) and '"after"' in out
    finally:
        reap(tail)


def test_attach_needs_the_very_socket_and_token(make_instance):
    """Re-attachment: the descriptor's cookie proves the claim."""
    instance = make_instance().up()
    mine, other = instance.subscribe("attach-a"), instance.subscribe("attach-b")
    instance.restart("fanwired")
    assert mine.wait_broken() and other.wait_broken()
    client = peer.ClientSocket(instance.client_socket)
    for request, fd in (
        ({"connection": mine.id, "token": instance.token("attach-b")}, mine.udp.fileno()),
        ({"connection": mine.id, "token": instance.token("attach-a")}, other.udp.fileno()),
        ({"connection": "0000000000001234", "token": instance.token("attach-a")}, mine.udp.fileno()),
    ):
        client = peer.ClientSocket(instance.client_socket)
        try:
            client.ask({"op": "attach", **request}, [fd])
            raise AssertionError(f"attached with {request}")
        except peer.Refused as refused:
            assert refused.error in ("token_user", "connection_unknown", "connection_foreign", "bad_request")
        finally:
            client.close()
    assert mine.attach()["connection"] == mine.id


def test_repeated_kills_of_fanwired_during_churn_leave_a_sound_table(make_instance):
    """Killed at any step of a change to the table, it finishes or undoes the change."""
    instance = make_instance(config={"times.quarantine": 1, "times.reattach": 2}).up()
    keeper = instance.subscribe("keeper")
    token = instance.token("churn")
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            try:
                one = peer.Subscriber(instance.client_socket, token, threads=["a", "b"])
                one.active.wait(0.2)
                one.close()
            except (OSError, peer.Refused):
                time.sleep(0.02)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for round_number in range(6):
            time.sleep(0.3 + 0.037 * round_number)
            instance.restart("fanwired")
            assert keeper.wait_broken()
            keeper.attach()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    publisher = instance.publisher()
    assert publisher.publish("keeper", "still here").sent == 1
    assert [e.payload for e in keeper.wait_events(1)] == [b"still here"]
    assert wait_for(lambda: not instance.connections("churn"), timeout=15)
    assert publisher.publish("churn", "x").sent == 0
    fresh = instance.subscribe("churn", threads=["a"])
    assert publisher.publish("churn", "y").attempted == 1 and fresh.wait_events(1)
    assert instance.status()["ports"]["used"] == 2


def test_kill_of_the_dataplane_continues_with_the_next_sequence(make_instance):
    """`kill -9` of the dataplane: restarted, it goes on with the next sequence; its stale XDP program is detached."""
    instance = make_instance().up()
    subscriber = instance.subscribe("continues")
    publisher = instance.publisher()
    for i in range(10):
        last = publisher.publish("continues", str(i))
    for i in range(10, 13):
        instance.restart("dataplane")
        result = publisher.publish("continues", str(i), timeout=20)
        assert (result.epoch, result.sequence) == (last.epoch, last.sequence + 1)
        assert (result.status, result.sent) == ("ok", 1)
        last = result
    events = subscriber.wait_events(13)
    assert [int(e.payload) for e in events] == list(range(13))
    shown = subprocess.run(["ip", "-n", instance.engine_netns, "-j", "-d", "link", "show", instance.engine_if],
                           capture_output=True, text=True, check=True).stdout
    assert len(json.loads(shown)[0]["xdp"]["attached"]) == 1, shown


def test_kill_of_the_dataplane_under_traffic_repeats_no_sequence(make_instance):
    """Under traffic: no sequence is given twice, and each publish is delivered at most once."""
    instance = make_instance().up()
    subscriber = instance.subscribe("killed")
    publisher = instance.publisher()
    stopped, results = threading.Event(), []

    def publish():
        number = 0
        while not stopped.is_set():
            results.append(publisher.publish("killed", str(number), timeout=30))
            number += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.3)
            instance.restart("dataplane")
    finally:
        stopped.set()
        thread.join()
    assert {r.status for r in results} <= {"ok", "interrupted"}
    assert sum(r.status == "interrupted" for r in results) <= 3
    events = subscriber.wait_events(sum(r.status == "ok" for r in results))
    sequences = [e.sequence for e in events]
    assert sequences == sorted(set(sequences))
    assert len({e.payload for e in events}) == len(events)
    for number, result in enumerate(results):
        if result.status == "ok":
            assert any(e.sequence == result.sequence and e.payload == str(number).encode() for e in events)


def test_a_stopped_dataplane_continued_after_churn_reaches_nobody_wrong(make_instance):
    """A stopped (SIGSTOP) dataplane, continued after churn, sends nothing to a wrong user."""
    instance = make_instance(ports=8, config={"network.receiver_addresses": '[ "198.18.0.2" ]',
                                              "times.quarantine": 1, "times.linger": 1}).up()
    old = [instance.subscribe("old-user") for _ in range(4)]
    publisher = instance.publisher()
    publisher.publish("old-user", "warm")
    before = instance.verdicts()
    instance.kill("dataplane", signal.SIGSTOP)
    packets = [publisher.seal("old-user", f"{i}") for i in range(50)]
    for packet in packets:
        publisher.send(packet)
    for subscriber in old:
        subscriber.close()
    assert wait_for(lambda: not [c for c in instance.connections("old-user") if c["state"] == "active"])
    time.sleep(2)  # past the quarantine: only the grace period holds the ports back now
    taken = []

    def take():
        for i in range(4):
            try:
                taken.append(instance.subscribe(f"new-user-{i}", wait=False))
            except peer.Refused:
                pass

    take()
    assert {s.port for s in taken}.isdisjoint({s.port for s in old}), "a port was reused before the grace period"
    instance.kill("dataplane", signal.SIGCONT)
    for subscriber in taken:
        subscriber.wait_active(15)
    reused = []

    def all_reused():
        while len(reused) < 4:
            try:
                reused.append(instance.subscribe(f"late-user-{len(reused)}", wait=False))
            except peer.Refused:
                return False
        return True

    assert wait_for(all_reused, timeout=15, every=0.2)
    time.sleep(0.5)
    for subscriber in (*taken, *reused):
        assert not subscriber.foreign and not subscriber.malformed and not subscriber.events
    assert instance.verdicts()["foreign_user"] == before["foreign_user"], "sent, though the kernel stopped it"
    assert instance.counters()["drop_endpoint_foreign"] == 0


def test_kill_of_a_subscriber_ends_its_registration_within_a_second(make_instance):
    """`kill -9` of a subscriber: its registration is gone within a second, its port not given to another user in
    quarantine."""
    instance = make_instance(ports=2, config={"network.receiver_addresses": '[ "198.18.0.2" ]', "times.quarantine": 5}).up()
    process, connection, port = spawn_subscriber(instance, "killed")
    assert [c["id"] for c in instance.connections("killed")] == [connection]
    reap(process)
    killed = time.monotonic()
    assert wait_for(lambda: not [c for c in instance.connections("killed") if c["state"] == "active"], timeout=1)
    assert instance.publisher().publish("killed", "x").sent == 0
    assert time.monotonic() - killed < 2
    taker = instance.subscribe("taker-1")
    assert taker.port != port
    try:
        second = instance.subscribe("taker-2")
        raise AssertionError(f"port {second.port} was given away {time.monotonic() - killed:.1f} s after")
    except peer.Refused as refused:
        assert refused.error == "no_port"


def test_publishers_reattach_after_a_restart(make_instance):
    """A publisher's session goes on across a restart of fanwired: same key, same numbers."""
    instance = make_instance().up()
    subscriber = instance.subscribe("reattach")
    publisher = instance.publisher()
    publisher.publish("reattach", "1")
    instance.restart("fanwired")
    publisher.publish("reattach", "2")
    assert publisher.attach()["session"] == publisher.answer["session"]
    subscriber.attach()
    publisher.publish("reattach", "3")
    assert [e.payload for e in subscriber.wait_events(3)] == [b"1", b"2", b"3"]
    # Nobody else can take the session over.
    other = peer.ClientSocket(instance.client_socket)
    try:
        other.ask({"op": "publish_attach", "session": publisher.answer["session"], **instance.credential()},
                  [publisher.udp.fileno()])
        raise AssertionError("another credential took the session over")
    except peer.Refused:
        pass
    finally:
        other.close()


def test_delivery_stops_when_nobody_attends(make_instance):
    """After `max_unattended` without fanwired the dataplane stops delivering, and says so; then it goes on."""
    instance = make_instance(config={"times.max_unattended": 2}).up()
    subscriber = instance.subscribe("unattended")
    publisher = instance.publisher()
    assert publisher.publish("unattended", "1").sent == 1
    instance.kill("fanwired")
    assert publisher.publish("unattended", "2").sent == 1
    time.sleep(3)
    stopped = publisher.publish("unattended", "3")
    assert (stopped.status, stopped.sent) == ("unattended", 0)
    instance.start("fanwired")
    instance.wait()
    subscriber.attach()
    assert wait_for(lambda: publisher.publish("unattended", "4").sent == 1)
    assert b"3" not in [e.payload for e in subscriber.wait_events(3)]
