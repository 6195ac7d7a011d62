# SPDX-License-Identifier: BSD-3-Clause
"""compare: worse is what got worse by more than the threshold and by more than the runs vary; nothing else fails."""
import json

import pytest

from conftest import result
from harness import compare, results


def verdicts(old, new, threshold=0.1):
    return [row[3] for row in compare.compare({"core": old}, {"core": new}, threshold)]


@pytest.mark.parametrize("old, new, better, verdict", [
    ([100, 101, 102], [80, 81, 82], "more", "worse"),
    ([100, 101, 102], [120, 121, 122], "more", "better"),
    ([100, 101, 102], [80, 81, 82], "less", "better"),
    ([100, 101, 102], [120, 121, 122], "less", "worse"),
    ([0, 0, 0], [0, 0, 0], "less", "same"),
    ([0, 0, 0], [0.01, 0.02, 0.03], "less", "worse"),  # none was lost before
    ([100, 101, 102], [95, 96, 97], "more", "same"),  # within the threshold
    ([70, 100, 130], [80, 81, 82], "more", "same"),  # 19 % less, but the old runs vary as much
    ([100, 101, 102], [60, 80, 105], "more", "same"),  # the new ones do
])
def test_worse_is_beyond_threshold_and_spread(old, new, better, verdict):
    assert verdicts(result(("rate", {"fanout": 3}, old, better)), result(("rate", {"fanout": 3}, new, better))) == [verdict]


def test_the_threshold_is_the_callers():
    old, new = result(("rate", {}, [100, 100])), result(("rate", {}, [85, 85]))
    assert verdicts(old, new, 0.1) == ["worse"] and verdicts(old, new, 0.2) == ["same"]


def test_figures_are_matched_by_name_and_labels_in_any_order():
    old = result(("rate", {"fanout": 3, "users": 10}, [100]), ("rate", {"fanout": 16, "users": 10}, [200]))
    new = result(("rate", {"users": 10, "fanout": 16}, [100]), ("rate", {"users": 10, "fanout": 3}, [100]))
    assert [(row[1]["labels"]["fanout"], row[3]) for row in compare.compare({"core": old}, {"core": new}, 0.1)] == [(3, "same"), (16, "worse")]


def test_a_figure_that_is_gone_fails_unless_one_set_is_quick():
    old, new = result(("rate", {}, [1]), ("cost", {}, [1])), result(("rate", {}, [1]))
    assert verdicts(old, new) == ["same", "gone"]
    assert compare.failed(compare.compare({"core": old}, {"core": new}, 0.1))
    assert verdicts(old, {**new, "quick": True}) == ["same"]


def test_another_machine_is_told():
    old, new = result(), result()
    new["machine"] = {**new["machine"], "kernel": "7"}
    assert compare.cautions({"core": old}, {"core": new, "table": result(scenario="table")}) == [
        "table: the baseline has no figures of it", "another kernel: 6 then, 7 now"]


def test_a_saved_baseline_is_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "BASELINES", tmp_path / "baselines")
    results.save(tmp_path / "figures", result(("rate", {}, [5])))
    folder, cnt = compare.save("before", tmp_path / "figures")
    assert cnt == 1 and results.load(compare.find("before")) == results.load(tmp_path / "figures")
    assert json.loads((folder / "core.json").read_text())["measures"][0]["runs"] == [5]
    with pytest.raises(ValueError, match="before"):
        compare.find("behind")
    with pytest.raises(ValueError, match="letters"):
        compare.save("../evil", tmp_path / "figures")


def test_the_table_shows_the_worst_first():
    old = result(("a", {}, [100]), ("b", {}, [100]), ("c", {}, [100]))
    new = result(("a", {}, [150]), ("b", {}, [50]), ("c", {}, [100]))
    lines = compare.table(compare.compare({"core": old}, {"core": new}, 0.1))
    assert [line.split()[0] for line in lines] == ["worse", "better"] and "50.0% worse" in lines[0]
