#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the Promela models under Spin: each as it is, exhaustively and without an error, and with each planted bug, which
has to be found. README.md argues the code's ordering beside them.

usage: run.py [--long] [--only MODEL]   a line a model; the last line is what was tried as JSON
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SIZES = {  # how much of each model: short and long form, and for the planted bugs
    "quiescence": ([{"ROUNDS": 2, "LOOPS": 2}], [{"ROUNDS": 3, "LOOPS": 2}], {"ROUNDS": 2, "LOOPS": 2}),
    "table": ([{"READERS": 2, "CHANGES": 2}, {"READERS": 1, "CHANGES": 4}],
              [{"READERS": 2, "CHANGES": 3}, {"READERS": 1, "CHANGES": 5}], {"READERS": 2, "CHANGES": 3}),
}
STUCK = "invalid end state"
WRONG = "assertion violated"
PLANTS = {  # switch: how Spin has to see it
    "quiescence": {
        "NO_FENCE": WRONG, "NO_EXCHANGE": WRONG, "EARLY_RECLAIM": WRONG, "PINS_FORGOTTEN": WRONG, "LAST_USE_AFTER": WRONG,
        "DEATH_ASKED_BEFORE": WRONG, "DEATH_NOT_SEEN": STUCK, "EVEN_IS_WAITED_FOR": STUCK, "WORDS_NOT_SETTLED": STUCK},
    "table": {
        "NO_KEY_COMPARE": WRONG, "EARLY_RECLAIM": WRONG, "PUBLISH_BEFORE_FILL": WRONG, "BLOCK_BEFORE_FILL": WRONG,
        "COUNT_AFTER_POSITION": WRONG, "COUNT_BEFORE_POSITION": WRONG,
        "MARK_FORGOTTEN": WRONG, "FINGERPRINT_FORGOTTEN": WRONG, "SWAP_BY_ZERO": WRONG},
}


class Failure(Exception):
    """A model that does not say what it has to."""


def command(words, folder):
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failure(f"{' '.join(words)}: {run.stdout}{run.stderr}")
    return run.stdout


def explore(model, sizes, plant):
    """What pan prints of an exhaustive search, or of one that ends at its first error."""
    with tempfile.TemporaryDirectory(prefix="fanwire-model.") as folder:
        switches = [f"-D{name}={value}" for name, value in sizes.items()] + ([f"-D{plant}"] if plant else [])
        command(["spin", "-a", *switches, str(HERE / f"{model}.pml")], folder)
        command(["cc", "-O2", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=12000", "-o", "pan", "pan.c"], folder)
        return command(["./pan", "-m1000000", "-w24"], folder)


def number(text, pattern):
    found = re.search(pattern, text)
    if not found:
        raise Failure(f"pan did not say {pattern!r}: {text}")
    return int(float(found.group(1)))


def judge(model, sizes, plant):
    """A line for people, and how many states; raises where the search was cut short or found the wrong thing."""
    started = time.monotonic()
    text = explore(model, sizes, plant)
    states, depth = number(text, r"([\d.e+]+) states, stored"), number(text, r"depth reached (\d+)")
    errors = number(text, r"errors: (\d+)")
    if "max search depth too small" in text or "out of memory" in text or "Search not completed" in text and not plant:
        raise Failure(f"{model} {plant}: the search was cut short: {text}")
    if plant:
        wanted = PLANTS[model][plant]
        if not errors or f"pan:1: {wanted}" not in text:
            raise Failure(f"{model} with {plant}: {wanted} was not found: {text}")
        return f"{model} with {plant}: found ({wanted}) after {states:,} states", states
    if errors:
        raise Failure(f"{model}: {text}")
    took = time.monotonic() - started
    bounds = ", ".join(f"{name} {value}" for name, value in sizes.items())
    return f"{model} ({bounds}): no error in all of its {states:,} states, depth {depth}, {took:.0f} s", states


def attempt(case):
    try:
        return judge(*case)
    except Failure as failure:
        return f"FAILED {failure}", 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", choices=sorted(SIZES))
    args = parser.parse_args()
    started = time.monotonic()
    models = [args.only] if args.only else sorted(SIZES)
    cases = [(model, sizes, None) for model in models for sizes in SIZES[model][args.long]]
    cases += [(model, SIZES[model][2], plant) for model in models for plant in PLANTS[model]]
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        results = []
        for line, states in pool.map(attempt, cases):
            print(line, flush=True)
            results.append((line, states))
    failed = sum(line.startswith("FAILED") for line, _ in results)
    print(f"{len(cases)} searches, {failed} failed")
    print(json.dumps({"name": "models", "tried": sum(states for _, states in results), "unit": "states",
                      "got_through": failed, "seed": 0, "seconds": round(time.monotonic() - started, 1)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
