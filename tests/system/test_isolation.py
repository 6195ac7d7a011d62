# SPDX-License-Identifier: BSD-3-Clause
"""Nobody else: what is forged across users never reaches a process, and no other socket gets at the ports."""
import contextlib
import errno
import os
import socket
import struct

import pytest

import peer
import wire
from instance import PORTS_FIRST, netns, wait_for

SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER, SO_ATTACH_BPF = 26, 27, 44, 50
SO_REUSEADDR, SO_REUSEPORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT
UDP_SEGMENT, UDP_GRO = 103, 104
IP_LOCAL_PORT_RANGE = 51


def captured(instance, user):
    """A subscriber of `user`, and a delivery that the engine really sent to it."""
    subscriber = instance.subscribe(user)
    instance.publisher().publish(user, f"secret of {user}")
    (event,) = subscriber.wait_events(1)
    assert event.payload == f"secret of {user}".encode()
    return subscriber, subscriber.packets[0]


def drops(instance, verdict, before, expected=1):
    """How many more packets than `before` had this verdict: as soon as it is `expected`, or after a while."""
    wait_for(lambda: instance.verdicts()[verdict] - before[verdict] >= expected)
    return instance.verdicts()[verdict] - before[verdict]


def audited(instance, victim, count):
    """The audit's records of drops of this user's packets, once they tell of `count` packets."""
    records = [r for r in instance.audit("foreign_drop") if r["victim"] == wire.handle(victim).hex()]
    return records if sum(r["count"] for r in records) == count else None


def test_alices_packet_resent_to_bob_never_reaches_him(instance):
    """A delivery packet captured for Alice and resent to Bob's port never reaches Bob's process: drop counted by
    reason, audit record with both handles and the source address."""
    _, packet = captured(instance, "alice")
    bob = instance.subscribe("bob")
    before = instance.verdicts()
    forger = instance.as_engine()
    for _ in range(5):
        forger.sendto(packet, (bob.address, bob.port))
    assert drops(instance, "foreign_user", before, 5) == 5
    record = wait_for(lambda: audited(instance, "alice", 5))
    assert record, "no audit record"
    assert record[-1]["foreign"] == wire.handle("bob").hex()
    assert record[-1]["source"] == instance.engine4
    instance.publisher().publish("bob", "bob's own")
    assert [e.payload for e in bob.wait_events(1)] == [b"bob's own"]
    assert not bob.foreign and not bob.malformed and len(bob.packets) == 1


def test_alices_packet_resent_over_ipv6_never_reaches_bob(instance):
    """Likewise over IPv6, from another address: the source that the packet claims is in the audit."""
    _, packet = captured(instance, "alice6")
    bob = instance.subscribe("bob6", family=6)
    before = instance.verdicts()
    forger = instance.engine_socket(socket.AF_INET6)
    forger.sendto(packet, (bob.address, bob.port))
    assert drops(instance, "foreign_user", before) == 1
    record = wait_for(lambda: [r for r in instance.audit("foreign_drop") if r["victim"] == wire.handle("alice6").hex()])
    assert record[-1]["source"] == instance.engine6
    assert not bob.foreign and not bob.packets


def test_each_flipped_bit_of_the_header_is_dropped(instance):
    """Likewise: bit flips. Every single bit of a header that was really sent, at its own receiver."""
    carol, packet = captured(instance, "carol")
    forger = instance.as_engine()
    before = instance.verdicts()
    for bit in range(wire.HEADER.size * 8):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        forger.sendto(bytes(flipped), (carol.address, carol.port))
    total = wire.HEADER.size * 8

    def dropped():
        now = instance.verdicts()
        return sum(now[name] - before[name] for name in now if name != "accepted") >= total

    assert wait_for(dropped)
    instance.publisher().publish("carol", "after")
    assert [e.payload for e in carol.wait_events(2)] == [b"secret of carol", b"after"]
    assert len(carol.packets) == 2 and not carol.malformed and not carol.foreign


def test_short_packets_are_dropped(instance):
    """Likewise: short packets, at every length; and a long one."""
    dave, packet = captured(instance, "dave")
    forger = instance.as_engine()
    before = instance.verdicts()
    for length in range(len(packet)):
        forger.sendto(packet[:length], (dave.address, dave.port))
    forger.sendto(packet + b"x", (dave.address, dave.port))

    def dropped():
        now = instance.verdicts()
        return sum(now[name] - before[name] for name in now if name != "accepted") == len(packet) + 1

    assert wait_for(dropped)
    assert instance.verdicts()["short"] - before["short"] >= wire.HEADER.size
    assert len(dave.packets) == 1 and not dave.malformed


