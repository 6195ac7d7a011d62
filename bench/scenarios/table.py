# SPDX-License-Identifier: BSD-3-Clause
"""table: the registration table beside rte_hash and liburcu's: lookups, changes, memory, and a worker while it is changed."""
from ._memory import memory

TITLE = "lookups, changes and memory of the table, beside rte_hash and lfht"
ORDER = 30
SECONDS = 25, 330

PEERS = ("rte_hash", "lfht")
GROUPS, QUICK_GROUPS = (1_000_000, 4_000_000, 10_000_000), (1_000_000,)
CHANGED = 1_000_000  # entries while changes are timed
PUBLISHED_TO = 1_000_000, 200_000  # users while a worker runs beside a writer: in full, --quick
KINDS = (("hit", "hits_per_s", "cycles_per_hit"), ("miss", "misses_per_s", "cycles_per_miss"))
CHANGES = (("add", "adds_per_s"), ("remove", "removes_per_s"), ("replace", "replaces_per_s"))
HUGE_MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}  # lfht's buckets come from malloc

CHARTS = (
    {"kind": "lines", "title": "Cycles a lookup that finds its group", "measure": "lookup_cycles", "x": "groups", "series": "with",
     "x_title": "groups", "where": {"kind": "hit"}},
    {"kind": "lines", "title": "Cycles a lookup that finds nothing", "measure": "lookup_cycles", "x": "groups", "series": "with",
     "x_title": "groups", "where": {"kind": "miss"}},
    {"kind": "bars", "title": "Changes a second", "measure": "changes", "by": "with", "ours": "fanwire", "groups": "kind"},
)


def run(bench):
    """Keys in random order; hashing is timed on both sides; both lie on huge pages."""
    for groups in QUICK_GROUPS if bench.quick else GROUPS:
        lookups(bench, groups)
    changes(bench)
    churn(bench)
    if bench.wants("bytes_per_connection"):
        memory(bench)


def tables(bench, what, entries, *more):
    """[(name, program), ...]: Fanwire's table and its peers, filled."""
    made = []
    for name in ("fanwire", *PEERS):
        bench.progress(f"filling {name} with {entries:,} entries")
        made.append((name, bench.program("fanwire-bench-table", "--with", name, "--what", what, "--entries", entries, *more,
                                         cpu=bench.core(0), env=HUGE_MALLOC if name == "lfht" else None)))
    return made


def huge_mb(entries):
    """Registry region, rte_hash and lfht, with what they round up to."""
    return entries * 380 // 2 ** 20 + 700


def lookups(bench, groups):
    with bench.hugepages(huge_mb(groups)):
        programs = tables(bench, "lookups", groups)
        few = bench.program("fanwire-bench-table", "--entries", groups, "--burst", 64, cpu=bench.core(0)) if groups == 1_000_000 else None
        named = programs + ([("fanwire, 64 at once", few)] if few else [])
        figures = bench.interleave(named, ms=bench.ms // 2)
        for kind, rate, cycles in KINDS:
            for name, _ in named:
                labels = {"with": name, "groups": groups, "kind": kind}
                bench.measure("lookups", labels, "lookups/s", "more", [one[rate] for one in figures[name]])
                bench.measure("lookup_cycles", labels, "cycles", "less", [one[cycles] for one in figures[name]])
            for peer in PEERS:
                bench.ratio(f"lookup_to_{peer}", {"groups": groups, "kind": kind}, [one[rate] for one in figures["fanwire"]],
                            [one[rate] for one in figures[peer]])
        bytes_beyond_key(bench, groups, dict(programs))
        for _, program in named:
            program.close()


def bytes_beyond_key(bench, groups, programs):
    """Of what the tables were made for; a table of that size takes what it takes, so one run says it."""
    taken = {name: program.settings["bytes_beyond_key"] for name, program in programs.items()}
    for name, count in taken.items():
        bench.measure("bytes_beyond_key", {"with": name, "groups": groups}, "bytes", "less", [count])
    bench.ratio("bytes_beyond_key_to_rte_hash", {"groups": groups}, [taken["fanwire"]], [taken["rte_hash"]], better="less")


def changes(bench):
    """An entry of Fanwire is a registered connection of a user of its own, with all that belongs to it."""
    with bench.hugepages(huge_mb(CHANGED)):
        programs = tables(bench, "changes", CHANGED)
        figures = bench.interleave(programs, ms=bench.ms)
        for kind, rate in CHANGES:
            for name, _ in programs:
                bench.measure("changes", {"with": name, "kind": kind}, "changes/s", "more", [one[rate] for one in figures[name]])
            for peer in PEERS:
                bench.ratio(f"change_to_{peer}", {"kind": kind}, [one[rate] for one in figures["fanwire"]],
                            [one[rate] for one in figures[peer]])
        for _, program in programs:
            program.close()


def churn(bench):
    """A worker's whole loop on one core, the writer at 200,000 changes a second on the other; idle and changing slices in turn."""
    users = PUBLISHED_TO[1 if bench.quick else 0]
    with bench.hugepages(users * 260 // 2 ** 20 + 500), \
            bench.program("fanwire-bench-churn", "--users", users, "--core", bench.core(0), "--writer", bench.core(1)) as program:
        figures = bench.interleave([("worker", program)], ms=2 * bench.ms, runs=2 * bench.runs)["worker"]
    column = {name: [one[name] for one in figures] for name in figures[0]}
    for phase in ("idle", "changing"):
        bench.measure("worker_rate", {"table": phase}, "events/s", "more", column[f"events_per_s_{phase}"])
        bench.measure("lookup_p50", {"table": phase}, "ns", "less", column[f"lookup_p50_ns_{phase}"])
        bench.measure("lookup_p999", {"table": phase}, "ns", "less", column[f"lookup_p999_ns_{phase}"])
    bench.measure("changes_beside_worker", {}, "changes/s", "more", column["changes_per_s"])
    bench.ratio("worker_rate_under_changes", {}, column["events_per_s_changing"], column["events_per_s_idle"])
    bench.ratio("lookup_p999_under_changes", {}, column["lookup_p999_ns_changing"], column["lookup_p999_ns_idle"], better="less")
