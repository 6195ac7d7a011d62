# SPDX-License-Identifier: BSD-3-Clause
"""The report: one HTML file that loads nothing, with charts and the same figures as tables."""
import html
import pathlib

from . import charts, results, svg, targets

PAGE = pathlib.Path(__file__).with_name("page.css")
BADGES = {targets.MET: "met", targets.MISSED: "missed", targets.UNKNOWN: "unknown"}


def e(words):
    return html.escape(str(words))


def write(path, found, modules, wanted):
    """The page of {scenario: result}; modules: the scenarios' own, for titles and charts; wanted: the targets."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(found, modules, wanted))
    return path


def page(found, modules, wanted):
    ordered = sorted(found.values(), key=lambda result: (getattr(modules.get(result["scenario"]), "ORDER", 999), result["scenario"]))
    body = [_head(ordered, modules), _targets(found, wanted)]
    body += [_scenario(result, modules.get(result["scenario"])) for result in ordered]
    body.append(_machine(ordered))
    return (f"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
            f"initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>Fanwire: measured</title>\n"
            f"<style>\n{svg.STYLE.read_text()}{PAGE.read_text()}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n")


# ---- head ----

def _head(ordered, modules):
    if not ordered:
        return "<h1>Fanwire: measured</h1><p>Nothing has been measured yet: <code>./dev bench</code>.</p>"
    newest = max(ordered, key=lambda result: result["time"])
    machine, versions = newest["machine"], newest["versions"]
    words = [f"<h1>Fanwire {e(newest['version'])}, measured</h1>",
             f"<p class=\"soft\">{e(machine['cpu'])}, {machine['cores']} cores"
             f"{', virtualised by ' + e(machine['virtualised']) if machine.get('virtualised') not in (None, 'no') else ''}; "
             f"kernel {e(machine['kernel'])}; commit {e(versions.get('commit', 'unknown'))}; {e(newest['time'].replace('T', ' ').rstrip('Z'))} UTC. "
             "Figures are medians; every run is in the tables. A copy counts when the port or the receiving process took it.</p>"]
    quick = [result["scenario"] for result in ordered if result.get("quick")]
    if quick:
        words.append(f"<p class=\"warn\">Quick runs, rough figures: {e(', '.join(quick))}.</p>")
    commits = {result["versions"].get("commit") for result in ordered}
    if len(commits) > 1:
        words.append("<p class=\"warn\">The scenarios were measured at different commits; each says at which.</p>")
    links = ["<a href=\"#targets\">targets</a>"]
    links += [f"<a href=\"#{e(result['scenario'])}\">{e(result['scenario'])}</a>" for result in ordered]
    return "".join(words) + f"<nav>{''.join(links)}<a href=\"#machine\">machine</a></nav>"


# ---- targets ----

def _targets(found, wanted):
    judged = [(target, *targets.check(target, found)) for target in wanted]
    met = sum(verdict == targets.MET for _, verdict, _, _ in judged)
    missed = sum(verdict == targets.MISSED for _, verdict, _, _ in judged)
    rows = "".join(_target_row(*one) for one in judged)
    return (f"<h2 id=\"targets\">Targets</h2><p>{met} of {len(judged)} met, {missed} missed, {len(judged) - met - missed} not measured. "
            "The mark in the middle of each bar is the target; to the right of it is better.</p>"
            "<div class=\"scroll\"><table><tr><th>#</th><th class=\"what\">what</th><th class=\"n\">target</th><th class=\"n\">measured</th><th></th><th></th></tr>"
            f"{rows}</table></div>")


def _target_row(target, verdict, figure, why):
    labels = results.label_text(target["labels"])
    what = e(target["what"]) + (f"<br><small class=\"soft\">{e(labels)}</small>" if labels else "")
    if why:
        what += f"<br><small class=\"soft\">{e(why)}</small>"
    value = e(results.amount(figure['median'], figure['unit'])) if figure else "–"
    return (f"<tr><td>{target['id']}</td><td>{what}</td><td class=\"n wrap\">{e(targets.bound_text(target))}</td><td class=\"n wrap\">{value}</td>"
            f"<td>{_meter(target, figure)}</td><td class=\"{BADGES[verdict]}\">{verdict}</td></tr>")


def _meter(target, figure):
    """How far beyond the target, or short of it: the middle is the target, the end twice as good."""
    if not figure or figure["median"] <= 0:
        return ""
    part = figure["median"] / target["at_least"] if "at_least" in target else target["at_most"] / figure["median"]
    return f"<span class=\"meter\"><i{' class=bad' if part < 1 else ''} style=\"width:{min(part / 2, 1) * 100:.0f}%\"></i><b></b></span>"


# ---- scenarios ----

def _scenario(result, module):
    name = result["scenario"]
    title = getattr(module, "TITLE", "")
    words = [f"<h2 id=\"{e(name)}\">{e(name)}</h2><p>{e(title[:1].upper() + title[1:])}.</p>"]
    for chart in getattr(module, "CHARTS", ()):
        drawn = charts.draw(result, chart)
        if drawn:
            words.append(f"<figure>{drawn}</figure>")
    words += [_table(group) for group in _by_name(result["measures"])]
    if result["skipped"]:
        told = "".join(f"<li>{e(one['name'])} {e(results.label_text(one['labels']))}: {e(one['why'])}</li>" for one in result["skipped"])
        words.append(f"<h3>Left out</h3><ul class=\"skips\">{told}</ul>")
    settings = {key: value for key, value in result["settings"].items() if key != "programs"}
    told = "; ".join(f"{key} {value}" for key, value in settings.items())
    programs = "".join(f"<li><code>{e(one['program'])} {e(' '.join(one['args']))}</code></li>" for one in result["settings"].get("programs", ()))
    words.append(f"<details><summary>settings ({e(result['time'])}, commit {e(result['versions'].get('commit', 'unknown'))}, "
                 f"{result.get('seconds', 0):.0f} s)</summary><p><small>{e(told)}</small></p><ul class=\"skips\">{programs}</ul></details>")
    return "\n".join(words)


def _by_name(measures):
    groups = {}
    for figure in measures:
        groups.setdefault(figure["name"], []).append(figure)
    return groups.values()


def _table(group):
    columns = list(dict.fromkeys(label for figure in group for label in figure["labels"]))
    numeric = {label for label in columns if all(isinstance(figure["labels"].get(label, 0), (int, float)) for figure in group)}
    head = "".join(f"<th{' class=n' if label in numeric else ''}>{e(results.word(label))}</th>" for label in columns)
    rows = []
    for figure in group:
        cells = "".join(f"<td{' class=n' if label in numeric else ''}>{e(_label(figure['labels'].get(label, '')))}</td>" for label in columns)
        unit = figure["unit"]
        rows.append(f"<tr>{cells}<td class=\"n\"><b>{e(results.amount(figure['median'], unit))}</b></td><td class=\"n\">"
                    f"{e(results.amount(figure['least'], unit, False))}</td><td class=\"n\">{e(results.amount(figure['most'], unit, False))}</td>"
                    f"<td class=\"n\">{figure['spread']:.1%}</td><td class=\"n\">{len(figure['runs'])}</td></tr>")
    words = results.word(group[0]["name"])
    better = {"more": "more is better", "less": "less is better"}[group[0]["better"]]
    table = (f"<div class=\"scroll\"><table><tr>{head}<th class=\"n\">median</th><th class=\"n\">least</th><th class=\"n\">most</th>"
             f"<th class=\"n\">spread</th><th class=\"n\">runs</th></tr>{''.join(rows)}</table></div>")
    head = f"{e(words)} <small class=\"soft\">{e(group[0]['unit'])}, {better}</small>"
    if len(rows) > 12:
        return f"<h3>{head}</h3><details><summary>{len(rows)} figures</summary>{table}</details>"
    return f"<h3>{head}</h3>{table}"


def _label(value):
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


# ---- machine ----

def _machine(ordered):
    if not ordered:
        return ""
    newest = max(ordered, key=lambda result: result["time"])
    versions = {}
    for result in ordered:
        versions.update(result["versions"])
    return ("<h2 id=\"machine\">Machine</h2>" + _pairs({**newest["machine"], "load_1min": _loads(ordered)})
            + "<h3>Versions</h3>" + _pairs(versions))


def _loads(ordered):
    return ", ".join(f"{result['scenario']} {result['machine']['load_1min']:.2f}" for result in ordered) + " (before each scenario)"


def _pairs(pairs):
    def words(value):
        if isinstance(value, dict):
            return "; ".join(f"{key}: {item}" for key, item in value.items()) or "none"
        return " ".join(map(str, value)) if isinstance(value, list) else value
    rows = "".join(f"<tr><th>{e(key.replace('_', ' '))}</th><td>{e(words(value))}</td></tr>" for key, value in pairs.items() if value not in ("", None))
    return f"<div class=\"scroll\"><table>{rows}</table></div>"
