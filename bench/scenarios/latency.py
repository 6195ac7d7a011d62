# SPDX-License-Identifier: BSD-3-Clause
"""latency: from a publish to its last copy at stated rates, and what the others notice while one user is pressed on."""
import os
import pathlib
import statistics
import time

from harness.site import PEER_ENGINE4, PEER_RECEIVER4, Site

from .e2e import load, start_brokers

TITLE = "publish to last copy at stated load, and everybody else's events while one user is pressed on"
ORDER = 65
SECONDS = 22, 165

FANOUTS = 3, 16
USERS = 64  # every event is for one drawn at random
PAYLOAD = 128
LOADS = {"10 % of the kernel's": 0.1, "50 % of the kernel's": 0.5, "80 % of the kernel's": 0.8}  # of what the kernel's fan-out carries
HALF, KERNEL_MOST = "half", 0.8  # half of what Fanwire carries, but never so much that the kernel's fan-out is saturated
PORT, SLEEPING_PORT, RECEIVE_PORT, SLEEPING_RECEIVE_PORT = 7503, 7504, 8000, 10000
WAITED, ATTEMPTS = 0.01, 4  # share of a run that its programs may wait for a CPU; how often it is tried
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
        kernels, ours = capacities(bench, site, fanout)
        at_rate(bench, site, brokers, servers[0], fanout, HALF, int(min(0.5 * ours, KERNEL_MOST * kernels)))
        for name, share in ({} if bench.quick else LOADS).items():
            at_rate(bench, site, {}, servers[0], fanout, name, int(kernels * share))
        for server in servers:
            server.close()


def where(port, receive_port):
    return ["--address", PEER_ENGINE4, "--port", port, "--receive-address", PEER_RECEIVER4, "--receive-port", receive_port]


def kernel(bench, site, fanout, port, receive_port, *words):
    return bench.program("fanwire-bench-sendmmsg", "--users", USERS, "--fanout", fanout, *where(port, receive_port), *words,
                         cpu=bench.core(0), netns=site.engine)


def common(fanout, *words):
    return ["--users", USERS, "--fanout", fanout, "--payload", PAYLOAD, "--window", 4096, *words]


class Undisturbed:
    """For interleave(): a run during which what is measured had to wait for its CPU is repeated: that time is the machine's."""

    def __init__(self, program, threads):
        self.program, self.threads, self.repeated = program, threads, 0

    def run(self, ms, **how):
        for left in reversed(range(ATTEMPTS)):
            time.sleep(0.05)  # the kernel's fan-out before has stopped to look for publishes, 20 ms after its last
            before = sum(map(waited_ns, self.threads))
            figures = self.program.run(ms, **how)
            if left == 0 or sum(map(waited_ns, self.threads)) - before < WAITED * ms * 1e6:
                return figures
            self.repeated += 1

    def close(self):
        self.program.close()


def waited_ns(thread):
    """How long the thread, a path in /proc, has waited for a CPU while it could have run."""
    return int((thread / "schedstat").read_text().split()[1])


def main_thread(program):
    return pathlib.Path(f"/proc/{program.pid}/task/{program.pid}")


def workers(site):
    tasks = pathlib.Path("/proc", (site.folder / "run/dataplane.pid").read_text().strip(), "task").iterdir()
    return [task for task in tasks if (task / "comm").read_text().startswith("rte-worker")]


def capacities(bench, site, fanout):
    """Events a second that the kernel's fan-out and Fanwire carry when they are never without work."""
    kernels = load(bench, site.receiver, "udp", *common(fanout), *where(PORT, RECEIVE_PORT))
    site.resume()
    ours = site.load(*common(fanout)[4:], users=USERS, fanout=fanout, cpu=bench.core(1))
    site.pause()
    figures = bench.interleave([("sendmmsg", kernels), ("fanwire", site.awake(ours))], ms=200, runs=5)
    site.resume()
    ours.close()
    site.pause()
    kernels.close()
    carried = [[one["deliveries_per_s"] / fanout for one in figures[name]] for name in ("sendmmsg", "fanwire")]
    for name, runs in zip(("sendmmsg", "fanwire"), carried):
        bench.measure("capacity", {"with": name, "fanout": fanout}, "events/s", "more", runs)
    return map(statistics.median, carried)


def at_rate(bench, site, brokers, server, fanout, name, rate):
    """Many short runs: a pause of the whole machine spoils few of them, and the median is of the others."""
    open_loop = common(fanout, "--rate", rate, "--poisson")
    site.resume()
    fanwire = site.load(*open_loop[4:], users=USERS, fanout=fanout, cpu=bench.core(1))
    site.pause()
    polling = load(bench, site.receiver, "udp", *open_loop, *where(PORT, RECEIVE_PORT))
    sleeping = load(bench, site.receiver, "udp", *open_loop, *where(SLEEPING_PORT, SLEEPING_RECEIVE_PORT))
    programs = [("fanwire", Undisturbed(site.awake(fanwire), [main_thread(fanwire), *workers(site)])),
                ("sendmmsg", Undisturbed(polling, [main_thread(polling), main_thread(server)])),
                ("sendmmsg, sleeping", Undisturbed(sleeping, [main_thread(sleeping)]))]
    for broker, port in brokers.items():
        program = load(bench, None, broker, *open_loop, "--address", "127.0.0.1", "--port", port)
        programs.append((broker, Undisturbed(program, [main_thread(program)])))
    labels = {"fanout": fanout, "load": name}
    record(bench, labels, rate, bench.interleave(programs, ms=100 if bench.quick else 200, runs=max(bench.runs, 9)))
    for peer, program in programs:
        bench.measure("repeated_runs", {"with": peer, **labels}, "runs", "less", [program.repeated])
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
