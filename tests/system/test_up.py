# SPDX-License-Identifier: BSD-3-Clause
"""The embedded instance as ./dev up makes it: daemons in this namespace, receivers in one of their own. Another name,
other ports: it disturbs no instance that is up."""
import json
import os
import pathlib
import shutil
import socket
import subprocess

import pytest

from instance import BUILD, ROOT, Instance


class Embedded(Instance):
    """Like `./dev up`: the engine's end in the first namespace, on a subnet of its own."""

    def __init__(self, **how):
        super().__init__(**how)
        tag = f"{os.getpid() % 1000:03}{self.number % 10}"
        self.engine_netns, self.engine_if = "", f"fwu{tag}e"
        self.receiver_if = f"fwu{tag}r"
        third = 64 + os.getpid() % 128
        self.engine4, self.receiver4 = f"198.19.{third}.1", f"198.19.{third}.2"
        self.engine6, self.receiver6 = f"fd00:f1:{third:x}::1", f"fd00:f1:{third:x}::2"
        self.engine_port = 7401 + os.getpid() % 500
        self.settings.update(
            ENGINE_NETNS="", ENGINE_IF=self.engine_if, RECEIVER_IF=self.receiver_if, ENGINE4=self.engine4,
            RECEIVER4=self.receiver4, ENGINE6=self.engine6, RECEIVER6=self.receiver6, ENGINE_PORT=str(self.engine_port),
            METRICS_PORT=str(self.engine_port + 1000))


@pytest.fixture
def embedded():
    one = Embedded(huge_pages=160)
    try:
        yield one
    finally:
        one.down()


