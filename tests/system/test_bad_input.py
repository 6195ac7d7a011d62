# SPDX-License-Identifier: BSD-3-Clause
"""Bad input: a clear error or a named counter, nothing changed, nothing else hurt."""
import base64
import grp
import hashlib
import hmac
import json
import os
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import peer
import wire
from instance import BUILD, wait_for


@pytest.fixture(autouse=True)
def works_afterwards(request):
    """Nothing else is hurt: after each of these tests an event still goes through."""
    yield
    if "instance" in request.fixturenames:
        instance = request.getfixturevalue("instance")
        user = f"well-{time.monotonic_ns()}"
        subscriber = instance.subscribe(user)
        assert instance.publisher().publish(user, "well").sent == 1
        assert [e.payload for e in subscriber.wait_events(1)] == [b"well"]


def counted(instance, name, before, more=1):
    return wait_for(lambda: instance.counters()[name] - before[name] >= more)


# ---- datagrams -----------------------------------------------------------------------------------

def test_an_unknown_session_is_counted(instance):
    """An unknown publisher: of datagrams, a session that is not there."""
    publisher = instance.publisher()
    before = instance.counters()
    packet = wire.publish(publisher.key, publisher.session ^ (1 << 63), 1, wire.handle("x"), 0, b"x")

    def dropped():
        publisher.send(packet)  # again and again: the first datagram of all waits for ARP, and may not survive that
        return instance.counters()["drop_session_unknown"] > before["drop_session_unknown"]

    assert wait_for(dropped)


@pytest.mark.parametrize("credential", [{"name": "nobody", "secret": "x"}, {"grant": "not.a.grant"}])
def test_an_unknown_publisher_is_refused(instance, credential):
    """An unknown publisher: of credentials."""
    with pytest.raises(peer.Refused) as refused:
        peer.Publisher(instance.client_socket, **credential)
    assert refused.value.error == "credential" or "token" in refused.value.error
    assert refused.value.message


def test_a_wrong_secret_is_refused(instance):
    credential = instance.credential()
    with pytest.raises(peer.Refused) as refused:
        peer.Publisher(instance.client_socket, name=credential["name"], secret=credential["secret"][:-1] + "!")
    assert refused.value.error == "credential"


def test_a_wrong_tag_is_counted_and_not_delivered(instance):
    """A wrong tag."""
    subscriber, publisher = instance.subscribe("tagged"), instance.publisher()
    before = instance.counters()
    packet = bytearray(publisher.seal("tagged", "x"))
    for position in (48, len(packet) - 1, 44):  # ciphertext, tag, header
        bad = bytearray(packet)
        bad[position] ^= 1
        publisher.send(bytes(bad))
    assert counted(instance, "drop_publish_tag", before, 3)
    assert subscriber.wait_events(1, timeout=0.2) == []
    assert publisher.wait({1: bytes(packet)})[0].sent == 1  # the number was not used up


def test_a_replayed_publish_is_answered_and_not_delivered_again(instance):
    """A replayed publish: recognised, answered with the original result, delivered once."""
    subscriber, publisher = instance.subscribe("replayed"), instance.publisher()
    before = instance.counters()
    packet = publisher.seal("replayed", "once")
    (first,) = publisher.wait({1: packet})
    publisher.results.clear()
    (again,) = publisher.wait({1: packet})
    assert again == first
    assert counted(instance, "publishes_repeated", before)
    assert len(subscriber.wait_events(2, timeout=0.3)) == 1


def test_a_publish_from_another_address_is_counted(instance):
    """A replayed publish, from another port than its session's."""
    publisher = instance.publisher()
    before = instance.counters()
    thief = instance.receiver_socket()
    thief.bind((instance.receiver4, 0))
    thief.sendto(publisher.seal("x", "x"), publisher.engine)
    assert counted(instance, "drop_session_address", before)


