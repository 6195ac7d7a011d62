# SPDX-License-Identifier: BSD-3-Clause
"""peers: one worker beside what DPDK itself offers, on the null port: testpmd, and the multicast sample's replication.

Each party runs on the same CPU, in turn. txonly and macswap are the limit of the port: they send what lies in cache, to nobody in
particular. The sample's replication looks one event at a time up in rte_hash and opens, sequences and tags nothing. Frames are of
the same length for all.
"""
import statistics

from ._testpmd import Testpmd

TITLE = "one worker beside testpmd txonly and macswap and DPDK's multicast sample, on the null port"
ORDER = 20
SECONDS = 20, 120

FANWIRE, WHOLE, FANOUT = "Fanwire", "Fanwire, whole path", "Fanwire, fan-out stage"
SAMPLES = {"multicast sample, header and reference": "reference", "multicast sample, header and clone": "clone"}
TXONLY, MACSWAP = "testpmd txonly", "testpmd macswap"

CASES = ({"fanout": 64, "payload": 128, "users": 65536}, {"fanout": 3, "payload": 256, "users": 4000000},
         {"fanout": 16, "payload": 256, "users": 65536}, {"fanout": 64, "payload": 256, "users": 65536})
QUICK_CASES = CASES[:2]

HEADERS = 14 + 20 + 8 + 100  # Ethernet, IPv4, UDP, a delivery's own

CHARTS = [{"kind": "bars", "title": f"Copies a second: fan-out {case['fanout']}, {case['payload']} B, {case['users']:,} users",
           "measure": "copies", "by": "with", "ours": "Fanwire", "where": case,
           "image": f"peers-fanout-{case['fanout']}-{case['payload']}"} for case in CASES]


def run(bench):
    for case in QUICK_CASES if bench.quick else CASES:
        with bench.hugepages(memory_mb(case)):
            measure(bench, case)


def memory_mb(case):
    """The worker's table and packets, two hashes, two testpmds."""
    worker = 128 + 64 + 64 + case["users"] * (case["fanout"] * 64 + 64 + 32 + 32) // (1 << 20)
    sample = 160 + case["users"] * (160 + 16 * case["fanout"]) // (1 << 20)
    return worker + 2 * sample + 2 * 144


def measure(bench, case):
    programs = open_programs(bench, case)
    figures = bench.interleave(programs, ms=bench.ms // 2)
    for _, program in programs:
        program.close()
    rates = {name: [one["copies_per_second"] for one in runs] for name, runs in figures.items() if name != FANWIRE}
    rates[WHOLE] = [one["whole_copies_per_second"] for one in figures[FANWIRE]]
    rates[FANOUT] = [one["fanout_copies_per_second"] for one in figures[FANWIRE]]
    for name, runs in rates.items():
        bench.measure("copies", {"with": name, **case}, "copies/s", "more", runs)
    sample = max(SAMPLES, key=lambda name: statistics.median(rates[name]))
    labels = {**case, "way": SAMPLES[sample]}
    bench.ratio("whole_path_to_txonly", case, rates[WHOLE], rates[TXONLY])
    bench.ratio("fanout_stage_to_multicast", labels, rates[FANOUT], rates[sample])
    bench.ratio("whole_path_to_multicast", labels, rates[WHOLE], rates[sample])


def open_programs(bench, case):
    """[(name, program), ...]; testpmd with the burst that suits it best."""
    cpu, other = bench.core(0), bench.core(1)
    shape = [word for name, value in case.items() for word in (f"--{name}", value)] + ["--core", cpu]
    programs = [(FANWIRE, bench.program("fanwire-bench-core", "--mode", "whole,fanout", *shape, cpu=cpu))]
    programs += [(name, bench.program("fanwire-bench-multicast", "--way", way, *shape, cpu=cpu)) for name, way in SAMPLES.items()]
    path = bench.need_command("dpdk-testpmd", "dpdk-dev")
    for name, mode in ((TXONLY, "txonly"), (MACSWAP, "macswap")):
        program = Testpmd(path, mode, HEADERS + case["payload"], cpu, other, f"{mode}-{case['fanout']}-{case['payload']}")
        bench.on_exit(program.close)
        bench.progress(f"{name}: which burst suits it")
        bench.setting(f"{mode}_bursts_tried", program.settle(50))
        programs.append((name, program))
    return programs