def test_an_old_user_generation_is_dropped_after_revoke(instance):
    """Likewise: an old user generation after `revoke`."""
    erin, packet = captured(instance, "erin")
    instance.ctl("revoke", "erin")
    assert erin.wait_ended()["reason"] == "revoked"
    assert wait_for(lambda: not instance.connections("erin"))
    again = instance.subscribe("erin", token=instance.token("erin"))
    before = instance.verdicts()
    instance.as_engine().sendto(packet, (again.address, again.port))
    assert drops(instance, "user_generation", before) == 1
    instance.publisher().publish("erin", "new life")
    assert [e.payload for e in again.wait_events(1)] == [b"new life"]
    # What the old socket could still hear is nothing: its scope is gone.
    before = instance.verdicts()["no_scope"], instance.status()["guard"]["ingress_denied"]
    instance.as_engine().sendto(packet, (erin.address, erin.port))

    def dropped():
        return instance.verdicts()["no_scope"] > before[0] or instance.status()["guard"]["ingress_denied"] > before[1]

    assert wait_for(dropped)
    erin.udp.setblocking(False)
    with pytest.raises(BlockingIOError):  # nor does it wait in the queue
        erin.udp.recv(2000)
    assert len(erin.packets) == 1


def test_a_super_packet_is_dropped(instance):
    """Likewise: a super-packet of two datagrams (UDP_GRO)."""
    frank, packet = captured(instance, "frank")
    frank.udp.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    _, foreign = captured(instance, "frank-victim")
    foreign = foreign.ljust(len(packet), b"\0")[: len(packet)]
    before = instance.verdicts()
    sender = instance.receiver_socket()  # over loopback a merged packet stays merged
    sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, len(packet))
    sender.sendto(packet + foreign, (frank.address, frank.port))
    assert drops(instance, "super_packet", before) == 1
    assert len(frank.packets) == 1 and not frank.foreign and not frank.malformed


def test_the_holder_cannot_touch_the_filter(instance):
    """The holder of a scoped socket cannot detach, replace or unlock the filter."""
    grace = instance.subscribe("grace")
    accept_all = struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)
    import ctypes

    buffer = ctypes.create_string_buffer(accept_all)
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(buffer))
    for option, value in ((SO_DETACH_FILTER, struct.pack("i", 0)), (SO_ATTACH_FILTER, program),
                          (SO_ATTACH_BPF, struct.pack("i", 0)), (SO_LOCK_FILTER, struct.pack("i", 0))):
        with pytest.raises(OSError) as refused:
            grace.udp.setsockopt(socket.SOL_SOCKET, option, value)
        assert refused.value.errno == errno.EPERM
    # And it cannot move the socket to another port.
    with pytest.raises(OSError):
        grace.udp.bind((grace.address, grace.port + 1))


def probe(instance, receiver, destination):
    """True where a datagram from the engine's side arrives at `receiver`."""
    receiver.settimeout(0.3)
    sender = instance.engine_socket(socket.AF_INET6 if ":" in destination[0] else socket.AF_INET)
    sender.sendto(b"probe", destination)
    try:
        return receiver.recv(100) == b"probe"
    except (TimeoutError, ConnectionError):
        return False


def free_port(instance):
    used = {c["port"] for c in instance.connections()}
    return next(p for p in range(instance.port_last, instance.port_first, -1) if p not in used)


def test_a_probe_outside_the_range_arrives(instance):
    """The negative control of what follows: outside the range the same probe does arrive."""
    outside = instance.receiver_socket()
    outside.bind((instance.receiver4, 26990))
    assert probe(instance, outside, (instance.receiver4, 26990))


@pytest.mark.parametrize("address", ["198.18.0.2", "", "fd00:f1::2", "::", "::ffff:198.18.0.2"])
def test_no_other_socket_binds_a_port_of_the_range(instance, address):
    """No other UDP socket, uid 0's included: by bind, IPv6 and v4-mapped."""
    port = free_port(instance)
    squatter = instance.receiver_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with pytest.raises(PermissionError):
        squatter.bind((address, port))


