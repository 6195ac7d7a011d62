# SPDX-License-Identifier: BSD-3-Clause
"""What ./dev soak calls flat: it sees a leak of a little each time, and does not see one in noise."""
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "soak"))

import fit  # noqa: E402 (the path comes first)
import soak  # noqa: E402


def series_of(make):
    return {name: [(x, make(x)) for x in range(120)] for name in soak.SERIES}


def test_what_is_flat_is_flat():
    draw = random.Random(1)
    findings, rows = soak.judge(series_of(lambda x: 1000 + draw.gauss(0, 30)), 120, {"received": 5}, 0)
    assert findings == [] and len(rows) == len(soak.SERIES)


def test_each_series_that_grows_is_named():
    for name, (_, allowance) in soak.SERIES.items():
        draw, leak = random.Random(2), (allowance + 20) / 60
        series = series_of(lambda x: 1000 + draw.gauss(0, 3))
        series[name] = [(x, 1000 + draw.gauss(0, 3) + leak * x * 1.2) for x in range(120)]
        findings, _ = soak.judge(series, 120, {}, 0)
        assert len(findings) == 1 and findings[0].startswith(f"{name} grew by"), name


def test_what_settles_in_the_first_half_is_not_held_against_it():
    findings, _ = soak.judge(series_of(lambda x: 5000 if x >= 50 else 100 * x), 120, {}, 0)
    assert findings == []


def test_missing_samples_and_wrong_events_are_findings():
    series = series_of(lambda x: 1)
    series["mbufs in use"] = []
    findings, _ = soak.judge(series, 120, {"foreign": 1, "gaps": 2, "lost": 9}, soak.DATABASE_MAX + 1)
    assert len(findings) == 4 and "1 foreign" in findings and "2 gaps" in findings


def test_noise_is_three_standard_errors():
    slope, error = fit.line([(0, 1), (1, 3), (2, 2), (3, 4)])
    assert abs(slope - 0.8) < 1e-9 and 0.3 < error < 0.5
    assert fit.growth_of([(0, 1), (1, 2), (2, 3)]) == (2.0, 0.0)


def judged_latency(latency_of):
    """Findings where the machine is busy in a third of the seconds, more of them later, and latency is this function of (time, busy)."""
    draw = random.Random(4)
    series = series_of(lambda x: 1000 + draw.gauss(0, 3))
    waited = {x: 400 if draw.random() < (0.15 if x < 90 else 0.5) else draw.uniform(0, 20) for x in range(120)}
    series[soak.WAITED] = list(waited.items())
    series["p99 latency"] = [(x, latency_of(x, waited[x]) + draw.gauss(0, 200)) for x in range(120)]
    return soak.judge(series, 120, {}, 0)[0]


def test_a_machine_that_gets_busy_is_not_latency_that_grows():
    assert judged_latency(lambda x, waited: 500 + 12 * waited) == []


def test_latency_that_grows_is_seen_on_a_busy_machine():
    findings = judged_latency(lambda x, waited: 500 + 12 * waited + 40 * x)
    assert len(findings) == 1 and findings[0].startswith("p99 latency grew by")
