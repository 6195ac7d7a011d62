# SPDX-License-Identifier: BSD-3-Clause
"""Nobody can aim the engine at a third party: what an address that does not answer ever hears."""
import select
import time

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
