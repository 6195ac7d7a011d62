# SPDX-License-Identifier: BSD-3-Clause
"""What is tried against a wall alone (walls.py): each by users of its own, so that an instance serves for all. Each
gives what came of it: 'all' (a secret read, a forgery believed, a place taken that is not one's own), 'sealed' (bytes that
do not open) or 'nothing'.
"""
import base64
import contextlib
import hashlib
import hmac
import json
import mmap
import os
import socket
import struct
import time

import live
import peer
import wire
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LEASE_S = 1
SECRET = b"a secret, and whose it is"
FORGED = b"not what the engine sent."
assert len(SECRET) == len(FORGED)
ENDPOINT = struct.Struct("<16s16sQIHH")
GROUP = struct.Struct("<16sQQQ16sIBxxx")  # handle, channel, incarnation, endpoints, tag key, generations
READ_S = 0.4  # for what arrives at once, or never


class Scene:
    """An instance, and users whose names no other attack has."""

    def __init__(self, instance, name):
        self.instance, self.name = instance, name

    def user(self, who):
        return f"{who}-{self.name}"

    def subscribe(self, who, **how):
        return self.instance.subscribe(self.user(who), family=4, **how)

    def publish(self, who, payload=SECRET):
        return self.instance.publisher().publish(self.user(who), payload)

    def captured(self, who):
        """Of a subscriber: he, and the packet of a secret that he was sent."""
        subscriber = self.subscribe(who)
        self.publish(who)
        assert subscriber.wait_events(1), f"{self.name}: nothing arrives at {who}"
        return subscriber, subscriber.packets[0]

    def inject(self, packet, target):
        """As a local process without any right can."""
        self.instance.receiver_socket().sendto(packet, (target.address, target.port))

    def revoke(self, who):
        self.instance.ctl("revoke", self.user(who))


def alone(subscriber):
    """Its thread ends: it renews nothing and reads nothing, and its sockets stay open."""
    subscriber.stop = True
    subscriber.thread.join()
    return subscriber


def deliveries(udp, seconds=READ_S):
    """Packets with events that arrive within the time; the first ends it."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        udp.settimeout(left)
        with contextlib.suppress(TimeoutError):
            packet = udp.recv(4096)
            if packet[1] == wire.DELIVERY:
                return packet
    return None


def payload_of(packet, seal, keys=None):
    """What whoever holds these keys reads of it; None: it does not open."""
    if not seal:
        return packet[wire.HEADER.size:]
    for key in (keys or {}).values():
        with contextlib.suppress(wire.Malformed):
            return wire.unseal(key, packet)
    return None


def read(udp, holder, wanted=SECRET, keys=None):
    """What of `wanted` comes of this socket, with the keys of its holder."""
    packet = deliveries(udp)
    if packet is None:
        return "nothing"
    return "all" if payload_of(packet, holder.answer["seal"], keys) == wanted else "sealed"


def read_own(subscriber, wanted=SECRET):
    return read(subscriber.udp, subscriber, wanted, subscriber.keys)


# ---- registration ----

def takes_another_users_id(scene):
    alice = scene.subscribe("alice")
    scene.subscribe("bob")  # so that no limit counts a connection in the place of one of his own
    try:
        scene.subscribe("bob", wait=False, connection=alice.id)
        return "all"
    except peer.Refused as refused:
        assert refused.error == "connection_foreign", refused
        return "nothing"


def encode(part):
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def signed(claims, key, algorithm="HS256"):
    text = f"{encode({'alg': algorithm, 'typ': 'JWT'})}.{encode(claims)}"
    return f"{text}.{encode(hmac.new(key, text.encode(), hashlib.sha256).digest()) if key else ''}"


def signing_key(instance):
    """Of the instance, for tokens that its key did sign and that must not do all the same."""
    for path in (instance.dir / "state").iterdir():
        if path.is_file() and path.read_bytes().startswith(b"fanwire keys"):
            lines = dict(line.split() for line in path.read_text().splitlines()[1:])
            return bytes.fromhex(lines["token"])
    raise AssertionError("no file of keys in the state directory")


def joins(scene, token):
    """Whether this token gives Alice's events."""
    try:
        thief = scene.subscribe("thief", token=token)
    except peer.Refused as refused:
        assert refused.error.startswith("token"), refused
        return "nothing"
    scene.publish("alice")
    return "all" if [event.payload for event in thief.wait_events(1, 2)] == [SECRET] else "nothing"


def alices_claims(scene):
    return claims_of(scene.instance.token(scene.user("alice")))


def token_of_another_key(scene):
    return joins(scene, signed(alices_claims(scene), os.urandom(32)))


def token_without_algorithm(scene):
    return joins(scene, signed(alices_claims(scene), b"", "none"))


