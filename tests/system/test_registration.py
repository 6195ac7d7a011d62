# SPDX-License-Identifier: BSD-3-Clause
"""Registrations: who may have which id, for how long, how many, and that nothing is left over."""
import os
import pathlib
import subprocess
import threading
import time

import pytest

import peer
from instance import wait_for


def test_the_same_id_twice_is_replaced(instance):
    """Same connection id registered twice by its user: replaced; one copy."""
    first = instance.subscribe("twice", connection="00000000000000a1")
    second = instance.subscribe("twice", connection="00000000000000a1")
    assert first.wait_ended()["reason"] == "replaced"
    result = instance.publisher().publish("twice", "once")
    assert (result.attempted, result.sent) == (1, 1)
    assert [e.payload for e in second.wait_events(1)] == [b"once"]
    assert first.wait_events(1, timeout=0.3) == []
    assert [c["id"] for c in instance.connections("twice")] == [second.id]


def test_another_users_id_is_refused_and_audited(instance):
    """Connection id registered by another user: refused, audited; the owner goes on."""
    owner = instance.subscribe("owner", connection="00000000000000b2")
    before = len(instance.audit("connection_foreign"))
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("taker", connection="00000000000000b2")
    assert refused.value.error == "connection_foreign"
    records = wait_for(lambda: instance.audit("connection_foreign")[before:])
    import wire

    assert records[-1]["victim"] == wire.handle("owner").hex()
    assert records[-1]["foreign"] == wire.handle("taker").hex()
    assert instance.publisher().publish("owner", "still mine").sent == 1
    assert [e.payload for e in owner.wait_events(1)] == [b"still mine"]
    assert not instance.connections("taker")


def test_cleaning_up_an_old_entry_leaves_the_new_owner(instance):
    """An id that moved, then the old entry is cleaned up: the new owner is untouched."""
    old = instance.subscribe("moving", connection="00000000000000c3")
    old.close()
    assert wait_for(lambda: not instance.connections("moving"))
    new = instance.subscribe("moved", connection="00000000000000c3")
    # And the id that was replaced: the end of the first entry comes after the second is there.
    replaced = instance.subscribe("moved", connection="00000000000000c3")
    new.close()
    time.sleep(0.5)
    (connection,) = instance.connections("moved")
    assert connection["id"] == "00000000000000c3" and connection["state"] == "active"
    assert instance.publisher().publish("moved", "here").sent == 1
    assert [e.payload for e in replaced.wait_events(1)] == [b"here"]


def test_a_lease_that_is_not_renewed_ends(make_instance):
    """Stale connections: lease on a monotonic clock; an expired one gets nothing; a renewed one goes on."""
    instance = make_instance(config={"times.lease": 2}).up()
    renewing = instance.subscribe("lease")
    lazy = instance.subscribe("lease", start=False, wait=False)
    lazy.udp.setblocking(True)
    lazy.on_datagram(lazy.udp.recv(2000))  # answers the challenge, and then never renews
    lazy.udp.setblocking(False)
    publisher = instance.publisher()
    assert wait_for(lambda: publisher.publish("lease", "both").sent == 2)
    assert wait_for(lambda: len(instance.connections("lease")) == 1, timeout=5)
    lazy.on_datagrams()
    heard = len(lazy.events)
    assert publisher.publish("lease", "one").sent == 1
    time.sleep(0.2)
    lazy.on_datagrams()
    assert len(lazy.events) == heard
    while True:
        message, _ = lazy.client.receive()
        if message["event"] == "ended":
            break
    assert message["reason"] == "lease"
    time.sleep(2.5)
    assert publisher.publish("lease", "renewed").sent == 1 and not renewing.ended


def test_a_registration_ends_with_its_token(instance):
    """A registration ends with its token unless renewed with a fresh one."""
    ends = instance.subscribe("token-ends", token=instance.token("token-ends", ttl=2))
    lasts = instance.subscribe("token-ends", token=instance.token("token-ends", ttl=2))
    lasts.client.send({"op": "renew", "token": instance.token("token-ends", ttl=60)})
    assert ends.wait_ended(timeout=6)["reason"] == "token"
    time.sleep(0.5)
    assert not lasts.ended
    assert instance.publisher().publish("token-ends", "x").sent == 1


def test_a_token_of_another_user_does_not_renew(instance):
    """A connection belongs to one user for its whole life."""
    mine = instance.subscribe("renewer")
    client = mine.client
    mine.stop = True
    mine.thread.join()
    with pytest.raises(peer.Refused) as refused:
        client.ask({"op": "renew", "token": instance.token("someone-else")})
    assert refused.value.error == "token_user"
    assert instance.connections("renewer")[0]["state"] == "active"


