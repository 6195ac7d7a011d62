# SPDX-License-Identifier: BSD-3-Clause
"""What the machine takes away, or turns: clocks, disk, descriptors, buffers. Refusal or the exact state; never a wrong
scope. What a crash leaves of the database and the regions is tests/crash/."""
import mmap
import os
import struct
import subprocess

import pytest

import peer
from instance import BUILD, SCRIPT, wait_for

HOUR, TEN_YEARS = 3600, 10 * 365 * 86400
TTL = 900
DESCRIPTORS = 96  # of fanwired: it holds some 40 before anybody comes


class Clock:
    """Both clocks of an instance's daemons, ahead of the machine's by what it is told."""

    def __init__(self, path):
        path.write_bytes(bytes(16))
        self.file = open(path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 16)
        self.environment = {"LD_PRELOAD": str(BUILD / "tests/system/libclock-shift.so"), "FANWIRE_TEST_CLOCK": str(path)}
        path.chmod(0o644)

    def jump(self, calendar_s=0, monotonic_s=0):
        self.map[:] = struct.pack("<qq", calendar_s, monotonic_s)

    def close(self):
        self.map.close()
        self.file.close()


@pytest.fixture
def clock(tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    one = Clock(tmp_path / "clock")
    yield one
    one.close()


@pytest.fixture
def clocked(make_instance, clock, monkeypatch):
    for key, value in clock.environment.items():
        monkeypatch.setenv(key, value)
    instance = make_instance().up()
    monkeypatch.delenv("LD_PRELOAD")  # fanwired's and the dataplane's alone
    return instance


def delivers(instance, user="witness"):
    """An event reaches a new subscriber, and nobody who must not have it."""
    subscriber = instance.subscribe(user)
    result = instance.publisher().publish(user, "here")
    assert result.sent == 1, result
    events = subscriber.wait_events(1)
    assert [bytes(e.payload) for e in events] == [b"here"]
    assert not subscriber.foreign
    subscriber.close()


def revoke(instance, user):
    status, answer = instance.api("POST", "/v1/revocations", {"user": user})
    assert status == 200, answer


def refused(instance, token):
    with pytest.raises(peer.Refused) as refusal:
        peer.Subscriber(instance.client_socket, token)
    return refusal.value.error


@pytest.mark.parametrize("jump", [HOUR, TEN_YEARS], ids=["hour", "ten-years"])
def test_the_calendar_jumps_ahead(clocked, clock, jump):
    """Tokens and the registrations under them expire; new ones hold; what was revoked stays so."""
    lasting = clocked.subscribe("lasting", token=clocked.token("lasting", ttl=TEN_YEARS))
    short = clocked.subscribe("short", token=clocked.token("short", ttl=TTL))
    spare, revoked = clocked.token("spare", ttl=TTL), clocked.token("revoked", ttl=TTL)
    clocked.subscribe("revoked", token=revoked)
    revoke(clocked, "revoked")
    clock.jump(calendar_s=jump)
    ended = short.wait_ended(20)
    assert ended and ended["reason"] == "token", ended
    assert refused(clocked, spare) == "token_expired"
    assert refused(clocked, revoked) in ("token_expired", "token_invalid")
    if jump == HOUR:
        assert clocked.publisher().publish("lasting", "still").sent == 1 and lasting.wait_events(1)
    delivers(clocked)
    assert clocked.publisher().publish("short", "nobody").sent == 0


@pytest.mark.parametrize("jump", [-HOUR, -TEN_YEARS], ids=["hour", "ten-years"])
def test_the_calendar_jumps_back(clocked, clock, jump):
    """Registrations hold, for their tokens have not expired; what was revoked stays so, whatever its tokens say."""
    lasting = clocked.subscribe("lasting")
    revoked = clocked.token("revoked", ttl=TTL)
    ended = clocked.subscribe("revoked", token=revoked)
    revoke(clocked, "revoked")
    assert ended.wait_ended(10)
    clock.jump(calendar_s=jump)
    delivers(clocked)
    assert refused(clocked, revoked) == "token_invalid"
    assert clocked.publisher().publish("lasting", "still").sent == 1 and lasting.wait_events(1)
    clocked.restart("fanwired")
    assert refused(clocked, revoked) == "token_invalid"
    delivers(clocked)


@pytest.mark.parametrize("jump", [HOUR, TEN_YEARS], ids=["hour", "ten-years"])
def test_the_monotonic_clock_jumps(clocked, clock, jump):
    """As after a machine that slept: leases are put off by the pause, nobody ends for it, deliveries go on."""
    subscriber = clocked.subscribe("sleeper")
    clock.jump(monotonic_s=jump)
    assert wait_for(lambda: clocked.status()["dataplane"]["state"] == "running", 20), clocked.status()["dataplane"]
    publisher = clocked.publisher()
    assert wait_for(lambda: publisher.publish("sleeper", "awake").sent == 1, 10)
    assert subscriber.wait_events(1) and not subscriber.foreign
    delivers(clocked)
    assert not subscriber.ended


def mount_disk(instance, kib):
    """The database on a disk of its own, so small."""
    state = instance.dir / "state"
    state.mkdir(exist_ok=True)
    before = state.stat()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode={before.st_mode & 0o7777:o},uid={before.st_uid},"
                    f"gid={before.st_gid}", "none", str(state)], check=True)
    return state


