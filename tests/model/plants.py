#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Each planted bug of common/plant.h is caught by the test that plants.json names: with the switch on the test fails,
without it the test passes. Builds with -Dplant=true into a folder of its own, which tests/prove/live.py shares.

usage: plants.py [--build FOLDER] [--no-build] [--seed N] [PLANT]...   the last line is what was tried as JSON
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIMEOUT_S = 180


def planted():
    """The switches that there are."""
    return re.findall(r"^\s+PLANT\((\w+)\)", (ROOT / "common/plant.h").read_text(), re.M)


def build(folder):
    if not (folder / "build.ninja").exists():
        subprocess.run(["/usr/bin/meson", "setup", str(folder), str(ROOT), "-Dtests=true", "-Dplant=true", "-Dshim=true"],
                       check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(folder), "--quiet"], check=True)


def run(entry, folder, plant):
    """(passed, its last words). A test that does not end has not passed."""
    words = [word.replace("{build}", str(folder)) for word in entry["command"]]
    env = {**os.environ, "FANWIRE_PLANT": plant, "FANWIRE_BUILD": str(folder)}
    try:
        test = subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no end within {TIMEOUT_S} s"
    lines = [line for line in test.stdout.splitlines() if line.strip()]
    # a program that runs none of its tests ends well, too
    ran = not re.search(r"Tested: \S*0\b|deselected$", lines[-1] if lines else "")
    return test.returncode == 0 and ran, lines[-1] if lines else f"status {test.returncode}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-plant")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("plants", nargs="*", metavar="PLANT")
    args = parser.parse_args()
    started, folder = time.monotonic(), args.build.resolve()
    table = json.loads((HERE / "plants.json").read_text())
    failures = [f"{name}: plants.json names no test" for name in planted() if name not in table]
    failures += [f"{name}: common/plant.h has no such switch" for name in table if name not in planted()]
    if not args.no_build:
        build(folder)
    sound = {}  # whether a command passes without any
    chosen = [name for name in table if name in planted() and (not args.plants or name in args.plants)]
    for name in chosen:
        entry = table[name]
        key = tuple(entry["command"])
        if key not in sound:
            sound[key] = run(entry, folder, "")
        if not sound[key][0]:
            failures.append(f"{name}: {entry['test']} fails without it: {sound[key][1]}")
            print(failures[-1], flush=True)
            continue
        passed, words = run(entry, folder, name)
        if passed:
            failures.append(f"{name}: {entry['test']} does not see it: {words}")
            print(failures[-1], flush=True)
        else:
            print(f"{name}: caught by {entry['test']}", flush=True)
    print("\n".join(failures) or f"{len(chosen)} planted bugs, all caught")
    print(json.dumps({"name": "planted bugs", "tried": len(chosen), "unit": "bugs", "got_through": len(failures),
                      "seed": args.seed, "seconds": round(time.monotonic() - started, 1)}))
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
