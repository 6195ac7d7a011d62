#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a compiler does not check: layering, one builder of delivery headers, form of the sources, tests that pages name.

Prints FILE:LINE: what is wrong, for every finding, and fails if there is one.
"""
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folder -> folders and headers of ours that it may include, besides its own; the longest match counts. The engine and
# the agent talk in messages only: an agent may run on another host.
MESSAGES = {"control/messages.h", "control/link.h"}
LAYERS = {
    "common": set(),
    "client": {"common/wire", "common/plant.h"},
    "client/bypass": {"client", "common/wire"},
    "dataplane": {"common", "bpf"},
    "control": {"common"},
    "control/engine": {"common", "control/registry/registry.h", "control/agent/agent.h", *MESSAGES},
    "control/agent": {"common", "bpf", *MESSAGES},
    "control/registry": {"common"},
    "control/ctl": {"common", "client/fanwire.h", "client/clock.h"},
    "bpf": {"common/plant.h"},
    "bench": None,  # anything
    "tests": None,
}
OURS = ("common/", "client/", "dataplane/", "control/", "bpf/", "bench/", "tests/")

# Files that may build a delivery header: the codec, the one fan-out, and what tests them.
DELIVERY_BUILDERS = ("common/wire/", "dataplane/fanout.c", "tests/", "bench/")

DPDK_USERS = ("client/bypass/", "dataplane/", "bench/", "tests/")
LIBBPF_STRANGERS = ("client/", "common/")

LICENCE = {
    "bpf/": "SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only",
    "": "SPDX-License-Identifier: BSD-3-Clause",
}
SOURCE = re.compile(r"(\.(c|h|py|sh|conf|yaml)|meson\.build|meson_options\.txt|^dev|^\.ci/run)$")
NO_LICENCE_LINE = re.compile(r"\.conf$")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bfor now\b", re.I)
# A home or a scratch directory of whoever wrote it.
DEVELOPER_PATH = re.compile(r"(?<![\w.])/(home|Users|root|work)/[\w.-]+")
CRITERION_TIMEOUT = re.compile(r"\.timeout = (\d+)")
LONG_FUNCTION = 60
PLANTS = "tests/model/plants.json"


def tracked():
    out = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    return sorted(name for name in out.decode().split("\0") if name and (ROOT / name).is_file())


def layer_of(name):
    fitting = [folder for folder in LAYERS if name.startswith(folder + "/")]
    return max(fitting, key=len) if fitting else None


def check_includes(name, lines):
    layer = layer_of(name)
    allowed = LAYERS.get(layer)
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(1)
        if target.startswith("../"):
            yield number, f"include {target}: write it from the root of the tree"
        if layer is None or allowed is None or not target.startswith(OURS):
            continue
        if layer_of(target) == layer or any(target == one or target.startswith(one + "/") for one in allowed):
            continue
        yield number, f"{layer}/ may not include {target} (docs/architecture.md, layers)"


def check_calls(name, lines):
    for number, line in enumerate(lines, 1):
        if "fan_delivery_encode(" in line and not name.startswith(DELIVERY_BUILDERS):
            yield number, "a second builder of delivery headers: dataplane/fanout.c is the only one"
        if re.search(r"\brte_\w+\s*\(|<rte_", line) and not name.startswith(DPDK_USERS):
            yield number, "DPDK outside dataplane/"
        if re.search(r"<bpf/|<xdp/", line) and name.startswith(LIBBPF_STRANGERS):
            yield number, "libbpf or libxdp in a part that must do without"


def check_text(name, lines):
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line) and name != "tests/lint/lint.py":
            yield number, "unfinished: " + line.strip()
        if DEVELOPER_PATH.search(line) and name != "tests/lint/lint.py":
            yield number, "a path of one machine: " + line.strip()
        if line.rstrip("\n") != line.rstrip() and not name.endswith(".md"):
            yield number, "blanks at the end of the line"


def check_timeouts(name, lines):
    """Criterion 2.4.1 forgets a test that runs when one with a shorter timeout begins: it leaks, and may hang."""
    found = [(number, match[1]) for number, line in enumerate(lines, 1) if (match := CRITERION_TIMEOUT.search(line))]
    for number, seconds in found:
        if name.startswith("tests/unit/") and seconds != found[0][1]:
            yield number, f"a timeout that differs from the {found[0][1]} s above: give all tests of a program the same"


def check_licence(name, lines):
    if not SOURCE.search(name) or name == "LICENSE":
        return
    wanted = next(text for folder, text in LICENCE.items() if name.startswith(folder))
    if name.endswith("meson.build"):
        wanted = LICENCE[""]
    if not any(wanted in line for line in lines[:3]) and not NO_LICENCE_LINE.search(name):
        yield 1, f"no licence line in the first three: {wanted}"


# `test_file.py: name`, `unit-program: name`, `walls: attack` or `prove: part`, and then perhaps more names of the same file;
# or a file or a program alone.
NAMED_TESTS = re.compile(r"`(test_\w+\.py|unit-[\w-]+|walls|prove):\s+([\w ]+)`((?:,\s+`[\w ]+`)*)")
NAMED_PROGRAM = re.compile(r"`(test_\w+\.py|(?:unit|stress)-[\w-]+)`")
TESTS_COLUMN = re.compile(r"^\|.*\| *(?:test that fails without it|tests) *\|$")


def known_tests(names):
    """File or program, as pages name it -> the tests in it."""
    known = {}
    for name in names:
        path = pathlib.PurePath(name)
        if name.startswith(("tests/system/test_", "tests/bench/test_", "tests/prove/test_")):
            known[path.name] = set(re.findall(r"^def (\w+)\(", (ROOT / name).read_text(), re.M))
        elif name.startswith("tests/unit/") and path.name.startswith("test_"):
            found = set(re.findall(r"^(?:Parameterized)?Test\(\w+,\s*(\w+)", (ROOT / name).read_text(), re.M))
            noun = path.stem.removeprefix("test_").replace("_", "-")
            for program in (f"unit-{noun}", f"unit-{path.parent.name}-{noun}"):
                known.setdefault(program, set()).update(found)
        elif name.startswith("tests/") and path.name == "meson.build":
            for program in re.findall(r"^ *test\('([\w-]+)',", (ROOT / name).read_text(), re.M):
                known.setdefault(program, set())
        elif name == "tests/prove/attacks.py":
            known["walls"] = set(re.findall(r"^def (\w+)\(scene\)", (ROOT / name).read_text(), re.M))
        elif name == "tests/prove/parts.json":
            known["prove"] = {part["name"] for part in json.loads((ROOT / name).read_text())}
    return known


def check_names(known, text):
    """The tests that a text names and that there are not, and where."""
    for match in NAMED_TESTS.finditer(text):
        file, first, more = match.groups()
        for test in (first, *re.findall(r"`([\w ]+)`", more)):
            if test not in known.get(file, ()):
                yield match.start(), f"no such test: {file}: {test}"
    for match in NAMED_PROGRAM.finditer(text):
        if match.group(1) not in known:
            yield match.start(), f"no such test: {match.group(1)}"


def check_columns(text):
    """Each row of a table that has a column of tests names one."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if TESTS_COLUMN.match(line):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            last = line.rsplit("|", 2)[1]
            if not NAMED_TESTS.search(last) and not NAMED_PROGRAM.search(last):
                yield number, "a promise without a test: " + line.split("|")[1].strip()


