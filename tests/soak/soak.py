#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""./dev soak: an instance of its own under mixed traffic for hours; whatever grows is a failure.

A steady publisher with one subscriber a user, and connections that come and go all the time. In the first half fanwired is
killed and started again three times, and the dataplane once; the second half is left alone, and a line is fitted through
what is sampled in it: memory, descriptors, mbufs, map entries, ports, the -wal file, huge pages, latency. Then fanwired is
killed once more. Each receiver insists on its own events, in order, once, and nothing missing that it was not told.
"""
import argparse
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(ROOT / "tests/system")]

import fit  # noqa: E402 (the path comes first)
from instance import BUILD, Instance, end_by_exception, wait_for  # noqa: E402

STEADY_USERS, CHURN_USERS = 48, 48
RATE, CHURN = 400, 20  # events, changed connections a second
SAMPLES = 60  # at least, at most one a second
TAIL_S = 4  # after the last kill
DATABASE_MAX = 64 << 20  # with all audit records that are kept
# What is sampled: unit, and what its second half may grow by without being said to grow.
SERIES = {
    "fanwired memory": ("KiB", 512), "dataplane memory": ("KiB", 512),
    "fanwired descriptors": ("", 8), "dataplane descriptors": ("", 2),
    "mbufs in use": ("", 512), "scopes in the kernel": ("", 12), "ports not free": ("", 24),
    "-wal file": ("KiB", 4096), "huge pages": ("KiB", 0), "regions": ("KiB", 0), "fanwired's time": ("ms/s", 40),
    "p99 latency": ("us", 1500),
}
WAITED = "waits for a core"  # ms a second of those through whom an event goes, while they were ready: what else the machine does
JUDGED = ("foreign", "duplicates", "gaps", "ended")


class Load:
    """A traffic program, and what it told."""

    def __init__(self, instance, kind, users, seconds, rate, seed):
        credential = instance.credential()
        self.process = subprocess.Popen(
            [str(BUILD / "tests/soak/soak-load"), kind, str(instance.client_socket), credential["name"],
             credential["secret"], str(int(seconds) + 3600), str(rate), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        for user, token in users:
            self.process.stdin.write(f"{user} {token}\n")
        self.process.stdin.close()
        self.sums, self.last = {}, {}
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for text in self.process.stdout:
            said = json.loads(text)
            self.last = said
            for key, value in said.items():
                self.sums[key] = self.sums.get(key, 0) + value

    def end(self):
        self.process.terminate()
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join(10)
        return code


def status_kb(pid, *names):
    """Sum of such fields of a process's memory, in KiB."""
    total = 0
    for text in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, value = text.partition(":")
        if key in names:
            total += int(value.split()[0])
    return total


def anonymous_kb(pid):
    for text in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("RssAnon:"):
            return int(text.split()[1])
    return 0


def cache_kb(instance):
    """Of fanwired's memory the database's pages: rows of the audit fill some 2 MiB, within minutes, and it grows no more."""
    url = f"http://127.0.0.1:{instance.settings['METRICS_PORT']}/metrics"
    text = subprocess.run(["nsenter", f"--net=/run/netns/{instance.engine_netns}", "curl", "-sf", url], capture_output=True,
                          text=True).stdout
    for line in text.splitlines():
        if line.startswith("fanwire_database_cache_bytes "):
            return int(line.split()[1]) >> 10
    raise OSError("fanwired tells no metrics")


def size_kb(path):
    try:
        return path.stat().st_size >> 10
    except FileNotFoundError:
        return 0


def telemetry(instance, command):
    """An answer of the dataplane's DPDK, or None while there is none."""
    path = telemetry_socket(instance)
    if path is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(5)
            peer.connect(str(path))
            peer.recv(16384)
            peer.send(command.encode())
            return json.loads(peer.recv(65536))[command]
    except OSError:
        return None


def telemetry_socket(instance):
    for text in pathlib.Path(f"/proc/{instance.pid('dataplane')}/net/unix").read_text().splitlines():
        path = text.split()[-1]
        if path.endswith("dpdk_telemetry.v2") and instance.name in path:
            return path
    return None


