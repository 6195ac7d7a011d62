# SPDX-License-Identifier: BSD-3-Clause
"""Programs are run in turn, each answer goes to whose it is, and what goes wrong is told with its reason."""
import time

import pytest

from harness import interleave
from harness.errors import Failure
from harness.program import Program


@pytest.fixture
def start(fake, tmp_path):
    """Starts the fake program under a name; what it did is written into the diary."""
    started = []

    def make(name, fault="", **more):
        started.append(Program(fake / "bench/fanwire-bench-fake", [name, tmp_path / "diary", fault], **more))
        return started[-1]
    yield make
    for program in started:
        program.close()


def diary(tmp_path):
    return (tmp_path / "diary").read_text().splitlines()


def test_programs_take_turns_after_a_warm_up(start, tmp_path):
    kept = interleave.interleave([("A", start("a")), ("B", start("b"))], ms=80, runs=2)
    assert diary(tmp_path) == ["a 20", "b 20", "a 80", "b 80", "a 80", "b 80"]
    assert [run["rate"] for run in kept["A"]] == [200, 300] and len(kept["B"]) == 2  # the first round is not kept


def test_what_is_to_be_compared_has_a_name_each(start):
    with pytest.raises(ValueError, match="differ"):
        interleave.interleave([("A", start("a")), ("A", start("b"))], ms=20, runs=1)


def test_ratios_are_formed_round_by_round():
    assert interleave.ratios([10, 30], [5, 10]) == [2, 3]
    with pytest.raises(ValueError):
        interleave.ratios([1, 2], [1])


def test_a_program_tells_its_settings_and_ends_when_closed(start, tmp_path):
    program = start("a")
    assert program.settings == {"name": "a"} and program.versions == {"fake": "1.0"}
    assert program.run(30)["ms"] == 30
    program.close()
    program.close()
    assert diary(tmp_path) == ["a 30", "a quit"]


def test_what_a_program_says_of_its_failure_is_passed_on(start):
    with pytest.raises(Failure, match="fanwire-bench-fake a .*: no port to be had: give it one"):
        start("a", "no start")


def test_a_program_that_dies_is_told_with_its_last_words(start):
    program = start("a", "dies")
    program.run(20)
    with pytest.raises(Failure, match="(?s)status 7.*it hurts"):
        program.run(20)


def test_a_program_that_hangs_is_not_waited_for_for_ever(start):
    program, began = start("a", "hangs"), time.monotonic()
    with pytest.raises(Failure, match="said nothing in time"):
        program.run(20, timeout_s=0.3)
    assert time.monotonic() - began < 10


def test_an_answer_that_is_none_is_a_failure(start):
    with pytest.raises(Failure, match="hello"):
        start("a", "babbles").run(20)


def test_a_program_that_is_not_there():
    with pytest.raises(Failure, match="cannot be started"):
        Program("/nonexistent/fanwire-bench-none")
