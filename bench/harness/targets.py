# SPDX-License-Identifier: BSD-3-Clause
"""What is to be reached (bench/targets.json), held against the figures."""
import json

from . import results
from .machine import ROOT

FILE = ROOT / "bench/targets.json"
MET, MISSED, UNKNOWN = "met", "missed", "not measured"


def load(path=FILE):
    """The targets; ValueError where one of them says nothing that can be checked."""
    targets = json.loads(path.read_text())
    for target in targets:
        lacking = {"id", "what", "scenario", "measure", "labels", "unit"} - target.keys()
        if lacking or ("at_least" in target) == ("at_most" in target):
            raise ValueError(f"{path}: a target needs id, what, scenario, measure, labels, unit and either at_least or at_most: {target}")
    return targets


def chosen(targets, ids):
    """Those of the numbers; all where none are given. ValueError where a number is none of theirs."""
    unknown = set(ids) - {target["id"] for target in targets}
    if unknown:
        raise ValueError(f"no such target: {', '.join(map(str, sorted(unknown)))}; there are 1 to {max(t['id'] for t in targets)}")
    return [target for target in targets if not ids or target["id"] in ids]


def _why_missing(target, result):
    if result is None:
        return f"scenario {target['scenario']} has no figures: ./dev bench {target['scenario']}"
    for skipped in result["skipped"]:
        if skipped["name"] in (target["measure"], target["scenario"]):
            return skipped["why"]
    return f"scenario {target['scenario']} did not measure {target['measure']}"


def check(target, found):
    """(verdict, figure or None, why): the worst of the figures whose labels include the target's counts."""
    result = found.get(target["scenario"])
    figures = results.matching(result, target["measure"], target["labels"]) if result else []
    if not figures:
        return UNKNOWN, None, _why_missing(target, result)
    units = {figure["unit"] for figure in figures} - {target["unit"]}
    if units:
        return UNKNOWN, None, f"the target is in {target['unit']}, the figure in {', '.join(units)}"
    if "at_least" in target:
        worst = min(figures, key=lambda figure: figure["median"])
        met = worst["median"] >= target["at_least"]
    else:
        worst = max(figures, key=lambda figure: figure["median"])
        met = worst["median"] <= target["at_most"]
    return (MET if met else MISSED), worst, ""


def bound_text(target):
    word = "at_least" if "at_least" in target else "at_most"
    return f"{word.replace('_', ' ')} {target[word]:,g} {target['unit']}"


def line(target, verdict, figure, why):
    """For a terminal: number, verdict, figure, bound, what."""
    labels = results.label_text(target["labels"])
    value = results.amount(figure["median"], figure["unit"]) if figure else "-"
    head = f"{target['id']:>2}  {verdict:12}  {value:>20}  {bound_text(target):32}  {target['what']}"
    return head + (f" ({labels})" if labels else "") + (f"\n      {why}" if why else "")
