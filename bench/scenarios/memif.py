# SPDX-License-Identifier: BSD-3-Clause
"""memif: deliveries to receivers that bypass the kernel, beside the best way through it.

Two real instances and a kernel peer, each asleep while another runs. The memif one: fanwired, a dataplane whose port is a memif, and
one process that holds the other end: its subscriptions (libfanwire-bypass, registered through client.sock, each event checked by
the library and taken by fan_receive()), and its publisher session, whose sealed publishes enter by the same link, since a dataplane
has one port. The dataplane's worker has one CPU, publishing and receiving together the other one, as with the kernel's paths.
"""
from harness.site import ENGINE4, PEER_ENGINE4, PEER_RECEIVER4, Site

TITLE = "deliveries to bypass receivers over memif beside the best kernel path"
ORDER = 70
SECONDS = 20, 60

USERS, WINDOW, KERNEL_WINDOW = 16, 4096, 4096
FANOUTS = (16, 3)
ADDRESS = "198.18.0.9"  # of the receivers: inside what the instance's configuration vouches for
KERNEL = {"AF_XDP and scoped sockets": "fanwire", "sendmmsg": "sendmmsg"}
MEMIF = "memif and bypass receivers"

CHARTS = [{"kind": "bars", "title": "Deliveries a second, received", "measure": "deliveries", "by": "with", "ours": MEMIF, "groups": "fanout"}]


class MemifSite(Site):
    """An instance whose port is a memif; beside another one in the same scenario."""

    def __init__(self, bench, receivers):
        self.socket = bench.folder() / "memif"
        super().__init__(bench, receivers, role="m", ports=(11000, 11999), config={
            "network.interface": '""', "network.static_mac": '"02:00:00:00:00:09"',
            "dataplane.port": f'"net_memif0,role=server,socket-abstract=no,socket={self.socket},rsize=14,bsize=2048"',
            "dataplane.idle_sleep_us": "0", "limits.max_connections_per_user": "64"})

    def receivers(self, *words, users, fanout, cpu=None):
        return self.bench.program(
            "fanwire-bench-bypass", "--transport", "bypass", "--client-socket", self.client_socket, "--tokens", self.tokens(users),
            *self.publisher(), "--address", self.socket, "--receive-address", ADDRESS, "--users", users, "--fanout", fanout, *words,
            cpu=cpu)


def run(bench):
    with bench.hugepages(1024):
        memif = MemifSite(bench, 64)
        memif.pause()
        kernel = Site(bench, receivers=USERS * max(FANOUTS))
        kernel.pause()
        for fanout in FANOUTS[:1] if bench.quick else FANOUTS:
            for payload in (128,) if bench.quick else (128, 256):
                measure(bench, memif, kernel, fanout, payload)


def measure(bench, memif, kernel, fanout, payload):
    labels = {"fanout": fanout, "payload": payload}
    cpu = bench.core(1)
    memif.resume()
    bypass = memif.receivers("--payload", payload, "--window", WINDOW, users=USERS, fanout=fanout, cpu=cpu)
    memif.pause()
    kernel.resume()
    scoped = kernel.load("--payload", payload, "--window", KERNEL_WINDOW, users=USERS, fanout=fanout, cpu=cpu)
    kernel.pause()
    server, receivers = sendmmsg(bench, kernel, fanout, payload)
    figures = bench.interleave([(MEMIF, memif.awake(bypass)), ("AF_XDP and scoped sockets", kernel.awake(scoped)),
                                ("sendmmsg", receivers)], ms=bench.ms // 2)
    record(bench, labels, figures)
    for site, program in ((memif, bypass), (kernel, scoped)):
        site.awake(program).close()
        site.pause()
    receivers.close()
    server.close()


def sendmmsg(bench, site, fanout, payload):
    """The kernel's own fan-out, one system call for many copies, over a veth."""
    common = ["--users", USERS, "--fanout", fanout]
    where = ["--address", PEER_ENGINE4, "--port", 7500, "--receive-address", PEER_RECEIVER4, "--receive-port", 8000]
    server = bench.program("fanwire-bench-sendmmsg", *common, *where, cpu=bench.core(0), netns=site.engine)
    return server, bench.program("fanwire-bench-load", "--transport", "udp", *common, "--payload", payload, "--window", KERNEL_WINDOW,
                                 *where, cpu=bench.core(1), netns=site.receiver)


def record(bench, labels, figures):
    rates = {name: [one["deliveries_per_s"] for one in runs] for name, runs in figures.items()}
    for name, runs in figures.items():
        bench.measure("deliveries", {"with": name, **labels}, "deliveries/s", "more", rates[name])
        bench.measure("loss", {"with": name, **labels}, "share", "less", [one["loss"] for one in runs])
    best = [max(pair) for pair in zip(*(rates[name] for name in KERNEL))]  # of each round
    bench.ratio("deliveries_to_best_kernel", labels, rates[MEMIF], best)
