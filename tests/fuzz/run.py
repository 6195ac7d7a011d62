#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""./dev fuzz: libFuzzer on every target for a share of the minutes each, starting from the corpora in the tree.

What a target found is kept in build/fuzz-findings/TARGET/, with the command that replays it; new inputs that reach more
code are kept in build-fuzz/corpus/TARGET/ for the next run. Prints a table; fails if there was a finding, or if a target
did not run.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import secrets
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
FINDINGS = ROOT / "build/fuzz-findings"
OPTIONS = ["-Dtests=true", "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false",
           "-Dc_args=-fsanitize=fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer"]
ENVIRONMENT = {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
INPUT_TIMEOUT_S = 25
RSS_LIMIT_MB = 2048


def targets():
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))


def build(folder, names):
    """With clang in a folder of its own: every object is instrumented, not the target alone."""
    environment = {**os.environ, "CC": os.environ.get("FUZZ_CC", "clang")}
    steps = []
    if not (folder / "build.ninja").exists():
        steps.append(["/usr/bin/meson", "setup", str(folder), str(ROOT), *OPTIONS])
    steps.append(["ninja", "-C", str(folder), "--quiet", *(f"tests/fuzz/fuzz-{name}" for name in names)])
    for step in steps:
        run = subprocess.run(step, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode:
            sys.stderr.write(run.stdout)
            raise SystemExit(f"fuzz: the build in {folder} failed: see above")


def fuzz(folder, name, seconds, seed):
    """One target for so long. Its row of the table."""
    grown, found = folder / "corpus" / name, FINDINGS / name
    program = folder / "tests/fuzz" / f"fuzz-{name}"
    grown.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    command = [str(program), f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", f"-timeout={INPUT_TIMEOUT_S}",
               f"-rss_limit_mb={RSS_LIMIT_MB}", "-print_final_stats=1", f"-artifact_prefix={found}/",
               str(grown), str(HERE / "corpus" / name)]
    began = time.monotonic()
    run = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, cwd=folder, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
                         timeout=seconds + 300)
    row = {"target": name, "runs": last(r"stat::number_of_executed_units: (\d+)", run.stderr),
           "coverage": last(r"cov: (\d+)", run.stderr), "findings": [], "seconds": round(time.monotonic() - began, 1)}
    if not row["runs"]:
        row["runs"] = last(r"^#(\d+)", run.stderr)
    for path in sorted(set(found.iterdir()) - before):
        row["findings"].append(f"{name_values(ENVIRONMENT)} {program} {path}")
    if run.returncode and not row["findings"]:  # died without an input of its own: at its start, or at its end
        row["findings"].append(shlex.join(command))
    if row["findings"]:
        (found / "log").write_text(run.stderr)
    return row


def name_values(environment):
    return " ".join(f"{key}={value}" for key, value in environment.items())


def last(pattern, text):
    found = re.findall(pattern, text, re.M)
    return int(found[-1]) if found else 0


def report(rows, out):
    print(f"{'target':<18}{'runs':>12}{'coverage':>10}{'seconds':>9}{'findings':>10}", file=out)
    for row in rows:
        print(f"{row['target']:<18}{row['runs']:>12,}{row['coverage']:>10,}{row['seconds']:>9.0f}"
              f"{len(row['findings']):>10}", file=out)
    for row in rows:
        for command in row["findings"]:
            print(f"\n{row['target']}: replay it with\n  {command}\n  (what it said: {FINDINGS / row['target'] / 'log'})",
                  file=out)


def parse(args):
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help=f"of: {', '.join(targets())}; all of them where none is named")
    parser.add_argument("--minutes", type=float, default=5, help="of all targets together (default 5)")
    parser.add_argument("--seed", type=int, help="libFuzzer's")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON; the table goes to standard error")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-fuzz", help=argparse.SUPPRESS)
    how = parser.parse_args(args)
    unknown = set(how.target) - set(targets())
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are: {', '.join(targets())}")
    if how.minutes <= 0:
        parser.error("--minutes must be more than 0")
    return how


def main(args):
    how = parse(args)
    names = how.target or targets()
    seed = secrets.randbelow(2**31 - 1) + 1 if how.seed is None else how.seed
    build(how.folder, names)
    lanes = min(len(names), len(os.sched_getaffinity(0)))
    seconds = how.minutes * 60 * lanes / len(names)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        rows = list(pool.map(lambda name: fuzz(how.folder, name, seconds, seed), names))
    report(rows, sys.stderr if how.json else sys.stdout)
    findings = sum(len(row["findings"]) for row in rows)
    idle = [row["target"] for row in rows if not row["runs"]]
    if idle:
        print(f"fuzz: nothing ran: {', '.join(idle)}", file=sys.stderr)
    if how.json:
        print(json.dumps({"name": "fuzzing", "tried": sum(row["runs"] for row in rows), "unit": "inputs",
                          "got_through": findings, "seed": seed, "seconds": round(time.monotonic() - began, 1),
                          "targets": rows}))
    return 1 if findings or idle else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
