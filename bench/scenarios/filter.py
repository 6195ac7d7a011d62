# SPDX-License-Identifier: BSD-3-Clause
"""filter: what the scope filter and the port guard add to a delivery, beside a filter that accepts everything and none."""
TITLE = "scope filter and port guard beside an always-accept filter and none"
ORDER = 75
SECONDS = 8, 75

CASES = ("none", "accept", "filter", "guard", "both")
PAYLOAD = 128

CHARTS = ({"kind": "bars", "title": "Added to a delivery by what stands in the kernel, ns", "measure": "added_ns", "by": "case", "ours": "both",
           "groups": "setting"},)


def run(bench):
    """Everything on one core; the cases in turn, in rounds that are short and many, since what is looked for is a tenth of the whole."""
    bench.need_root()
    figures = measure(bench, "nic", [], 12 if bench.quick else 40)
    targets(bench, figures)
    programs(bench, figures, "filter", "guard_ingress")
    bench.measure("program_test_run_ns", {"program": "filter"}, "ns", "less", column(figures, "both", "filter_test_run_ns"))
    if bench.quick:
        return
    for setting, options in (("software checksum", ["--checksum", "software"]), ("loopback", ["--link", "loopback"]),
                             ("256 sockets", ["--sockets", 256, "--burst", 1])):
        figures = measure(bench, setting, options, 12)
        if setting == "loopback":  # where the sender, too, is a socket below the guard
            programs(bench, figures, "guard_egress")


def measure(bench, setting, options, rounds):
    """Interleaves the cases under one setting; figures of each case, round by round."""
    programs_ = [(case, bench.program("fanwire-bench-filter", "--case", case, "--payload", PAYLOAD, *options, cpu=bench.core(0)))
                 for case in CASES]
    figures = bench.interleave(programs_, ms=40, runs=rounds)
    bare = column(figures, "none", "delivery_ns")
    for case, program in programs_:
        program.close()
        spent = column(figures, case, "delivery_ns")
        labels = {"case": case, "setting": setting}
        bench.measure("delivery_ns", labels, "ns", "less", spent)
        if case != "none":
            bench.measure("added_ns", labels, "ns", "less", added(spent, bare))
    return figures


def column(figures, case, name):
    return [one[name] for one in figures[case] if name in one]


def added(with_it, without):
    return [one - other for one, other in zip(with_it, without)]


def targets(bench, figures):
    """Target 11: each round's figure against that of its neighbour without filter and guard."""
    bench.measure("filter_guard_ns", {}, "ns", "less",
                  added(column(figures, "both", "delivery_ns"), column(figures, "none", "delivery_ns")))
    bench.ratio("receive_rate_to_unfiltered", {}, column(figures, "both", "deliveries_per_second"),
                column(figures, "none", "deliveries_per_second"))


def programs(bench, figures, *names):
    """Times of the programs themselves. Of the kernel's statistics, what it says of a program of two instructions is its clock."""
    clock = column(figures, "accept", "filter_stats_ns")
    for name in names:
        stats = column(figures, "both", f"{name}_stats_ns")
        bench.measure("program_stats_ns", {"program": name}, "ns", "less", stats)
        bench.measure("program_ns", {"program": name}, "ns", "less", added(stats, clock))