class Scheduled:
    """What the kernel's scheduler gave a process since the last look, and had it wait for."""

    def __init__(self):
        self.before, self.last_wait = {}, None

    def waited(self, *pids):
        """ms a second that these waited, over this look and the last: a second's latency is told up to a second later."""
        waits = [self.since(pid)[1] for pid in pids]
        now = None if None in waits else sum(waits)
        before, self.last_wait = self.last_wait, now
        return None if now is None or before is None else (now + before) / 2

    def since(self, pid):
        """(ms run, ms waited for a core) in each second, of all its threads; None at the first look."""
        now, ran, waited = time.monotonic(), 0, 0
        for file in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            its_ran, its_waited, _ = map(int, file.read_text().split())
            ran, waited = ran + its_ran, waited + its_waited
        then = self.before.get(pid)
        self.before[pid] = now, ran, waited
        if then is None:
            return None, None
        return (ran - then[1]) / 1e6 / (now - then[0]), (waited - then[2]) / 1e6 / (now - then[0])


def sample(instance, steady, scheduled):
    fanwired, dataplane = instance.pid("fanwired"), instance.pid("dataplane")
    status = instance.status()
    port = telemetry(instance, "/fanwire/port")
    regions = instance.dir / "regions"
    return {
        "fanwired memory": anonymous_kb(fanwired) - cache_kb(instance), "dataplane memory": anonymous_kb(dataplane),
        "fanwired descriptors": len(os.listdir(f"/proc/{fanwired}/fd")),
        "dataplane descriptors": len(os.listdir(f"/proc/{dataplane}/fd")),
        "mbufs in use": port["buffers_in_use"] if port else None,
        "scopes in the kernel": scopes(instance),
        "ports not free": sum(status["ports"][key] for key in ("used", "resting", "held")),
        "-wal file": size_kb(instance.dir / "state/fanwire.db-wal"),
        "huge pages": sum(status_kb(pid, "Private_Hugetlb", "Shared_Hugetlb") for pid in (fanwired, dataplane)),
        "regions": sum(size_kb(path) for path in regions.iterdir()) if regions.is_dir() else 0,
        "fanwired's time": scheduled.since(fanwired)[0],
        "p99 latency": steady.last.get("p99_us", 0), WAITED: scheduled.waited(dataplane, steady.process.pid),
    }


def scopes(instance):
    """Entries of the kernel's map of scopes."""
    run = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", str(instance.dir / "bpf/scopes")],
                         capture_output=True, text=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    return len(json.loads(run.stdout)) if run.returncode == 0 else None


def parse(args):
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1 / 60, help="how long (default 0.0167: one minute)")
    parser.add_argument("--seed", type=int, help="of the traffic")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON; the table goes to standard error")
    how = parser.parse_args(args)
    if how.hours * 3600 < 30:
        parser.error("--hours must be at least 0.0084 (30 s): a line needs points")
    return how


def tokens(instance, prefix, count, seconds):
    return [(f"{prefix}-{i}", instance.token(f"{prefix}-{i}", ttl=int(seconds) + 3600)) for i in range(count)]


def kill_now_and_then(instance, half_s, began):
    """In the first half: each daemon dies, and what exists goes on."""
    for at, program in ((0.2, "fanwired"), (0.4, "dataplane"), (0.55, "fanwired"), (0.75, "fanwired")):
        time.sleep(max(0, began + half_s * at - time.monotonic()))
        instance.restart(program)


def collect(instance, seconds, steady):
    """A sample a second or less, until the time is over. {name: [(seconds, value)]}"""
    series, began, scheduled = {name: [] for name in (*SERIES, WAITED)}, time.monotonic(), Scheduled()
    killer = threading.Thread(target=kill_now_and_then, args=(instance, seconds / 2, began), daemon=True)
    killer.start()
    every = max(1.0, seconds / 2000) if seconds > SAMPLES else 1.0
    while (now := time.monotonic() - began) < seconds:
        try:
            row = sample(instance, steady, scheduled)
        except OSError:
            row = {}  # a daemon is away
        for name, value in row.items():
            if value is not None:
                series[name].append((now, value))
        time.sleep(max(0, began + now + every - time.monotonic()))
    killer.join()
    return series


