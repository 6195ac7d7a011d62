# SPDX-License-Identifier: BSD-3-Clause
"""e2e: from a publisher to sockets, through the kernel, beside what one would use instead."""
import socket

from harness.errors import Skip
from harness.site import PEER_ENGINE4, PEER_RECEIVER4, Site

TITLE = "deliveries to scoped sockets beside sendmmsg, io_uring, Redis, NATS and mosquitto"
ORDER = 60
SECONDS = 26, 420

FANOUTS = 3, 16
SOCKETS = 2048  # receiving ones, whatever the fan-out; every event is for a user drawn at random
UDP_PEERS = {"sendmmsg": (7500, 2048), "uring": (7501, 7600)}  # the server's port, the first of the receivers'
SWEEP = 192, 1024, 4096  # sockets: the fewer, the more a broker has for each at once
WINDOW = 4096  # copies that may be on their way, of every transport

CHARTS = ({"kind": "bars", "title": "Deliveries a second to sockets, 128 B, counted by the receivers", "measure": "deliveries", "by": "with",
           "ours": "fanwire", "groups": "fanout", "where": {"payload": 128}, "image": "e2e"},)

REDIS_CONF = """bind 127.0.0.1
port {port}
save ""
appendonly no
client-output-buffer-limit pubsub 0 0 0
maxclients 10000
"""
NATS_CONF = """host: 127.0.0.1
port: {port}
max_pending: 256MB
max_connections: 20000
"""
MOSQUITTO_CONF = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""


def run(bench):
    """Core 0: what delivers; core 1: who publishes and receives. Receivers count.

    A buffer is freed where it was read, not sent back to the core that made it: better for all of them.
    """
    with bench.sysctl("net.core.skb_defer_max", 0):
        site = Site(bench, receivers=max(SOCKETS, *SWEEP))
        site.pause()
        brokers = start_brokers(bench)
        for fanout in FANOUTS:
            for payload in (128,) if bench.quick else (128, 256):
                record(bench, {"fanout": fanout, "payload": payload}, measure(bench, site, brokers, fanout, payload, SOCKETS))
        for sockets in () if bench.quick or not bench.wants("deliveries_by_sockets") else SWEEP:
            for fanout in FANOUTS:
                for name, runs in measure(bench, site, brokers, fanout, 128, sockets).items():
                    bench.measure("deliveries_by_sockets", {"with": name, "fanout": fanout, "sockets": sockets}, "deliveries/s", "more",
                                  [one["deliveries_per_s"] for one in runs])


# ---- peers ----

def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def start_brokers(bench):
    """{transport: port} of those that are installed; on loopback, which is faster for them than a veth."""
    ports = {}
    for transport, command, package, conf, words in (
            ("redis", "redis-server", "redis-server", REDIS_CONF, lambda path: [path]),
            ("nats", "nats-server", "nats-server", NATS_CONF, lambda path: ["-c", path]),
            ("mqtt", "mosquitto", "mosquitto", MOSQUITTO_CONF, lambda path: ["-c", path])):
        try:
            program = bench.need_command(command, package)
        except Skip as why:
            bench.skip("deliveries", {"with": transport}, why)
            continue
        port, folder = free_port(), bench.folder()
        (folder / "conf").write_text(conf.format(port=port))
        bench.daemon(program, *words(folder / "conf"), cpu=bench.core(0), cwd=folder, ready=lambda port=port: listens(port),
                     env={"GOMAXPROCS": "1"})
        ports[transport] = port
    return ports


def load(bench, netns, transport, *words):
    return bench.program("fanwire-bench-load", "--transport", transport, *words, cpu=bench.core(1), netns=netns)


def udp_peer(bench, site, name, common):
    """A fan-out server in the engine's namespace, over a veth as Fanwire, and its load in the receivers'."""
    port, receive_port = UDP_PEERS[name]
    where = ["--address", PEER_ENGINE4, "--port", port, "--receive-address", PEER_RECEIVER4, "--receive-port", receive_port]
    server = bench.program(f"fanwire-bench-{name}", *common[:4], *where, cpu=bench.core(0), netns=site.engine)
    return server, load(bench, site.receiver, "udp", *common, *where)


# ---- figures ----

def measure(bench, site, brokers, fanout, payload, sockets):
    """{with what: figures of each run}, in turn."""
    users = sockets // fanout
    common = ["--users", users, "--fanout", fanout, "--payload", payload, "--window", WINDOW]
    site.resume()
    fanwire = site.load("--payload", payload, "--window", WINDOW, users=users, fanout=fanout, cpu=bench.core(1))
    site.pause()
    programs, opened = [("fanwire", site.awake(fanwire))], []
    for name in UDP_PEERS:
        server, program = udp_peer(bench, site, name, common)
        programs.append((name, program))
        opened += [program, server]
    for name, port in brokers.items():
        programs.append((name, load(bench, None, name, *common, "--address", "127.0.0.1", "--port", port)))
        opened.append(programs[-1][1])
    figures = bench.interleave(programs, ms=400 if bench.quick else 1000)
    programs[0][1].close()
    site.pause()
    for one in opened:
        one.close()
    return figures


def record(bench, labels, figures):
    rates = {name: [one["deliveries_per_s"] for one in runs] for name, runs in figures.items()}
    for name, runs in figures.items():
        bench.measure("deliveries", {"with": name, **labels}, "deliveries/s", "more", rates[name])
        bench.measure("loss", {"with": name, **labels}, "share", "less", [one["loss"] for one in runs])
    for peer in rates:
        if peer != "fanwire":
            bench.ratio(f"deliveries_to_{peer}", labels, rates["fanwire"], rates[peer])
