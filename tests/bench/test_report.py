# SPDX-License-Identifier: BSD-3-Clause
"""The report and the pages' tables: every figure is in them, nothing is loaded from elsewhere, and charts are well-formed."""
import json
import re
import subprocess
import types
import xml.etree.ElementTree as xml

import pytest

from conftest import ROOT, result
from harness import charts, docs, model, report, svg

FIGURES = [("rate", {"fanout": fanout, "users": users, "with": peer}, [fanout * 1e6, fanout * 2e6, fanout * 3e6])
           for fanout in (1, 3, 16) for users in (1000, 4_000_000) for peer in ("ours", "<theirs>")]
CHARTS = {
    "lines": {"kind": "lines", "title": "Rate", "measure": "rate", "x": "fanout", "series": ["users", "with"]},
    "bars": {"kind": "bars", "title": "Peers", "measure": "rate", "by": "with", "ours": "ours", "groups": "users", "where": {"fanout": 3}},
    "stacked": {"kind": "stacked", "title": "Stages", "measure": "rate", "x": "fanout", "stack": "with", "where": {"users": 1000}},
    "percentiles": {"kind": "percentiles", "title": "Latency", "measure": "latency", "series": "with"},
}


@pytest.fixture
def made():
    buckets = [[value / 10, 1000 // value + 1] for value in range(1, 1000)]
    return result(*FIGURES, distributions=[{"name": "latency", "labels": {"with": peer}, "unit": "us", "buckets": buckets} for peer in "ab"])


@pytest.mark.parametrize("kind", CHARTS)
def test_charts_are_drawn(made, kind):
    for alone in (False, True):
        drawn = charts.draw(made, CHARTS[kind], alone)
        root = xml.fromstring(drawn)
        assert root.get("viewBox").startswith("0 0 720 ") and CHARTS[kind]["title"] in drawn
        assert "nan" not in drawn and "inf" not in drawn.replace("info", "")
    assert charts.draw(result(), CHARTS[kind]) is None


@pytest.mark.parametrize("log", [False, True])
def test_bars_of_nothing_are_drawn(log):
    chart = {**CHARTS["bars"], "log": log, "where": {}}
    assert "nan" not in charts.draw(result(("rate", {"with": "ours"}, [0]), ("rate", {"with": "other"}, [0])), chart)


def test_marks_stand_where_the_figures_are(made):
    """One circle a figure of the line chart; the greatest of all is the highest."""
    root = xml.fromstring(charts.draw(made, CHARTS["lines"]))
    circles = [one for one in root if one.tag.endswith("circle")]
    assert len(circles) == len(FIGURES)
    highest = min(circles, key=lambda circle: float(circle.get("cy")))
    assert "fan-out 16" in highest[0].text


def test_the_page_is_of_one_piece(made):
    modules = {"core": types.SimpleNamespace(TITLE="one worker", ORDER=1, CHARTS=tuple(CHARTS.values()))}
    target = {"id": 1, "what": "fast", "scenario": "core", "measure": "rate", "labels": {"fanout": 3}, "unit": "copies/s", "at_least": 1}
    made["skipped"] = [{"name": "other", "labels": {}, "why": "no <peer>"}]
    page = report.page({"core": made}, modules, [target])
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|<script", page)
    assert page.count("<svg") == 4 and "&lt;theirs&gt;" in page and "<theirs>" not in page and "no &lt;peer&gt;" in page
    assert "32.00 M copies/s" in page and "class=\"met\"" in page
    assert "prefers-color-scheme: dark" in page


def test_a_page_without_figures():
    assert "./dev bench" in report.page({}, {}, [])


def test_blocks_of_a_page_are_rewritten_and_nothing_else(made):
    text = "before\n<!-- figures: core rate -->\nold\n<!-- end -->\nafter\n<!-- figures: table -->\n<!-- end -->\n"
    new = docs.rewrite(text, {"core": made}, [])
    assert new.startswith("before\n") and "after" in new and "old" not in new
    assert "| 16 | 4,000,000 | ours | **32.00 M copies/s** | 16.00 M copies/s to 48.00 M copies/s |" in new
    assert "Not measured yet: `./dev bench table`." in new
    assert docs.rewrite(new, {"core": made}, []) == new


def test_a_page_shows_a_chart_once_it_was_measured(made):
    text = "<!-- figures: chart core some-chart How fast it is -->\n<!-- end -->"
    assert "![How fast it is](docs/images/some-chart.svg)" in docs.rewrite(text, {"core": made}, [], "docs/images")
    assert "Not measured yet: `./dev bench core`." in docs.rewrite(text, {}, [])


def committed(path):
    """A file as it was committed last."""
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_pages_claim_what_the_committed_files_say():
    """No figure is typed: what stands between the marks is what `./dev bench docs` makes of bench/results."""
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("no git checkout: which files are committed is not known")
    names = subprocess.run(["git", "ls-tree", "--name-only", "HEAD", "bench/results/"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    found = {made["scenario"]: made for made in (json.loads(committed(name)) for name in names if name.endswith(".json"))}
    wanted = json.loads(committed("bench/targets.json"))
    for page, images in docs.PAGES.items():
        text = committed(page)
        assert docs.rewrite(text, found, wanted, images) == text, f"{page}: ./dev bench docs"
        for image in re.findall(rf"\]\({images}/([\w-]+\.svg)\)", text):
            assert committed(f"docs/images/{image}").startswith("<svg"), image


def test_cores_for_a_line_rate():
    """20 cycles a copy at 2 GHz are 100 million copies/s a core; 100 Gbit/s of 334 bytes are 37.4 million."""
    assert model.wire_bits(168) == 334 * 8
    assert model.cores(100e9, 168, 20, 2e9)[0] == 1
    assert model.cores(100e9, 168, 60, 2e9)[0] == 2
    assert model.cores(400e9, 168, 20, 2e9, 60) == (6, 400e9 / (334 * 8))


def test_the_table_of_cores_comes_from_the_figures():
    labels = {"users": 65536, "fanout": 64, "payload": 168}
    made = result(("copies", labels, [100e6]), ("cycles_per_copy", labels, [20], "less"), ("copies", {**labels, "users": 7}, [1]),
                  ("cycles_per_copy", {**labels, "users": 7}, [1], "less"))
    lines = model.text({"core": made}).splitlines()
    assert lines[2:] == ["| 65,536 | 64 | 168 | 20.0 | 334 | 1 | 1 to 2 | 2 to 6 |"]
    assert "./dev bench core" in model.text({})


@pytest.mark.parametrize("most, top", [(1, 1), (0.93, 1), (4.2, 5), (52.3e6, 60e6), (0, 1)])
def test_axes_end_at_round_numbers(most, top):
    assert svg.nice_top(most)[0] == pytest.approx(top)