def test_a_publish_ahead_of_its_order_waits(instance):
    subscriber, publisher = instance.subscribe("ahead"), instance.publisher()
    before = instance.counters()
    first, second = publisher.seal("ahead", "1"), publisher.seal("ahead", "2")
    publisher.send(second)
    assert counted(instance, "drop_publish_gap", before)
    publisher.wait({1: first, 2: second})
    assert [e.payload for e in subscriber.wait_events(2)] == [b"1", b"2"]


def test_a_forged_acknowledgement_is_not_believed(instance):
    """A forged acknowledgement, as docs/wire-format.md has a publisher check it."""
    publisher = instance.publisher()
    instance.subscribe("acked")
    forger = instance.as_engine()
    body = os.urandom(8 + 40 + 16)
    forged = bytes([1, wire.ACK, 1]) + bytes(5) + publisher.session.to_bytes(8, "big") + (99).to_bytes(8, "big") + body
    forger.sendto(forged, publisher.udp.getsockname()[:2])
    assert wait_for(lambda: publisher.receive(0.1))
    assert publisher.refused_acks == 1 and not publisher.results
    assert publisher.publish("acked", "x").sent == 1


class Wire:
    """What passes the receivers' interface, and the UDP datagrams of Fanwire among it."""

    def __init__(self, instance):
        self.port = instance.engine_port
        self.socket = instance.socket_in(instance.receiver_netns, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.bind((instance.receiver_if, 3))
        self.socket.settimeout(5)

    def next(self, kind):
        """(datagram, the other's port) of the next datagram of this type over IPv4."""
        while True:
            packet, (_, protocol, *_) = self.socket.recvfrom(65536)
            if protocol != 0x0800 or packet[9] != socket.IPPROTO_UDP:
                continue
            udp = packet[(packet[0] & 15) * 4:]
            ports = struct.unpack_from(">HH", udp)
            if self.port in ports and udp[8:10] == bytes([1, kind]):
                return udp[8:], ports[1] if ports[0] == self.port else ports[0]


def seal_ack(key, session, counter, number):
    """An acknowledgement as the engine would make it, had it this key: `number` was sent to 9 of 9."""
    header = struct.pack(">BBB5xQQ", 1, wire.ACK, 1, session, counter)
    body = struct.pack(">Q", number) + struct.pack(">QQQIIH6x", number, 99, 99, 9, 9, 0)
    return header + AESGCM(key).encrypt(struct.pack(">IQ", 2, counter), body, header)


def test_the_library_believes_no_forged_acknowledgement(instance):
    """A forged acknowledgement: a program with libfanwire goes on asking until the real one comes, and tells that."""
    subscriber, credential, seen = instance.subscribe("lib-acked"), instance.credential(), Wire(instance)
    program = subprocess.Popen(
        ["stdbuf", "-oL", str(BUILD / "client/example-publish"), credential["name"], "lib-acked"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "FANWIRE_CLIENT_SOCKET": str(instance.client_socket), "FANWIRE_SECRET": credential["secret"]})

    def publish(line):
        program.stdin.write(line + "\n")
        program.stdin.flush()

    try:
        publish("first")
        assert "sequence 1: sent to 1 of 1" in program.stdout.readline()
        packet, _ = seen.next(wire.PUBLISH)
        session = int.from_bytes(packet[8:16], "big")
        genuine, port = seen.next(wire.ACK)
        counter = int.from_bytes(genuine[16:24], "big")
        instance.kill("dataplane", signal.SIGSTOP)
        publish("second")
        packet, same_port = seen.next(wire.PUBLISH)
        assert port == same_port and int.from_bytes(packet[8:16], "big") == session
        forgeries = [genuine, genuine[:16] + (counter + 1).to_bytes(8, "big") + genuine[24:]]
        forgeries += [seal_ack(key, session, counter + ahead, 2)
                      for key in (bytes(16), wire.handle("lib-acked"), os.urandom(16)) for ahead in (1, 2, 3000)]
        right_size = seal_ack(bytes(16), session, counter + 1, 2)
        forgeries += [right_size[:length] for length in range(len(right_size))]
        for forged in forgeries:
            instance.as_engine().sendto(forged, (instance.receiver4, port))
        for _ in range(3):
            packet, _ = seen.next(wire.PUBLISH)  # it asks again, and again
        assert not select.select([program.stdout], [], [], 0.3)[0], program.stdout.readline()
        instance.kill("dataplane", signal.SIGCONT)
        assert "sequence 2: sent to 1 of 1" in program.stdout.readline()
        assert [e.payload for e in subscriber.wait_events(2)] == [b"first", b"second"]
    finally:
        instance.kill("dataplane", signal.SIGCONT)
        program.kill()
        program.communicate()


def test_truncated_packets_are_counted(instance):
    """A truncated packet: at every length, each with a named counter."""
    publisher = instance.publisher()
    packet = publisher.seal("short", "payload")
    before = instance.counters()
    for length in range(1, len(packet)):
        publisher.send(packet[:length])
    publisher.send(packet + b"x")
    assert counted(instance, "drop_short", before, len(packet) - 1)
    assert counted(instance, "drop_long", before)


def test_other_versions_types_flags_and_lengths_are_counted(instance):
    publisher = instance.publisher()
    packet = publisher.seal("form", "payload")
    before = instance.counters()
    for position, value in ((0, 2), (1, 0x77), (1, wire.DELIVERY), (2, 0x80)):
        bad = bytearray(packet)
        bad[position] = value
        publisher.send(bytes(bad))
    publisher.send(packet[:4] + b"\xff\xff" + packet[6:])
    assert counted(instance, "drop_version", before)
    assert counted(instance, "drop_type", before, 2)
    assert counted(instance, "drop_flags", before)
    assert counted(instance, "drop_length", before) or counted(instance, "drop_short", before)


def test_an_oversized_event_is_refused(instance):
    """An oversized event: of a datagram by the dataplane, of an event by the library."""
    publisher = instance.publisher()
    before = instance.counters()
    (result,) = publisher.wait({1: publisher.seal("big", b"x" * (publisher.limit + 1))})
    assert (result.status, result.sent) == ("too_large", 0)
    assert counted(instance, "drop_publish_size", before)
    run = instance.ctl("publish", "big", "-", input="x" * (1024 * 1024 + 1), check=False)
    assert run.returncode == 2 and ("1048576" in run.stderr.replace(",", "") or "1 MiB" in run.stderr), run.stderr


def test_an_invalid_channel_is_refused(instance):
    publisher = instance.publisher()
    for number, channel in ((1, 3 << 62), (2, 5)):
        (result,) = publisher.wait({number: publisher.seal("x", "x", channel=channel)})
        assert result.status == "channel"


def test_junk_on_the_engines_port_is_counted(instance):
    """Whatever comes to the port has a counter, and other traffic still reaches the kernel."""
    sender = instance.receiver_socket()
    before = instance.counters()
    for junk in (b"", b"\1", os.urandom(1400), b"GET / HTTP/1.0\r\n\r\n"):
        sender.sendto(junk, (instance.engine4, instance.engine_port))
    names = [name for name in before if name.startswith("drop_")]
    assert wait_for(lambda: sum(instance.counters()[n] - before[n] for n in names) >= 4)
    subprocess.run(["ip", "netns", "exec", instance.receiver_netns, "ping", "-c", "1", "-W", "2", instance.engine4],
                   check=True, capture_output=True)


# ---- names and tokens ----------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["", "x" * 256])
def test_names_of_0_or_256_bytes_are_refused(instance, name):
    """A name of 0 or 256 bytes: by the control API, the CLI and the library."""
    for path in ("/v1/tokens", "/v1/revocations"):
        status, answer = instance.api("POST", path, {"user": name})
        assert status == 400 and "255" in answer["message"], answer
    assert instance.api("POST", "/v1/publishers", {"name": name})[0] == 400
    for command in (["token", name], ["publish", name, "x"], ["revoke", name]):
        run = instance.ctl(*command, check=False)
        assert run.returncode in (1, 2) and run.stderr.strip()
    token = instance.token("y" * 255)  # the longest is fine
    instance.subscribe("y" * 255, token=token)


def encode(part):
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def forge(header, claims, key=b"", algorithm=hashlib.sha256):
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.new(key, signed.encode(), algorithm).digest()) if key else ''}"


