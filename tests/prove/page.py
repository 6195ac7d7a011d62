# SPDX-License-Identifier: BSD-3-Clause
"""The tables of docs/reliability.md, made from what runs of ./dev prove left in tests/prove/results/."""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = pathlib.Path(__file__).resolve().parent / "results"
PAGE = ROOT / "docs/reliability.md"
MARK = re.compile(r"<!-- prove: (short|long) -->\n.*?<!-- end -->", re.S)


def number(value):
    return f"{value:,}"


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def table(rows):
    """The kept rows as Markdown: each part ran by itself, perhaps on another day. Where none was kept it says so."""
    if not rows:
        return "Not run yet.\n"
    machines = sorted({f"{row['machine']['cpu']} ({row['machine']['cpus']} CPUs), Linux {row['machine']['kernel']}" for row in rows})
    lines = [f"On {'; '.join(machines)}; {duration(sum(row['seconds'] for row in rows))} in all.", "",
             "| part | what was tried | how often | got through | seed | time | date, commit |",
             "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for row in rows:
        through = number(row["got_through"]) if row["passed"] or row["got_through"] else "**failed**"
        lines.append(f"| {row['name']} | {row['what']} | {number(row['tried'])} {row['unit']} | {through} | "
                     f"{row['seed']} | {duration(row['seconds'])} | {row['date']}, {row['commit']} |")
    return "\n".join(lines) + "\n"


def load(form, folder=RESULTS):
    """The rows that runs with --save have kept."""
    path = folder / f"{form}.json"
    return json.loads(path.read_text())["parts"] if path.exists() else []


def rewrite(text, results):
    return MARK.sub(lambda mark: f"<!-- prove: {mark.group(1)} -->\n{table(results[mark.group(1)])}<!-- end -->", text)


def rewrite_file():
    text = PAGE.read_text()
    PAGE.write_text(rewrite(text, {form: load(form) for form in ("short", "long")}))
    return 0
