# SPDX-License-Identifier: BSD-3-Clause
"""The program that measures one worker: what it counts is what the port took, and where it cannot measure it says so.

The harness around it has tests of its own (tests/bench).
"""
import json
import subprocess

import pytest

from instance import BUILD

FANOUTS = [1, 3, 16, 64]


def core(*options, lines=("run 20",)):
    """What fanwire-bench-core answers, line by line, and its exit status."""
    run = subprocess.run([str(BUILD / "bench/fanwire-bench-core"), *map(str, options)], input="".join(f"{line}\n" for line in lines),
                         capture_output=True, text=True, timeout=120, check=False)
    return [json.loads(line) for line in run.stdout.splitlines()], run.returncode


@pytest.mark.parametrize("users", [65536, 1000000])
@pytest.mark.parametrize("fanout", FANOUTS)
def test_each_case_is_measured(users, fanout):
    """Copies a second and cycles a copy of one worker at fan-out 1, 3, 16, 64 with 65,536 and 1,000,000 users."""
    (ready, answer), status = core("--users", users, "--fanout", fanout)
    settings, run = ready["ready"]["settings"], answer["run"]
    assert status == 0 and (settings["users"], settings["fanout"], settings["port"]) == (users, fanout, "net_null0,no-rx=1")
    assert run["copies_per_second"] > 0 and run["cycles_per_copy"] > 0 and run["events"] > 0
    assert run["cycles_per_event"] == pytest.approx(run["cycles_per_copy"] * fanout, rel=0.001)


def test_stages_are_parts_of_the_whole():
    (_, answer), _ = core("--mode", "stages")
    run = answer["run"]
    stages = {name: cycles for name, cycles in run.items() if name.endswith("_cycles_per_event")}
    assert len(stages) >= 8 and all(cycles >= 0 for cycles in stages.values()), run
    assert sum(stages.values()) <= run["cycles_per_event"] * 1.001


@pytest.mark.parametrize("options, words", [(("--fanout", "0"), "--fanout 0"), (("--payload", "1133"), "--payload 1133")])
def test_what_it_cannot_measure_it_refuses_in_a_sentence(options, words):
    answers, status = core(*options)
    assert status == 1 and words in answers[-1]["error"]


def test_it_knows_run_and_quit():
    answers, status = core("--users", 1000, lines=("walk 20",))
    assert status == 1 and "run MS" in answers[-1]["error"]
    assert core("--users", 1000, lines=("quit", "run 20"))[1] == 0
