# SPDX-License-Identifier: BSD-3-Clause
"""Keys are rotated under traffic: nothing is lost, nothing comes twice, and what is old ends."""
import threading
import time

import wire
from instance import wait_for


def rotated(instance, generation):
    keys = instance.get("/v1/keys")
    return keys["rotation"] is None and keys["generation"] == generation


def rotate(instance):
    status, answer = instance.api("POST", "/v1/keys/rotate", {})
    assert status == 200, answer
    return answer["rotation"]["to"]


class Traffic:
    """Publishes to one user without a pause, from a thread, and counts."""

    def __init__(self, instance, user):
        self.publisher, self.user, self.cnt, self.sent = instance.publisher(), user, 0, 0
        self.stop, self.failure = False, None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.stop:
                packets = {}
                for _ in range(32):
                    packet = self.publisher.seal(self.user, str(self.cnt))
                    packets[self.publisher.number] = packet
                    self.cnt += 1
                self.sent += sum(result.sent for result in self.publisher.wait(packets))
        except Exception as failure:  # told by end()
            self.failure = failure

    def end(self):
        self.stop = True
        self.thread.join()
        assert self.failure is None, self.failure


def check_whole(subscriber, traffic):
    events = subscriber.wait_events(traffic.cnt, timeout=20)
    assert [event.payload for event in events] == [b"%d" % i for i in range(traffic.cnt)]
    assert [event.sequence for event in events] == list(range(1, traffic.cnt + 1))
    assert len({event.epoch for event in events}) == 1, "the stream began anew"
    assert not subscriber.foreign and not subscriber.malformed and not subscriber.lost


def test_two_rotations_under_traffic_lose_nothing(make_instance):
    """Continuous publishing over two whole rotations: every event once, in order, in one stream; nothing dropped."""
    instance = make_instance(config={"times.key_overlap": "2"}).up()
    subscribers = [instance.subscribe("alice", repair=True) for _ in range(2)]
    before = instance.verdicts()
    traffic = Traffic(instance, "alice")
    for generation in (2, 3):
        assert rotate(instance) == generation
        assert wait_for(lambda: rotated(instance, generation), timeout=20), instance.get("/v1/keys")
    time.sleep(0.2)
    traffic.end()
    for subscriber in subscribers:
        check_whole(subscriber, traffic)
        assert {packet[3] for packet in subscriber.packets} == {1, 2, 3}, "key generations of the deliveries"
        assert not subscriber.unopened, "came before its key"
    assert traffic.sent == 2 * traffic.cnt
    now = instance.verdicts()
    dropped = {name: now[name] - before[name] for name in now if name != "accepted" and now[name] != before[name]}
    assert not dropped, "the filter dropped what was sent during a rotation"


def test_old_keys_hold_for_their_time_and_then_end(make_instance):
    """A delivery of the generation before passes during the overlap; afterwards the filter drops it."""
    instance = make_instance(config={"times.key_overlap": "3"}).up()
    alice = instance.subscribe("alice")
    instance.publisher().publish("alice", "old")
    alice.wait_events(1)
    packet, forger = alice.packets[0], instance.as_engine()
    rotate(instance)
    assert wait_for(lambda: instance.get("/v1/keys")["rotation"]["stage"] == "overlap")
    accepted = instance.verdicts()["accepted"]
    forger.sendto(packet, (alice.address, alice.port))
    assert wait_for(lambda: instance.verdicts()["accepted"] == accepted + 1), "refused too early"
    assert wait_for(lambda: rotated(instance, 2), timeout=10)
    dropped = instance.verdicts()["key_generation"]
    forger.sendto(packet, (alice.address, alice.port))
    assert wait_for(lambda: instance.verdicts()["key_generation"] == dropped + 1), "accepted after its time"


def test_fanwired_killed_in_each_part_of_a_rotation(make_instance):
    """kill -9 before the switch, in the overlap and at its end: the rotation ends, and every event came once."""
    instance = make_instance(config={"times.key_overlap": "2"}).up()
    alice, publisher, cnt = instance.subscribe("alice", repair=True), instance.publisher(), 0
    for generation, stages in enumerate((("telling", "confirming", "settling"), ("overlap",), ("overlap", "retiring")), 2):
        assert rotate(instance) == generation
        assert wait_for(lambda: instance.get("/v1/keys")["rotation"]["stage"] in stages, every=0.005)
        instance.kill("fanwired")
        for _ in range(20):
            publisher.publish("alice", str(cnt))
            cnt += 1
        instance.restart("fanwired")
        alice.attach()
        publisher.attach()
        assert wait_for(lambda: rotated(instance, generation), timeout=20), instance.get("/v1/keys")
        publisher.publish("alice", str(cnt))
        cnt += 1
    events = alice.wait_events(cnt)
    assert [event.payload for event in events] == [b"%d" % i for i in range(cnt)]
    assert not alice.lost and not alice.foreign and not alice.malformed
    assert wire.Delivery.decode(alice.packets[-1]).key_generation == 4
