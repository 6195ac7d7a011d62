# SPDX-License-Identifier: BSD-3-Clause
"""The first benchmark: what `./dev bench` runs writes what it must, and what it counts is what the port took."""
import json
import subprocess

import pytest

from instance import BUILD

FANOUTS = [1, 3, 16, 64]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Both sizes of the table at each fan-out, each for an instant: enough to see that they run, not to measure."""
    path = tmp_path_factory.mktemp("bench") / "core.json"
    run = subprocess.run(
        [str(BUILD / "bench/fanwire-bench"), "core", "--fanout", ",".join(map(str, FANOUTS)), "--runs", "1", "--run-ms", "20",
         "--memory", "1024", "--json", str(path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(path.read_text())


def test_each_case_is_measured_or_says_why_not(report):
    """Copies a second and cycles a copy of one worker at fan-out 1, 3, 16, 64 with 65,536 and 1,000,000 users."""
    cases = {(case["users"], case["fanout"]): case for case in report["cases"]}
    assert set(cases) == {(users, fanout) for users in (65536, 1000000) for fanout in FANOUTS}
    for case in cases.values():
        if "skipped" in case:
            assert "MiB" in case["skipped"]
            continue
        assert case["copies_per_second"] > 0 and case["cycles_per_copy"] > 0
        assert case["cycles_per_event"] == pytest.approx(case["cycles_per_copy"] * case["fanout"], rel=0.05)
    assert "skipped" not in cases[65536, 3] and "skipped" not in cases[1000000, 1]


def test_the_machine_is_described(report):
    machine, settings = report["machine"], report["settings"]
    for name in ("cpu", "cpu_flags", "cpus", "tsc_hz", "kernel", "dpdk", "ipsec_mb", "memory_mb"):
        assert machine[name], machine
    assert (settings["port"], settings["run_ms"]) == ("net_null0,no-rx=1", 20) and settings["burst"], settings
