# SPDX-License-Identifier: BSD-3-Clause
"""What a service manager and an administrator learn of the daemons: readiness, watchdog, outages, how they end."""
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from instance import BUILD, wait_for

OUTAGE_SECONDS = 10
PROGRAMS = {"fanwired": BUILD / "control/engine/fanwired", "dataplane": BUILD / "dataplane/fanwire-dataplane"}


class ServiceManager:
    """The socket that systemd would listen on; every message with the time of its arrival."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o777)  # as systemd's own: daemons have users of their own

    def hear(self, seconds):
        """[(when, message)] of the next `seconds`."""
        heard, deadline = [], time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                heard.append((time.monotonic(), self.socket.recv(4096).decode()))
            except TimeoutError:
                break
        return heard

    def hear_until(self, word, seconds=15):
        deadline, heard = time.monotonic() + seconds, []
        while not any(word in message for _, message in heard):
            assert time.monotonic() < deadline, f"no {word}: {heard}"
            heard += self.hear(0.05)
        return heard


@pytest.fixture
def manager():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # as /run/systemd
        made = ServiceManager(pathlib.Path(folder) / "notify")
        yield made
        made.socket.close()


def test_readiness_and_watchdog(make_instance, manager):
    """`sd_notify`: READY once it serves and not before; WATCHDOG each half of the patience while its loop turns, and not
    when it hangs; STOPPING at its end."""
    instance = make_instance()
    instance.settings |= {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000"}
    instance.create()
    assert manager.hear(0.2) == []
    instance.start("fanwired")
    first = manager.hear_until("READY=1")
    assert [m for _, m in first if "READY=1" in m] == [m for _, m in first][-1:], first
    assert instance.status()["control"]["pid"] == instance.pid("fanwired")  # it serves, on the first try
    beats = [when for when, message in manager.hear(3.2) if "WATCHDOG=1" in message]
    assert 5 <= len(beats) <= 7, f"{len(beats)} beats in 3.2 s, half a second apart"
    assert max(b - a for a, b in zip(beats, beats[1:])) < 1, "the service manager would have killed it"
    instance.kill("fanwired", signal.SIGSTOP)
    manager.hear(0.3)
    assert manager.hear(1.5) == [], "a hanging daemon says that it is well"
    instance.kill("fanwired", signal.SIGCONT)
    manager.hear_until("WATCHDOG=1")
    instance.kill("fanwired", signal.SIGTERM)
    manager.hear_until("STOPPING=1")


def log_of(instance, program):
    return (instance.dir / f"{program}.log").read_text()


def test_an_outage_of_the_dataplane_is_alarmed_and_audited(make_instance):
    """An outage is alarmed after 10 s, once, in the log and in the audit; and its end is told."""
    instance = make_instance().up()
    died = time.monotonic()
    instance.kill("dataplane")
    assert wait_for(lambda: instance.status()["dataplane"]["state"] == "stopped")
    time.sleep(OUTAGE_SECONDS - 3 - (time.monotonic() - died))
    assert instance.audit("outage") == [] and "nothing is delivered" not in log_of(instance, "fanwired"), "too early"
    records = wait_for(lambda: instance.audit("outage"), timeout=6)
    assert [r["detail"] for r in records] == ["the dataplane is not running"]
    assert time.monotonic() - died < OUTAGE_SECONDS + 3
    time.sleep(1.5)
    assert len(instance.audit("outage")) == 1 and log_of(instance, "fanwired").count("nothing is delivered") == 1
    assert "runs again" not in log_of(instance, "fanwired")
    instance.start("dataplane")
    instance.wait()
    assert wait_for(lambda: "runs again" in log_of(instance, "fanwired"))
    assert len(instance.audit("outage")) == 1


def test_a_stalled_dataplane_is_alarmed_and_audited(make_instance):
    """Stalled is not dead: the process is there and its heartbeat is not."""
    instance = make_instance().up()
    instance.subscribe("stalled")  # active: it did run
    instance.kill("dataplane", signal.SIGSTOP)
    records = wait_for(lambda: instance.audit("outage"), timeout=OUTAGE_SECONDS + 5)
    assert [r["detail"] for r in records] == ["the dataplane is stalled"]
    instance.kill("dataplane", signal.SIGCONT)
    assert wait_for(lambda: instance.status()["dataplane"]["state"] == "running")
    assert wait_for(lambda: "runs again" in log_of(instance, "fanwired"))


def test_a_short_outage_is_no_alarm(make_instance):
    instance = make_instance().up()
    instance.restart("dataplane")
    time.sleep(2)
    assert instance.audit("outage") == []


def as_a_child(instance, program):
    """Starts `program` as a child of ours, whose exit status we get."""
    with open(instance.dir / f"{program}.log", "ab") as log:
        child = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{instance.engine_netns}", str(PROGRAMS[program]), "--config",
             str(instance.dir / "fanwire.conf")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    (instance.dir / f"{program}.pid").write_text(f"{child.pid}\n")
    return child


def test_sigterm_drains_and_leaves(make_instance):
    """`SIGTERM`: the dataplane answers and delivers what it took, and leaves with status 0; so does fanwired, and what is
    registered is there again after its start."""
    instance = make_instance()
    instance.create()
    children = {program: as_a_child(instance, program) for program in PROGRAMS}
    try:
        instance.wait()
        subscriber, publisher = instance.subscribe("term"), instance.publisher()
        assert publisher.publish("term", "0").sent == 1
        packets = {number: publisher.seal("term", str(number - 1)) for number in range(2, 200)}
        for packet in packets.values():
            publisher.send(packet)
        instance.kill("dataplane", signal.SIGTERM)
        assert children["dataplane"].wait(5) == 0
        while publisher.receive(0.3):
            pass
        results = [publisher.results[number] for number in sorted(publisher.results)]
        assert {(r.status, r.sent) for r in results} == {("ok", 1)}
        events = subscriber.wait_events(publisher.cumulative)
        assert [int(e.payload) for e in events] == list(range(publisher.cumulative)), "taken, and not delivered"
        assert [r.number for r in results] == list(range(1, publisher.cumulative + 1)), "taken, and not answered"
        shown = subprocess.run(["ip", "-n", instance.engine_netns, "link", "show", instance.engine_if],
                               capture_output=True, text=True, check=True).stdout
        assert "xdp" not in shown, "it left its XDP program behind"
        instance.kill("fanwired", signal.SIGTERM)
        assert children["fanwired"].wait(5) == 0
        assert subscriber.wait_broken()
        children = {program: as_a_child(instance, program) for program in PROGRAMS}
        instance.wait()
        assert subscriber.attach()["state"] == "active"
        assert publisher.attach()["session"] == publisher.answer["session"]
        rest = {number: packets[number] for number in packets if number not in publisher.results}
        publisher.wait(rest)
        assert [int(e.payload) for e in subscriber.wait_events(199)] == list(range(199))
    finally:
        for program in reversed(PROGRAMS):
            if children[program].poll() is None:
                children[program].send_signal(signal.SIGTERM)
                children[program].wait(10)


def test_fanwired_that_cannot_start_says_so_by_its_status(tmp_path):
    (tmp_path / "fanwire.conf").write_text("limits: { surprise = 1; };\n")
    run = subprocess.run([str(PROGRAMS["fanwired"]), "--config", str(tmp_path / "fanwire.conf")], capture_output=True,
                         text=True, timeout=20, env={**os.environ, "NOTIFY_SOCKET": ""})
    assert run.returncode == 1 and "surprise" in run.stderr
