# SPDX-License-Identifier: BSD-3-Clause
"""What somebody on the way has kept of an earlier stream, and sends again; keys and sealing that change under a client."""
import json
import re
import signal
import time

import wire
from instance import wait_for
from test_repair import tail_of
from test_rotation import rotate, rotated


def payloads(tail):
    return [line.get("payload", line) for line in map(json.loads, tail.output.read_text().splitlines())]


def keep(instance, publisher, user):
    """A delivery and a status of a stream that is over afterwards, and its epoch."""
    subscriber, statuses = instance.subscribe(user), []
    subscriber.loses = lambda packet: packet[1] == wire.STATUS and bool(statuses.append(packet))
    epoch = publisher.publish(user, "of old").epoch
    subscriber.wait_events(1)
    assert wait_for(lambda: statuses)
    subscriber.close()
    instance.opened.remove(subscriber)
    return epoch, [subscriber.packets[0], statuses[-1]]


def send_to_all(instance, user, packets):
    for connection in instance.connections(user):
        for packet in packets:
            instance.as_engine().sendto(packet, (connection["address"], connection["port"]))
    time.sleep(0.2)


def test_an_earlier_epochs_datagrams_change_nothing(make_instance, tmp_path):
    """Before the first event, between events, and over the next change of the epoch: every event once and in order."""
    instance = make_instance(config={"times.linger": "1", "times.quarantine": "1"}).up()
    publisher = instance.publisher()
    old, kept = keep(instance, publisher, "alice")
    time.sleep(4)  # the group is gone
    tail, peer = tail_of(instance, "alice", tmp_path), instance.subscribe("alice", repair=True)
    wait_for(lambda: all(c["state"] == "active" for c in instance.connections("alice")))
    send_to_all(instance, "alice", kept)
    for number in range(6):
        assert publisher.publish("alice", str(number)).epoch != old
        send_to_all(instance, "alice", kept)
    expected = [str(number) for number in range(6)]
    assert wait_for(lambda: payloads(tail) == expected), payloads(tail)
    assert [e.payload.decode() for e in peer.wait_events(6)] == expected
    time.sleep(3)  # whatever fanwired was asked and said meanwhile
    assert payloads(tail) == expected and len(peer.events) == 6 and not peer.lost
    assert publisher.publish("alice", "6").sent == 2
    assert wait_for(lambda: payloads(tail)[6:] == ["6"]), payloads(tail)


def test_what_was_recorded_before_a_reboot_passes_no_filter(make_instance, tmp_path):
    instance = make_instance().up()
    publisher = instance.publisher()
    _, kept = keep(instance, publisher, "alice")
    publisher.close()
    instance.opened.remove(publisher)
    for program in ("dataplane", "fanwired"):
        instance.kill(program)
    for region in (instance.dir / "regions").iterdir():
        region.unlink()
    for program in ("fanwired", "dataplane"):
        instance.start(program)
    instance.wait()
    tail = tail_of(instance, "alice", tmp_path)
    wait_for(lambda: [c for c in instance.connections("alice") if c["state"] == "active"])
    before = instance.verdicts()
    send_to_all(instance, "alice", kept)
    after = instance.verdicts()
    assert after["tag"] - before["tag"] == len(kept) and after["accepted"] == before["accepted"], (before, after)
    assert instance.publisher().publish("alice", "new").sent == 1
    assert wait_for(lambda: payloads(tail) == ["new"]), payloads(tail)


def test_sealing_may_change_under_a_client_that_stays(make_instance, tmp_path):
    instance = make_instance(config={"scope.seal": "true"}).up()
    tail, config = tail_of(instance, "alice", tmp_path), instance.dir / "fanwire.conf"
    instance.publisher().publish("alice", "sealed")
    for seal, payload in (("false", "plain"), ("true", "sealed again")):
        for program in ("dataplane", "fanwired"):
            instance.kill(program)
        config.write_text(re.sub(r"\bseal = (true|false)", f"seal = {seal}", config.read_text(), count=1))
        for program in ("fanwired", "dataplane"):
            instance.start(program)
        instance.wait()
        wait_for(lambda: instance.connections("alice"))
        publisher = instance.publisher()
        assert wait_for(lambda: publisher.publish("alice", payload).sent == 1)
        assert wait_for(lambda: payload in payloads(tail), 25), payloads(tail)


def test_a_slow_client_opens_what_waited_over_a_rotation(make_instance, tmp_path):
    """Its queue holds events of the generation that has been retired when it goes on reading."""
    instance = make_instance(config={"times.key_overlap": "1"}).up()
    publisher, tail = instance.publisher(), tail_of(instance, "alice", tmp_path)
    publisher.publish("alice", "0")
    assert wait_for(lambda: payloads(tail) == ["0"])
    tail.send_signal(signal.SIGSTOP)
    for number in range(1, 51):
        publisher.publish("alice", str(number))
    generation = rotate(instance)
    assert wait_for(lambda: rotated(instance, generation), 15)
    publisher.publish("alice", "51")
    tail.send_signal(signal.SIGCONT)
    expected = [str(number) for number in range(52)]
    assert wait_for(lambda: len(payloads(tail)) >= 52), payloads(tail)
    assert payloads(tail) == expected