def check_named_tests(names):
    """A page that promises a test is wrong where there is none; so is the list of planted bugs."""
    known = known_tests(names)
    for name in names:
        if not name.endswith(".md"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        for at, finding in check_names(known, text):
            yield name, text.count("\n", 0, at) + 1, finding
        for number, finding in check_columns(text):
            yield name, number, finding
    plants = json.loads((ROOT / PLANTS).read_text()) if PLANTS in names else {}
    for plant, entry in plants.items():
        for _, finding in check_names(known, f"`{entry['test']}`"):
            yield PLANTS, 1, f"{plant}: {finding}"


def check_format(names):
    sources = [name for name in names if name.endswith((".c", ".h"))]
    run = subprocess.run(
        ["clang-format", "--dry-run", "-Werror", *sources], cwd=ROOT, capture_output=True, text=True
    )
    seen = set()
    for line in run.stderr.splitlines():
        match = re.match(r"(.*?):(\d+):\d+: error: ", line)
        if match and match.group(1) not in seen:
            seen.add(match.group(1))
            yield match.group(1), int(match.group(2)), "not formatted: ./dev fmt"


def check_shell(names):
    scripts = [name for name in names if name.endswith(".sh") or name in ("dev", ".ci/run")]
    run = subprocess.run(["shellcheck", "-x", "-f", "gcc", *scripts], cwd=ROOT, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        name, number, _, text = line.split(":", 3)
        yield name, int(number), text.strip()


def long_functions(name, lines):
    """Names and lengths of functions over a screen: reported, not refused."""
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            if number - start > LONG_FUNCTION:
                yield f"{name}:{start}: a function of {number - start} lines"
            start = None


def main():
    findings, notes, count = [], [], 0
    names = tracked()
    for name in names:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True)
        except UnicodeDecodeError:
            continue  # a corpus
        if name.startswith("tests/fuzz/corpus/"):
            continue
        count += 1
        checks = [check_text, check_licence]
        if name.endswith((".c", ".h")):
            checks += [check_includes, check_calls, check_timeouts]
            notes += long_functions(name, lines)
        for check in checks:
            findings += [(name, number, text) for number, text in check(name, lines)]
    findings += check_named_tests(names)
    findings += check_format(names)
    findings += check_shell(names)
    for note in notes:
        print("note:", note)
    for name, number, text in findings:
        print(f"{name}:{number}: {text}")
    print(f"lint: {count} files, {len(findings)} findings, {len(notes)} long functions")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
