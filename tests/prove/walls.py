#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Each wall alone: the other four are switched off (planted bugs, and no seal), and it stops what it should by itself.
Each attack is first tried with all five off, where it has to succeed: otherwise its failure would prove nothing.

What is tried: asking for another user's connection; an endpoint of Alice that a fault in the registry made Bob's, so that
the engine itself sends her events to him (table, kernel and cryptography in turn); and an address that never echoed.
"""
import mmap
import socket
import struct
import sys

import live

sys.path.insert(0, str(live.ROOT / "tests/system"))
import peer  # noqa: E402
import wire  # noqa: E402

OFF = {
    "registration": "FOREIGN_ID_TAKEN",
    "table": "ENDPOINT_NOT_COMPARED",
    "kernel": "FILTER_PASSES_FOREIGN,FILTER_PASSES_OLD_GENERATION,FILTER_KEEPS_OLD_KEYS,FILTER_PASSES_WRONG_TAG",
    "liveness": "ECHO_NOT_CHECKED,LEASE_IGNORED",
    "cryptography": None,  # not a planted bug: scope.seal = false
}
ENDPOINT = struct.Struct("<16s16sQIHH")
SECRET = b"for alice alone"


def with_walls(on):
    """An instance in which only the walls `on` stand."""
    plants = ",".join(plant for wall, plant in OFF.items() if wall not in on and plant)
    return live.instance(plant=plants, ports=100, config={"scope.seal": "true" if "cryptography" in on else "false"})


def mix_up(instance, alice, bob):
    """Alice's endpoint in the registry region becomes Bob's, as a fault in fanwired could have it."""
    place = socket.inet_aton(alice.address)
    with open(instance.dir / "regions/registry", "r+b") as file, mmap.mmap(file.fileno(), 0) as region:
        found = []
        at = region.find(alice.handle)
        while at >= 0:
            if at + ENDPOINT.size <= len(region):
                _, address, connection, _, port, _ = ENDPOINT.unpack_from(region, at)
                if port == alice.port and address[12:] == place and connection == int(alice.id, 16):
                    found.append(at)
            at = region.find(alice.handle, at + 1)
        assert found, "Alice's endpoint is not in the region"
        for at in found:
            struct.pack_into("<16s", region, at, bob.handle)
            struct.pack_into("<H", region, at + 44, bob.port)


def reads(instance):
    """What Bob's process can read of an event for Alice whose endpoint was mixed up: 'nothing', 'sealed' or 'all'."""
    alice, bob = instance.subscribe("alice", family=4), instance.subscribe("bob", family=4)
    bob.stop = True
    bob.thread.join()
    mix_up(instance, alice, bob)
    instance.publisher().publish("alice", SECRET)
    bob.udp.settimeout(0.5)
    try:
        packet = bob.udp.recv(4096)
    except TimeoutError:
        return "nothing"
    delivery = wire.Delivery.decode(packet)
    assert delivery.handle == alice.handle
    if SECRET in packet:
        return "all"
    bob.on_datagram(packet)  # with all the keys that he has
    return "all" if any(SECRET in event.payload for event in bob.events) else "sealed"


def takes_another_users_id(instance):
    alice = instance.subscribe("alice", family=4)
    instance.subscribe("bob", family=4)  # so that no limit counts a connection in the place of one of his own
    try:
        instance.subscribe("bob", wait=False, family=4, connection=alice.id)
        return True
    except peer.Refused as refused:
        assert refused.error == "connection_foreign", refused
        return False


def activates_without_an_echo(instance):
    """A forged echo: of the right connection and form, with a proof that is none."""
    mallory = peer.Subscriber(instance.client_socket, instance.token("mallory"), start=False, family=4)
    instance.opened.append(mallory)
    mallory.udp.setblocking(True)
    mallory.udp.settimeout(5)
    challenge = wire.Delivery.decode(mallory.udp.recv(2000))
    challenge.sequence ^= 1
    mallory.udp.sendto(wire.echo(challenge), mallory.engine)
    return bool(live.wait_for(lambda: instance.connections("mallory")[0]["state"] == "active", 1.5))


# wall -> (what is tried, what it gives without any wall, what it may give with this one alone)
ATTACKS = {
    "registration": (takes_another_users_id, True, False),
    "table": (reads, "all", "nothing"),
    "kernel": (reads, "all", "nothing"),
    "cryptography": (reads, "all", "sealed"),
    "liveness": (activates_without_an_echo, True, False),
}


def attempt(attack, on):
    instance = with_walls(on)
    try:
        return attack(instance)
    finally:
        instance.down()


def main():
    how = live.arguments(__doc__)
    part = live.Part("walls alone", "attacks", how.seed)
    open_field = {}
    for wall, (attack, without, alone) in ATTACKS.items():
        if attack not in open_field:
            open_field[attack] = attempt(attack, ())
        if open_field[attack] != without:
            part.got_through(f"{wall}: with no wall at all {attack.__name__} gives {open_field[attack]}: that proves nothing")
        got = attempt(attack, (wall,))
        part.tried()
        print(f"{wall}: {attack.__name__}: {open_field[attack]} without any wall, {got} with this one alone", flush=True)
        if got != alone:
            part.got_through(f"{wall} alone: {attack.__name__} gives {got}")
    return part.close()


if __name__ == "__main__":
    sys.exit(main())