def growth(name, points, series):
    """Latency is judged beside what the machine's other work explains of it: in each second, how long the worker had no core."""
    waited = dict(series.get(WAITED, ()))
    if name != "p99 latency" or len([x for x, _ in points if x in waited]) < 5:
        return fit.growth_of(points)
    points = [(x, y) for x, y in points if x in waited]
    return fit.growth_beside(points, [waited[x] for x, _ in points])


def judge(series, seconds, sums, database_bytes):
    """Findings as sentences, and the rows of the table."""
    findings, rows = [], []
    for name, (unit, allowance) in SERIES.items():
        points = [(x, y) for x, y in series[name] if x >= seconds / 2]
        if len(points) < 5:
            findings.append(f"{name}: only {len(points)} samples")
            rows.append((name, "-", "-", "-", unit, "no samples"))
            continue
        by, noise = growth(name, points, series)
        grown = by > allowance and by > noise
        mean = sum(y for _, y in points) / len(points)
        rows.append((name, f"{mean:,.0f}", f"{by:+,.0f}", f"{max(noise, allowance):,.0f}", unit, "GROWS" if grown else "flat"))
        if grown:
            findings.append(f"{name} grew by {by:,.0f} {unit}")
    for key in JUDGED:
        if sums.get(key, 0):
            findings.append(f"{sums[key]} {key}")
    if database_bytes > DATABASE_MAX:
        findings.append(f"the database has {database_bytes >> 20} MiB")
    return findings, rows


def report(rows, sums, findings, out):
    print(f"{'second half':<24}{'mean':>12}{'growth':>10}{'allowed':>10}", file=out)
    for name, mean, by, allowed, unit, verdict in rows:
        print(f"{name:<24}{mean:>12}{by:>10}{allowed:>10} {unit:<4}{verdict}", file=out)
    print("all of it: " + ", ".join(f"{value:,} {key}" for key, value in sums.items() if key != "p99_us"), file=out)
    for finding in findings:
        print(f"soak: {finding}", file=out)


def soak(seconds, seed):
    """(findings, rows, sums) of a run."""
    instance, loads = Instance(ports=400, config={"limits.max_connections": 256}), []
    try:
        instance.up()
        steady = Load(instance, "steady", tokens(instance, "steady", STEADY_USERS, seconds), seconds, RATE, seed)
        churn = Load(instance, "churn", tokens(instance, "churn", CHURN_USERS, seconds), seconds, CHURN, seed + 1)
        loads += steady, churn
        assert wait_for(lambda: steady.last.get("received"), 30), "no traffic: see above"
        series = collect(instance, seconds, steady)
        instance.restart("fanwired")
        time.sleep(TAIL_S)
        codes = [churn.end(), steady.end()]
        database = (instance.dir / "state/fanwire.db").stat().st_size
    finally:
        for load in loads:
            load.process.kill()
        instance.down()
    sums = {key: steady.sums.get(key, 0) + churn.sums.get(key, 0) for key in steady.sums}
    findings, rows = judge(series, seconds, sums, database)
    if any(codes):
        findings.append(f"the traffic programs ended with {codes}")
    if not churn.sums.get("made"):
        findings.append("no connection came or went")
    return findings, rows, sums


def main(args):
    how = parse(args)
    end_by_exception()
    seed = secrets.randbelow(2**31 - 2) + 1 if how.seed is None else how.seed
    began = time.monotonic()
    findings, rows, sums = soak(how.hours * 3600, seed)
    report(rows, sums, findings, sys.stderr if how.json else sys.stdout)
    if how.json:
        print(json.dumps({"name": "soak", "tried": sums.get("received", 0), "unit": "deliveries", "got_through": len(findings),
                          "seed": seed, "seconds": round(time.monotonic() - began, 1), "findings": findings,
                          "series": [list(row) for row in rows]}))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
