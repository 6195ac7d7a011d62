# SPDX-License-Identifier: BSD-3-Clause
"""What a scenario is given: programs, cores, huge pages, namespaces, and where to put its figures."""
import contextlib
import datetime
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from . import hugepages, interleave, machine, results, sysctl, undo
from .errors import Failure, Skip
from .namespaces import Namespace
from .program import Program, child, inside, stop

ROOT = machine.ROOT


class Bench:
    """One scenario's run. What it starts or changes ends with it, however it ends."""

    def __init__(self, scenario, build, ledger, quick=False, progress=None, wanted=None):
        """wanted: names of measures that a check needs; None: all."""
        self.scenario, self.quick = scenario, quick
        self.runs, self.ms = (3, 100) if quick else (5, 1000)
        self._build, self._ledger, self._progress, self._wanted = pathlib.Path(build), ledger, progress, wanted
        self._stack = contextlib.ExitStack()
        self._cores = machine.cores()
        self._start = time.monotonic()
        self._result = {
            "scenario": scenario, "version": machine.fanwire_version(), "quick": quick,
            "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "seconds": 0.0,
            "machine": machine.describe(), "versions": machine.versions(),
            "settings": {"cores": self._cores[:2], "programs": []}, "measures": [], "distributions": [], "skipped": [],
        }

    # ---- where it runs ----

    def core(self, index):
        """CPU to pin to: 0 the worker's (or whatever is measured), 1 what drives or receives."""
        if index >= len(self._cores):
            raise Skip(f"it needs {index + 1} CPUs and {len(self._cores)} may be used")
        return self._cores[index]

    def need_root(self):
        if os.geteuid() != 0:
            raise Skip("it needs root (namespaces, BPF, huge pages): run it with sudo")

    def need_command(self, command, package):
        """Path of a program of Debian's."""
        path = shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/bin")
        if not path:
            raise Skip(f"{command} is not installed: apt-get install {package}")
        return path

    def built(self, path):
        """Path of what the build made, from the build folder on: control/fanwired."""
        if not (self._build / path).exists():
            raise Failure(f"{self._build / path} is not built: ./dev build")
        return str(self._build / path)

    def wants(self, measure):
        """False where only targets are checked and none of them needs the measure."""
        return self._wanted is None or measure in self._wanted

    # ---- what it starts ----

    def hugepages(self, mb):
        """Context manager: that much more of huge pages."""
        return hugepages.hugepages(mb, self._ledger)

    def sysctl(self, name, value):
        """Context manager: a setting of the kernel, recorded; False where it has no such setting."""
        self._result["settings"].setdefault("sysctl", {})[name] = value
        return sysctl.changed(name, value, self._ledger)

    def namespace(self, role=""):
        self.need_root()
        namespace = Namespace(self._ledger, role)
        self._stack.callback(namespace.close)
        return namespace

    def folder(self, parent=None):
        """A new folder, gone at the end; parent "/dev/shm" for what must lie in memory."""
        path = tempfile.mkdtemp(prefix="fanwire-bench-", dir=parent)
        os.chmod(path, 0o755)  # daemons have users of their own
        self._ledger.add("folder", path)
        self._stack.callback(self._ledger.undo, "folder", path)
        return pathlib.Path(path)

    def on_exit(self, function, *args):
        """Called when the scenario ends, the last first."""
        self._stack.callback(function, *args)

    def take_back(self, *words, env=None):
        """A command that takes a change back; it runs at the scenario's end, or at the next run's start after a kill -9."""
        what = {"words": [str(word) for word in words], "env": env or {}}
        self._ledger.add("command", what)
        self._stack.callback(self._ledger.undo, "command", what)

    def program(self, name, *args, cpu=None, netns=None, env=None, ready_s=240):
        """A measuring program, ready: bench/NAME of the build folder. Closed at the scenario's end, or by with."""
        program = Program(self.built(f"bench/{name}"), args, cpu=cpu, netns=netns, env=env, ready_s=ready_s)
        self._stack.callback(program.close)
        self._result["versions"].update(program.versions)
        told = {"program": name, "args": program.args, "settings": program.settings}
        if told not in self._result["settings"]["programs"]:
            self._result["settings"]["programs"].append(told)
        return program

    def daemon(self, *words, cpu=None, netns=None, ready=None, ready_s=10, cwd=None, env=None):
        """A program that runs in the background until the scenario ends; ready(): true once it can be used. Its Popen,
        with `log`, the path of what it prints."""
        log = self.folder() / "log"
        with open(log, "wb") as out:
            process = subprocess.Popen([*inside(netns), *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       start_new_session=True, preexec_fn=child(cpu, ends_with_us=True), cwd=cwd, env={**os.environ, **(env or {})})
        self._ends(process)
        process.log = log
        deadline = time.monotonic() + ready_s
        while ready and not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                raise Failure(f"{words[0]} did not get ready in {ready_s} s; its last messages:\n{tail}")
            time.sleep(0.02)
        return process

    def _ends(self, process):
        """Stopped at the scenario's end, or at the next run's start after a kill -9 (one that changed its user does not hear of that)."""
        entry = [process.pid, undo.started(process.pid)]
        self._ledger.add("process", entry)
        self._stack.callback(self._ledger.forget, "process", entry)
        self._stack.callback(stop, process)

    # ---- what it measures ----

    def interleave(self, programs, ms=None, runs=None):
        """[(label, program), ...] in turn, round by round; {label: [figures of each run]}."""
        return interleave.interleave(programs, ms or self.ms, runs or self.runs, tell=self.progress)

    def measure(self, name, labels, unit, better, runs):
        """Records one figure, every run of it."""
        figure = results.measure(name, labels, unit, better, runs)
        if results.key(figure) in map(results.key, self._result["measures"]):
            raise ValueError(f"measured twice: {name} {labels}")
        self._result["measures"].append(figure)
        if self._progress:
            self._progress.line("  " + results.line(figure))
        return figure

    def ratio(self, name, labels, over, under, better="more"):
        """Records how many times as much as its neighbour of the same round; unit x."""
        return self.measure(name, labels, "x", better, interleave.ratios(over, under))

    def distribution(self, name, labels, unit, buckets):
        """Records a histogram, [[value, count], ...], for a plot of percentiles."""
        merged = {}
        for value, count in buckets:
            merged[value] = merged.get(value, 0) + count
        self._result["distributions"].append(
            {"name": name, "labels": dict(labels), "unit": unit, "buckets": sorted(map(list, merged.items()))})

    def skip(self, name, labels, why):
        """Records that a figure could not be had here, and why."""
        self._result["skipped"].append({"name": name, "labels": dict(labels), "why": str(why)})
        if self._progress:
            self._progress.line(f"  {' · '.join(filter(None, (name, results.label_text(labels))))}: skipped: {why}")

    def progress(self, text):
        if self._progress:
            self._progress.step(text)

    def version(self, name, text):
        self._result["versions"][name] = text

    def setting(self, name, value):
        self._result["settings"][name] = value

    # ---- the end ----

    def close(self):
        self._stack.close()

    def result(self):
        self._result["seconds"] = round(time.monotonic() - self._start, 1)
        return self._result