def token_with_another_name(scene):
    header, _, signature = scene.instance.token(scene.user("mallory")).split(".")
    return joins(scene, f"{header}.{encode(alices_claims(scene))}.{signature}")


def token_that_expired(scene):
    claims = {**alices_claims(scene), "exp": int(time.time()) - 5}
    return joins(scene, signed(claims, signing_key(scene.instance)))


def token_for_another_audience(scene):
    return joins(scene, signed({**alices_claims(scene), "aud": "another-service"}, signing_key(scene.instance)))


def token_from_before_a_revocation(scene):
    token = scene.instance.token(scene.user("alice"))
    scene.revoke("alice")
    return joins(scene, token)


# ---- liveness ----

def challenged(scene, who="mallory", **how):
    """A subscriber who has not answered, and his challenge."""
    one = scene.subscribe(who, wait=False, start=False, **how)
    one.udp.setblocking(True)
    one.udp.settimeout(5)
    while True:
        delivery = wire.Delivery.decode(one.udp.recv(2000))
        if delivery.type == wire.CHALLENGE:
            return one, delivery


def activated(scene, who="mallory"):
    def is_active():
        return any(one["state"] == "active" for one in scene.instance.connections(scene.user(who)))
    return "all" if live.wait_for(is_active, 1) else "nothing"


def forged_echo(scene):
    """Of the right connection and form, with a proof that is none."""
    mallory, challenge = challenged(scene)
    challenge.sequence ^= 1
    mallory.udp.sendto(wire.echo(challenge), mallory.engine)
    return activated(scene)


def echo_from_elsewhere(scene):
    """The right proof, from an address that was not challenged."""
    mallory, challenge = challenged(scene)
    scene.instance.receiver_socket().sendto(wire.echo(challenge), mallory.engine)
    return activated(scene)


def echo_of_an_earlier_challenge(scene):
    """Once the place was his own. Now the same connection stands for an address that says nothing."""
    before, old = challenged(scene)
    before.udp.sendto(wire.echo(old), before.engine)
    assert activated(scene) == "all"
    now, new = challenged(scene, connection=before.id)
    assert old.epoch != new.epoch, "the same salt twice"
    now.udp.sendto(wire.echo(old), now.engine)
    return activated(scene)


def outlives_its_lease(scene):
    alice = alone(scene.subscribe("alice"))
    time.sleep(LEASE_S * 1.5)
    scene.publish("alice")
    return read_own(alice)


def outlives_its_death(scene):
    """Its process is gone but for a descriptor that somebody else holds."""
    alice = alone(scene.subscribe("alice"))
    alice.client.close()
    live.wait_for(lambda: not scene.instance.connections(scene.user("alice")), 0.9)
    scene.publish("alice")
    return read_own(alice)


# ---- kernel ----

def packet_of_another(scene):
    _, packet = scene.captured("alice")
    bob = alone(scene.subscribe("bob"))
    scene.inject(packet, bob)
    return read_own(bob)


def header_for(subscriber, payload, **how):
    fields = {"type": wire.DELIVERY, "flags": wire.BEGIN | wire.END, "key_generation": 1, "kind": 0,
              "handle": subscriber.handle, "channel": wire.ALL, "epoch": 7, "sequence": 1, "time_ns": time.time_ns(),
              "user_generation": 1, "session": 1, "publisher_sequence": 1, "seal_tag": bytes(16),
              "filter_tag": os.urandom(8), "payload": payload}
    return wire.Delivery(**{**fields, **how})


def packet_with_a_wrong_tag(scene):
    """All of the header is right but what only the engine can make."""
    bob = alone(scene.subscribe("bob"))
    scene.inject(header_for(bob, FORGED).encode(), bob)
    return read_own(bob, FORGED)


def packet_from_before_a_revocation(scene):
    _, packet = scene.captured("alice")
    scene.revoke("alice")
    again = alone(scene.subscribe("alice"))
    scene.inject(packet, again)
    return read_own(again)


def socket_from_before_a_revocation(scene):
    """It is still open, and its holder still has his keys: what is sent to the user's new one is sent to it too."""
    old = alone(scene.subscribe("alice"))
    scene.revoke("alice")
    _, packet = scene.captured("alice")
    scene.inject(packet, old)
    return read_own(old)


def strangers_socket_on_the_port(scene):
    """A subscriber died unnoticed, and somebody else takes the port that is still registered."""
    alice = alone(scene.subscribe("alice"))
    alice.udp.close()
    stranger = scene.instance.receiver_socket()
    try:
        stranger.bind((alice.address, alice.port))
    except PermissionError:
        return "nothing"
    scene.publish("alice")
    return read(stranger, alice)


# ---- table: faults of its writer, which the engine itself would follow ----

