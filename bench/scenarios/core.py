# SPDX-License-Identifier: BSD-3-Clause
"""core: what one worker does with nothing in its way: on DPDK's null port, by fan-out, users and payload, stage by stage."""
from harness.errors import Skip

TITLE = "one worker on the null port: copies a second, cycles a copy, cycles of each stage"
ORDER = 5
SECONDS = 4, 150

FANOUTS = (1, 3, 16, 64)
USERS = (1000, 65536, 1000000, 4000000)
PAYLOADS = (64, 128, 256, 1132)
PAYLOAD, USUAL_USERS, USUAL_FANOUT = 128, 65536, 16

CHARTS = [
    {"kind": "lines", "title": f"Copies a second by fan-out, {PAYLOAD} B", "measure": "copies", "x": "fanout", "series": "users",
     "where": {"payload": PAYLOAD}},
    {"kind": "lines", "title": f"Copies a second by users, {PAYLOAD} B", "measure": "copies", "x": "users", "series": "fanout",
     "where": {"payload": PAYLOAD}},
    {"kind": "lines", "title": f"Copies a second by payload, {USUAL_USERS:,} users", "measure": "copies", "x": "payload",
     "series": "fanout", "where": {"users": USUAL_USERS}},
    {"kind": "stacked", "title": f"Cycles an event by stage, {USUAL_USERS:,} users, {PAYLOAD} B", "measure": "stage_cycles_per_event",
     "x": "fanout", "stack": "stage", "where": {"users": USUAL_USERS, "payload": PAYLOAD}},
]


def cases(quick):
    """(users, fan-out, payload): each fan-out with each number of users, and each payload with the usual number."""
    if quick:
        return [(65536, 3, PAYLOAD), (65536, 64, PAYLOAD), (1000000, 3, PAYLOAD)]
    chosen = [(users, fanout, PAYLOAD) for users in USERS for fanout in FANOUTS]
    return chosen + [(USUAL_USERS, fanout, payload) for fanout in FANOUTS for payload in PAYLOADS if payload != PAYLOAD]


def memory_mb(users, fanout):
    """The worker's packets, its log, its table and what it keeps of each group."""
    return 128 + 64 + 64 + users * (fanout * 64 + 64 + 32 + 32) // (1 << 20)


def run(bench):
    for users, fanout, payload in cases(bench.quick):
        labels = {"users": users, "fanout": fanout, "payload": payload}
        try:
            with bench.hugepages(memory_mb(users, fanout)):
                measure(bench, labels)
        except Skip as why:  # a table that this machine has no room for
            bench.skip("copies", labels, why)


def measure(bench, labels):
    """Whole, and again with the time read between the stages, which costs a little."""
    cpu = bench.core(0)
    shape = [word for name, value in labels.items() for word in (f"--{name}", value)]
    with bench.program("fanwire-bench-core", "--mode", "whole,stages", *shape, "--core", cpu, cpu=cpu) as program:
        figures = bench.interleave([("worker", program)], ms=bench.ms // 4)["worker"]
    bench.measure("copies", labels, "copies/s", "more", [one["whole_copies_per_second"] for one in figures])
    bench.measure("cycles_per_copy", labels, "cycles", "less", [one["whole_cycles_per_copy"] for one in figures])
    suffix = "_cycles_per_event"
    stages = [name.removeprefix("stages_").removesuffix(suffix) for name in figures[0]
              if name.startswith("stages_") and name.endswith(suffix) and name != f"stages{suffix}"]
    for stage in stages:
        runs = [one[f"stages_{stage}{suffix}"] for one in figures]
        bench.measure("stage_cycles_per_event", {**labels, "stage": stage}, "cycles", "less", runs)
        bench.measure("stage_cycles_per_copy", {**labels, "stage": stage}, "cycles", "less", [run / labels["fanout"] for run in runs])
