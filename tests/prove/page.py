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


def table(result):
    """A run as Markdown. One that was not kept says so."""
    if result is None:
        return "Not run yet.\n"
    lines = [f"Commit {result['commit']}, {result['date']}, {result['machine']['cpu']} ({result['machine']['cpus']} CPUs), "
             f"Linux {result['machine']['kernel']}, {duration(result['seconds'])}.", "",
             "| part | what was tried | how often | got through | seed | time |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]
    for part in result["parts"]:
        through = number(part["got_through"]) if part["passed"] or part["got_through"] else "**failed**"
        lines.append(f"| {part['name']} | {part['what']} | {number(part['tried'])} {part['unit']} | {through} | "
                     f"{part['seed']} | {duration(part['seconds'])} |")
    return "\n".join(lines) + "\n"


def load(form):
    path = RESULTS / f"{form}.json"
    return json.loads(path.read_text()) if path.exists() else None


def rewrite(text, results):
    return MARK.sub(lambda mark: f"<!-- prove: {mark.group(1)} -->\n{table(results[mark.group(1)])}<!-- end -->", text)


def rewrite_file():
    text = PAGE.read_text()
    PAGE.write_text(rewrite(text, {form: load(form) for form in ("short", "long")}))
    return 0
