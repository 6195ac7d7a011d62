#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A build without -Dplant=true and -Dshim=true has nothing of the planted bugs, nor of the bad network: neither their
switches nor what reads them.

usage: no_plants.py FILE...   the programs and libraries of the build
"""
import pathlib
import re
import sys

LIST = pathlib.Path(__file__).resolve().parents[2] / "common/plant.h"


def traces(data):
    """What of the switches is in a program: their variables, or what reads them."""
    switches = (b"FANWIRE_PLANT", b"fan_plant_present", b"FANWIRE_SHIM")
    return [text.decode() for text in switches if text in data]


def main(paths):
    names = re.findall(r"^\s+PLANT\((\w+)\)", LIST.read_text(), re.M)
    found = [f"{path}: {', '.join(trace)}" for path in paths if (trace := traces(pathlib.Path(path).read_bytes()))]
    print("\n".join(found))
    print(f"{len(paths)} files, {len(names)} planted bugs: {len(found)} files with a trace")
    return 1 if found or not paths or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
