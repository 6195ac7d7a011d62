# SPDX-License-Identifier: BSD-3-Clause
"""Result files: their schema, and that what is committed keeps to it."""
import json

import jsonschema
import pytest

from conftest import ROOT, result
from harness import results
from harness.bench import Bench
from harness.errors import Failure

LABELS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
NUMBER = {"type": "number"}
FIGURE = {
    "type": "object", "additionalProperties": False,
    "required": ["name", "labels", "unit", "better", "runs", "median", "least", "most", "spread"],
    "properties": {"name": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}, "labels": LABELS, "unit": {"type": "string", "minLength": 1},
                   "better": {"enum": ["more", "less"]}, "runs": {"type": "array", "items": NUMBER, "minItems": 1}, "median": NUMBER,
                   "least": NUMBER, "most": NUMBER, "spread": {"type": "number", "minimum": 0}},
}
SCHEMA = {
    "type": "object", "additionalProperties": False,
    "required": ["scenario", "version", "time", "seconds", "quick", "machine", "versions", "settings", "measures", "distributions", "skipped"],
    "properties": {
        "scenario": {"type": "string"}, "version": {"type": "string"}, "seconds": NUMBER, "quick": {"type": "boolean"},
        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "machine": {"type": "object", "required": ["cpu", "cores", "flags", "caches", "kernel", "mitigations", "memory_mb", "hugepages",
                                                   "virtualised", "load_1min"]},
        "versions": {"type": "object", "required": ["fanwire"], "additionalProperties": {"type": "string"}},
        "settings": {"type": "object", "required": ["programs"]},
        "measures": {"type": "array", "items": FIGURE},
        "distributions": {"type": "array", "items": {
            "type": "object", "additionalProperties": False, "required": ["name", "labels", "unit", "buckets"],
            "properties": {"name": {"type": "string"}, "labels": LABELS, "unit": {"type": "string"},
                           "buckets": {"type": "array", "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}}}}},
        "skipped": {"type": "array", "items": {"type": "object", "additionalProperties": False, "required": ["name", "labels", "why"],
                                               "properties": {"name": {"type": "string"}, "labels": LABELS,
                                                              "why": {"type": "string", "minLength": 1}}}},
    },
}


def check(made):
    """By the schema, and each figure by its own runs."""
    jsonschema.validate(made, SCHEMA)
    for figure in made["measures"]:
        again = results.measure(figure["name"], figure["labels"], figure["unit"], figure["better"], figure["runs"])
        assert figure == again, figure
    keys = list(map(results.key, made["measures"]))
    assert len(set(keys)) == len(keys)


@pytest.fixture
def bench(fake, ledger):
    made = Bench("core", fake, ledger)
    yield made
    made.close()


def test_what_a_scenario_records_fits_the_schema(bench, tmp_path):
    with bench.program("fanwire-bench-fake", "a", tmp_path / "diary") as program:
        runs = bench.interleave([("a", program)], ms=20, runs=3)["a"]
    bench.measure("rate", {"fanout": 3, "mode": "whole"}, "copies/s", "more", [run["rate"] for run in runs])
    bench.ratio("rate_to_peer", {}, [2, 4], [1, 1])
    bench.distribution("latency", {"load": "half"}, "us", [[1.5, 3], [1.5, 4], [0.5, 1]])
    bench.skip("other", {"fanout": 1}, "no peer here: apt-get install peer")
    results.save(tmp_path / "out", bench.result())
    made = results.load(tmp_path / "out")["core"]
    check(made)
    assert made["measures"][0]["runs"] == [200, 300, 400] and made["measures"][0]["median"] == 300
    assert made["measures"][0]["spread"] == pytest.approx(200 / 300)
    assert made["measures"][1]["runs"] == [2, 4] and made["measures"][1]["unit"] == "x"
    assert made["distributions"][0]["buckets"] == [[0.5, 1], [1.5, 7]]
    assert made["versions"]["fake"] == "1.0"
    assert made["settings"]["programs"][0]["settings"] == {"name": "a"}


@pytest.mark.parametrize("runs, better", [([], "more"), ([float("nan")], "more"), ([1, float("inf")], "less"), ([1], "higher")])
def test_what_is_no_figure_is_refused(runs, better):
    with pytest.raises(ValueError):
        results.measure("rate", {}, "x", better, runs)


def test_nothing_is_measured_twice(bench):
    bench.measure("rate", {"a": 1}, "x", "more", [1])
    with pytest.raises(ValueError, match="twice"):
        bench.measure("rate", {"a": 1}, "x", "more", [2])


def test_a_program_that_was_not_built(bench):
    with pytest.raises(Failure, match="./dev build"):
        bench.program("fanwire-bench-none")


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"cases": []}))
    with pytest.raises(ValueError, match="a.json is no result"):
        results.load(tmp_path)


def test_labels_match_by_inclusion():
    made = result(("rate", {"fanout": 3, "users": 10}, [1]), ("rate", {"fanout": 3, "users": 20}, [2]))
    assert len(results.matching(made, "rate", {"fanout": 3})) == 2
    assert results.matching(made, "rate", {"fanout": "3", "users": 20})[0]["median"] == 2


@pytest.mark.parametrize("value, unit, text", [
    (52_340_000, "copies/s", "52.34 M copies/s"), (999, "copies/s", "999.0 copies/s"), (0, "events", "0 events"), (59.44, "ns", "59.44 ns"), (1.5, "x", "1.50 x"),
    (12345, "cycles", "12,345 cycles"), (0.0123, "s", "0.0123 s"), (2.5e9, "bit/s", "2.50 Gbit/s"), (0.015, "share", "1.50%"),
])
def test_amounts_read_well(value, unit, text):
    assert results.amount(value, unit) == text


def test_committed_figures_fit_the_schema():
    for path in [*(ROOT / "bench/results").glob("*.json"), *(ROOT / "bench/baselines").glob("*/*.json")]:
        made = json.loads(path.read_text())
        check(made)
        assert made["scenario"] == path.stem and not made["quick"], path
