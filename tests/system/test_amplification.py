# SPDX-License-Identifier: BSD-3-Clause
"""Nobody can aim the engine at a third party: what an address that does not answer ever hears."""
import select
import time

import peer
from instance import wait_for

DELIVERY_HEADER = 100  # docs/wire-format.md
CHALLENGES = 3


def test_a_silent_receiver_hears_three_challenges_and_nothing_else(make_instance):
    """At most 3 a registration, none longer than a delivery header; events of its user meanwhile do not go there."""
    instance = make_instance(config={"times.challenge_timeout": 2}).up()
    heard = instance.subscribe("silent")
    publisher = instance.publisher()
    silent = instance.subscribe("silent", wait=False, start=False)
    came, until = [], time.monotonic() + 5
    while time.monotonic() < until:
        assert publisher.publish("silent", "x" * 900).sent == 1, "to who has echoed, and nobody else"
        while select.select([silent.udp], [], [], 0.05)[0]:
            came.append(silent.udp.recv(65536))
    assert len(came) == CHALLENGES, f"{len(came)} datagrams"
    assert max(len(packet) for packet in came) <= DELIVERY_HEADER
    assert instance.counters()["challenges_sent"] == CHALLENGES + 1, "and one to who has echoed"
    assert heard.events


RATE = 200_000  # bytes of copies a second
BURST_S = 0.1
CONNECTIONS = 4
PAYLOAD = 900


def test_a_publisher_over_budget_slows_down_and_nobody_else_does(make_instance):
    """At the rate that is configured, all its sessions together; what was acknowledged has come, each once."""
    instance = make_instance(config={"limits.publisher_bytes_per_second": RATE}).up()
    crowd = [instance.subscribe("crowd") for _ in range(CONNECTIONS)]
    one = instance.subscribe("one")
    credential = instance.credential()
    sessions = [peer.Publisher(instance.client_socket, **credential) for _ in range(2)]
    other = instance.publisher()
    published, slowest, started, until = 0, 0.0, time.monotonic(), time.monotonic() + 4
    due = 0
    in_flight = {session: None for session in sessions}
    while time.monotonic() < until:
        for session in sessions:  # each keeps one in flight, and sends it again until it has its result
            if in_flight[session] is None:
                in_flight[session] = session.seal("crowd", "x" * PAYLOAD)
            session.send(in_flight[session])
            session.receive(0.002)
            if session.number in session.results:
                assert session.results[session.number].sent == CONNECTIONS
                published, in_flight[session] = published + 1, None
        before = time.monotonic()
        if before < due:
            continue
        due = before + 0.02  # well inside its own budget
        assert other.publish("one", "y").sent == 1
        slowest = max(slowest, time.monotonic() - before)
    passed = time.monotonic() - started
    for session in sessions:
        while session.number not in session.results:  # the last ones get through later, too
            session.send(in_flight[session])
            session.receive(0.05)
        published += in_flight[session] is not None
    event = CONNECTIONS * (DELIVERY_HEADER + PAYLOAD)
    assert (published - 2) * event <= 1.05 * RATE * (passed + BURST_S) + 2 * event
    assert published * event >= 0.8 * RATE * passed, "held back more than was asked for"
    assert slowest < 1, "another publisher waited"
    assert instance.counters()["drop_session_budget"] > 0
    listed = instance.get("/v1/publishers")["publishers"]
    assert [p["over_budget"] > 0 for p in listed if p["name"] == credential["name"]] == [True]
    assert all(p["over_budget"] == 0 for p in listed if p["name"] != credential["name"])
    assert wait_for(lambda: all(len(s.events) >= published for s in crowd)), "all that was acknowledged"
    for subscriber in crowd:
        assert [e.sequence for e in subscriber.events] == list(range(1, published + 1))
    for session in sessions:
        session.client.close()


def test_the_command_line_says_over_budget(make_instance):
    """A publish that is held back all its time is refused with the reason, not with a silence."""
    instance = make_instance(config={"limits.publisher_bytes_per_second": 10}).up()
    instance.subscribe("small")
    assert instance.ctl("publish", "small", "first").returncode == 0
    refused = instance.ctl("publish", "small", "second", "--timeout", "1", check=False)
    assert refused.returncode != 0 and "over budget" in refused.stderr
