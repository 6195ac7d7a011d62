# SPDX-License-Identifier: BSD-3-Clause
"""Runs scenarios one after the other; whatever happens to one, the others have their turn and the machine is left as it was."""
import signal
import sys
import time
import traceback

from . import hugepages, namespaces, progress, results, sysctl, undo
from .bench import Bench
from .errors import Failure, Skip

INTERRUPTED = 130


def take_signals():
    """Any request to end is an interrupt from the keyboard, so that everything is cleaned up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(*_):
    raise KeyboardInterrupt


class Deaf:
    """While it cleans up, a second Ctrl-C must not stop that."""

    def __enter__(self):
        self._before = {number: signal.signal(number, self._told) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _told(*_):
        print("cleaning up: a moment", file=sys.stderr, flush=True)


def run_one(name, module, bench, shown):
    """Runs a scenario; ("", False), or why it is not all there and whether that is a failure."""
    try:
        module.run(bench)
    except Skip as skip:
        return str(skip), False
    except Failure as failure:
        return str(failure), True
    except Exception:  # one scenario's mistake leaves the others their turn
        return traceback.format_exc(), True
    finally:
        with Deaf():
            shown.step("cleaning up")
            bench.close()
    return "", False


def measure(name, module, options, wanted, ledger, shown):
    """One scenario, its figures kept; what went wrong, "" if nothing did."""
    shown.begin(name)
    shown.line(f"{name}: {module.TITLE}")
    bench = Bench(name, options.build, ledger, quick=options.quick, progress=shown, wanted=wanted)
    bench.runs = options.runs or bench.runs
    why, failed = run_one(name, module, bench, shown)
    if why:
        bench.skip(name, {}, ("failed: " if failed else "") + why)
    shown.end(name)
    result = bench.result()
    path = results.save(options.output, result)
    shown.line(f"  {len(result['measures'])} figures in {result['seconds']:.0f} s, kept in {path}\n")
    return why if failed else ""


def run(options, chosen, wanted=None):
    """{name: module} in their order; the exit status: 0, 1 where one failed, INTERRUPTED."""
    ledger = undo.Ledger({"hugepages": hugepages.give_back, "namespace": namespaces.remove, "sysctl": sysctl.put_back})
    shown = progress.Progress({name: module.SECONDS[0 if options.quick else 1] for name, module in chosen.items()})
    failures, left, start = {}, list(chosen), time.monotonic()
    try:
        told = ledger.recover()
        if told:
            shown.line(told)
        for name, module in chosen.items():
            why = measure(name, module, options, wanted, ledger, shown)
            if why:
                failures[name] = why
            left.remove(name)
    except KeyboardInterrupt:
        shown.line(f"interrupted; what was started has been stopped and taken back. Not measured: {', '.join(left)}", sys.stderr)
        return INTERRUPTED
    finally:
        with Deaf():
            ledger.close()
    for name, why in failures.items():
        shown.line(f"{name} failed: {why}", sys.stderr)
    shown.line(f"{len(chosen)} scenario{'s' if len(chosen) != 1 else ''} in {progress.clock(time.monotonic() - start)}"
               + (f", {len(failures)} failed" if failures else ""))
    return 1 if failures else 0
