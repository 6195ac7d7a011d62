# SPDX-License-Identifier: BSD-3-Clause
"""What has been changed on the machine is written down first, so that the next run can take it back after a kill -9."""
import collections
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

FOLDER = pathlib.Path("/run/fanwire-bench") if os.geteuid() == 0 else \
    pathlib.Path(tempfile.gettempdir()) / f"fanwire-bench-{os.geteuid()}"


def _run(what):
    """{"words": [...], "env": {...}}: a command that takes something back."""
    subprocess.run(what["words"], env={**os.environ, **what["env"]}, capture_output=True, timeout=120, check=False)


def started(pid):
    """When a process started, ticks since the boot: with its number, which process it is. None: it is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except OSError:
        return None


def _end(process):
    """[pid, started]: a process group that outlived its run."""
    pid, since = process
    if started(pid) == since:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


class Ledger:
    """One file a run, locked as long as the run lives."""

    def __init__(self, undoers, folder=FOLDER):
        """undoers: {kind: function of the value that was added}; each may be called for what is gone already."""
        self._undoers = {"folder": lambda path: shutil.rmtree(path, ignore_errors=True), "command": _run, "process": _end, **undoers}
        self._folder = folder
        self._entries = []
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{os.getpid()}.json"
        self._file = self._open(self._path)

    def add(self, kind, value):
        self._entries.append([kind, value])
        self._write()

    def undo(self, kind, value):
        """Takes one change back and forgets it."""
        self._undoers[kind](value)
        self.forget(kind, value)

    def forget(self, kind, value):
        self._entries.remove([kind, value])
        self._write()

    def close(self):
        """Takes back what is left, the last first."""
        while self._entries:
            self.undo(*self._entries[-1])
        self._path.unlink(missing_ok=True)
        self._file.close()

    def recover(self):
        """Takes back what runs have left that were killed; what that was, a sentence."""
        told = collections.Counter()
        for path in sorted(self._folder.glob("*.json")):
            if path == self._path:
                continue
            try:
                with self._open(path) as file:
                    left = json.loads(file.read() or "[]")
                    for kind, value in reversed(left):
                        self._undoers.get(kind, lambda _: None)(value)
                        told[kind] += 1
                path.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):
                continue  # it lives, or another run was quicker
        return "took back what a killed run had left: " + ", ".join(f"{cnt} x {kind}" for kind, cnt in told.items()) if told else ""

    @staticmethod
    def _open(path):
        file = open(path, "a+", encoding="utf-8")  # pylint: disable=consider-using-with
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        file.seek(0)
        return file

    def _write(self):
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._entries))
        self._file.flush()
