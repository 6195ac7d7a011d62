# SPDX-License-Identifier: BSD-3-Clause
"""Huge pages of our own: added to what there is, and given back, so that others who use some are not disturbed."""
import contextlib
import fcntl
import os
import pathlib

from .errors import Skip

COUNT = pathlib.Path("/proc/sys/vm/nr_hugepages")
COMPACT = pathlib.Path("/proc/sys/vm/compact_memory")
LOCK = pathlib.Path("/run/lock/fanwire-hugepages")  # that of control/embedded/instance.sh


def meminfo():
    """/proc/meminfo: {name: number}, kB or pages."""
    lines = (line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return {name: int(rest.split()[0]) for name, rest in lines}


def page_kb():
    return meminfo()["Hugepagesize"]


@contextlib.contextmanager
def _turn():
    with open(LOCK, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def give_back(pages):
    with _turn():
        COUNT.write_text(str(max(int(COUNT.read_text()) - pages, 0)))


def _add(pages):
    """Pages that came, which may be less."""
    before = int(COUNT.read_text())
    COUNT.write_text(str(before + pages))
    if int(COUNT.read_text()) < before + pages:
        COMPACT.write_text("1")
        COUNT.write_text(str(before + pages))
    return int(COUNT.read_text()) - before


@contextlib.contextmanager
def hugepages(mb, ledger):
    """As many megabytes of huge pages as asked for, for the duration; Skip where the machine has them not."""
    if os.geteuid() != 0:
        raise Skip("huge pages can be had by root only: run it with sudo")
    info = meminfo()
    pages = -(-mb * 1024 // info["Hugepagesize"])
    if info["MemAvailable"] < mb * 1024 * 1.05 + 256 * 1024:
        raise Skip(f"it needs {mb} MiB of huge pages and {info['MemAvailable'] // 1024} MiB are free: end what takes the memory")
    try:
        with _turn():
            came = _add(pages)
            ledger.add("hugepages", came)
    except OSError as error:
        raise Skip(f"huge pages cannot be had: {error}") from error
    try:
        if came < pages:
            raise Skip(f"it needs {pages} huge pages more and the kernel found {came}: reboot, or end what takes memory")
        yield
    finally:
        ledger.undo("hugepages", came)
