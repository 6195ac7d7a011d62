# SPDX-License-Identifier: BSD-3-Clause
"""dpdk-testpmd as a measuring program: it stands by at its prompt and forwards for the time of a run."""
import os
import pty
import re
import select
import subprocess
import time

from harness.errors import Failure

BURSTS = (32, 64, 128, 256, 512)
START_S = 60
ANSWER_S = 10
COPIES = re.compile(r"TX-packets: (\d+).*?Tx-pps:\s+(\d+)", re.S)


class Testpmd:
    """mode txonly or macswap on DPDK's null port. settle() chooses the burst that suits it best."""

    def __init__(self, path, mode, frame_bytes, cpu, main_cpu, name):
        self.mode, self._text = mode, ""
        port = f"net_null0,size={frame_bytes}" + (",no-rx=1" if mode == "txonly" else "")
        words = [path, "--in-memory", "--no-pci", "--no-telemetry", f"--file-prefix=fanwire-bench-{os.getpid()}-{name}", "-m", "128",
                 "--lcores", f"0@{main_cpu},1@{cpu}", f"--vdev={port}", "--", "-i", f"--forward-mode={mode}", "--mbcache=256",
                 "--total-num-mbufs=16383", "--burst=256"]
        self.settings = {"mode": mode, "frame_bytes": frame_bytes}
        self._out, terminal = pty.openpty()  # into a pipe it would tell its figures late, a buffer at a time
        self._process = subprocess.Popen(words + ([f"--txpkts={frame_bytes}"] if mode == "txonly" else []), stdin=subprocess.PIPE,
                                         stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        try:
            self._wait("testpmd> ", START_S)
        except Failure:
            self.close()
            raise

    def __str__(self):
        return f"dpdk-testpmd {self.mode}"

    def settle(self, ms):
        """Tries bursts and keeps the fastest; what it measured, {burst: copies/s}."""
        tried = {}
        for burst in BURSTS:
            self._do(f"set burst {burst}")
            tried[burst] = self.run(ms)["copies_per_second"]
        best = max(tried, key=tried.get)
        self._do(f"set burst {best}")
        self.settings["burst"] = best
        return tried

    def run(self, ms):
        """Forwards for that long; its own rate, between two looks at the port's counters by the time stamp counter."""
        self._do("start")
        before = self._look()[0]
        time.sleep(ms / 1000)
        after, rate = self._look()
        self._do("stop")
        if after <= before:
            raise Failure(f"{self} sent nothing in {ms} ms")
        return {"copies_per_second": rate, "copies": after - before}

    def close(self):
        if self._process.poll() is None:
            try:
                self._process.stdin.write(b"quit\n")
                self._process.stdin.flush()
                self._process.wait(ANSWER_S)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        if self._out >= 0:
            os.close(self._out)
        self._out = -1

    def _look(self):
        """Packets sent since the start, and packets a second since the last look."""
        found = COPIES.search(self._do("show port stats 0"))
        if not found:
            raise Failure(f"{self}: its port statistics have another form than DPDK 22.11's")
        return int(found[1]), float(found[2])

    def _do(self, command):
        """What it says up to its next prompt."""
        self._text = ""
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._wait("testpmd> ", ANSWER_S)

    def _wait(self, mark, seconds):
        deadline = time.monotonic() + seconds
        while mark not in self._text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise Failure(f"{self} said nothing in {seconds} s; its last words: {self._text[-400:]}")
            self._text += self._read().decode(errors="replace")
        return self._text

    def _read(self):
        try:
            return os.read(self._out, 1 << 16)
        except OSError as error:  # a terminal whose other end is closed
            raise Failure(f"{self} ended; its last words: {self._text[-400:]}") from error
