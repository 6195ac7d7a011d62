# SPDX-License-Identifier: BSD-3-Clause
"""What the harness adds to the machine it takes back, and what it says about the machine is there."""
import io
import subprocess

import pytest

from harness import hugepages, machine, namespaces, progress, undo
from harness.errors import Failure, Skip


class Kernel:
    """/proc/sys/vm/nr_hugepages of a machine that has only so many to give."""

    def __init__(self, count, most):
        self.count, self.most = count, most

    def read_text(self):
        return f"{self.count}\n"

    def write_text(self, text):
        self.count = min(int(text), self.most)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    made = Kernel(10, 100)
    monkeypatch.setattr(hugepages.os, "geteuid", lambda: 0)
    monkeypatch.setattr(hugepages, "COUNT", made)
    monkeypatch.setattr(hugepages, "COMPACT", tmp_path / "compact")
    monkeypatch.setattr(hugepages, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(hugepages, "meminfo", lambda: {"Hugepagesize": 2048, "MemAvailable": 8 << 20})
    return made


@pytest.fixture
def pages(tmp_path):
    made = undo.Ledger({"hugepages": hugepages.give_back}, tmp_path / "ledger")
    yield made
    made.close()


def test_huge_pages_are_added_and_given_back(kernel, pages):
    with hugepages.hugepages(101, pages):
        assert kernel.count == 10 + 51  # rounded up to whole pages
        kernel.count += 5  # others add some of their own meanwhile
    assert kernel.count == 15


def test_huge_pages_are_given_back_after_a_failure(kernel, pages):
    with pytest.raises(Failure), hugepages.hugepages(20, pages):
        raise Failure("in the middle")
    assert kernel.count == 10


def test_fewer_huge_pages_than_needed_are_not_kept(kernel, pages):
    with pytest.raises(Skip, match="the kernel found 90"), hugepages.hugepages(400, pages):
        pytest.fail("it ran without its huge pages")
    assert kernel.count == 10


def test_huge_pages_beyond_the_memory_are_not_even_tried(kernel, pages):
    with pytest.raises(Skip, match="8192 MiB are free"), hugepages.hugepages(9000, pages):
        pytest.fail("it ran without its huge pages")
    assert kernel.count == 10 and not (hugepages.COMPACT).exists()


def test_huge_pages_without_root_say_what_to_do(kernel, pages, monkeypatch):
    monkeypatch.setattr(hugepages.os, "geteuid", lambda: 1000)
    with pytest.raises(Skip, match="sudo"), hugepages.hugepages(2, pages):
        pytest.fail("it ran without its huge pages")
    assert kernel.count == 10


def test_the_machine_is_described():
    told, versions = machine.describe(), machine.versions()
    assert told["cores"] >= 1 and told["memory_mb"] > 0 and told["kernel"] and told["cpu"] and told["caches"]
    assert versions["fanwire"] != "unknown" and versions["dpdk"].startswith("22.11") and versions["libbpf1"]
    assert len(set(machine.cores())) == len(machine.cores()) > 0


def test_namespaces_are_linked_and_go(tmp_path):
    ledger = undo.Ledger({"namespace": namespaces.remove}, tmp_path / "ledger")
    one, other = namespaces.Namespace(ledger, "one"), namespaces.Namespace(ledger, "other")
    namespaces.veth(one, other, addresses=("10.9.0.1/24", "10.9.0.2/24"))
    one.run("ping", "-c", "1", "-W", "2", "10.9.0.2")
    with pytest.raises(Failure, match="ip link add"):
        namespaces.ip("link", "add", "veth0", "type", "dummy", netns=one)
    ledger.close()
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert one.name not in left and other.name not in left


def test_progress_says_what_runs_and_how_long_it_takes():
    out = io.StringIO()
    shown = progress.Progress({"core": 90, "table": 30}, out)
    shown.begin("core")
    shown.step("run 1 of 5", at_once=True)
    shown.end("core")
    shown.begin("table")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[1/2 core] starting · 0:00, about ") and "[1/2 core] run 1 of 5" in lines[1]
    assert lines[-1].startswith("[2/2 table] starting · 0:00, about 0:") and len(lines) == 3


def test_progress_without_a_terminal_is_not_chatty():
    out = io.StringIO()
    shown = progress.Progress({"core": 90}, out)
    shown.begin("core")
    for number in range(20):
        shown.step(f"run {number} of 20")
    assert len(out.getvalue().splitlines()) == 1