def refused_token(instance, token, *errors):
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("nobody", token=token)
    assert refused.value.error in errors, refused.value.error
    assert len(refused.value.message) > 10
    return refused.value


def signing_keys(instance):
    """Key files of the instance: this test is root on the engine's machine and may forge well-signed tokens."""
    keys = {}
    for path in (instance.dir / "state").iterdir():
        if path.suffix not in (".db", ".db-wal", ".db-shm") and path.is_file() and path.stat().st_size <= 4096:
            keys[path.name] = path.read_bytes()
    return keys


def key_that_signed(instance, token):
    """The signing key, found among what the key files hold: the one under which a genuine token verifies."""
    signed, signature = token.rsplit(".", 1)
    wanted = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    for data in signing_keys(instance).values():
        candidates = [data, data.strip()]
        candidates += [data[i : i + 32] for i in range(0, len(data) - 31, 8)]
        for line in data.split():
            text = line.split(b"=")[-1].strip(b'";,')
            try:
                candidates.append(bytes.fromhex(text.decode()))
            except (ValueError, UnicodeDecodeError):
                pass
        for key in candidates:
            if hmac.compare_digest(hmac.new(key, signed.encode(), hashlib.sha256).digest(), wanted):
                return key
    raise AssertionError(f"no key among {list(signing_keys(instance))} signed the token")


