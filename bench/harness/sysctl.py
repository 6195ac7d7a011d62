# SPDX-License-Identifier: BSD-3-Clause
"""A setting of the kernel, changed for the duration; those that this kernel does not have are left out."""
import contextlib
import pathlib


def _path(name):
    return pathlib.Path("/proc/sys") / name.replace(".", "/")


def put_back(entry):
    name, before = entry
    with contextlib.suppress(OSError):
        _path(name).write_text(before)


@contextlib.contextmanager
def changed(name, value, ledger):
    """True where the kernel has it."""
    try:
        before = _path(name).read_text().strip()
    except OSError:
        yield False
        return
    entry = [name, before]
    ledger.add("sysctl", entry)
    try:
        _path(name).write_text(str(value))
        yield True
    finally:
        ledger.undo("sysctl", entry)