@pytest.mark.parametrize("option", [SO_REUSEADDR, SO_REUSEPORT])
def test_no_other_socket_shares_a_scoped_port(instance, option):
    """Address or port reuse set after the lock: neither by the thief alone nor with the holder's help."""
    heidi = instance.subscribe("heidi")
    with_help = heidi.udp.setsockopt
    try:
        with_help(socket.SOL_SOCKET, option, 1)
    except OSError:
        pass  # refused is as good
    thief = instance.receiver_socket()
    thief.setsockopt(socket.SOL_SOCKET, option, 1)
    with pytest.raises(OSError):
        thief.bind((heidi.address, heidi.port))
    instance.publisher().publish("heidi", "mine")
    assert [e.payload for e in heidi.wait_events(1)] == [b"mine"]


@contextlib.contextmanager
def autobind_takes(instance, sock, port):
    """Meanwhile autobind of `sock` takes `port`, as the administrator of a namespace could have it: its sysctl allows the
    range, and the socket asks for one port of it (or, before Linux 6.3, the sysctl leaves one)."""
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    with netns(instance.receiver_netns):
        with open(path, encoding="ascii") as file:
            before = file.read()
    try:
        sock.setsockopt(socket.SOL_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port << 16 | port))
        allowed = f"{PORTS_FIRST} 60999"
    except OSError as lacking:
        assert lacking.errno == errno.ENOPROTOOPT
        allowed = f"{port} {port}"
    try:
        with netns(instance.receiver_netns), open(path, "w", encoding="ascii") as file:
            file.write(allowed)
        yield
    finally:
        with netns(instance.receiver_netns), open(path, "w", encoding="ascii") as file:
            file.write(before)


@pytest.mark.parametrize("how", ["connect", "sendto", "bind-0"])
@pytest.mark.parametrize("family", [4, 6])
def test_autobind_into_the_range_receives_nothing(instance, how, family):
    """Bind of port 0, autobind through `connect` or `sendto`, `IP_LOCAL_PORT_RANGE`: it may get the number, never a
    datagram."""
    port = free_port(instance)
    family_number, own, other = (
        (socket.AF_INET, instance.receiver4, instance.engine4) if family == 4
        else (socket.AF_INET6, instance.receiver6, instance.engine6))
    thief = instance.receiver_socket(family_number)
    with autobind_takes(instance, thief, port):
        if how == "connect":
            source = instance.engine_socket(family_number)
            source.bind((other, 0))
            thief.connect(source.getsockname()[:2])
        elif how == "sendto":
            with pytest.raises(PermissionError):  # the number it gets, but it may not even send from there
                thief.sendto(b"x", (other, 9))
        else:
            try:
                thief.bind((own, 0))
            except OSError:
                return  # refused outright
    assert thief.getsockname()[1] == port, "the kernel did not take the range: the test proves nothing"
    before = instance.status()["guard"]
    if how == "connect":
        source.sendto(b"probe", (own, port))
        thief.settimeout(0.3)
        with pytest.raises((TimeoutError, ConnectionError)):
            thief.recv(100)
    else:
        assert not probe(instance, thief, (own, port))
    assert wait_for(lambda: instance.status()["guard"]["ingress_denied"] > before["ingress_denied"])
    thief.close()  # the next one wants this very port


def test_another_namespace_and_user_cannot_bind_either(instance):
    """Uid 0 or not, in whichever namespace below the cgroup."""
    port = free_port(instance)
    squatter = instance.engine_socket()
    with pytest.raises(PermissionError):
        squatter.bind((instance.engine4, port))


def test_nobody_squats_a_port_that_is_about_to_be_bound(make_instance):
    """Nor can it squat a port that `fanwired` is about to bind: every port of a small range can still be had."""
    instance = make_instance(ports=4, config={"network.receiver_addresses": '[ "198.18.0.2" ]'}).up()
    squatters = []
    for port in range(instance.port_first, instance.port_last + 1):
        for address in ("198.18.0.2", "0.0.0.0"):
            squatters.append(instance.receiver_socket())
            with pytest.raises(PermissionError):
                squatters[-1].bind((address, port))
    subscribers = [instance.subscribe(f"squat-{i}") for i in range(4)]
    assert {s.port for s in subscribers} == set(range(instance.port_first, instance.port_last + 1))


def test_a_port_autobound_before_does_not_stop_fanwired(make_instance):
    """An autobound squatter keeps its number and gets nothing; the subscriber gets another port, or is refused."""
    instance = make_instance(ports=4, config={"network.receiver_addresses": '[ "198.18.0.2" ]'}).up()
    squatter = instance.receiver_socket()
    with autobind_takes(instance, squatter, instance.port_first), pytest.raises(PermissionError):
        squatter.sendto(b"x", (instance.engine4, 9))  # the number it gets, but it may not even send from there
    assert squatter.getsockname()[1] == instance.port_first
    subscribers = [instance.subscribe(f"beside-{i}") for i in range(3)]
    assert instance.port_first not in {s.port for s in subscribers}
    for i, subscriber in enumerate(subscribers):
        instance.publisher().publish(f"beside-{i}", "x")
        assert subscriber.wait_events(1)