def test_an_expired_token_is_refused(instance):
    """An expired token: says by how much."""
    token = instance.token("late", ttl=1)
    time.sleep(2.1)
    assert "expired" in refused_token(instance, token, "token_expired").message


def test_a_foreign_token_is_refused(instance):
    """A foreign token: well-formed, signed by another key."""
    header, claims, _ = instance.token("alien").split(".")
    refused_token(instance, forge(decode(header), decode(claims), os.urandom(32)), "token_invalid")
    refused_token(instance, f"{header}.{encode({**decode(claims), 'sub': 'admin'})}.{_}", "token_invalid")


def test_a_token_of_another_algorithm_is_refused(instance):
    """A wrong-algorithm token: signed with the very key, by HS512 or not at all."""
    token = instance.token("algorithm")
    header, claims = (decode(part) for part in token.split(".")[:2])
    key = key_that_signed(instance, token)
    genuine = forge(header, claims, key)
    instance.subscribe("algorithm", token=genuine)  # the forger forges rightly
    refused_token(instance, forge({**header, "alg": "HS512"}, claims, key, hashlib.sha512), "token_invalid")
    refused_token(instance, forge({**header, "alg": "HS384"}, claims, key, hashlib.sha384), "token_invalid")
    refused_token(instance, forge({**header, "alg": "none"}, claims), "token_invalid")
    refused_token(instance, forge({**header, "alg": "none"}, claims, key), "token_invalid")


def test_a_token_for_another_audience_is_refused(instance):
    """A wrong-audience token, and one without an audience or expiry, or with an array that lacks ours."""
    token = instance.token("audience")
    header, claims = (decode(part) for part in token.split(".")[:2])
    key = key_that_signed(instance, token)
    for audience in ("other", "", ["other"], 7, None):
        refused_token(instance, forge(header, {**claims, "aud": audience}, key), "token_audience", "token_invalid")
    for gone in ("aud", "exp", "sub"):
        without = {name: value for name, value in claims.items() if name != gone}
        refused_token(instance, forge(header, without, key), "token_audience", "token_invalid", "token_expired")


