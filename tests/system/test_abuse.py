# SPDX-License-Identifier: BSD-3-Clause
"""What somebody without rights, or with the smallest ones, does to everybody else: nothing."""
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import peer
from instance import netns, wait_for

METRICS = 9617


def as_nobody(instance, code, namespace=None):
    """A Python program of uid nobody; it is given peer.py and the instance's client socket."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    here = pathlib.Path(peer.__file__).resolve().parent
    prelude = "import socket, sys, time, resource\n"
    # what nobody may not read is handed over as text
    for module in ("wire", "peer"):
        prelude += (f"import types\nsys.modules['{module}'] = m = types.ModuleType('{module}')\n"
                    f"exec({(here / (module + '.py')).read_text()!r}, m.__dict__)\n")
    prelude += f"import peer\nSOCKET = {str(instance.client_socket)!r}\n"
    return subprocess.Popen(
        [*enter, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True), prelude + code


@contextlib.contextmanager
def nobody(instance, code, **how):
    """Runs it until it says something, and ends it at the end; gives that line."""
    process, text = as_nobody(instance, code, **how)
    try:
        process.stdin.write(text)
        process.stdin.close()
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def descriptors(instance):
    return len(os.listdir(f"/proc/{instance.pid('fanwired')}/fd"))


def log_size(instance):
    return (instance.dir / "fanwired.log").stat().st_size


def scrape(instance, timeout):
    with netns(instance.engine_netns):
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=timeout) as answer:
            return answer.read().decode()


def test_half_requests_at_the_metrics_port_take_nothing_from_others(instance):
    """3,000 connections with half a request each: few are accepted, none stays, all others go on."""
    before, log_before = descriptors(instance), log_size(instance)
    flood = f"""
resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
held = []
for _ in range(3000):
    s = socket.socket()
    s.setblocking(False)
    try:
        s.connect(("127.0.0.1", {METRICS}))
    except BlockingIOError:
        pass
    held.append(s)
for s in held:
    try:
        s.send(b"GET /metrics HT")
    except OSError:
        pass
print("flooded", flush=True)
time.sleep(60)
"""
    with nobody(instance, flood, namespace=instance.engine_netns) as said:
        assert said == "flooded"
        most = 0
        for _ in range(5):
            time.sleep(0.2)
            most = max(most, descriptors(instance))
        assert most <= before + 16 + 8, "the metrics' connections are not limited"
        start = time.monotonic()
        subscriber = instance.subscribe("alice")
        assert instance.status()["connections"]
        assert time.monotonic() - start < 2
        subscriber.close()
        assert log_size(instance) - log_before < 20000, "the log is flooded"
    assert "fanwire_connections" in wait_for(lambda: tried(lambda: scrape(instance, 10)), 30)
    assert wait_for(lambda: descriptors(instance) <= before + 4, 20), "connections of the flood are left"


def tried(what):
    try:
        return what()
    except OSError:
        return None


def test_a_drop_by_drop_request_does_not_hold_the_metrics(instance):
    """Sixteen that send a byte a second fill every place, and are put out when somebody else waits."""
    slow = f"""
held = [socket.create_connection(("127.0.0.1", {METRICS})) for _ in range(16)]
for s in held:
    s.send(b"GET /metrics HTTP/1.1\\r\\nX: ")
print("slow", flush=True)
while True:
    time.sleep(1)
    for s in held:
        try:
            s.send(b"x")
        except OSError:
            pass
"""
    with nobody(instance, slow, namespace=instance.engine_netns) as said:
        assert said == "slow"
        assert "fanwire_connections" in scrape(instance, 15)


def test_a_full_control_socket_is_not_stuck(instance):
    """Descriptors that administrators' programs leave open are limited too."""
    before = descriptors(instance)
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.setblocking(False)
            with contextlib.suppress(OSError):
                s.connect(str(instance.control_socket))
        time.sleep(0.5)
        assert descriptors(instance) <= before + 64 + 8

    def answers():
        with contextlib.suppress(BlockingIOError):  # the kernel's queue is full of those that have left
            return instance.status()

    assert wait_for(answers, 10)


def refuses_to_start(instance):
    """What fanwired says when it does not start."""
    before = log_size(instance)
    instance.script("start", "fanwired", check=False)
    assert wait_for(lambda: not instance.alive(instance.pid("fanwired")), 10), "it started"
    return (instance.dir / "fanwired.log").read_text()[before:]


def holds(instance, token):
    try:
        peer.Subscriber(instance.client_socket, token, start=False).close()
    except peer.Refused as refused:
        assert refused.error == "token_invalid"
        return False
    return True