def test_a_scoped_descriptor_sends_to_the_engine_only(instance):
    """A scoped descriptor sends to the engine and nowhere else."""
    ivan = instance.subscribe("ivan")
    listener = instance.engine_socket()
    listener.bind((instance.engine4, 26991))
    neighbour = instance.receiver_socket()
    neighbour.bind((instance.receiver4, 26992))
    before = instance.status()["guard"]["egress_denied"]
    for target in ((instance.engine4, 26991), (instance.receiver4, 26992)):
        with pytest.raises(PermissionError):
            ivan.udp.sendto(b"probe", target)
    other = instance.subscribe("ivan-other")
    with pytest.raises(PermissionError):
        ivan.udp.sendto(b"probe", (other.address, other.port))
    assert wait_for(lambda: instance.status()["guard"]["egress_denied"] >= before + 3)
    for one in (listener, neighbour):
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(100)
    ivan.udp.sendto(wire.echo(wire.Delivery.decode(wire.Delivery(
        wire.CHALLENGE, 0, 0, 0, ivan.handle, wire.single_channel(1), 1, 1, 0, 0, 0, 0, bytes(16), bytes(8), b"").encode())),
        ivan.engine)  # to the engine it may, whatever the engine thinks of it


def test_ids_of_ports_and_handles_do_not_let_a_scope_be_guessed(instance):
    """A packet with the right handle but a tag under a guessed key is dropped: the key is the engine's."""
    judy, packet = captured(instance, "judy")
    genuine = wire.Delivery.decode(packet)
    before = instance.verdicts()
    forger = instance.as_engine()
    genuine.payload, genuine.sequence = b"forged", genuine.sequence + 1
    for key in (bytes(16), wire.handle("judy"), os.urandom(16)):
        forger.sendto(genuine.tagged(key), (judy.address, judy.port))
    assert drops(instance, "tag", before, 3) == 3
    assert len(judy.packets) == 1


def test_a_publishers_secret_is_kept_as_a_hash(instance):
    """It is shown once: neither the database nor a log has it, as text or as bytes."""
    credential = instance.credential()
    assert peer.Publisher(instance.client_socket, **credential).answer["ok"]
    secret = credential["secret"].encode()
    files = [path for path in (*(instance.dir / "state").iterdir(), *instance.dir.glob("*.log")) if path.is_file()]
    assert any(credential["name"].encode() in path.read_bytes() for path in files), "its name is there"
    for path in files:
        data = path.read_bytes()
        assert secret not in data and bytes.fromhex(credential["secret"]) not in data, path
    assert credential["secret"] not in str(instance.get("/v1/publishers")) + str(instance.audit())


def test_walls_are_shown_and_the_guard_is_on(instance):
    """`status` shows each wall as on, off or failed."""
    assert instance.status()["walls"] == {
        "registration": "on", "table": "on", "kernel": "on", "liveness": "on", "cryptography": "on"}


def test_an_echo_from_elsewhere_does_not_activate(instance):
    """A registration becomes active only after the very address echoed: nobody aims the engine at a third party."""
    mallory = peer.Subscriber(instance.client_socket, instance.token("mallory"), start=False)
    instance.opened.append(mallory)
    mallory.udp.setblocking(True)
    mallory.udp.settimeout(5)
    challenge = wire.Delivery.decode(mallory.udp.recv(2000))
    assert challenge.type == wire.CHALLENGE
    before = instance.counters()["drop_echo_forged"]
    with netns(instance.receiver_netns):
        elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elsewhere.sendto(wire.echo(challenge), mallory.engine)
    elsewhere.close()
    forged = wire.Delivery(**{**challenge.__dict__, "sequence": challenge.sequence ^ 1})
    mallory.udp.sendto(wire.echo(forged), mallory.engine)
    assert wait_for(lambda: instance.counters()["drop_echo_forged"] == before + 2)
    assert instance.connections("mallory")[0]["state"] == "pending"
    assert instance.publisher().publish("mallory", "x").sent == 0
    mallory.udp.setblocking(False)
    mallory.start()  # which answers the next challenge, or this one
    mallory.udp.sendto(wire.echo(challenge), mallory.engine)
    mallory.wait_active()
