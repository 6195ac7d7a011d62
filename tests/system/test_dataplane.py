# SPDX-License-Identifier: BSD-3-Clause
"""What the dataplane was asked to do before it stood still, and for whom it does it when it goes on."""
import signal
import time

import pytest

from instance import wait_for

PORTS = 10


def stopped_with_challenges(make_instance):
    """An instance whose dataplane was stopped before it could challenge PORTS registrations; who asked for them is gone."""
    instance = make_instance(ports=PORTS, config={"network.receiver_addresses": '[ "198.18.0.2" ]', "times.quarantine": 1,
                                                  "times.challenge_timeout": 30}).up()
    instance.subscribe("first").close()
    assert wait_for(lambda: instance.status()["ports"]["free"] == PORTS, timeout=20)
    instance.kill("dataplane", signal.SIGSTOP)
    leaving = [instance.subscribe(f"leaving-{i}", wait=False) for i in range(PORTS)]
    assert wait_for(lambda: sum(c["state"] == "pending" for c in instance.connections()) == PORTS)
    for one in leaving:
        one.close()
    time.sleep(2)  # past the quarantine
    return instance


def all_ports_in_other_hands(instance):
    """Every port belongs to another user, and nothing that is another's came to it."""
    assert wait_for(lambda: instance.status()["ports"]["free"] == PORTS, timeout=20), instance.status()["ports"]
    others = [instance.subscribe(f"other-{i}") for i in range(PORTS)]
    time.sleep(0.5)
    assert instance.verdicts()["foreign_user"] == 0
    assert not any(one.foreign for one in others)


def test_a_killed_dataplane_leaves_no_challenge_to_its_successor(make_instance):
    instance = stopped_with_challenges(make_instance)
    instance.kill("dataplane")
    assert wait_for(lambda: instance.status()["ports"]["free"] == PORTS, timeout=20), "nothing is in a dead one's hands"
    instance.start("dataplane")
    instance.wait()
    all_ports_in_other_hands(instance)


def test_a_stopped_dataplane_keeps_the_ports_that_it_may_still_challenge(make_instance):
    instance = stopped_with_challenges(make_instance)
    assert instance.status()["ports"]["free"] == 0, "it may go on at any moment"
    instance.kill("dataplane", signal.SIGCONT)
    assert wait_for(lambda: instance.counters()["drop_request_late"] >= PORTS, timeout=5)
    all_ports_in_other_hands(instance)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_running_is_said_only_of_what_runs(make_instance, number):
    """From its end to its successor's first loop the dataplane is not running, and nobody is granted a socket."""
    instance = make_instance().up()
    instance.kill("dataplane", number)
    assert wait_for(lambda: instance.status()["dataplane"]["state"] == "stopped")
    instance.start("dataplane")
    while (plane := instance.status()["dataplane"])["state"] != "running":
        assert plane["state"] == "stopped", plane
    assert plane["heartbeat_age_seconds"] < 1, plane
    subscriber = instance.subscribe("at-once")
    assert instance.publisher().publish("at-once", "1").sent == 1
    subscriber.wait_events(1)