def test_a_lost_database_brings_no_revoked_token_back(make_instance):
    """A revocation outlives its database: a lost one is refused, a lost WAL loses nothing."""
    instance = make_instance().up()
    state = instance.dir / "state"
    token, database = instance.token("alice"), state / "fanwire.db"
    credential = instance.credential()
    assert holds(instance, token)
    assert instance.api("POST", "/v1/revocations", {"user": "alice"})[0] == 200
    assert not holds(instance, token)

    instance.kill("fanwired")
    (state / "fanwire.db-wal").write_bytes(os.urandom(2000))
    instance.start("fanwired")
    instance.wait()
    assert not holds(instance, token), "the revocation stood in the WAL alone"
    peer.Publisher(instance.client_socket, **credential).close()

    instance.script("stop", "fanwired")
    copy = database.read_bytes()
    for content in (None, b""):
        for file in state.glob("fanwire.db*"):
            file.unlink()
        if content is not None:
            database.write_bytes(content)
        for _ in range(2):
            said = refuses_to_start(instance)
            assert str(database) in said and "keys" in said and "revoked tokens" in said, said

    for file in state.glob("fanwire.db*"):
        file.unlink()
    database.write_bytes(copy)
    database.chmod(0o600)
    instance.start("fanwired")
    instance.wait()
    assert not holds(instance, token)
    new = instance.token("alice")
    assert holds(instance, new)

    # the way out that it names: both anew, and no token of the old keys holds
    instance.script("stop")
    for file in (*state.iterdir(), *(instance.dir / "regions").iterdir()):
        file.unlink()
    instance.start("fanwired")
    instance.start("dataplane")
    instance.wait()
    assert not holds(instance, token) and not holds(instance, new)
    assert holds(instance, instance.token("alice"))


def test_one_grant_leaves_sessions_for_others_and_ends_with_its_user(instance):
    """uid nobody opens sessions with one grant for himself: he gets his share, and none after his revocation."""
    def grant():
        status, answer = instance.api("POST", "/v1/grants", {"user": "mallory", "ttl_seconds": 300})
        assert status == 200
        return answer["grant"]

    mine = grant()
    code = f"""
held = []
try:
    while len(held) < 300:
        client = peer.ClientSocket(SOCKET)
        client.ask({{"op": "publish_open", "grant": {mine!r}}})
        held.append(client)
except peer.Refused as refused:
    print(len(held), refused.error, flush=True)
time.sleep(60)
"""
    before = instance.status()["sessions"]
    with nobody(instance, code) as said:
        assert said == "32 limit_user"
        with_another = peer.ClientSocket(instance.client_socket)
        try:
            with_another.ask({"op": "publish_open", "grant": grant()})
            raise AssertionError("another grant of the same user has a share of its own")
        except peer.Refused as refused:
            assert refused.error == "limit_user" and "max_sessions_per_publisher" in refused.message
        instance.publisher()
        late = grant()
        status, answer = instance.api("POST", "/v1/revocations", {"user": "mallory"})
        assert status == 200 and answer["sessions_ended"] == 32
        assert instance.status()["sessions"] == before + 1
        try:
            with_another.ask({"op": "publish_open", "grant": late})
            raise AssertionError("a grant outlived its user's revocation")
        except peer.Refused as refused:
            assert refused.error == "token_invalid"
        with_another.ask({"op": "publish_open", "grant": grant()})
        with_another.close()


def test_a_flushed_neighbour_costs_no_second(instance):
    """Somebody takes the receivers' host out of the engine's neighbours: it is asked for at once."""
    subscriber, publisher = instance.subscribe("alice"), instance.publisher()
    publisher.publish("alice", "before")
    neigh = ["ip", "-n", instance.engine_netns, "neigh"]
    for how in (["flush", "all"], ["del", instance.receiver4, "dev", instance.engine_if]):
        for turn in range(3):
            assert wait_for(lambda: b"lladdr" in subprocess.check_output(neigh + ["show", instance.receiver4]), 2)
            subprocess.run([*neigh, *how], check=True)
            start = time.monotonic()
            publisher.publish("alice", f"{how[0]} {turn}")
            assert time.monotonic() - start < 1
    before = len(subscriber.events)
    publisher.publish("alice", "after")
    assert wait_for(lambda: len(subscriber.events) > before, 2)


def test_the_audit_is_not_washed_out_by_refused_requests(instance):
    """uid nobody asks for another's connection as fast as he can: counted, in a few records."""
    owner = instance.subscribe("alice")
    code = f"""
import json
request = json.dumps({{"op": "subscribe", "token": {instance.token("mallory")!r}, "connection": {owner.id!r}}}).encode()
asked, end = 0, time.monotonic() + 3
while time.monotonic() < end:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(SOCKET)
    try:
        while time.monotonic() < end:
            s.send(request)
            if not s.recv(4096):
                break
            asked += 1
    except OSError:
        pass
print(asked, flush=True)
time.sleep(60)
"""
    rows = len(instance.get("/v1/audit?limit=1000&event=connection_foreign")["records"])
    with nobody(instance, code) as said:
        asked = int(said)
        assert asked > 20
        records = instance.get("/v1/audit?limit=1000&event=connection_foreign")["records"][rows:]
        assert 1 <= len(records) <= 4
        assert sum(record["count"] or 1 for record in records) >= asked
        assert {record["user"] for record in records} == {"mallory"} and records[0]["connection"] == owner.id
    assert not owner.ended
    client, tries = peer.ClientSocket(instance.client_socket), 0
    try:
        while tries < 100:
            with contextlib.suppress(peer.Refused):
                client.ask({"op": "subscribe", "token": instance.token("mallory"), "connection": owner.id})
            tries += 1
    except OSError:
        pass
    client.close()
    assert tries == 16, "who asks for others' connections is not cut off"
