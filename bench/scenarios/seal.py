# SPDX-License-Identifier: BSD-3-Clause
"""seal: what the sealing of deliveries leaves of the whole path's rate, in turn on the same table."""
from harness.errors import Skip

TITLE = "the whole path with deliveries sealed, beside its own rate with them unsealed"
ORDER = 12
SECONDS = 6, 40

PAYLOAD = 256
USERS = (10000, 1000000)
FANOUTS = (3, 16)

CHARTS = (
    {"kind": "bars", "title": f"Copies a second, deliveries sealed or not, fan-out 3, {PAYLOAD} B", "measure": "copies", "by": "deliveries",
     "ours": "sealed", "groups": "users", "where": {"fanout": 3}},
    {"kind": "bars", "title": f"Copies a second, deliveries sealed or not, fan-out 16, {PAYLOAD} B", "measure": "copies", "by": "deliveries",
     "ours": "sealed", "groups": "users", "where": {"fanout": 16}},
)


def memory_mb(users, fanout):
    """The worker's packets, its table, what it keeps of each group, and the log."""
    return 256 + users * (fanout * 64 + 64 + 32 + 32) // (1 << 20)


def run(bench):
    for users in USERS:
        for fanout in FANOUTS:
            labels = {"users": users, "fanout": fanout}
            try:
                with bench.hugepages(memory_mb(users, fanout)):
                    measure(bench, labels)
            except Skip as why:  # a table that this machine has no room for
                bench.skip("sealed_to_unsealed", labels, why)


def measure(bench, labels):
    """Each run is of both, one right after the other; before the first, nearly all streams have had an event."""
    cpu = bench.core(0)
    shape = [word for name, value in labels.items() for word in (f"--{name}", value)]
    with bench.program("fanwire-bench-core", "--mode", "whole,stages", "--seal", "--payload", PAYLOAD, *shape, "--core", cpu,
                       cpu=cpu) as program:
        figures = bench.interleave([("worker", program)], ms=bench.ms // 4)["worker"]
    rates = {"sealed": [one["sealed_whole_copies_per_second"] for one in figures],
             "unsealed": [one["whole_copies_per_second"] for one in figures]}
    for deliveries, runs in rates.items():
        bench.measure("copies", {"deliveries": deliveries, **labels}, "copies/s", "more", runs)
    bench.ratio("sealed_to_unsealed", labels, rates["sealed"], rates["unsealed"])
    bench.measure("seal_cycles_per_event", labels, "cycles", "less", [one["sealed_stages_seal_cycles_per_event"] for one in figures])
    bench.measure("key_hits", labels, "%", "more", [100 * (1 - one["sealed_whole_keys_derived_per_event"]) for one in figures])
