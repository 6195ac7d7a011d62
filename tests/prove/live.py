# SPDX-License-Identifier: BSD-3-Clause
"""What the parts that try a running instance share: the test build, instances of it, and the closing line."""
import argparse
import fcntl
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = ["control/engine/fanwired", "dataplane/fanwire-dataplane", "control/ctl/fanwirectl", "bpf/steer.bpf.o",
           "tests/prove/stream", "tests/prove/actor", "tests/prove/churn", "tests/prove/watch"]


def test_build():
    """The folder of a build with the bad network and the planted bugs; FANWIRE_TEST_BUILD: one that is there."""
    folder = os.environ.get("FANWIRE_TEST_BUILD")
    if folder is None:
        folder = str(ROOT / "build-plant")
        script = '. tests/build.sh; build build-plant -Dtests=true -Dplant=true -Dshim=true -- "$@"'
        turn = os.open(ROOT, os.O_RDONLY)
        fcntl.flock(turn, fcntl.LOCK_EX)  # parts may run side by side
        try:
            subprocess.run(["bash", "-c", script, "build", *TARGETS], cwd=ROOT, check=True, stdout=sys.stderr)
        finally:
            os.close(turn)
    return folder


BUILD = os.environ["FANWIRE_BUILD"] = test_build()  # read by instance.py
sys.path.insert(0, str(ROOT / "tests/system"))

from instance import Instance, end_by_exception, netns, wait_for  # noqa: E402, F401 (the build comes first; the parts import from here)


class InMemory(Instance):
    """Its database lies in memory: a registration waits for no disk, and kill -9 takes nothing of it."""

    def __init__(self, **how):
        super().__init__(**how)
        self.settings["STATE_DIR"] = f"/dev/shm/fanwire-{self.name}"

    def down(self):
        super().down()
        shutil.rmtree(self.settings["STATE_DIR"], ignore_errors=True)


def instance(shim="", plant="", kind=Instance, **how):
    """An instance of the test build that is up. shim: FANWIRE_SHIM, plant: FANWIRE_PLANT."""
    one = kind(**how)
    one.settings |= {name: value for name, value in (("FANWIRE_SHIM", shim), ("FANWIRE_PLANT", plant)) if value}
    try:
        return one.up()
    except BaseException:
        one.down()
        raise


def arguments(doc, **more):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    for name, (kind, default, text) in more.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default {default})")
    end_by_exception()
    return parser.parse_args()


class Part:
    """Counts what was tried and what got through; close() prints the line that prove.py reads."""

    def __init__(self, name, unit, seed):
        self.closing = {"name": name, "tried": 0, "unit": unit, "got_through": 0, "seed": seed}
        self.began = time.monotonic()

    def tried(self, count=1):
        self.closing["tried"] += count

    def got_through(self, what, count=1):
        self.closing["got_through"] += count
        print(f"GOT THROUGH: {what}", flush=True)

    def expect(self, what, count):
        """`count` things that must not be."""
        if count:
            self.got_through(f"{what}: {count}", count)

    def close(self, **more):
        self.closing["seconds"] = round(time.monotonic() - self.began, 1)
        print(json.dumps({**self.closing, **more}))
        return 1 if self.closing["got_through"] else 0
