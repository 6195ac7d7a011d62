# SPDX-License-Identifier: BSD-3-Clause
"""Programs in turn, A B A B: what disturbs the machine for a while disturbs all of them alike."""


def interleave(programs, ms, runs, warm_up=True, tell=lambda text: None):
    """Runs [(label, program), ...] round by round; {label: [figures of each run]}, as many as `runs` for each.

    A first round of a quarter of the time warms caches and is not kept.
    """
    labels = [label for label, _ in programs]
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels must differ: {labels}")
    kept = {label: [] for label in labels}
    for number in range(0 if warm_up else 1, runs + 1):
        for label, program in programs:
            tell(f"{label}: run {number} of {runs}" if number else f"{label}: warming up")
            figures = program.run(ms if number else max(ms // 4, 20))
            if number:
                kept[label].append(figures)
    return kept


def ratios(over, under):
    """Round by round: how many times as much as its neighbour of the same round."""
    if len(over) != len(under):
        raise ValueError(f"{len(over)} rounds of the one, {len(under)} of the other")
    return [a / b for a, b in zip(over, under)]
