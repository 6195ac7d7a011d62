# SPDX-License-Identifier: BSD-3-Clause
"""The command line of fanwire-bench."""
import argparse
import importlib
import pathlib
import pkgutil
import signal
import sys
import time
import traceback

from . import hugepages, namespaces, progress, results, undo
from .bench import ROOT, Bench
from .errors import Failure, Skip

RESULTS = ROOT / "bench/results"
QUICK_RESULTS = ROOT / "build/bench/quick-results"


def scenarios():
    """{name: module}, in the order in which they run."""
    import scenarios as package
    found = {info.name: importlib.import_module(f"scenarios.{info.name}") for info in pkgutil.iter_modules(package.__path__)
             if not info.name.startswith("_")}
    return dict(sorted(found.items(), key=lambda item: (item[1].ORDER, item[0])))


def parse(words):
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measures this machine; figures go to bench/results/.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="which to run (all); see --list")
    parser.add_argument("--quick", action="store_true", help="short runs, fewer cases: all in two minutes, rougher figures")
    parser.add_argument("--list", action="store_true", help="what there is to measure, and how long it takes")
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="where figures go (bench/results; quick ones "
                        "build/bench/quick-results)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", metavar="DIR", help="what is measured (build)")
    return parser.parse_args(words)


def run_one(name, module, options, ledger, shown):
    """Runs a scenario and keeps its figures; "" or what went wrong, and whether that is a failure."""
    bench = Bench(name, options.build, ledger, quick=options.quick, progress=shown)
    why, failed = "", False
    shown.begin(name)
    shown.line(f"{name}: {module.TITLE}")
    try:
        module.run(bench)
    except Skip as skip:
        why = str(skip)
    except Failure as failure:
        why, failed = str(failure), True
    except Exception:  # one scenario's mistake leaves the others their turn
        why, failed = traceback.format_exc(), True
    finally:
        shown.step("cleaning up")
        bench.close()
    if why:
        bench.skip(name, {}, ("failed: " if failed else "") + why)
    shown.end(name)
    path = results.save(options.output, bench.result())
    shown.line(f"  {bench.result()['seconds']:.0f} s; kept in {path}\n")
    return why, failed


def run(options, names):
    found = scenarios()
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"no such scenario: {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    chosen = {name: found[name] for name in found if not names or name in names}
    options.output = options.output or (QUICK_RESULTS if options.quick else RESULTS)
    ledger = undo.Ledger({"hugepages": hugepages.give_back, "namespace": namespaces.remove})
    shown = progress.Progress({name: module.SECONDS[0 if options.quick else 1] for name, module in chosen.items()})
    failures, done, start = {}, [], time.monotonic()
    try:
        for told in ledger.recover():
            shown.line(told)
        for name, module in chosen.items():
            why, failed = run_one(name, module, options, ledger, shown)
            if failed:
                failures[name] = why
            done.append(name)
    except KeyboardInterrupt:
        left = [name for name in chosen if name not in done]
        shown.line(f"interrupted: everything was cleaned up; not measured: {', '.join(left)}", sys.stderr)
        return 130
    finally:
        ledger.close()
    for name, why in failures.items():
        shown.line(f"{name} failed: {why}", sys.stderr)
    shown.line(f"{len(done)} scenarios in {progress.clock(time.monotonic() - start)}; figures in {options.output}")
    return 1 if failures else 0


def _interrupt(*_):
    raise KeyboardInterrupt


def main(words):
    options = parse(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if options.list:
        for name, module in scenarios().items():
            print(f"{name:10} {module.TITLE} (about {module.SECONDS[1]} s, --quick {module.SECONDS[0]} s)")
        return 0
    return run(options, options.scenarios)