def test_fifteen_concurrent_adds_at_limit_ten_give_ten(make_instance):
    """Limit of connections a user: 15 concurrent adds at limit 10 give exactly 10."""
    instance = make_instance(config={"limits.max_connections_per_user": 10}).up()
    token, made, refused = instance.token("limited"), [], []
    barrier = threading.Barrier(15)

    def add():
        barrier.wait()
        try:
            made.append(instance.subscribe("limited", token=token))
        except peer.Refused as no:
            refused.append(no.error)

    threads = [threading.Thread(target=add) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 10 and refused == ["limit_user"] * 5
    assert instance.publisher().publish("limited", "x").sent == 10
    made[0].close()
    assert wait_for(lambda: len(instance.connections("limited")) == 9)
    instance.subscribe("limited", token=token)


def test_the_default_limit_is_64(instance):
    """Limit of connections a user: 64 by default, and another user's is his own."""
    token = instance.token("crowd")
    made = [instance.subscribe("crowd", token=token, wait=False) for _ in range(64)]
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("crowd", token=token)
    assert refused.value.error == "limit_user" and "64" in refused.value.message
    instance.subscribe("crowd-2")
    for one in made:
        one.wait_active()
    assert instance.publisher().publish("crowd", "x").sent == 64


def test_disconnect_ends_one_connection(instance):
    """An administrator ends one connection; the user's others go on."""
    goes, stays = instance.subscribe("disconnect"), instance.subscribe("disconnect")
    instance.ctl("disconnect", goes.id)
    assert goes.wait_ended()["reason"] == "disconnected"
    assert wait_for(lambda: [c["id"] for c in instance.connections("disconnect")] == [stays.id])
    assert instance.publisher().publish("disconnect", "x").sent == 1


def test_the_last_user_of_a_port_may_have_it_back_first(make_instance):
    """Quarantine of freed ports, the last user first."""
    instance = make_instance(ports=2, config={"network.receiver_addresses": '[ "198.18.0.2" ]', "times.quarantine": 4}).up()
    first, second = instance.subscribe("port-a"), instance.subscribe("port-b")
    first.close()
    assert wait_for(lambda: not instance.connections("port-a"))
    ended = time.monotonic()
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("port-c")
    assert refused.value.error == "no_port"
    back = instance.subscribe("port-a")
    assert back.port == first.port and time.monotonic() - ended < 3
    back.close()

    def other_gets_it():
        try:
            return instance.subscribe("port-c")
        except peer.Refused:
            return None

    other = wait_for(other_gets_it, timeout=10, every=0.2)
    assert other and other.port == first.port and time.monotonic() - ended >= 4
    assert second.port != other.port


def used_by(instance):
    """What connections could leave behind."""
    pid = instance.pid("fanwired")
    status = instance.status()
    entries = {}
    for name in ("scopes",):
        dump = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", str(pathlib.Path(instance.dir) / "bpf" / name)],
                              capture_output=True, text=True, check=True).stdout
        entries[name] = dump.count('"key"') // (2 if '"formatted"' in dump else 1)
    return {
        "connections": sum(status["connections"].values()), "ports": status["ports"]["used"], "entries": entries,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def slab_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no SUnreclaim in /proc/meminfo")


def settled_slab():
    """The least within a few seconds: the kernel frees after grace periods."""
    least = slab_bytes()
    for _ in range(30):
        time.sleep(0.1)
        least = min(least, slab_bytes())
    return least


def test_hundred_cycles_of_twenty_leave_nothing(make_instance):
    """100 connect/disconnect cycles x 20: connections, ports, map entries, slab and descriptors back where they were."""
    instance = make_instance(ports=1000, config={"times.quarantine": 1, "times.linger": 1}).up()
    token = instance.token("cycles")

    def cycle():
        subscribers = [peer.Subscriber(instance.client_socket, token, start=False) for _ in range(20)]
        for subscriber in subscribers:
            subscriber.udp.setblocking(True)
            subscriber.udp.settimeout(5)
            while not subscriber.active.is_set():
                subscriber.on_datagram(subscriber.udp.recv(2000))
                message, _ = subscriber.client.receive()
                subscriber.on_message(message)
        for subscriber in subscribers:
            subscriber.close()

    def settled():
        status = instance.status()
        return sum(status["connections"].values()) == 0 and status["ports"]["used"] == 0 and status["ports"]["resting"] == 0

    for _ in range(5):
        cycle()  # caches fill
    assert wait_for(settled, timeout=10)
    before = used_by(instance)
    slab = slab_bytes()
    for _ in range(100):
        cycle()
    assert wait_for(settled, timeout=20), instance.status()["ports"]
    assert wait_for(lambda: used_by(instance) == before), (used_by(instance), before)
    # The slab is the whole machine's, and others use it: what leaks grows in every round, noise does not. 2,000
    # sockets left over would be 2.5 MB of UDP sockets alone.
    grown = [settled_slab() - slab]
    while grown[-1] > 1 << 20 and len(grown) < 4:
        slab = slab_bytes()
        for _ in range(50):
            cycle()
        assert wait_for(settled, timeout=20)
        grown.append(settled_slab() - slab)
    assert grown[-1] <= 1 << 20, f"slab grew by {grown} bytes in as many rounds"
    assert wait_for(lambda: instance.status()["groups"]["total"] == 0, timeout=10)
