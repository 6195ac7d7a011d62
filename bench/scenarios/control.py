# SPDX-License-Identifier: BSD-3-Clause
"""control: an administrator's import over the API, and how soon all of it is served again after a crash and a boot."""
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
import urllib.parse

from harness import machine
from harness.errors import Failure
from harness.namespaces import ip
from harness.site import ENGINE4, PORT_FIRST, PORT_LAST, RECEIVER4, HttpOverUnix

TITLE = "registrations in bulk over the API; takeover after kill -9 and a reboot"
ORDER = 50
SECONDS = 15, 105

SCRIPT = machine.ROOT / "control/embedded/instance.sh"
CONNECTIONS = 100_000, 10_000_000  # --quick, and in full
A_USER = 3
PREFIX, GATEWAY = "10.0.0.0/8", RECEIVER4  # all behind one gateway, as receivers in racks are
PUBLISHED = 20  # events to users drawn at random: each must reach all of its user's connections

CHARTS = (
    {"kind": "bars", "title": "Served again, all connections", "measure": "takeover_seconds", "by": "connections"},
    {"kind": "bars", "title": "Filled anew from the database", "measure": "reboot_seconds", "by": "connections"},
)


def run(bench):
    """fanwired on core 0, who imports and the dataplane on core 1. The rate is what fanwirectl import reached."""
    connections = CONNECTIONS[0 if bench.quick else 1]
    site = Appliance(bench, connections)
    file = lines(bench, connections)
    bench.progress(f"importing {connections:,} connections")
    rate = imported(bench, site, file, connections)
    file.unlink()
    bench.measure("import_rate", {}, "registrations/s", "more", [rate])
    labels = {"connections": connections}
    takeovers = [takeover(bench, site, connections) for _ in range(5)]
    bench.measure("takeover_seconds", labels, "s", "less", takeovers)
    bench.measure("database_bytes", labels, "bytes", "less", [site.database_bytes() / connections])
    bench.measure("reboot_seconds", labels, "s", "less", [reboot(bench, site, connections)])


def lines(bench, connections):
    """The file to import: three connections a user, each at an address of its own."""
    path = bench.folder() / "import.ndjson"
    bench.progress(f"writing a file of {connections:,} lines")
    with open(path, "w", encoding="ascii", buffering=1 << 20) as out:
        for first in range(0, connections, 65536):
            out.write("".join(
                f'{{"user":"{user(n)}","address":"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}","port":{5000 + (n >> 24)},'
                f'"id":"{n + 1:016x}"}}\n' for n in range(first, min(first + 65536, connections))))
    return path


def user(connection):
    return f"user-{connection // A_USER:08d}"


def imported(bench, site, file, connections):
    before = time.monotonic()
    answer = json.loads(site.ctl("-j", "import", str(file), cpu=bench.core(1), timeout=900).splitlines()[-1])
    spent = time.monotonic() - before
    if answer["added"] != connections:
        raise Failure(f"the import added {answer['added']} of {connections} connections")
    site.check(connections)
    return connections / spent


def takeover(bench, site, connections):
    """From kill -9 to the first answer that says that all are served, and that knows a user's connections."""
    bench.progress("kill -9 of fanwired")
    site.kill("fanwired")
    before = time.monotonic()
    site.start("fanwired")
    site.wait_served(connections, 60)
    spent = time.monotonic() - before
    site.check(connections)
    return spent


def reboot(bench, site, connections):
    """As after a boot: no process, no regions; what there is stands in the database."""
    bench.progress("reboot: the regions are deleted")
    site.kill("fanwired")
    site.kill("dataplane")
    for region in (site.run_dir / "regions").iterdir():
        if region.is_file():
            region.unlink()
    before = time.monotonic()
    site.start("fanwired")
    site.start("dataplane")
    site.wait_served(connections, 240)
    spent = time.monotonic() - before
    site.check(connections)
    return spent