def network_state(one):
    """Links, namespaces, mounts and pinned programs that have to do with this instance."""
    def out(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return {
        "links": [line for line in out("ip", "-o", "link").splitlines() if one.engine_if in line],
        "namespaces": [line for line in out("ip", "netns").splitlines() if one.receiver_netns in line],
        "mounts": [line for line in pathlib.Path("/proc/mounts").read_text().splitlines() if str(one.dir) in line],
        "routes": [line for line in out("ip", "route").splitlines() if one.engine_if in line],
    }


def test_up_tells_that_what_runs_is_older(embedded, tmp_path):
    """Another configuration or another build is for the next start; a daemon that runs is left alone, not silently."""
    programs = tmp_path / "build"
    for program in ("control/engine/fanwired", "control/ctl/fanwirectl", "dataplane/fanwire-dataplane"):
        (programs / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(BUILD / program, programs / program)
    embedded.settings["BUILD_DIR"] = str(programs)
    embedded.script("create")
    first_line = (embedded.dir / "fanwire.conf").read_text().splitlines()[0]
    assert "control/embedded/fanwire.conf" in first_line
    embedded.script("start")
    embedded.wait()
    assert embedded.script("start").stdout == ""
    embedded.script("create", "times.lease=50")
    out = embedded.script("start").stdout
    assert out.count("runs an older configuration: ./dev down and ./dev up use the new one") == 2, out
    assert str(embedded.pid("fanwired")) in out
    embedded.script("create")
    program = programs / "dataplane/fanwire-dataplane"
    program.unlink()
    shutil.copy2(BUILD / "dataplane/fanwire-dataplane", program)
    out = embedded.script("start").stdout
    assert "runs an older build" in out and out.count("older") == 1, out


def huge_pages():
    return int(pathlib.Path("/proc/sys/vm/nr_hugepages").read_text())


def test_up_twice_and_down(embedded):
    """`up` is idempotent, names what it changed, and `down` restores it."""
    nothing = network_state(embedded)
    first = embedded.script("create").stdout + embedded.script("start").stdout
    embedded.wait()
    for word in ("network namespace", "veth pair", "started fanwired", "started dataplane"):
        assert word in first, first
    pids = embedded.pid("fanwired"), embedded.pid("dataplane")
    state = network_state(embedded)
    again = embedded.script("create").stdout + embedded.script("start").stdout
    embedded.wait()
    assert again == "" and network_state(embedded) == state
    assert (embedded.pid("fanwired"), embedded.pid("dataplane")) == pids
    subscriber = embedded.subscribe("up")
    assert embedded.publisher().publish("up", "x").sent == 1
    assert subscriber.wait_events(1)
    subprocess.run(["ping", "-c", "1", "-W", "2", embedded.receiver4], check=True, capture_output=True)
    embedded.settings["ENGINE_PORT"], old = "7399", embedded.settings["ENGINE_PORT"]
    assert f"ENGINE_PORT=7399 is not taken up: this instance was made with {old}" in embedded.script("create").stdout
    embedded.settings["ENGINE_PORT"] = old
    last = embedded.script("destroy").stdout
    for word in ("stopped fanwired", "stopped dataplane", "veth pair", "network namespace"):
        assert word in last, last
    assert network_state(embedded) == nothing
    assert not any(Instance.alive(pid) for pid in pids)
    assert "nothing to do" in embedded.script("destroy").stdout


def test_huge_pages_are_added_and_given_back(embedded):
    """Huge pages: adds what is needed, remembers how many, gives them back."""
    out = embedded.script("create").stdout
    undo = (embedded.dir / "undo").read_text().splitlines()
    if "vm.nr_hugepages:" in out:
        assert "hugepages 160" in undo
    else:
        assert "running without" in out and "hugepages 160" not in undo
    assert "vm.nr_hugepages" in embedded.script("destroy").stdout or "running without" in out


def test_with_too_few_huge_pages_it_runs_without(make_instance):
    """With too few huge pages it runs without them and says so."""
    instance = make_instance(huge_pages=100_000_000)
    before = huge_pages()
    out = instance.script("create").stdout
    assert "running without" in out
    assert "hugepages" not in (instance.dir / "undo").read_text() and huge_pages() < before + 100_000
    assert "huge_pages = false" in (instance.dir / "fanwire.conf").read_text()
    instance.script("start")
    instance.wait()
    subscriber = instance.subscribe("small")
    assert instance.publisher().publish("small", "x").sent == 1 and subscriber.wait_events(1)
    assert instance.status()["control"]["huge_pages"] is False
    # Again with few enough: what runs stays as it is, regions and configuration alike.
    instance.settings["HUGE_PAGES"] = "1"
    (instance.dir / "instance.env").write_text(
        (instance.dir / "instance.env").read_text().replace("HUGE_PAGES='100000000'", "HUGE_PAGES='1'"))
    out = instance.script("create").stdout + instance.script("start").stdout
    assert "runs without huge pages" in out and "./dev down and ./dev up" in out and "older" not in out, out
    assert "huge_pages = false" in (instance.dir / "fanwire.conf").read_text()
    found = [json.loads(line) for line in instance.ctl("-j", "doctor", check=False).stdout.splitlines()]
    assert [f["state"] for f in found if f["check"] == "huge_pages"] == ["warning"]


def test_what_is_in_the_way_is_named(embedded):
    """Where it cannot go on it says which, and what to do: port taken, interface there, range in use."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", embedded.engine_port))
    run = embedded.script("create", check=False)
    taken.close()
    assert run.returncode != 0 and str(embedded.engine_port) in run.stderr, run.stderr
    assert "engine_port" in run.stderr and f"ENGINE_PORT={embedded.engine_port + 1} ./dev up" in run.stderr, run.stderr
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", embedded.port_first + 3))
    run = embedded.script("create", check=False)
    taken.close()
    assert run.returncode != 0 and "port_first" in run.stderr and "PORT_FIRST=" in run.stderr, run.stderr
    subprocess.run(["ip", "link", "add", embedded.engine_if, "type", "veth"], check=True)
    try:
        run = embedded.script("create", check=False)
        assert run.returncode != 0 and embedded.engine_if in run.stderr and "ip link del" in run.stderr
    finally:
        subprocess.run(["ip", "link", "del", embedded.engine_if], check=True)


def test_a_bad_key_for_the_configuration_is_named(embedded):
    run = embedded.script("create", "limits.surprise=1", check=False)
    assert run.returncode != 0 and "limits.surprise" in run.stderr


def test_the_tests_pass_over_ports_that_a_killed_run_left_guarded(make_instance, capsys):
    """Its lock on the ports ended with it, its pinned guard did not."""
    left = make_instance(ports=100).up()
    for program in ("dataplane", "fanwired"):
        left.kill(program)
    left.block.close()
    another = make_instance(ports=100)
    assert another.port_first > left.port_last or another.port_last < left.port_first
    assert f"port {left.port_first} is guarded" in capsys.readouterr().err
    another.up()


def test_without_root_it_says_so():
    """No root."""
    run = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", str(ROOT / "control/embedded/instance.sh"),
                          "check"], capture_output=True, text=True, env={**os.environ, "RUN_DIR": "/tmp/fanwire-nobody"})
    assert run.returncode != 0 and "root" in run.stderr
    run = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", str(ROOT / "dev"), "up"],
                         capture_output=True, text=True)
    assert run.returncode != 0 and "root" in run.stderr


@pytest.mark.parametrize("command", ["up", "down", "status", "build", "test", "lint", "bench", "fmt"])
def test_each_subcommand_has_help(command):
    run = subprocess.run([str(ROOT / "dev"), command, "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and command in run.stdout
    assert command in subprocess.run([str(ROOT / "dev"), "help"], capture_output=True, text=True).stdout


def test_a_wrong_subcommand_is_refused():
    run = subprocess.run([str(ROOT / "dev"), "fly"], capture_output=True, text=True)
    assert run.returncode != 0 and "fly" in run.stderr


@pytest.mark.parametrize("words", [["up", "now"], ["status", "x"], ["down", "--purge", "x"], ["lint", "x"], ["fmt", "x"]])
def test_words_too_many_are_refused(words):
    run = subprocess.run([str(ROOT / "dev"), *words], capture_output=True, text=True)
    assert run.returncode != 0 and words[-1] in run.stderr, run.stderr
