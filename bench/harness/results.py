# SPDX-License-Identifier: BSD-3-Clause
"""Figures and the files they are kept in: bench/results/SCENARIO.json, one a scenario, every run kept."""
import json
import math
import os
import pathlib
import statistics

BETTER = ("more", "less")


def measure(name, labels, unit, better, runs):
    """One figure: median, least, most and spread, (most - least) / median, of its runs."""
    runs = [float(run) for run in runs]
    if better not in BETTER:
        raise ValueError(f"{name}: better is more or less, not {better!r}")
    if not runs or not all(math.isfinite(run) for run in runs):
        raise ValueError(f"{name} {labels}: its runs must be finite numbers: {runs}")
    median = statistics.median(runs)
    return {
        "name": name, "labels": dict(labels), "unit": unit, "better": better, "runs": runs, "median": median,
        "least": min(runs), "most": max(runs), "spread": (max(runs) - min(runs)) / abs(median) if median else 0.0,
    }


def key(figure):
    """What a figure is of: its name and labels, whatever their order."""
    return figure["name"], tuple(sorted((str(name), str(value)) for name, value in figure["labels"].items()))


def matching(result, name, labels):
    """The figures of a name whose labels include these."""
    wanted = {str(label): str(value) for label, value in labels.items()}
    return [one for one in result["measures"]
            if one["name"] == name and wanted.items() <= {str(k): str(v) for k, v in one["labels"].items()}.items()]


WORDS = {"fanout": "fan-out"}


def word(name):
    """A label's or a measure's name as one reads it."""
    return WORDS.get(name, name.replace("_", " "))


def label_text(labels):
    return ", ".join(f"{word(name)} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{word(name)} {value}"
                     for name, value in labels.items())


def save(folder, result):
    """Writes folder/SCENARIO.json at once or not at all; its path."""
    path = pathlib.Path(folder) / f"{result['scenario']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    new.rename(path)
    return path


def load_file(path):
    """The result in a file; ValueError with its path where it is none."""
    try:
        result = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(result, dict) or not {"scenario", "measures", "machine"} <= result.keys():
        raise ValueError(f"{path} is no result of fanwire-bench")
    return result


def load(folder):
    """{scenario: result} of a folder, or of one file."""
    folder = pathlib.Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    found = [load_file(path) for path in files]
    return {result["scenario"]: result for result in found}


SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value, unit, told=True):
    """12.3 M copies/s, 59.4 ns, 1.52 x: three digits that mean something. told: with its unit."""
    if unit == "share":
        return f"{value:.2%}"
    scale, prefix = 1.0, ""
    if unit.endswith("/s") or unit in ("bit/s", "bytes", "Hz"):
        scale, prefix = next(((s, p) for s, p in SCALES if abs(value) >= s), (1.0, ""))
    value /= scale
    if value == 0:
        return f"0 {unit}" if told else "0"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 0.1 else 4
    if not told:
        return f"{value:,.{digits}f} {prefix}".rstrip()
    gap = " " if prefix and unit[0].isalpha() and unit != "bit/s" else ""
    return f"{value:,.{digits}f} {prefix}{gap}{unit}"


def line(figure):
    """One line for a terminal: what, median, least to most."""
    labels = label_text(figure["labels"])
    span = f"   ({amount(figure['least'], figure['unit'])} to {amount(figure['most'], figure['unit'])})" \
        if len(figure["runs"]) > 1 else ""
    return f"{figure['name']}{' · ' if labels else ''}{labels}: {amount(figure['median'], figure['unit'])}{span}"
