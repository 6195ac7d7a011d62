# SPDX-License-Identifier: BSD-3-Clause
"""Figures in pages: blocks between <!-- figures: NAME --> and <!-- end --> are rewritten from the JSON files, charts redrawn."""
import re

from . import charts, model, results, targets
from .machine import ROOT

PAGES = {"docs/benchmarks.md": "images", "README.md": "docs/images"}  # each with the way from it to the images
IMAGES = ROOT / "docs/images"
BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", re.S)


def rewrite(text, found, wanted, images="images"):
    """The page with its blocks filled from {scenario: result} and the targets."""
    def fill(match):
        return match.group(1) + block(match.group(2).split(), found, wanted, images) + "\n" + match.group(3)
    return BLOCK.sub(fill, text)


def block(words, found, wanted, images="images"):
    """targets | machine | workers | chart SCENARIO IMAGE TITLE... | SCENARIO [MEASURE...]"""
    kind = words[0]
    if kind == "targets":
        return target_table(found, wanted)
    if kind == "machine":
        return machine_text(found)
    if kind == "workers":
        return model.text(found)
    if kind == "chart":
        return f"![{' '.join(words[3:])}]({images}/{words[2]}.svg)" if words[1] in found else f"Not measured yet: `./dev bench {words[1]}`."
    result = found.get(kind)
    if result is None:
        return f"Not measured yet: `./dev bench {kind}`."
    names = words[1:] or list(dict.fromkeys(figure["name"] for figure in result["measures"]))
    tables = [measure_table([figure for figure in result["measures"] if figure["name"] == name], name) for name in names]
    skips = "".join(f"\n- {one['name']} {results.label_text(one['labels'])}: {one['why']}" for one in result["skipped"])
    return "\n\n".join(tables) + (f"\n\nLeft out:{skips}" if skips and not words[1:] else "")


def measure_table(group, name):
    """The figures of one name as a table in Markdown."""
    if not group:
        return f"{name}: not measured."
    columns = list(dict.fromkeys(label for figure in group for label in figure["labels"]))
    head = [*map(results.word, columns), results.word(name), "least to most"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for figure in group:
        unit = figure["unit"]
        cells = [_cell(figure["labels"].get(label, "")) for label in columns]
        cells += [f"**{results.amount(figure['median'], unit)}**", f"{results.amount(figure['least'], unit)} to {results.amount(figure['most'], unit)}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value):
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def target_table(found, wanted):
    lines = ["| # | what | target | measured | |", "| --- | --- | --- | --- | --- |"]
    for target in wanted:
        verdict, figure, _ = targets.check(target, found)
        labels = results.label_text(target["labels"])
        value = results.amount(figure["median"], figure["unit"]) if figure else "–"
        lines.append(f"| {target['id']} | {target['what']}{' (' + labels + ')' if labels else ''} | {targets.bound_text(target)} | "
                     f"{value} | {'**' + verdict + '**' if verdict != targets.MET else verdict} |")
    return "\n".join(lines)


def machine_text(found):
    if not found:
        return "Not measured yet: `./dev bench`."
    newest = max(found.values(), key=lambda result: result["time"])
    machine, versions = newest["machine"], {name: text for result in found.values() for name, text in result["versions"].items()}
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    huge = machine["hugepages"]
    kept = ", ".join(f"{name} {text}" for name, text in sorted(versions.items()) if name != "commit")
    loads = [result["machine"]["load_1min"] for result in found.values()]
    return (f"- {machine['cpu']}, {machine['cores']} cores, {machine['mhz']} MHz, {caches}; virtualised: {machine['virtualised']}\n"
            f"- flags of interest: {' '.join(machine['flags'])}\n"
            f"- {machine['memory_mb']:,} MiB of memory, huge pages of {huge['size_kb']} kB, {huge['total']} before the harness adds its own\n"
            f"- {machine['system']}, kernel {machine['kernel']}; load before the scenarios {min(loads):.2f} to {max(loads):.2f}\n"
            f"- mitigations: {'; '.join(f'{name}: {text}' for name, text in machine['mitigations'].items()) or 'none'}\n"
            f"- measured at commit {', '.join(sorted({result['versions'].get('commit', 'unknown') for result in found.values()}))}: {kept}")


def write(found, modules, wanted):
    """Rewrites pages and images from {scenario: result}; the paths that were written."""
    written = [path for name, images in PAGES.items() if _update(path := ROOT / name, rewrite(path.read_text(), found, wanted, images))]
    IMAGES.mkdir(exist_ok=True)
    for scenario, module in modules.items():
        for chart in getattr(module, "CHARTS", ()):
            drawn = charts.draw(found[scenario], chart, alone=True) if "image" in chart and scenario in found else None
            path = IMAGES / f"{chart.get('image')}.svg"
            if drawn and _update(path, drawn + "\n"):
                written.append(path)
    return written


def _update(path, text):
    """Writes it where it says something else; whether it did."""
    if path.exists() and path.read_text() == text:
        return False
    path.write_text(text)
    return True
