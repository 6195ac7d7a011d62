#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""./dev prove: runs each part of the proof machinery and prints what was tried, how often, and what got through.

A part is an entry of parts.json: a command of a short and one of a long form, each a program whose last line of standard
output is one JSON object {"name", "tried", "unit", "got_through", "seed", "seconds"}. A part fails where its command is
missing, ends badly or late, closes with anything else, tried nothing, or let anything through.

usage: ./dev prove [--long [--minutes N]] [--seed N] [--only PART]... [--save] [--resume]   run
       ./dev prove --list                                            the parts and their commands
       ./dev prove --docs                                            rewrite the tables of docs/reliability.md

With --save a part's row is kept in tests/prove/results/ as soon as it has ended, in the place of its last one, with its
own seed, time, date and commit: the long form can be run part by part, and --resume goes on where a run broke off.
"""
import argparse
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import page  # noqa: E402 (the path comes first)

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
CLOSING = {"name": str, "tried": int, "unit": str, "got_through": int, "seed": int, "seconds": (int, float)}
SHORT_TIMEOUT_S = 300  # of a part that names none
LONG_MINUTES = 120


class Failure(Exception):
    """Why a part proved nothing, or the opposite."""


def load_parts(path):
    """The parts in the order in which they run; refuses a table that cannot be meant."""
    parts = json.loads(path.read_text())
    seen = set()
    for part in parts:
        name = part.get("name")
        if not name or name in seen:
            raise SystemExit(f"prove: {path}: a part without a name of its own: {part}")
        seen.add(name)
        for form in ("short", "long"):
            if not (isinstance(part.get(form), list) and part[form] and all(isinstance(w, str) for w in part[form])):
                raise SystemExit(f"prove: {path}: {name} has no command of its {form} form")
    return parts


def command_of(part, form, seed, minutes):
    """The words of a part's command. A long form gets its share of the minutes, by weight."""
    fill = {"{seed}": str(seed), "{minutes}": f"{minutes:.2f}", "{hours}": f"{minutes / 60:.4f}"}
    words = []
    for word in part[form]:
        for mark, value in fill.items():
            word = word.replace(mark, value)
        words.append(word)
    return words


def shares(parts, form, minutes):
    """Minutes of each part that takes a time: weights share what is there."""
    timed = [part for part in parts if any("{minutes}" in w or "{hours}" in w for w in part[form])]
    total = sum(part.get("weight", 1) for part in timed)
    return {part["name"]: minutes * part.get("weight", 1) / total for part in timed}


