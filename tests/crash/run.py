#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Crash consistency as a part of ./dev prove: the two programs of this folder for so many rounds, then the system tests
of what the machine takes away. The last line is JSON."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FANWIRE_BUILD", ROOT / "build"))


def run_program(name, seed, rounds):
    """The closing line of a program; its findings go to standard error. One that says nothing has let one through."""
    run = subprocess.run([str(BUILD / "tests/crash" / name), "--seed", str(seed), "--rounds", str(rounds)],
                         stdout=subprocess.PIPE, text=True)
    sys.stderr.write(run.stdout)
    try:
        said = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = {"tried": 0, "got_through": 1}
    if run.returncode and not said["got_through"]:
        said["got_through"] = 1
    return said


def run_system_tests():
    run = subprocess.run(["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-q",
                          "tests/system/test_crash_consistency.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    sys.stderr.write(run.stdout)
    passed, failed = (sum(int(n) for n in re.findall(rf"(\d+) {word}", run.stdout)) for word in ("passed", "(?:failed|error)"))
    return {"tried": passed + failed, "got_through": max(failed, 1 if run.returncode else 0)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, help="rounds until then, in place of --rounds")
    how = parser.parse_args()
    began, done, sums = time.monotonic(), 0, {"tried": 0, "got_through": 0}
    parts = [run_system_tests()]
    while done < how.rounds if how.minutes is None else time.monotonic() - began < how.minutes * 60:
        step = how.rounds if how.minutes is None else 10
        parts += [run_program(name, how.seed + done, step) for name in ("crash-store", "crash-regions")]
        done += step
        if any(part["got_through"] for part in parts):
            break
    for part in parts:
        for key in sums:
            sums[key] += part[key]
    print(json.dumps({"name": "crash consistency", **sums, "unit": "damaged states", "seed": how.seed,
                      "seconds": round(time.monotonic() - began, 1)}))
    return 1 if sums["got_through"] else 0


if __name__ == "__main__":
    sys.exit(main())
