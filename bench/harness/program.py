# SPDX-License-Identifier: BSD-3-Clause
"""A measuring program (bench/fanwire-bench-*.c), driven line by line; see docs/benchmarks.md, "Measuring programs"."""
import ctypes
import json
import os
import select
import signal
import subprocess
import tempfile
import time

from .errors import Failure

READY_S = 240  # tables of ten million connections are made in this time
QUIT_S = 30
MID_RUN_S = 3  # for one that is asked to end in the middle of a run, or that does not answer any more


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def child(cpu=None, ends_with_us=False):
    """For Popen: pins the process that is about to start (None leaves it where it is); ends_with_us: it is told to end
    when this process is killed, for one that would not notice."""
    def prepare():
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        if ends_with_us:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return prepare


def inside(netns):
    """The words that run a command in a network namespace; the file systems stay the same, unlike with ip netns exec."""
    return ["nsenter", f"--net=/run/netns/{netns}"] if netns else []


def stop(process, grace_s=5):
    """Ends a process and what it started: politely, then not."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
    process.poll()


class Program:
    """Ready once constructed: `settings` and `versions` are what it said of itself. Every method raises Failure."""

    def __init__(self, path, args=(), cpu=None, netns=None, env=None, ready_s=READY_S):
        self.name = os.path.basename(path)
        self.args = [str(arg) for arg in args]
        self._buffer, self._answers = b"", False
        self._messages = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                [*inside(netns), str(path), *self.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages,
                start_new_session=True, preexec_fn=child(cpu), env={**os.environ, **(env or {})})
        except OSError as error:
            raise Failure(f"{self.name} cannot be started: {error}") from error
        try:
            ready = self._answer("ready", time.monotonic() + ready_s)
        except BaseException:
            self.close()
            raise
        self.settings, self.versions = ready.get("settings", {}), ready.get("versions", {})

    @property
    def pid(self):
        return self._process.pid

    def __str__(self):
        return " ".join([self.name, *self.args])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self, ms, timeout_s=None):
        """One timed run; its figures."""
        self._say(f"run {int(ms)}")
        return self._answer("run", time.monotonic() + (timeout_s or 60 + ms / 50))

    def close(self):
        """Asks it to clean up and waits; one that does not is stopped. May be called again."""
        if self._process.poll() is None:
            try:
                self._process.stdin.write(b"quit\n")
                self._process.stdin.close()
                self._process.wait(QUIT_S if self._answers else MID_RUN_S)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                pass
        stop(self._process)
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except OSError:
            pass

    def messages(self, lines=8):
        """The last lines that it wrote to standard error."""
        if self._messages.closed:
            return ""
        self._messages.seek(0)
        return "\n".join(self._messages.read().decode(errors="replace").splitlines()[-lines:])

    def _say(self, line):
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise Failure(self._ended(f"does not listen any more ({error})")) from error

    def _answer(self, word, deadline):
        """The object of the next line that is JSON with this word."""
        self._answers = False
        line = self._line(deadline)
        self._answers = True
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and word in answer:
            return answer[word]
        if isinstance(answer, dict) and "error" in answer:
            raise Failure(f"{self}: {answer['error']}")
        raise Failure(self._ended(f"should have said \"{word}\" and said {line[:200]!r}"))

    def _line(self, deadline):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Failure(self._ended("said nothing in time"))
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                self._process.wait(QUIT_S)
                raise Failure(self._ended(f"ended with status {self._process.returncode}"))
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def _ended(self, what):
        messages = self.messages()
        return f"{self} {what}" + (f"; its last messages:\n{messages}" if messages else "")
