# SPDX-License-Identifier: BSD-3-Clause
"""An event goes to every connection of its user, in sequence, and to nobody else."""
import json
import os
import random
import select
import subprocess
import threading

import pytest

import peer
import wire
from instance import BUILD, wait_for


def run_load(instance, users, connections, events, publishers=4, family=4, timeout=240):
    credential = instance.credential()
    lines = "".join(f"user-{i} {instance.token(f'user-{i}')}\n" for i in range(users))
    run = subprocess.run(
        [str(BUILD / "tests/system/load"), str(instance.client_socket), credential["name"], credential["secret"],
         str(connections), str(events), str(publishers), str(family)],
        input=lines, capture_output=True, text=True, timeout=timeout)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def check_load(result, users, connections, events):
    copies = users * connections * events
    exact = {"connections": users * connections, "published": users * events, "acknowledged": users * events, "failed": 0,
             "attempted": copies, "sent": copies, "received": copies, "foreign": 0, "duplicates": 0, "disorder": 0,
             "lost": 0, "ended": 0, "incomplete": 0}
    assert {key: result[key] for key in exact} == exact


def test_ten_users_twenty_events_concurrently(instance):
    """10 users x 1 connection x 20 events published concurrently: each gets exactly its own, in sequence."""
    users = [f"ten-{i}" for i in range(10)]
    subscribers = {user: instance.subscribe(user) for user in users}
    publishers = {user: instance.publisher() for user in users}

    def publish(user):
        for i in range(20):
            publishers[user].publish(user, f"{user} {i}")

    threads = [threading.Thread(target=publish, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in users:
        events = subscribers[user].wait_events(20)
        assert [event.payload.decode() for event in events] == [f"{user} {i}" for i in range(20)]
        assert [event.sequence for event in events] == list(range(1, 21))
        assert len({event.epoch for event in events}) == 1
        assert not subscribers[user].foreign and not subscribers[user].malformed


@pytest.mark.parametrize("workers", [1, 2])
def test_thousand_users_three_connections_hundred_events(make_instance, workers):
    """1,000 users x 3 connections x 100 events: every connection gets exactly its own; with two workers too."""
    if workers > os.cpu_count():
        pytest.skip("two workers need two cores")
    instance = make_instance(ports=3500, workers=workers, huge_pages=160).up()
    check_load(run_load(instance, 1000, 3, 100), 1000, 3, 100)
    counters = instance.counters()
    assert counters["drop_endpoint_foreign"] == 0 and counters["drop_tx_full"] == 0
    if workers == 2:
        assert counters["handovers"] > 0, "two workers, yet nothing was handed over"


def test_ipv6_users_get_exactly_their_own(make_instance):
    """IPv6, without huge pages; so many events that each packet buffer is used."""
    instance = make_instance(ports=600, workers=min(2, os.cpu_count())).up()
    check_load(run_load(instance, 150, 3, 200, family=6), 150, 3, 200)


def test_three_senders_of_twenty_events_are_sixty_once_each(instance):
    """3 senders x 20 events to one user: all 60, once each, every sender's own in its order."""
    subscriber = instance.subscribe("sixty")
    senders = [instance.publisher() for _ in range(3)]

    def publish(number):
        for i in range(20):
            senders[number].publish("sixty", f"{number}:{i}")

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = subscriber.wait_events(60)
    payloads = [event.payload.decode() for event in events]
    assert len(payloads) == 60 and len(set(payloads)) == 60
    assert [event.sequence for event in events] == list(range(1, 61))
    for number in range(3):
        assert [p for p in payloads if p.startswith(f"{number}:")] == [f"{number}:{i}" for i in range(20)]


@pytest.mark.parametrize("family", [4, 6])
def test_one_event_reaches_each_connection_as_the_same_bytes(instance, family):
    """Copies to all connections of a group are the same bytes; attempted and sent are their number."""
    user = f"same-{family}"
    subscribers = [instance.subscribe(user, family=family) for _ in range(3)]
    result = instance.publisher().publish(user, "to all", kind=7)
    assert (result.status, result.attempted, result.sent, result.sequence) == ("ok", 3, 3, 1)
    for subscriber in subscribers:
        (event,) = subscriber.wait_events(1)
        assert (event.payload, event.kind, event.epoch) == (b"to all", 7, result.epoch)
        assert subscriber.packets == subscribers[0].packets


class LossyPublisher(peer.Publisher):
    """Loses a third of what it sends and a third of the answers; from a constant, so that each run is the same."""

    def __init__(self, *args, **how):
        self.chance = random.Random(20)
        super().__init__(*args, **how)

    def send(self, packet):
        if self.chance.random() > 0.33:
            super().send(packet)

    def receive(self, timeout):
        if self.chance.random() > 0.33:
            return super().receive(timeout)
        if select.select([self.udp], [], [], timeout)[0]:
            self.udp.recv(65536)  # an acknowledgement, gone
        return False


def test_publishes_that_get_lost_are_repaired_whatever_their_kind(instance):
    """Critical events, there, retried with sleeps; here every event is repaired the same way: each once, in order."""
    events = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed", "chatter"]
    subscriber = instance.subscribe("critical")
    publisher = LossyPublisher(instance.client_socket, **instance.credential())
    instance.opened.append(publisher)
    before = instance.counters()["publishes_repeated"]
    for i in range(60):
        kind = i % len(events)
        result = publisher.publish("critical", f"{events[kind]} {i}", kind=kind, timeout=20)
        assert (result.status, result.sent, result.sequence) == ("ok", 1, i + 1)
    got = subscriber.wait_events(60)
    assert [(e.kind, e.payload.decode()) for e in got] == [(i % 6, f"{events[i % 6]} {i}") for i in range(60)]
    assert instance.counters()["publishes_repeated"] > before, "nothing was lost: the test proves nothing"


def test_threads_reach_those_who_joined(instance):
    """Thread: listed but ignored when sending, there; channels, here."""
    inside = instance.subscribe("threads", threads=["room-7", "room-8"])
    outside = instance.subscribe("threads")
    publisher = instance.publisher()
    result = publisher.publish("threads", "room", channel=wire.thread_channel("room-7"))
    assert (result.attempted, result.sent) == (1, 1)
    result = publisher.publish("threads", "all")
    assert (result.attempted, result.sent) == (2, 2)
    assert [e.payload for e in inside.wait_events(2)] == [b"room", b"all"]
    assert [e.payload for e in outside.wait_events(1)] == [b"all"]
    # The same name is another user's room: a thread id is never taken for a user id.
    stranger = instance.subscribe("threads-2", threads=["room-7"])
    publisher.publish("threads", "room again", channel=wire.thread_channel("room-7"))
    assert inside.wait_events(3)[-1].payload == b"room again"
    assert stranger.wait_events(1, timeout=0.3) == []
    assert publisher.publish("threads", "", channel=wire.thread_channel("nobody")).status == "no_group"


def test_a_single_channel_reaches_one_connection(instance):
    """Single: one connection; such a group exists only when asked for."""
    one, other = instance.subscribe("single", single=True), instance.subscribe("single")
    publisher = instance.publisher()
    assert publisher.publish("single", "you", channel=wire.single_channel(int(one.id, 16))).sent == 1
    assert publisher.publish("single", "no", channel=wire.single_channel(int(other.id, 16))).status == "no_group"
    # The id with another user's name finds nothing.
    assert publisher.publish("someone", "no", channel=wire.single_channel(int(one.id, 16))).status == "no_group"
    assert [e.payload for e in one.wait_events(1)] == [b"you"]
    assert other.wait_events(1, timeout=0.3) == []


@pytest.mark.parametrize("size", [0, 1, 1132, 1133, 70000, 1024 * 1024])
def test_events_of_every_size_arrive_whole(instance, size):
    """Fragmentation and reassembly up to 1 MiB."""
    payload = os.urandom(size)
    subscriber = instance.subscribe(f"size-{size}")
    result = instance.publisher().publish(f"size-{size}", payload, timeout=30)
    (event,) = subscriber.wait_events(1, timeout=30)
    assert event.payload == payload
    assert event.sequence == result.sequence == max(1, -(-size // 1132))
    assert result.sent == 1


def test_an_offline_user_gets_zero(instance):
    """Zero connections: 0 sent, never a comfortable 1; sequenced while the group lingers."""
    publisher = instance.publisher()
    result = publisher.publish("never-there", "x")
    assert (result.status, result.attempted, result.sent, result.epoch, result.sequence) == ("no_group", 0, 0, 0, 0)
    subscriber = instance.subscribe("lingering")
    first = publisher.publish("lingering", "1")
    subscriber.close()
    assert wait_for(lambda: not instance.connections("lingering"))
    second = publisher.publish("lingering", "2")
    assert (second.status, second.attempted, second.sent) == ("ok", 0, 0)
    assert (second.epoch, second.sequence) == (first.epoch, first.sequence + 1)
    again = instance.subscribe("lingering")
    assert publisher.publish("lingering", "3").sequence == first.sequence + 2
    assert [e.payload for e in again.wait_events(1)] == [b"3"]


def test_one_dead_of_three_harms_nobody(instance):
    """One of three connections dead: 2 delivered, the third found dead and removed; nobody waits."""
    alive = [instance.subscribe("three") for _ in range(2)]
    script = ("import os, sys, time; sys.path.insert(0, sys.argv[1]); import peer\n"
              "s = peer.Subscriber(sys.argv[2], sys.argv[3]).wait_active(); print(s.id, flush=True); time.sleep(600)")
    victim = subprocess.Popen(
        ["/usr/bin/python3", "-c", script, os.path.dirname(__file__), str(instance.client_socket), instance.token("three")],
        stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout.readline().strip()
        publisher = instance.publisher()
        assert publisher.publish("three", "a").sent == 3
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    assert wait_for(lambda: len(instance.connections("three")) == 2, timeout=1)
    assert publisher.publish("three", "b").sent == 2
    for subscriber in alive:
        assert [e.payload for e in subscriber.wait_events(2)] == [b"a", b"b"]


def test_a_hung_receiver_harms_itself_only(instance):
    """A hung receiver blocks the user's other connections, there; harms itself only, here."""
    hung = instance.subscribe("hung")
    hung.stop = True
    hung.thread.join()  # its socket is never read again
    well = instance.subscribe("hung")
    publisher = instance.publisher()
    for i in range(200):
        assert publisher.publish("hung", f"{i}", timeout=2).sent == 2
    assert [e.payload.decode() for e in well.wait_events(200)] == [str(i) for i in range(200)]


def test_the_three_ways_in_give_the_same_bytes_and_results(instance):
    """Any-user session, one-user session, one-shot call: one fan-out, the same bytes, the same result."""
    subscribers = [instance.subscribe("ways") for _ in range(2)]
    any_user, one_user = instance.publisher(), instance.publisher(user="ways")
    results = []
    for way in (any_user, one_user):
        result = way.publish("ways", "the same event", kind=3)
        results.append((result.attempted, result.sent, result.epoch))
    (once,) = instance.ctl_json("publish", "ways", "the same event", "--kind", 3)
    results.append((once["attempted"], once["sent"], int(once["epoch"], 16)))
    assert results[0] == results[1] == results[2] and results[0][:2] == (2, 2)

    def comparable(packet, event):
        """Without what must differ: sequence, time, session, its number, and the seal and tag over them."""
        return packet[:40], packet[56:60], event.payload

    for subscriber in subscribers:
        events = subscriber.wait_events(3)
        assert [event.sequence for event in events] == [1, 2, 3]
        first, second, third = map(comparable, subscriber.packets, events)
        assert first == second == third


def test_provenance_in_the_payload_is_kept(instance):
    """Provenance fields (user_id, sender_id, ...): kept; the payload is opaque bytes."""
    payload = json.dumps({"user_id": "someone else", "sender_id": 1, "recipient_id": "mallory"})
    subscriber = instance.subscribe("provenance")
    instance.publisher().publish("provenance", payload)
    assert [e.payload.decode() for e in subscriber.wait_events(1)] == [payload]


def test_a_grant_publishes_for_its_user_only(instance):
    """A one-user publisher cannot name another user."""
    subscriber = instance.subscribe("granted")
    other = instance.subscribe("not-granted")
    _, grant = instance.api("POST", "/v1/grants", {"user": "granted"})
    publisher = peer.Publisher(instance.client_socket, grant=grant["grant"])
    instance.opened.append(publisher)
    before = instance.counters()["drop_publish_scope"]
    assert publisher.publish("granted", "yes").sent == 1
    refused = publisher.publish("not-granted", "no")
    assert (refused.status, refused.attempted, refused.sent) == ("scope", 0, 0)
    assert publisher.publish("granted", "still").sent == 1
    assert wait_for(lambda: instance.counters()["drop_publish_scope"] == before + 1)
    assert [e.payload for e in subscriber.wait_events(2)] == [b"yes", b"still"]
    assert other.wait_events(1, timeout=0.3) == []
