# SPDX-License-Identifier: BSD-3-Clause
"""latency: from a publish to its last copy at stated rates, and what the others notice while one user is pressed on."""
import os
import statistics
import time

from harness.site import PEER_ENGINE4, PEER_RECEIVER4, Site

from .e2e import load, start_brokers

TITLE = "publish to last copy at stated load, and everybody else's events while one user is pressed on"
ORDER = 65
SECONDS = 16, 150

FANOUTS = 3, 16
USERS = 64  # every event is for one drawn at random
PAYLOAD = 128
LOADS = {"10 %": 0.1, "half": 0.5, "80 %": 0.8}  # of what the kernel's fan-out can carry
PORT, SLEEPING_PORT, RECEIVE_PORT, SLEEPING_RECEIVE_PORT = 7503, 7504, 8000, 10000
PERCENTILES = "p50", "p90", "p99", "p999", "max"

CASES = "without", "large_user", "flood"
FAIRNESS_MB = 320  # packets, and the table of 65,536 users
CPU_SHARE = 0.98  # with less of its CPU, a worker's times are those of whatever else runs there
SEGMENTS_MS = 3 * 300  # each case in each run: at least a segment of events

CHARTS = (
    {"kind": "percentiles", "title": "Publish to last copy at half load, fan-out 16 (veth)", "measure": "latency", "series": "with",
     "where": {"fanout": 16, "load": "half"}},
    {"kind": "percentiles", "title": "Latency of the others' events while one user is pressed on (null port)", "measure": "fairness_latency",
     "series": "case"},
)


def run(bench):
    if bench.wants("fairness_p99"):
        fairness(bench)
    if bench.wants("p99_to_kernel"):
        before = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # for all that is measured: what else the machine does must wait
        try:
            fan_outs(bench)
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, before)


# ---- publish to last copy ------------------------------------------------------------------------

def fan_outs(bench):
    """Core 0: what delivers; core 1: who publishes and receives, one process and one clock."""
    site = Site(bench, receivers=USERS * max(FANOUTS), config={"dataplane.idle_sleep_us": "0"})
    site.pause()
    brokers = {} if bench.quick else {name: port for name, port in start_brokers(bench).items() if name in ("redis", "nats")}
    for fanout in FANOUTS:
        servers = [kernel(bench, site, fanout, PORT, RECEIVE_PORT), kernel(bench, site, fanout, SLEEPING_PORT, SLEEPING_RECEIVE_PORT, "--sleep")]
        capacity = kernel_capacity(bench, site, fanout)
        for name in ("half",) if bench.quick else LOADS:
            at_rate(bench, site, brokers, fanout, name, int(capacity * LOADS[name]))
        for server in servers:
            server.close()


def where(port, receive_port):
    return ["--address", PEER_ENGINE4, "--port", port, "--receive-address", PEER_RECEIVER4, "--receive-port", receive_port]


def kernel(bench, site, fanout, port, receive_port, *words):
    return bench.program("fanwire-bench-sendmmsg", "--users", USERS, "--fanout", fanout, *where(port, receive_port), *words,
                         cpu=bench.core(0), netns=site.engine)


def common(fanout, *words):
    return ["--users", USERS, "--fanout", fanout, "--payload", PAYLOAD, "--window", 4096, *words]


class Rested:
    """For interleave(): runs when the kernel's fan-out before has stopped to look for publishes, 20 ms after its last."""

    def __init__(self, program):
        self.program = program

    def run(self, ms, **how):
        time.sleep(0.05)
        return self.program.run(ms, **how)

    def close(self):
        self.program.close()


def kernel_capacity(bench, site, fanout):
    """Events a second that the kernel's fan-out carries when it is never without work."""
    with load(bench, site.receiver, "udp", *common(fanout), *where(PORT, RECEIVE_PORT)) as program:
        runs = [one["deliveries_per_s"] / fanout for one in bench.interleave([("capacity", program)], ms=200, runs=5)["capacity"]]
    bench.measure("kernel_capacity", {"fanout": fanout}, "events/s", "more", runs)
    return statistics.median(runs)


def at_rate(bench, site, brokers, fanout, name, rate):
    """Many short runs: a pause of the whole machine spoils few of them, and the median is of the others."""
    open_loop = common(fanout, "--rate", rate, "--poisson")
    site.resume()
    fanwire = site.load(*open_loop[4:], users=USERS, fanout=fanout, cpu=bench.core(1))
    site.pause()
    programs = [("fanwire", site.awake(fanwire)),
                ("sendmmsg", load(bench, site.receiver, "udp", *open_loop, *where(PORT, RECEIVE_PORT))),
                ("sendmmsg, sleeping", load(bench, site.receiver, "udp", *open_loop, *where(SLEEPING_PORT, SLEEPING_RECEIVE_PORT)))]
    if name == "half":
        programs += [(broker, load(bench, None, broker, *open_loop, "--address", "127.0.0.1", "--port", port))
                     for broker, port in brokers.items()]
    rested = [(peer, Rested(program)) for peer, program in programs]
    record(bench, {"fanout": fanout, "load": name}, rate, bench.interleave(rested, ms=100 if bench.quick else 200, runs=max(bench.runs, 9)))
    for _, program in programs:
        program.close()
    site.pause()


def record(bench, labels, rate, figures):
    bench.measure("rate", labels, "events/s", "more", [rate])
    for peer, runs in figures.items():
        for percentile in PERCENTILES:
            bench.measure(f"latency_{percentile}", {"with": peer, **labels}, "us", "less", [one["last"][f"{percentile}_us"] for one in runs])
        bench.measure("latency_loss", {"with": peer, **labels}, "share", "less", [one["loss"] for one in runs])
        bench.distribution("latency", {"with": peer, **labels}, "us", [bucket for one in runs for bucket in one["last_us"]])
    p99 = {peer: [one["last"]["p99_us"] for one in runs] for peer, runs in figures.items()}
    bench.ratio("p99_to_kernel", labels, p99["fanwire"], p99["sendmmsg"], "less")
    bench.ratio("p99_to_sleeping_kernel", labels, p99["fanwire"], p99["sendmmsg, sleeping"], "less")


# ---- one user is pressed on ----------------------------------------------------------------------

def fairness(bench):
    """The three cases are parts of each run, so their ratios are of one moment."""
    with bench.hugepages(FAIRNESS_MB), bench.program("fanwire-bench-fairness", "--core", bench.core(0)) as program:
        runs = bench.interleave([("others", program)], ms=SEGMENTS_MS if bench.quick else 3 * bench.ms)["others"]
    share = min(statistics.median(one[f"{case}_cpu_share"] for one in runs) for case in CASES)
    if share < CPU_SHARE:
        for case in CASES[1:]:
            bench.skip("fairness_p99", {"case": case}, f"the worker had {share:.0%} of its CPU: something else ran there")
        return
    for case in CASES:
        labels = {"case": case}
        for name in PERCENTILES:
            bench.measure(f"fairness_latency_{name}", labels, "us", "less", [one[f"{case}_{name}_us"] for one in runs])
        bench.measure("fairness_unfinished", labels, "events", "less", [one[f"{case}_unfinished"] for one in runs])
        bench.distribution("fairness_latency", labels, "us", [bucket for one in runs for bucket in one[f"{case}_histogram"]])
    for case in CASES[1:]:
        labels = {"case": case}
        bench.measure("fairness_p99", labels, "x", "less", [one[f"{case}_p99_x"] for one in runs])
        bench.measure("fairness_pressed_copies", labels, "copies/s", "more", [one[f"{case}_pressed_copies_per_second"] for one in runs])