def closing_line(text):
    """The last line of a part's output, checked."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        closing = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise Failure("its last line is no JSON object") from None
    if not isinstance(closing, dict):
        raise Failure("its last line is no JSON object")
    for key, kind in CLOSING.items():
        if not isinstance(closing.get(key), kind) or isinstance(closing.get(key), bool):
            raise Failure(f"its last line has no {key}")
    return closing


def judge(closing, code):
    if closing["got_through"]:
        raise Failure(f"{closing['got_through']} got through")
    if closing["tried"] <= 0:
        raise Failure("it tried nothing")
    if code:
        raise Failure(f"nothing got through, yet it ended with {code}")


def execute(words, timeout_s, log):
    """(exit code, standard output). Whatever the part started in its own session ends with it."""
    try:
        run = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                               text=True, errors="replace", start_new_session=True)
    except OSError as error:
        raise Failure(f"its command cannot be run: {words[0]}: {error.strerror}") from None
    try:
        text, _ = run.communicate(timeout=timeout_s)
        return run.returncode, text
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {timeout_s:.0f} s") from None
    finally:
        if run.poll() is None:
            end(run)


def end(run):
    """SIGTERM first: a part takes back what it changed on the machine."""
    for number, patience_s in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(run.pid, number)
            run.wait(patience_s)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run_part(part, form, seed, minutes, logs):
    """One row of the table, whatever happened."""
    row = {"name": part["name"], "what": part.get("what", ""), "tried": 0, "unit": "", "got_through": 0, "seed": seed,
           "seconds": 0.0, "passed": False, "failure": ""}
    words = command_of(part, form, seed, minutes)
    row["command"] = " ".join(words)
    timeout_s = part.get("timeout_s", SHORT_TIMEOUT_S) if form == "short" else minutes * 60 * 2 + part.get(
        "long_timeout_s", 1800)
    began = time.monotonic()
    log_path = logs / f"{part['name'].replace(' ', '-')}.log"
    try:
        with open(log_path, "w", encoding="utf-8") as log:
            code, text = execute(words, timeout_s, log)
        with open(log_path, "a", encoding="utf-8") as log:
            log.write(text)
        if code and not text.strip():
            raise Failure(f"it ended with {code} and said nothing")
        closing = closing_line(text)
        row.update({key: closing[key] for key in ("tried", "unit", "got_through", "seed")})
        judge(closing, code)
        row["passed"] = True
    except Failure as failure:
        row["failure"] = f"{failure}; see {log_path.relative_to(ROOT) if log_path.is_relative_to(ROOT) else log_path}"
    row["seconds"] = round(time.monotonic() - began, 1)
    return row | {"commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine()}


def commit():
    run = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True,
                         text=True)
    return run.stdout.strip() or "unknown"


def machine():
    name = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return {"cpu": name, "cpus": os.cpu_count(), "kernel": os.uname().release}


def report(rows):
    table = [["part", "tried", "unit", "got through", "seed", "seconds", ""]]
    for row in rows:
        table.append([row["name"], f"{row['tried']:,}", row["unit"], f"{row['got_through']:,}", str(row["seed"]),
                      f"{row['seconds']:.0f}", "passed" if row["passed"] else "FAILED: " + row["failure"]])
    widths = [max(len(line[i]) for line in table) for i in range(6)]
    right = {1, 3, 5}
    for line in table:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))]
        print("  ".join([*cells, line[6]]).rstrip())


def parse(args):
    parser = argparse.ArgumentParser(prog="./dev prove", description=__doc__.split("\n\n")[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form of each part")
    parser.add_argument("--minutes", type=float, help=f"with --long: of all timed parts together (default {LONG_MINUTES})")
    parser.add_argument("--seed", type=int, help="the same run again")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="this part alone; repeatable")
    parser.add_argument("--save", action="store_true", help="keep each part's row in tests/prove/results/ for the page")
    parser.add_argument("--resume", action="store_true", help="leave out the parts whose kept row has passed; implies --save")
    parser.add_argument("--list", action="store_true", help="print the parts and their commands")
    parser.add_argument("--docs", action="store_true", help="rewrite the tables of docs/reliability.md")
    parser.add_argument("--parts", type=pathlib.Path, default=HERE / "parts.json", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/prove.json", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results", help=argparse.SUPPRESS)
    how = parser.parse_args(args)
    how.save = how.save or how.resume
    if how.minutes is not None and not how.long:
        parser.error("--minutes goes with --long")
    if how.minutes is not None and how.minutes <= 0:
        parser.error("--minutes must be more than 0")
    return how


def choose(parts, only, kept=()):
    unknown = set(only) - {part["name"] for part in parts}
    if unknown:
        raise SystemExit(f"prove: no such part: {', '.join(sorted(unknown))}; ./dev prove --list")
    passed = {row["name"] for row in kept if row["passed"]}
    return [part for part in parts if (not only or part["name"] in only) and part["name"] not in passed]


def keep(row, form, order, folder):
    """The row takes the place of the part's last one; parts that are no more have no row. Whole, or as it was."""
    rows = {one["name"]: one for one in [*page.load(form, folder), row]}
    path, new = folder / f"{form}.json", folder / f".{form}.json.new"
    folder.mkdir(parents=True, exist_ok=True)
    new.write_text(json.dumps({"form": form, "parts": [rows[name] for name in order if name in rows]}, indent=1) + "\n")
    new.replace(path)


def run_all(parts, form, seed, minutes, out, on_row):
    logs = out.parent / "prove"
    logs.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in parts:
        print(f"prove: {part['name']} ...", flush=True)
        rows.append(run_part(part, form, seed, minutes.get(part["name"], 0), logs))
        on_row(rows[-1])
        if rows[-1]["failure"]:
            print(f"prove: {part['name']}: {rows[-1]['failure']}", flush=True)
    return rows


def print_list(parts):
    for part in parts:
        print(f"{part['name']}: {part.get('what', '')}\n  short: {' '.join(part['short'])}\n"
              f"  long:  {' '.join(part['long'])}")
    return 0


def main(args):
    how = parse(args)
    if how.docs:
        return page.rewrite_file()
    all_parts = load_parts(how.parts)
    form = "long" if how.long else "short"
    seed = secrets.randbelow(2**31 - 1) + 1 if how.seed is None else how.seed
    parts = choose(all_parts, how.only, page.load(form, how.results) if how.resume else ())
    if how.list:
        return print_list(parts)
    # its share of the minutes does not depend on which parts run today
    minutes = shares(all_parts, form, LONG_MINUTES if how.minutes is None else how.minutes)
    order = [part["name"] for part in all_parts]
    began = time.time()
    rows = run_all(parts, form, seed, minutes, how.out,
                   (lambda row: keep(row, form, order, how.results)) if how.save else lambda row: None)
    result = {"form": form, "seed": seed, "seconds": round(time.time() - began, 1), "parts": rows}
    how.out.write_text(json.dumps(result, indent=1) + "\n")
    print()
    report(rows)
    failed = sum(not row["passed"] for row in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} parts passed, seed {seed}, {result['seconds'] / 60:.1f} minutes")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up of the part that runs
    sys.exit(main(sys.argv[1:]))