def test_a_publish_grant_is_no_subscriber_token(instance):
    """Each kind of token is for its own use only."""
    _, grant = instance.api("POST", "/v1/grants", {"user": "mixed"})
    refused_token(instance, grant["grant"], "token_audience", "token_invalid")
    with pytest.raises(peer.Refused):
        peer.Publisher(instance.client_socket, grant=instance.token("mixed"))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * 5000, "eyJhbGciOiJIUzI1NiJ9..", "\u0000"])
def test_junk_for_a_token_is_refused(instance, token):
    refused_token(instance, token, "token_invalid", "bad_request")


# ---- the two sockets -----------------------------------------------------------------------------

@pytest.mark.parametrize("junk", [b"{", b"[]", b"null", b'{"op":5}', b'{"op":"fly"}', b'{"op":"subscribe"}', b"\xff\xfe",
                                  b'{"op":"subscribe","token":7}', b"[" * 5000, b'{"op":"renew"}', b'{"op":"attach"}'])
def test_junk_on_the_client_socket_is_refused(instance, junk):
    client = peer.ClientSocket(instance.client_socket)
    client.send(junk)
    answer, fds = client.receive()
    assert answer["ok"] is False and answer["error"] and answer["message"] and not fds
    client.close()


def test_descriptors_that_nobody_asked_for_are_closed(instance):
    """Descriptors sent along with junk do not pile up in fanwired."""
    fds = f"/proc/{instance.pid('fanwired')}/fd"
    client = peer.ClientSocket(instance.client_socket)
    with pytest.raises(peer.Refused):
        client.ask({"op": "fly"}, [0])
    client.close()
    before = len(os.listdir(fds))
    for _ in range(50):
        client = peer.ClientSocket(instance.client_socket)
        with open("/dev/null", "rb") as null, pytest.raises((peer.Refused, ConnectionError, OSError)):
            client.ask({"op": "fly"}, [null.fileno()] * 3)
        client.close()
    assert wait_for(lambda: len(os.listdir(fds)) <= before)


def test_a_huge_http_body_is_refused(instance):
    """A huge HTTP body: refused before it is read, and the next request works."""
    try:
        status, answer = instance.api("POST", "/v1/tokens", raw=b'{"user":"' + b"x" * (8 << 20) + b'"}')
        assert status == 413, answer
    except (BrokenPipeError, ConnectionResetError):
        pass  # it closed on us while we were still sending: refused as well
    assert instance.status()["control"]


@pytest.mark.parametrize("method,path,raw,wanted", [
    ("POST", "/v1/tokens", b"{", 400), ("POST", "/v1/tokens", b"[]", 400), ("POST", "/v1/tokens", b"{}", 400),
    ("POST", "/v1/tokens", b'{"user":"a","surprise":1}', 400), ("POST", "/v1/tokens", b'{"user":5}', 400),
    ("POST", "/v1/tokens", b'{"user":"a","ttl_seconds":-1}', 400), ("GET", "/v1/nothing", None, 404),
    ("POST", "/v1/status", b"{}", 405), ("DELETE", "/v1/connections/zz", None, 404),
    ("DELETE", "/v1/connections/0000000000000999", None, 404), ("DELETE", "/v1/publishers/nobody", None, 404),
    ("GET", "/v1/explain", None, 400), ("GET", "/v1/audit?limit=x", None, 400)])
def test_bad_requests_on_the_control_socket(instance, method, path, raw, wanted):
    status, answer = instance.api(method, path, raw=raw)
    assert status == wanted and answer["error"] and answer["message"], (status, answer)


def test_the_control_socket_is_not_for_everyone(instance):
    """0660 for root and the administrators' group; where there is no such group, root's alone."""
    administrators = any(group.gr_name == "fanwire-admin" for group in grp.getgrall())
    assert os.stat(instance.control_socket).st_mode & 0o777 == (0o660 if administrators else 0o600)
    assert os.stat(instance.client_socket).st_mode & 0o777 == 0o666