@contextlib.contextmanager
def registry_of(instance):
    with open(instance.dir / "regions/registry", "r+b") as file, mmap.mmap(file.fileno(), 0) as region:
        yield region


def places_of(region, handle):
    at = region.find(handle)
    while at >= 0:
        yield at
        at = region.find(handle, at + 1)


def endpoint_of_another(scene):
    """Alice's endpoint becomes Bob's."""
    alice, bob = scene.subscribe("alice"), alone(scene.subscribe("bob"))
    with registry_of(scene.instance) as region:
        found = 0
        for at in list(places_of(region, alice.handle)):
            _, address, connection, record, _, hop = ENDPOINT.unpack_from(region, at)
            if connection == int(alice.id, 16) and address[12:] == socket.inet_aton(alice.address):
                ENDPOINT.pack_into(region, at, bob.handle, address, connection, record, bob.port, hop)
                found += 1
        assert found, "Alice's endpoint is not in the region"
    scene.publish("alice")
    return read_own(bob)


def group_at(region, handle):
    """Where the group of a user's channel ALL is."""
    for at in places_of(region, handle):
        if at % GROUP.size == 0:
            _, channel, incarnation, endpoints, _, generation, _ = GROUP.unpack_from(region, at)
            if channel == wire.ALL and incarnation and endpoints and generation == 1:
                return at
    raise AssertionError("the group is not in the region")


def block_of_another(scene):
    """Alice's group refers to a block that is Bob's by now, as if it had been given away too early."""
    alice, bob = scene.subscribe("alice"), alone(scene.subscribe("bob"))
    with registry_of(scene.instance) as region:
        mine, others = group_at(region, alice.handle) + 32, group_at(region, bob.handle) + 32
        region[mine:mine + 8] = region[others:others + 8]
    scene.publish("alice")
    return read_own(bob)


def endpoint_after_its_end(scene):
    """An administrator ended the registration, and its socket is still open: whether the engine still sends to it."""
    alice = alone(scene.subscribe("alice"))
    scene.instance.ctl("disconnect", alice.id)
    scene.publish("alice")
    return read_own(alice)


def endpoint_after_a_move(scene):
    """Likewise where the same connection has another socket by now."""
    before = alone(scene.subscribe("alice"))
    scene.subscribe("alice", wait=False, connection=before.id)
    live.wait_for(lambda: activated(scene, "alice") == "all", 3)
    scene.publish("alice")
    return read_own(before)


def group_from_before_a_revocation(scene):
    """Likewise of a user's generation that is over."""
    alice = alone(scene.subscribe("alice"))
    scene.revoke("alice")
    scene.publish("alice")
    return read_own(alice)


# ---- cryptography: what only the payload's seal can tell ----

def altered_payload(scene):
    """Under a header that the engine made, tag and all."""
    alice, packet = scene.captured("alice")
    alone(alice)
    altered = bytearray(packet)
    for i, (old, new) in enumerate(zip(SECRET, FORGED)):
        altered[wire.HEADER.size + i] ^= old ^ new
    scene.inject(bytes(altered), alice)
    return read_own(alice, FORGED)


def packet_under_another_name(scene):
    """Alice's, with Bob's name on it, and at Bob's socket."""
    _, packet = scene.captured("alice")
    bob = alone(scene.subscribe("bob"))
    delivery = wire.Delivery.decode(packet)
    delivery.handle = bob.handle
    scene.inject(delivery.encode(), bob)
    return read_own(bob)


def packet_under_another_users_key(scene):
    """Bob has a key of his own, and seals with it what shall be Alice's."""
    alice, bob = alone(scene.subscribe("alice")), scene.subscribe("bob")
    delivery = header_for(alice, FORGED)
    if bob.answer["seal"]:
        (generation, key), = bob.keys.items()
        delivery.key_generation = generation
        header = delivery.encode()[:76]
        nonce = struct.pack(">IQ", 3, delivery.sequence)
        sealed = AESGCM(wire.stream_key(key, delivery.channel, delivery.epoch)).encrypt(nonce, FORGED, header)
        delivery.payload, delivery.seal_tag = sealed[:-16], sealed[-16:]
        assert wire.unseal(key, delivery.encode()) == FORGED, "Bob's own key does not open it"
    scene.inject(delivery.encode(), alice)
    return read_own(alice, FORGED)


def altered_publish(scene):
    """On its way into the engine."""
    alice, publisher = alone(scene.subscribe("alice")), scene.instance.publisher()
    packet = bytearray(publisher.seal(scene.user("alice"), SECRET))
    for i, (old, new) in enumerate(zip(SECRET, FORGED)):
        packet[-16 - len(SECRET) + i] ^= old ^ new
    publisher.send(bytes(packet))
    return read_own(alice, FORGED)
