# SPDX-License-Identifier: BSD-3-Clause
"""A real instance of Fanwire to measure: two daemons, AF_XDP on veth, scoped sockets, namespaces of its own.

control/embedded/instance.sh makes it, as ./dev up does. Two things are different, so that the peers that are measured
in turn with it are not disturbed by it: its port guard stands at a cgroup of its own and not at the root, so that only
sockets of this instance pay for it, and its dataplane is stopped (SIGSTOP) while others run.
"""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from . import machine
from .errors import Failure
from .namespaces import ip

SCRIPT = machine.ROOT / "control/embedded/instance.sh"
PORT_FIRST, PORT_LAST = 12000, 19999  # below those of ./dev up and of the system tests: a guard acts on a port everywhere
ENGINE4, RECEIVER4 = "198.18.0.1", "198.18.0.2"  # Fanwire's veth
PEER_ENGINE4, PEER_RECEIVER4 = "198.18.1.1", "198.18.1.2"  # the same hop for peers, as the kernel makes it


class HttpOverUnix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("fanwired", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Site:
    """Up once constructed; gone when the scenario ends. `engine` and `receiver` are its namespaces."""

    def __init__(self, bench, receivers, config=None, role="", ports=(PORT_FIRST, PORT_LAST)):
        """role: tells it apart from another one of the same scenario, as must its ports."""
        bench.need_root()
        first, last = ports
        if receivers > last - first + 1:
            raise Failure(f"{receivers} receivers do not fit into ports {first}-{last}")
        self.bench = bench
        self.folder = bench.folder()
        self.name = f"bench-{os.getpid()}{role}"
        self.engine, self.receiver = f"fwbench-{os.getpid()}{role}-e", f"fwbench-{os.getpid()}{role}-r"
        self.build = pathlib.Path(bench.built("control/engine/fanwired")).parents[2]
        self.env = {
            **os.environ, "RUN_DIR": str(self.folder / "run"), "STATE_DIR": str(self.folder / "state"), "NAME": self.name,
            "BUILD_DIR": str(self.build), "ENGINE_NETNS": self.engine, "RECEIVER_NETNS": self.receiver,
            "ENGINE_IF": "fwengine", "RECEIVER_IF": "fwreceiver", "ENGINE4": ENGINE4, "RECEIVER4": RECEIVER4,
            "PORT_FIRST": str(first), "PORT_LAST": str(last), "METRICS_PORT": "0", "WORKERS": "1",
        }
        self.cgroup = self._make_cgroup()
        bench.take_back(SCRIPT, "destroy", env={"RUN_DIR": self.env["RUN_DIR"]})
        bench.on_exit(self.close)
        self.paused = False
        self._script("create", *(f"{key}={value}" for key, value in {**self._config(), **(config or {})}.items()))
        self._script("start", before=lambda: (self.cgroup / "cgroup.procs").write_text(str(os.getpid())))
        self._script("wait")
        self._peer_link()
        self._pids = [int((self.folder / "run" / f"{program}.pid").read_text()) for program in ("dataplane", "fanwired")]

    def _config(self):
        """Like an operator's who wants speed: vouched receivers, a lease that outlasts the run."""
        return {
            "instance.cgroup_dir": f'"{self.folder}/cgroup"', "dataplane.cores": f"[ {self.bench.core(0)} ]",
            "dataplane.main_core": str(self.bench.core(1)), "times.lease": "3600", "times.token_ttl": "86400",
            "scope.seal": "false", "scope.vouched": '[ "198.18.0.0/24" ]', "limits.max_connections": "16384",
        }

    def _make_cgroup(self):
        """A part of cgroup v2, mounted by itself: fanwired takes it for the root."""
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
        if not mounts:
            raise Failure("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified (make that directory first)")
        cgroup = pathlib.Path(mounts[0]) / f"fanwire-{self.name}"
        cgroup.mkdir()
        self.bench.take_back("sh", "-c", 'umount "$0"; rmdir "$1"', self.folder / "cgroup", cgroup)
        (self.folder / "cgroup").mkdir()
        self._command("mount", "--bind", cgroup, self.folder / "cgroup")
        return cgroup

    def _peer_link(self):
        """A second veth between the same namespaces, with everything that the kernel offers left on."""
        ip("link", "add", "peer0", "type", "veth", "peer", "name", "peer1", "netns", self.receiver, netns=self.engine)
        for namespace, name, address in ((self.engine, "peer0", PEER_ENGINE4), (self.receiver, "peer1", PEER_RECEIVER4)):
            ip("addr", "add", f"{address}/24", "dev", name, netns=namespace)
            ip("link", "set", name, "up", netns=namespace)

    @staticmethod
    def _command(*words):
        run = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        if run.returncode:
            raise Failure(f"{' '.join(map(str, words))}: {run.stderr.strip() or run.returncode}")

    def _script(self, *words, before=None):
        run = subprocess.run([str(SCRIPT), *words], env=self.env, capture_output=True, text=True, timeout=90, check=False,
                             preexec_fn=before)
        if run.returncode:
            raise Failure(f"instance.sh {' '.join(words)}: {(run.stdout + run.stderr).strip()}")

    def close(self):
        self.resume()
        with contextlib.suppress(Failure):
            self._script("destroy")
        shutil.rmtree(self.folder / "run", ignore_errors=True)

    # ---- while others run ----

    def pause(self):
        """Its daemons take no processor time until resume()."""
        if not self.paused:
            for pid in self._pids:
                os.kill(pid, signal.SIGSTOP)
        self.paused = True

    def resume(self):
        if self.paused:
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
        self.paused = False

    def awake(self, program):
        """The program, run while the instance runs; it is paused otherwise."""
        return Awake(self, program)

    # ---- who publishes and receives ----

    @property
    def client_socket(self):
        return str(self.folder / "run/client.sock")

    def api(self, method, path, body=None):
        connection = HttpOverUnix(self.folder / "run/control.sock")
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Failure(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
            return json.loads(text or b"null")
        finally:
            connection.close()

    def tokens(self, users):
        """A file with a line for each user: name and token."""
        path = self.folder / f"tokens-{users}"
        if not path.exists():
            lines = [f"user-{n} {self.api('POST', '/v1/tokens', {'user': f'user-{n}'})['token']}\n" for n in range(users)]
            path.write_text("".join(lines))
        return str(path)

    def publisher(self):
        """Options of fanwire-bench-load for a publisher of its own."""
        name = f"bench-{time.monotonic_ns()}"
        return ["--publisher", name, "--secret", self.api("POST", "/v1/publishers", {"name": name})["secret"]]

    def load(self, *words, users, fanout, cpu=None):
        """fanwire-bench-load on real subscribers; they run in the receivers' namespace."""
        return self.bench.program(
            "fanwire-bench-load", "--transport", "fanwire", "--client-socket", self.client_socket, "--tokens", self.tokens(users),
            *self.publisher(), "--users", users, "--fanout", fanout, *words, cpu=cpu, netns=self.receiver)

    def status(self):
        return self.api("GET", "/v1/status")


class Awake:
    """For interleave(): a program whose runs need the instance, which sleeps before and after."""

    def __init__(self, site, program):
        self.site, self.program = site, program

    def run(self, ms, **how):
        self.site.resume()
        try:
            return self.program.run(ms, **how)
        finally:
            self.site.pause()

    def close(self):
        self.site.resume()
        self.program.close()