# ---- full ----------------------------------------------------------------------------------------

def test_a_full_table_of_users_refuses_plainly(make_instance):
    """A full table: users."""
    instance = make_instance(config={"limits.max_users": 64}).up()
    made = [instance.subscribe(f"user-{i}") for i in range(64)]
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("user-64")
    assert refused.value.error == "limit_overall" and "max_users" in refused.value.message
    instance.subscribe("user-0")  # who is there may still come again
    publisher = instance.publisher()
    for i, subscriber in enumerate(made):
        assert publisher.publish(f"user-{i}", "x").sent == (2 if i == 0 else 1)
        assert subscriber.wait_events(1)
    made[1].close()
    assert wait_for(lambda: not instance.connections("user-1"))
    late = instance.subscribe("user-64")
    assert publisher.publish("user-64", "x").sent == 1 and late.wait_events(1)


def test_a_full_table_of_groups_refuses_plainly(make_instance):
    """A full table: groups. What does not fit is told so, none of its groups is made, and there is room for less."""
    instance = make_instance(config={"limits.max_users": 64, "limits.max_groups": 64, "times.linger": 1}).up()
    rooms = [f"room-{i}" for i in range(15)]
    made = [instance.subscribe(f"groups-{i}", threads=rooms) for i in range(4)]  # 16 groups each
    before = instance.status()["groups"]
    try:
        ended = instance.subscribe("groups-4", wait=False).wait_ended()
        assert ended and "max_groups" in ended["message"], ended
    except peer.Refused as refused:
        assert "max_groups" in refused.message
    assert instance.status()["groups"] == before
    publisher = instance.publisher()
    for i, subscriber in enumerate(made):
        assert publisher.publish(f"groups-{i}", "x", channel=wire.thread_channel("room-14")).sent == 1
        assert subscriber.wait_events(1)
    made[0].close()
    assert wait_for(lambda: instance.status()["groups"]["total"] == 48)
    late = instance.subscribe("groups-4", threads=rooms)
    assert publisher.publish("groups-4", "x").sent == 1 and late.wait_events(1)


def test_a_full_table_of_connections_refuses_plainly(make_instance):
    """A full table: connections."""
    instance = make_instance(config={"limits.max_connections": 4, "limits.max_users": 64, "limits.max_groups": 64}).up()
    made = [instance.subscribe(f"full-{i}") for i in range(4)]
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("full-5")
    assert refused.value.error == "limit_overall" and refused.value.message
    publisher = instance.publisher()
    for i, subscriber in enumerate(made):
        assert publisher.publish(f"full-{i}", "x").sent == 1
        assert subscriber.wait_events(1)
    made[0].close()
    assert wait_for(lambda: len(instance.connections()) == 3)
    instance.subscribe("full-5")


def test_a_full_port_range_refuses_plainly(make_instance):
    """A full port range."""
    instance = make_instance(ports=3, config={"network.receiver_addresses": '[ "198.18.0.2" ]'}).up()
    made = [instance.subscribe(f"ports-{i}") for i in range(3)]
    with pytest.raises(peer.Refused) as refused:
        instance.subscribe("ports-3")
    assert refused.value.error == "no_port" and refused.value.message
    assert len({s.port for s in made}) == 3
    assert instance.publisher().publish("ports-0", "x").sent == 1


# ---- files ---------------------------------------------------------------------------------------

def fails_to_start(instance, program, *words):
    """Starts `program`, which must refuse with a message that has all the words, and end."""
    path = instance.dir / f"{program}.log"
    skip = len(path.read_bytes()) if path.exists() else 0
    instance.start(program)
    pid = instance.pid(program)
    assert wait_for(lambda: not instance.alive(pid), timeout=10), f"{program} started"
    text = path.read_bytes()[skip:].decode(errors="replace")
    for word in words:
        assert word in text.lower(), text
    return text