class Appliance:
    """An instance with room for so many connections, its dataplane on AF_XDP, the receivers behind a gateway."""

    def __init__(self, bench, connections):
        bench.need_root()
        self.bench = bench
        self.folder = bench.folder()
        self.run_dir = self.folder / "run"
        self.name = f"bench-{os.getpid()}-c"
        self.engine, self.receiver = f"fwbench-{os.getpid()}-ce", f"fwbench-{os.getpid()}-cr"
        self.build = pathlib.Path(bench.built("control/engine/fanwired")).parents[2]
        self.env = {
            **os.environ, "RUN_DIR": str(self.run_dir), "STATE_DIR": str(self.folder / "state"), "NAME": self.name,
            "BUILD_DIR": str(self.build), "ENGINE_NETNS": self.engine, "RECEIVER_NETNS": self.receiver,
            "ENGINE_IF": "fwengine", "RECEIVER_IF": "fwreceiver", "ENGINE4": ENGINE4, "RECEIVER4": RECEIVER4,
            "PORT_FIRST": str(PORT_FIRST), "PORT_LAST": str(PORT_LAST), "METRICS_PORT": "0", "WORKERS": "1",
            "HUGE_PAGES": str(200 + connections * 230 // (2 << 20)),
        }
        bench.take_back(SCRIPT, "destroy", env={"RUN_DIR": str(self.run_dir)})
        bench.on_exit(self.close)
        self.script("create", *(f"{key}={value}" for key, value in self._config(connections).items()))
        ip("route", "add", PREFIX, "via", GATEWAY, netns=self.engine)
        for program in ("fanwired", "dataplane"):
            self.start(program)
        self.script("wait")

    def _config(self, connections):
        users = connections // A_USER + 1024
        return {
            "dataplane.cores": f"[ {self.bench.core(1)} ]", "dataplane.main_core": str(self.bench.core(1)),
            "dataplane.idle_sleep_us": "1000", "scope.vouched": f'[ "{PREFIX}" ]', "limits.max_users": str(users),
            "limits.max_groups": str(users), "limits.max_connections": str(connections + 1024),
        }

    def script(self, *words):
        run = subprocess.run([str(SCRIPT), *words], env=self.env, capture_output=True, text=True, timeout=120, check=False)
        if run.returncode:
            raise Failure(f"instance.sh {' '.join(words)}: {(run.stdout + run.stderr).strip()[-2000:]}")

    def start(self, program):
        """fanwired has core 0 to itself, as far as there is another one."""
        self.script("start", program)
        if program == "fanwired":
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.pid(program), {self.bench.core(0)})

    def pid(self, program):
        return int((self.run_dir / f"{program}.pid").read_text())

    def kill(self, program):
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while pathlib.Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
            time.sleep(0.001)

    def close(self):
        with contextlib.suppress(Failure):
            self.script("destroy")
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def database_bytes(self):
        return sum(file.stat().st_size for file in (self.folder / "state").iterdir())

    # ---- questions ----

    def ctl(self, *words, cpu=None, timeout=60):
        env = {**os.environ, "FANWIRE_CONTROL_SOCKET": str(self.run_dir / "control.sock"),
               "FANWIRE_CLIENT_SOCKET": str(self.run_dir / "client.sock")}
        pin = (lambda: os.sched_setaffinity(0, {cpu})) if cpu is not None else None
        run = subprocess.run([str(self.build / "control/ctl/fanwirectl"), *words], env=env, capture_output=True, text=True,
                             timeout=timeout, check=False, preexec_fn=pin)
        if run.returncode:
            raise Failure(f"fanwirectl {' '.join(words)}: {(run.stdout + run.stderr).strip()}")
        return run.stdout

    def api(self, path):
        connection = HttpOverUnix(self.run_dir / "control.sock")
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Failure(f"GET {path}: {answer.status} {text.decode(errors='replace')}")
            return json.loads(text)
        finally:
            connection.close()

    def wait_served(self, connections, seconds):
        """Until all are served and one user's are found."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, ValueError):
                vouched = self.api("/v1/status")["vouched"]
                if vouched["state"] == "served" and vouched["total"] == connections:
                    self.explain(random.randrange(connections), connections)
                    return
            if time.monotonic() > deadline:
                raise Failure(f"not all connections were served within {seconds} s; fanwired's last messages:\n{self.log()}")
            time.sleep(0.005)

    def log(self):
        return "\n".join((self.run_dir / "fanwired.log").read_text(errors="replace").splitlines()[-8:])

    def explain(self, connection, connections):
        first = connection // A_USER * A_USER
        answer = self.api("/v1/explain?" + urllib.parse.urlencode({"user": user(connection)}))
        stands = {int(one["id"], 16) for one in answer["would_receive"] + answer["would_not"]}
        if stands != {n + 1 for n in range(first, min(first + A_USER, connections))}:
            raise Failure(f"{user(connection)} has the connections {stands} instead of his {A_USER}")

    def check(self, connections):
        """Not measured: the dataplane sends an event to each connection of users drawn at random, and to no other."""
        self.script("wait")
        for _ in range(PUBLISHED):
            name = user(random.randrange(connections // A_USER) * A_USER)
            answer = json.loads(self.ctl("-j", "publish", name, "bench").splitlines()[-1])
            if answer["sent"] != A_USER:
                raise Failure(f"an event for {name} was sent to {answer['sent']} connections instead of {A_USER}")
