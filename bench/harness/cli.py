# SPDX-License-Identifier: BSD-3-Clause
"""The command line of fanwire-bench."""
import argparse
import importlib
import os
import pathlib
import pkgutil
import sys

from . import compare, docs, report, results, runner, targets
from .machine import ROOT

RESULTS = ROOT / "bench/results"
QUICK_RESULTS = ROOT / "build/bench/quick-results"

USAGE = """./dev bench [SCENARIO...] [--quick] [--runs N] [--compare BASELINE] [--report FILE]
       ./dev bench --check [TARGET...] [--quick] [--no-run]
       ./dev bench --list
       ./dev bench compare BASELINE [FIGURES] [--threshold PCT] [--all]
       ./dev bench save NAME
       ./dev bench report [FILE]
       ./dev bench docs"""

EPILOG = """Words that measure nothing: save NAME keeps bench/results as bench/baselines/NAME; compare holds figures (bench/results,
or another baseline or folder) against a baseline and fails where one got worse; report makes the HTML page from bench/results;
docs writes the figures of bench/results into docs/ and README.md."""


def scenarios():
    """{name: module}, in the order in which they run."""
    package = importlib.import_module("scenarios")
    found = {info.name: importlib.import_module(f"scenarios.{info.name}") for info in pkgutil.iter_modules(package.__path__)
             if not info.name.startswith("_")}
    found = {name: module for name, module in found.items() if hasattr(module, "run")}
    return dict(sorted(found.items(), key=lambda item: (item[1].ORDER, item[0])))


def parser():
    made = argparse.ArgumentParser(prog="./dev bench", usage=USAGE, epilog=EPILOG,
                                   description="Measures this machine, beside what else one would use.")
    made.add_argument("words", nargs="*", metavar="SCENARIO", help="what to measure (everything); see --list")
    made.add_argument("--quick", action="store_true", help="short runs, fewer cases: everything in two minutes, rougher figures")
    made.add_argument("--list", action="store_true", help="what there is to measure, and how long it takes")
    made.add_argument("--check", nargs="*", type=int, metavar="TARGET", help="measure what targets need (bench/targets.json; all), print each "
                      "with its figure; exit status 1 if one is missed")
    made.add_argument("--no-run", action="store_true", help="with --check: measure nothing, judge the figures that are there")
    made.add_argument("--compare", metavar="BASELINE", help="afterwards, compare with a baseline or a folder of figures")
    made.add_argument("--threshold", type=float, default=10, metavar="PCT", help="a change of less is none (10)")
    made.add_argument("--all", action="store_true", help="compare shows what stayed the same, too")
    made.add_argument("--report", type=pathlib.Path, metavar="FILE", help="where the HTML page goes (report.html beside the figures)")
    made.add_argument("--runs", type=int, metavar="N", help="runs of each figure (5; quick 3)")
    made.add_argument("--output", type=pathlib.Path, metavar="DIR", help="where figures go (bench/results; quick ones to "
                      "build/bench/quick-results)")
    made.add_argument("--build", type=pathlib.Path, default=ROOT / "build", metavar="DIR", help="what is measured (build)")
    return made


def show_list(_):
    for name, module in scenarios().items():
        print(f"{name:10} {module.TITLE}\n{'':10} about {module.SECONDS[1]} s, quick {module.SECONDS[0]} s")
    return 0


# ---- words that measure nothing ----

def do_save(options, words):
    if len(words) != 1:
        raise ValueError("save wants a name: ./dev bench save NAME")
    folder, cnt = compare.save(words[0], options.output)
    print(f"the figures of {cnt} scenarios are kept in {_shown(folder)}; compare with them: ./dev bench compare {words[0]}")
    return 0


def do_compare(options, words):
    if not 1 <= len(words) <= 2:
        raise ValueError("compare wants a baseline, and perhaps what to hold against it: ./dev bench compare BASELINE [FIGURES]")
    return _compare(words[0], compare.find(words[1]) if len(words) > 1 else options.output, options)


def do_report(options, words):
    if len(words) > 1:
        raise ValueError("report wants one file: ./dev bench report [FILE]")
    _report(options, pathlib.Path(words[0]) if words else options.report)
    return 0


def do_docs(options, words):
    if words:
        raise ValueError(f"docs wants no further words, not {' '.join(words)}")
    found = results.load(options.output)
    quick = [name for name, result in found.items() if result["quick"]]
    if quick:
        raise ValueError(f"quick runs are too rough for the pages: {', '.join(quick)} in {_shown(options.output)}")
    written = docs.write(found, scenarios(), targets.load())
    for path in written:
        print(f"figures written into {_shown(path)}")
    if not written:
        print("the pages say what was measured already")
    return 0


WORDS = {"save": do_save, "compare": do_compare, "report": do_report, "docs": do_docs}


def _compare(baseline, figures, options):
    old, new = results.load(compare.find(baseline)), results.load(figures)
    if not new:
        raise ValueError(f"no figures in {figures}: run ./dev bench first")
    rows = compare.compare(old, new, options.threshold / 100)
    print(f"\ncompared with {baseline}, threshold {options.threshold:g} %:")
    for line in [*compare.cautions(old, new), *compare.table(rows, options.all), compare.summary(rows)]:
        print("  " + line)
    return 1 if compare.failed(rows) else 0


def _report(options, path=None):
    path = report.write(path or options.output / "report.html", results.load(options.output), scenarios(), targets.load())
    print(f"the report: {_shown(path)}")


# ---- measuring ----

def measure(options, names, wanted=None):
    """Runs scenarios, then makes the report and compares."""
    status = runner.run(options, {name: module for name, module in scenarios().items() if name in names}, wanted)
    if status == runner.INTERRUPTED:
        return status
    _report(options, options.report)
    if options.compare:
        status = max(status, _compare(options.compare, options.output, options))
    return status


def check(options):
    """Each target with its figure; 1 if one is missed or was not measured."""
    chosen = targets.chosen(targets.load(), options.check)
    status = 0
    if not options.no_run:
        status = measure(options, {target["scenario"] for target in chosen}, {target["measure"] for target in chosen})
        if status == runner.INTERRUPTED:
            return status
    judged = [(target, *targets.check(target, results.load(options.output))) for target in chosen]
    print()
    for one in judged:
        print(targets.line(*one))
    counts = {verdict: sum(one[1] == verdict for one in judged) for verdict in (targets.MET, targets.MISSED, targets.UNKNOWN)}
    print(f"{len(judged)} targets: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return max(status, 0 if counts[targets.MET] == len(judged) else 1)


def dispatch(options):
    if options.list:
        return show_list(options)
    if options.check is not None:
        if options.words:
            raise ValueError("--check takes numbers of targets; it knows itself which scenarios they need")
        return check(options)
    if options.words and options.words[0] in WORDS:
        return WORDS[options.words[0]](options, options.words[1:])
    known = scenarios()
    unknown = [name for name in options.words if name not in known]
    if unknown:
        raise ValueError(f"no such scenario: {', '.join(unknown)}; there are: {', '.join(known)}")
    if options.compare:
        compare.find(options.compare)  # rather now than after half an hour
    return measure(options, set(options.words or known))


def _shown(path):
    path = pathlib.Path(path)
    return path.relative_to(ROOT) if path.is_absolute() and path.is_relative_to(ROOT) else path


def main(words):
    options = parser().parse_args(words)
    options.output = options.output or (QUICK_RESULTS if options.quick else RESULTS)
    runner.take_signals()
    try:
        return dispatch(options)
    except (ValueError, OSError) as error:
        print(f"fanwire-bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runner.INTERRUPTED
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # head has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