def damage(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("what,offset,data,words", [
    ("magic", 0, b"XXXXXXXX", ["registry"]), ("another ABI", 8, (99).to_bytes(4, "little"), ["registry", "abi"])])
def test_a_bad_region_file_is_refused(make_instance, what, offset, data, words):
    """A corrupt region file, a region of another ABI: refused with a plain message, by the dataplane too."""
    instance = make_instance().up()
    for program in ("dataplane", "fanwired"):
        instance.kill(program)
    region = instance.dir / "regions/registry"
    damage(region, offset, data)
    fails_to_start(instance, "dataplane", *words)


def test_a_corrupt_region_file_does_not_keep_fanwired_from_serving(make_instance):
    """A corrupt region file: fanwired says so and what to do; doing that brings it back."""
    instance = make_instance().up()
    for program in ("dataplane", "fanwired"):
        instance.kill(program)
    damage(instance.dir / "regions/registry", 0, b"XXXXXXXX")
    text = fails_to_start(instance, "fanwired", "registry")
    assert "remove" in text.lower() or "delete" in text.lower(), text
    for name in ("registry", "state"):
        (instance.dir / "regions" / name).unlink()
    instance.start("fanwired")
    instance.start("dataplane")
    instance.wait()
    subscriber = instance.subscribe("again")
    assert instance.publisher().publish("again", "x").sent == 1
    assert subscriber.wait_events(1)


def test_a_truncated_region_file_is_refused(make_instance):
    instance = make_instance().up()
    for program in ("dataplane", "fanwired"):
        instance.kill(program)
    os.truncate(instance.dir / "regions/registry", 0)
    fails_to_start(instance, "fanwired", "registry")


def test_a_second_writer_is_refused(instance):
    """An exclusive lock says who writes: a second fanwired for the same regions ends with a message."""
    run = subprocess.run(
        ["nsenter", f"--net=/run/netns/{instance.engine_netns}", str(BUILD / "control/engine/fanwired"), "--config",
         str(instance.dir / "fanwire.conf")], capture_output=True, text=True, timeout=20)
    assert run.returncode != 0
    assert "another fanwired runs" in run.stdout + run.stderr
    assert instance.status()["control"]["pid"] == instance.pid("fanwired")


def test_a_corrupt_database_is_refused(make_instance):
    """A corrupt database: refused with its path and what to do; nothing is overwritten."""
    instance = make_instance().up()
    for program in ("dataplane", "fanwired"):
        instance.script("stop", program)
    (database,) = (instance.dir / "state").glob("*.db")
    for side in ("-wal", "-shm"):
        database.with_name(database.name + side).unlink(missing_ok=True)
    junk = os.urandom(8192)
    database.write_bytes(junk)
    fails_to_start(instance, "fanwired", str(database))
    assert database.read_bytes() == junk


def test_what_must_outlive_a_boot_does(make_instance):
    """SQLite keeps publishers, generations and audit: durable before acknowledged, so a kill -9 right after loses none."""
    instance = make_instance().up()
    credential = instance.credential()
    _, revoked = instance.api("POST", "/v1/revocations", {"user": "offline"})
    instance.kill("fanwired")
    (database,) = (instance.dir / "state").glob("*.db")
    with sqlite3.connect(database) as check:
        assert check.execute("pragma integrity_check").fetchone() == ("ok",)
        assert check.execute("pragma journal_mode").fetchone() == ("wal",)
    instance.start("fanwired")
    instance.wait()
    assert [p["name"] for p in instance.get("/v1/publishers")["publishers"]] == [credential["name"]]
    peer.Publisher(instance.client_socket, **credential).close()
    _, again = instance.api("POST", "/v1/revocations", {"user": "offline"})
    assert again["user_generation"] == revoked["user_generation"] + 1
    assert len(instance.audit("revoke")) == 2
