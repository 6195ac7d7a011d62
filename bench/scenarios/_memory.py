# SPDX-License-Identifier: BSD-3-Clause
"""table, its memory part: what a registered connection takes, registered and taken over through the registry itself."""

CONNECTIONS, QUICK_CONNECTIONS = 10_000_000, 1_000_000
PER_USER = 3
FIGURES = (  # of a run: measure, unit, what is better
    ("bytes_per_connection", "bytes", "less"),
    ("bytes_per_connection_registry", "bytes", "less"),
    ("bytes_per_connection_state", "bytes", "less"),
    ("takeover_s", "s", "less"),
    ("changes_per_s", "changes/s", "more"),
)


def memory(bench, connections=None):
    """Both regions of a site for exactly so many connections, three a user, no threads; all of them are registered. Scattered: a
    user's connections came at different times, so that his block was moved for each."""
    connections = connections or (QUICK_CONNECTIONS if bench.quick else CONNECTIONS)
    for order in ("grouped",) if bench.quick else ("grouped", "scattered"):
        bench.progress(f"registering {connections} connections, {order}")
        with bench.program("fanwire-bench-memory", "--connections", connections, "--per-user", PER_USER, "--order", order,
                           "--dir", bench.folder("/dev/shm"), cpu=bench.core(0)) as program:
            figures = bench.interleave([(order, program)])[order]
            labels = {"connections": connections} if order == "grouped" else {"connections": connections, "order": order}
            for name, unit, better in FIGURES:
                bench.measure("registry_" + name if name in ("takeover_s", "changes_per_s") else name, labels, unit, better,
                              [one[name] for one in figures])
            bench.measure("registrations_per_s", labels, "registrations/s", "more", [program.settings["registrations_per_s"]])