def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_refuses_what_must_last_and_nothing_else(make_instance):
    """Who is connected goes on; a revocation, a publisher, a new user are refused; with room again all goes on."""
    instance = make_instance()
    instance.create()
    state = mount_disk(instance, 2048)
    try:
        instance.script("start")
        instance.wait()
        known = instance.subscribe("known")
        publisher = instance.publisher()
        token = instance.token("never-met")
        fill(state / "ballast")
        status, answer = instance.api("POST", "/v1/revocations", {"user": "known"})
        assert status == 507 and answer["error"] == "disk_full", answer
        status, answer = instance.api("POST", "/v1/publishers", {"name": "new"})
        assert status == 507 and answer["error"] == "disk_full", answer
        assert refused(instance, token)
        assert publisher.publish("known", "still").sent == 1 and known.wait_events(1), "a refused revocation changes nothing"
        (state / "ballast").unlink()
        revoke(instance, "known")
        assert known.wait_ended(10) and publisher.publish("known", "gone").sent == 0
        delivers(instance)
    finally:
        instance.script("stop")
        subprocess.run(["umount", str(state)], check=True)


def test_without_descriptors_new_ones_are_refused_and_the_rest_goes_on(make_instance):
    """As many as the start takes and some more: then refusals, while who is there goes on."""
    instance = make_instance()
    instance.create()
    instance.start("dataplane")
    run = subprocess.run(["prlimit", f"--nofile={DESCRIPTORS}", str(SCRIPT), "start", "fanwired"],
                         env={**os.environ, **instance.settings}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    instance.wait()
    known, publisher = instance.subscribe("known"), instance.publisher()
    tokens = [instance.token(f"more-{i}") for i in range(DESCRIPTORS)]
    granted, errors = [], []
    for token in tokens:
        try:
            granted.append(peer.Subscriber(instance.client_socket, token, start=False))
        except (peer.Refused, ConnectionError, TimeoutError, OSError) as error:
            errors.append(error)
    assert errors, "there were descriptors enough"
    assert publisher.publish("known", "still").sent == 1 and known.wait_events(1)
    for one in granted:
        one.client.close()
        one.udp.close()
    assert wait_for(lambda: instance.status()["walls"]["kernel"] == "on", 10)
    instance.restart("fanwired")
    delivers(instance)


@pytest.mark.parametrize("count", [512, 2048, 4224])
def test_with_few_buffers_it_does_not_start_or_misdirects_nothing(make_instance, count):
    """From the least number of mbufs that a configuration may have: refused at the start, or exact for who gets it."""
    instance = make_instance(config={"dataplane.mbuf_cnt": count})
    instance.create()
    instance.script("start")
    started = instance.script("wait", check=False)
    if started.returncode:
        assert "mbuf_cnt" in instance.logs(), "refused with a sentence that names it"
        return
    first = instance.subscribe("first", wait=False)
    assert wait_for(lambda: first.active.is_set() or first.ended, 15)
    if first.ended:
        assert first.ended["reason"] == "challenge", "refused, for want of a buffer to challenge it with"
        return
    subscribers = [instance.subscribe(f"u{i}") for i in range(4)]
    publisher = instance.publisher()
    for n in range(300):
        publisher.publish(f"u{n % 4}", str(n), timeout=20)
    for i, one in enumerate(subscribers):
        got = [int(e.payload) for e in one.wait_events(75)]
        assert got == sorted(set(got)) and all(n % 4 == i for n in got)
        assert not one.foreign
    delivers(instance)
