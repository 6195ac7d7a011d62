# SPDX-License-Identifier: BSD-3-Clause
"""Network namespaces of our own; the machine's network is never touched."""
import os
import subprocess

from .errors import Failure
from .program import inside


def ip(*words, netns=None):
    """One ip command; Failure with its message."""
    run = subprocess.run([*inside(netns), "ip", *map(str, words)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failure(f"ip {' '.join(map(str, words))}: {run.stderr.strip() or run.returncode}")
    return run.stdout


def remove(name):
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Namespace:
    """A network namespace with loopback up; `str()` is its name."""

    count = 0

    def __init__(self, ledger, role=""):
        Namespace.count += 1
        self.name = f"fwbench-{os.getpid()}-{role or Namespace.count}"
        self._ledger = ledger
        ledger.add("namespace", self.name)
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def __str__(self):
        return self.name

    def ip(self, *words):
        return ip(*words, netns=self.name)

    def run(self, *words, check=True, **options):
        """A command in it; its standard output. Failure where it fails."""
        run = subprocess.run([*inside(self.name), *map(str, words)], capture_output=True, text=True, check=False, **options)
        if check and run.returncode:
            raise Failure(f"{' '.join(map(str, words))}: {run.stderr.strip() or run.stdout.strip() or run.returncode}")
        return run.stdout

    def close(self):
        self._ledger.undo("namespace", self.name)


def veth(one, other, names=("veth0", "veth1"), addresses=(None, None)):
    """A pair of veth devices, up, one end in each namespace, with addresses (10.1.0.1/24) where given."""
    ip("link", "add", names[0], "netns", one, "type", "veth", "peer", "name", names[1], "netns", other)
    for namespace, name, address in zip((one, other), names, addresses):
        if address:
            ip("addr", "add", address, "dev", name, netns=namespace)
        ip("link", "set", name, "up", netns=namespace)
