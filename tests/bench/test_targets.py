# SPDX-License-Identifier: BSD-3-Clause
"""Targets: met or missed by the worst figure that fits, never by one that is not there."""
import importlib

import pytest

from conftest import result
from harness import cli, targets

TARGET = {"id": 1, "what": "fast", "scenario": "core", "measure": "rate", "labels": {"fanout": 3}, "unit": "copies/s"}


def judge(bound, *figures, **more):
    return targets.check({**TARGET, **bound}, {"core": result(*figures, **more)})


@pytest.mark.parametrize("bound, runs, verdict", [
    ({"at_least": 2}, [1, 2, 3], targets.MET),
    ({"at_least": 2.1}, [1, 2, 3], targets.MISSED),
    ({"at_most": 2}, [1, 2, 3], targets.MET),
    ({"at_most": 1.9}, [1, 2, 3], targets.MISSED),
])
def test_the_median_is_held_against_the_bound(bound, runs, verdict):
    assert judge(bound, ("rate", {"fanout": 3, "users": 9}, runs))[0] == verdict


def test_the_worst_of_the_figures_that_fit_counts():
    figures = ("rate", {"fanout": 3, "users": 1}, [5]), ("rate", {"fanout": 3, "users": 2}, [1]), ("rate", {"fanout": 16}, [0.1])
    assert judge({"at_least": 2}, *figures)[1]["median"] == 1
    assert judge({"at_most": 2}, *figures)[1]["median"] == 5


def test_what_was_not_measured_is_never_met():
    verdict, figure, why = judge({"at_least": 0}, ("rate", {"fanout": 4}, [1]))
    assert verdict == targets.UNKNOWN and figure is None and "did not measure rate" in why
    assert targets.check({**TARGET, "at_least": 0}, {})[0] == targets.UNKNOWN
    skipped = [{"name": "core", "labels": {}, "why": "it needs root"}]
    assert judge({"at_least": 0}, skipped=skipped)[2] == "it needs root"


def test_a_figure_in_another_unit_is_not_held_against_it():
    verdict, figure, why = targets.check({**TARGET, "unit": "ns", "at_least": 1}, {"core": result(("rate", {"fanout": 3}, [5]))})
    assert (verdict, figure, why) == (targets.UNKNOWN, None, "the target is in ns, the figure in copies/s")


def test_the_projects_targets_can_be_checked():
    """All thirteen, each of a scenario that there is."""
    wanted = targets.load()
    assert {target["id"] for target in wanted} == set(range(1, 14))
    assert len({(t["measure"], str(t["labels"])) for t in wanted}) == len(wanted)
    assert [target["id"] for target in targets.chosen(wanted, [6, 1])] == [1, 6]
    with pytest.raises(ValueError, match="14"):
        targets.chosen(wanted, [14])


def test_a_target_without_a_bound_is_refused(tmp_path):
    path = tmp_path / "targets.json"
    path.write_text('[{"id": 1, "what": "", "scenario": "core", "measure": "rate", "labels": {}, "unit": "x"}]')
    with pytest.raises(ValueError, match="at_least or at_most"):
        targets.load(path)


def test_every_scenario_says_what_it_is():
    for name, module in cli.scenarios().items():
        quick, full = module.SECONDS
        assert module.TITLE and quick <= full, name
        for chart in getattr(module, "CHARTS", ()):
            assert chart["kind"] in importlib.import_module("harness.charts").KINDS and chart["title"] and chart["measure"], (name, chart)
