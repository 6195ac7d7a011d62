# SPDX-License-Identifier: BSD-3-Clause
"""latency: what everybody else notices while one user is pressed on."""
import statistics

TITLE = "latency of everybody else's events while one user is pressed on"
ORDER = 60
SECONDS = 4, 25

CASES = ("without", "large_user", "flood")
FAIRNESS_MB = 320  # packets, and the table of 65,536 users
CPU_SHARE = 0.98  # with less of its CPU, a worker's times are those of whatever else runs there
SEGMENTS_MS = 3 * 300  # each case in each run: at least a segment of events

CHARTS = (
    {"kind": "percentiles", "title": "Latency of the others' events while one user is pressed on (null port)", "measure": "fairness_latency",
     "series": "case"},
)


def run(bench):
    fairness(bench)


# ---- one user is pressed on ----------------------------------------------------------------------

def fairness(bench):
    """The three cases are parts of each run, so their ratios are of one moment."""
    if not bench.wants("fairness_p99"):
        return
    with bench.hugepages(FAIRNESS_MB), bench.program("fanwire-bench-fairness", "--core", bench.core(0)) as program:
        runs = bench.interleave([("others", program)], ms=SEGMENTS_MS if bench.quick else 3 * bench.ms)["others"]
    share = min(statistics.median(one[f"{case}_cpu_share"] for one in runs) for case in CASES)
    if share < CPU_SHARE:
        for case in CASES[1:]:
            bench.skip("fairness_p99", {"case": case}, f"the worker had {share:.0%} of its CPU: something else ran there")
        return
    for case in CASES:
        labels = {"case": case}
        for name in ("p50", "p90", "p99", "p999", "max"):
            bench.measure(f"fairness_latency_{name}", labels, "us", "less", [one[f"{case}_{name}_us"] for one in runs])
        bench.measure("fairness_unfinished", labels, "events", "less", [one[f"{case}_unfinished"] for one in runs])
        bench.distribution("fairness_latency", labels, "us", [bucket for one in runs for bucket in one[f"{case}_histogram"]])
    for case in CASES[1:]:
        labels = {"case": case}
        bench.measure("fairness_p99", labels, "x", "less", [one[f"{case}_p99_x"] for one in runs])
        bench.measure("fairness_pressed_copies", labels, "copies/s", "more", [one[f"{case}_pressed_copies_per_second"] for one in runs])
