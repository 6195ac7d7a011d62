# SPDX-License-Identifier: BSD-3-Clause
"""Says what runs: one line that renews itself on a terminal, a line now and then elsewhere."""
import os
import sys
import time

QUIET_S = 10  # between two lines where there is no terminal


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """Of a list of scenarios with the seconds that each is expected to take."""

    def __init__(self, expected, out=None):
        """expected: {scenario: seconds}, in the order in which they run."""
        self._expected = dict(expected)
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._start = self._scenario_start = time.monotonic()
        self._name, self._shown, self._last = "", 0, 0.0

    def begin(self, name):
        self._name, self._scenario_start = name, time.monotonic()
        self.step("starting", at_once=True)

    def end(self, name):
        self._expected[name] = 0
        self._name = ""
        self.clear()

    def step(self, text, at_once=False):
        now = time.monotonic()
        if not self._live and not at_once and now - self._last < QUIET_S:
            return
        self._last = now
        number = list(self._expected).index(self._name) + 1 if self._name in self._expected else 0
        head = f"[{number}/{len(self._expected)} {self._name}] " if number else ""
        line = f"{head}{text} · {clock(now - self._start)}, {self._left(now)}"
        if self._live:
            line = line[:max(self._width() - 1, 20)]
            self._out.write("\r" + line + " " * (self._shown - len(line)))
            self._shown = len(line)
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def line(self, text, out=None):
        """A line that stays."""
        self.clear()
        print(text, file=out or sys.stdout, flush=True)

    def clear(self):
        if self._live and self._shown:
            self._out.write("\r" + " " * self._shown + "\r")
            self._out.flush()
            self._shown = 0

    def _left(self, now):
        left = sum(self._expected.values())
        if self._name in self._expected:
            left -= min(now - self._scenario_start, self._expected[self._name])
        return f"about {clock(left)} left" if left >= 1 else "almost done"

    def _width(self):
        try:
            return os.get_terminal_size(self._out.fileno()).columns
        except OSError:
            return 80
