# SPDX-License-Identifier: BSD-3-Clause
"""crypto: what it costs to open a publish, as the dataplane does, beside OpenSSL and libsodium."""
TITLE = "opening a sealed publish: ipsec-mb as the dataplane calls it, OpenSSL, libsodium"
ORDER = 10
SECONDS = 3, 45

LIBRARIES = ("ipsec-mb", "openssl", "libsodium")
PAYLOADS = (64, 128, 256, 1132)
FEW, MANY = 4, 4096


CHARTS = (
    {"kind": "bars", "title": "Publishes opened a second, few sessions", "measure": "opens", "by": "with", "ours": "ipsec-mb",
     "groups": "payload", "where": {"sessions": FEW}},
    {"kind": "lines", "title": "Cycles to open a publish, many sessions", "measure": "open_cycles", "x": "payload", "series": "with",
     "x_title": "bytes of an event", "where": {"sessions": MANY}},
)


def run(bench):
    """Few sessions: their key schedules stay in cache; many: each publish fetches its own."""
    for sessions in (FEW, MANY):
        for payload in (128, 1132) if bench.quick else PAYLOADS:
            measure(bench, sessions, payload)


def measure(bench, sessions, payload):
    labels = {"payload": payload, "sessions": sessions}
    programs = [(name, bench.program("fanwire-bench-crypto", "--with", name, "--payload", payload, "--sessions", sessions,
                                     cpu=bench.core(0))) for name in LIBRARIES]
    figures = bench.interleave(programs, ms=bench.ms // 3)
    rates = {name: [one["opens_per_s"] for one in figures[name]] for name in LIBRARIES}
    for name, program in programs:
        bench.measure("opens", {"with": name, **labels}, "opens/s", "more", rates[name])
        bench.measure("open_cycles", {"with": name, **labels}, "cycles", "less", [one["cycles_per_open"] for one in figures[name]])
        program.close()
    for peer in LIBRARIES[1:]:
        bench.ratio("opens_to_peer", {"peer": peer, **labels}, rates["ipsec-mb"], rates[peer])
