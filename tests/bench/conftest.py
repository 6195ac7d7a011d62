# SPDX-License-Identifier: BSD-3-Clause
"""What tests of the harness share: a measuring program of their own, and figures made to order."""
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from harness import results, undo  # noqa: E402 (the path comes first)

# A measuring program that writes down each run it is told to make, and can be told to go wrong.
FAKE = '''#!/usr/bin/python3
import json, os, sys, time
name, diary, fault = (sys.argv[1:] + ["", ""])[:3]
def note(word):
    with open(diary, "a") as file:
        file.write(f"{name} {word}\\n")
if fault == "no start":
    print("cannot open the port", file=sys.stderr)
    print(json.dumps({"error": "no port to be had: give it one"}), flush=True)
    sys.exit(1)
print(json.dumps({"ready": {"settings": {"name": name}, "versions": {"fake": "1.0"}}}), flush=True)
run = 0
for line in sys.stdin:
    word = line.split()
    if word == ["quit"]:
        break
    run += 1
    note(word[1])
    if fault == "dies" and run == 2:
        print("it hurts", file=sys.stderr)
        os._exit(7)
    if fault == "hangs":
        time.sleep(60)
    if fault == "babbles":
        print("hello", flush=True)
        continue
    print(json.dumps({"run": {"rate": 100 * run, "ms": int(word[1])}}), flush=True)
note("quit")
'''


@pytest.fixture
def fake(tmp_path):
    """Folder of a build that has one measuring program, fanwire-bench-fake NAME DIARY [FAULT]."""
    path = tmp_path / "build/bench/fanwire-bench-fake"
    path.parent.mkdir(parents=True)
    path.write_text(FAKE)
    path.chmod(0o755)
    return tmp_path / "build"


@pytest.fixture
def ledger(tmp_path):
    """A ledger of the test's own, and what it was told to take back."""
    taken = []
    made = undo.Ledger({"thing": taken.append}, tmp_path / "ledger")
    made.taken = taken
    yield made
    made.close()


def result(*figures, scenario="core", **more):
    """A result with these figures, (name, labels, runs[, better])."""
    return {
        "scenario": scenario, "version": "0", "time": "2026-01-01T00:00:00Z", "seconds": 1.0, "quick": False,
        "machine": {"cpu": "one", "cores": 2, "kernel": "6", "virtualised": "no", "load_1min": 0.0, "caches": {}, "flags": [], "mhz": 1000,
                    "mitigations": {}, "memory_mb": 1, "system": "Debian", "hugepages": {"size_kb": 2048, "total": 0, "free": 0}},
        "versions": {"fanwire": "0", "commit": "abc"}, "settings": {"programs": []},
        "measures": [results.measure(name, labels, "copies/s", (rest or ["more"])[0], runs) for name, labels, runs, *rest in figures],
        "distributions": [], "skipped": [], **more,
    }
