# SPDX-License-Identifier: BSD-3-Clause
"""Cores for 10, 100 and 400 Gbit/s, from what one worker was measured to do: a model, with its assumptions."""
import math

from . import results

LINE_RATES = (10e9, 100e9, 400e9)  # bit/s
# What stands around an event on the wire, bytes: preamble and gap 20, Ethernet 14 and its checksum 4, IPv4 20, UDP 8, delivery
# header 100 (FAN_DELIVERY_LEN).
AROUND = 20 + 14 + 4 + 20 + 8 + 100
DRIVER_CYCLES = 60  # assumed for a copy: the null port's driver takes none to speak of
SCENARIO = "core"
SHOWN_USERS = (65536, 4000000)
SHOWN_FANOUTS = (3, 16, 64)


def wire_bits(payload):
    return (payload + AROUND) * 8


def cores(line_rate, payload, cycles, hz, driver_cycles=0):
    """(cores, copies a second at line rate): whole cores, nothing else in the way."""
    copies = line_rate / wire_bits(payload)
    return math.ceil(copies * (cycles + driver_cycles) / hz), copies


def rows(result):
    """(labels, cycles a copy, {line rate: (cores, cores with a driver)}) for the cases that are shown."""
    for figure in results.matching(result, "cycles_per_copy", {}):
        labels, cycles = figure["labels"], figure["median"]
        if labels["users"] not in SHOWN_USERS or labels["fanout"] not in SHOWN_FANOUTS:
            continue
        rate = results.matching(result, "copies", labels)[0]["median"]
        hz = rate * cycles  # of the time stamp counter
        needed = {line_rate: tuple(cores(line_rate, labels["payload"], cycles, hz, driver)[0] for driver in (0, DRIVER_CYCLES))
                  for line_rate in LINE_RATES}
        yield labels, cycles, needed


def text(found):
    """The table in Markdown."""
    result = found.get(SCENARIO)
    if result is None:
        return f"Not measured yet: `./dev bench {SCENARIO}`."
    head = ["users", "fan-out", "payload", "cycles a copy", "bytes on the wire", *(f"{rate / 1e9:.0f} Gbit/s" for rate in LINE_RATES)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for labels, cycles, needed in rows(result):
        cells = [f"{labels['users']:,}", str(labels["fanout"]), f"{labels['payload']:,}", f"{cycles:.1f}", f"{labels['payload'] + AROUND:,}"]
        cells += [f"{bare} to {driven}" if bare != driven else str(bare) for bare, driven in needed.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
