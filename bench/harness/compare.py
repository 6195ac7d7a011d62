# SPDX-License-Identifier: BSD-3-Clause
"""Two sets of figures beside each other: what got better, what got worse, and whether that is more than noise."""
import math
import pathlib
import re
import shutil

from . import results
from .machine import ROOT

BASELINES = ROOT / "bench/baselines"
WORSE, GONE, BETTER, SAME, NEW = "worse", "gone", "better", "same", "new"
FAILING = (WORSE, GONE)


def find(name):
    """Folder of a baseline by its name, or a folder or file of results; ValueError where there is none."""
    for path in (BASELINES / name, pathlib.Path(name)):
        if path.is_file() or (path.is_dir() and any(path.glob("*.json"))):
            return path
    known = ", ".join(sorted(path.name for path in BASELINES.glob("*") if path.is_dir())) or "none yet"
    raise ValueError(f"no baseline {name}, nor figures in a folder of that name; baselines: {known} (./dev bench save NAME)")


def save(name, source):
    """Keeps the figures of a folder as a baseline; how many scenarios."""
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise ValueError(f"a baseline's name is made of letters, digits, dots and dashes, not {name!r}")
    found = results.load(source)
    if not found:
        raise ValueError(f"no figures in {source}: run ./dev bench first")
    folder = BASELINES / name
    shutil.rmtree(folder, ignore_errors=True)
    for result in found.values():
        results.save(folder, result)
    return folder, len(found)


def _gain(old, new):
    """Part by which the median got better; negative: worse."""
    change = new["median"] - old["median"]
    if change:
        change = change / abs(old["median"]) if old["median"] else math.copysign(math.inf, change)
    return change if new["better"] == "more" else -change


def _beyond_spread(old, new):
    """Neither median lies among the other's runs."""
    return not old["least"] <= new["median"] <= old["most"] and not new["least"] <= old["median"] <= new["most"]


def judge(old, new, threshold):
    """(verdict, gain) of one figure; either may be missing (None)."""
    if old is None:
        return NEW, None
    if new is None:
        return GONE, None
    gain = _gain(old, new)
    if abs(gain) <= threshold or not _beyond_spread(old, new):
        return SAME, gain
    return (BETTER if gain > 0 else WORSE), gain


def compare(old, new, threshold):
    """Rows (scenario, old figure, new figure, verdict, gain) of {scenario: result} each, for scenarios that both have.

    A figure that is gone counts as worse, unless one set is of quick runs and the other not: those measure fewer cases.
    """
    rows = []
    for scenario in (name for name in new if name in old):
        olds = {results.key(one): one for one in old[scenario]["measures"]}
        news = {results.key(one): one for one in new[scenario]["measures"]}
        alike = old[scenario].get("quick") == new[scenario].get("quick")
        for key in [*olds, *(key for key in news if key not in olds)]:
            verdict, gain = judge(olds.get(key), news.get(key), threshold)
            if alike or verdict not in (GONE, NEW):
                rows.append((scenario, olds.get(key), news.get(key), verdict, gain))
    return rows


def cautions(old, new):
    """Why the two should perhaps not be compared, a sentence each."""
    told = []
    both = [name for name in new if name in old]
    for name in (name for name in new if name not in old):
        told.append(f"{name}: the baseline has no figures of it")
    if any(old[name].get("quick") != new[name].get("quick") for name in both):
        told.append("one of the two is of quick runs: only figures that both have are compared, and they are rough")
    for what in ("cpu", "kernel", "cores", "virtualised"):
        values = {(old[name]["machine"].get(what), new[name]["machine"].get(what)) for name in both}
        for was, now in sorted((was, now) for was, now in values if was != now):
            told.append(f"another {what}: {was} then, {now} now")
    return told


def table(rows, everything=False):
    """Lines for a terminal: what changed (or everything), the worst first."""
    order = {WORSE: 0, GONE: 1, BETTER: 2, NEW: 3, SAME: 4}
    shown = [row for row in rows if everything or row[3] not in (SAME, NEW)]
    shown.sort(key=lambda row: (order[row[3]], row[4] or 0))
    lines = []
    for scenario, old, new, verdict, gain in shown:
        one = new or old
        was = results.amount(old["median"], old["unit"]) if old else "-"
        now = results.amount(new["median"], new["unit"]) if new else "-"
        by = verdict if gain is None or math.isinf(gain) else f"{abs(gain):.1%} {'better' if gain >= 0 else 'worse'}"
        lines.append(f"{verdict:6} {by:>14}  {was:>18} -> {now:<18} {scenario}: {one['name']} {results.label_text(one['labels'])}")
    return lines


def summary(rows):
    counts = {verdict: sum(row[3] == verdict for row in rows) for verdict in (WORSE, GONE, BETTER, SAME, NEW)}
    return (f"{len(rows)} figures: {counts[WORSE]} worse, {counts[BETTER]} better, {counts[SAME]} the same within threshold and "
            f"spread, {counts[GONE]} gone, {counts[NEW]} new")


def failed(rows):
    return any(row[3] in FAILING for row in rows)
