# SPDX-License-Identifier: BSD-3-Clause
"""Cores for 10, 100 and 400 Gbit/s, from what one worker was measured to do: a model, with its assumptions."""
import math

from . import results

LINE_RATES = (10e9, 100e9, 400e9)  # bit/s
# What stands around an event on the wire, bytes: preamble and gap 20, Ethernet 14 and its checksum 4, IPv4 20, UDP 8, delivery
# header 100 (FAN_DELIVERY_LEN).
AROUND = 20 + 14 + 4 + 20 + 8 + 100
DRIVER_CYCLES = 60  # assumed for a copy: the null port's driver takes none to speak of
SCENARIO, MEASURE, WHERE = "core", "copy_cycles", {"mode": "whole"}


def wire_bits(payload):
    return (payload + AROUND) * 8


def cores(line_rate, payload, cycles, hz, driver_cycles=0):
    """(cores, copies a second at line rate): whole cores, nothing else in the way."""
    copies = line_rate / wire_bits(payload)
    return math.ceil(copies * (cycles + driver_cycles) / hz), copies


def rows(result):
    """(figure, {line rate: (cores, cores with a driver, copies/s)}) for each measured case."""
    hz = result["settings"].get("tsc_hz") or result["machine"]["mhz"] * 1e6
    for figure in results.matching(result, MEASURE, WHERE):
        payload = figure["labels"]["payload"]
        found = {}
        for rate in LINE_RATES:
            bare, copies = cores(rate, payload, figure["median"], hz)
            found[rate] = bare, cores(rate, payload, figure["median"], hz, DRIVER_CYCLES)[0], copies
        yield figure, found


def text(found):
    """The table in Markdown."""
    result = found.get(SCENARIO)
    if result is None:
        return f"Not measured yet: `./dev bench {SCENARIO}`."
    head = ["users", "fan-out", "payload", "cycles a copy", "bytes on the wire", *(f"{rate / 1e9:.0f} Gbit/s" for rate in LINE_RATES)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for figure, rates in rows(result):
        labels = figure["labels"]
        cells = [f"{labels['users']:,}", str(labels["fanout"]), str(labels["payload"]), f"{figure['median']:.1f}", str(labels["payload"] + AROUND)]
        cells += [f"{bare} to {driven}" for bare, driven, _ in rates.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
