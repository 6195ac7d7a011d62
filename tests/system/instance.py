# SPDX-License-Identifier: BSD-3-Clause
"""An instance of Fanwire of one's own: real processes, made by control/embedded/instance.sh."""
import contextlib
import ctypes
import fcntl
import http.client
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import peer

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "control/embedded/instance.sh"
BUILD = pathlib.Path(os.environ.get("FANWIRE_BUILD", ROOT / "build"))
PORTS_FIRST, PORTS_LAST = 27000, 31999
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count()


def end_by_exception():
    """A signal that asks to leave leads through the end of the instances; a second one does not cut that short."""
    def leave(number, _):
        for one in asked:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    asked = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    for number in asked:
        signal.signal(number, leave)


def wait_for(what, timeout=10, every=0.05):
    """The first true result of what(), else the last one after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result = what()
        if result or time.monotonic() > deadline:
            return result
        time.sleep(every)


@contextlib.contextmanager
def netns(name):
    """This thread, and sockets that it makes, in the network namespace `name` ('': the first one)."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if libc.setns(home, CLONE_NEWNET) != 0:
                os._exit(70)  # a test in the wrong namespace must not go on
    finally:
        os.close(home)
        os.close(there)


class PortBlock:
    """Ports that no other instance guards meanwhile, of this run or of another one on the machine: a guard acts in
    every namespace. Held by a lock on that part of a file, which ends with the process."""

    F_OFD_SETLK = 37

    def __init__(self, count):
        self.file = open("/run/lock/fanwire-test-ports", "ab")
        self.first = wait_for(lambda: self.take(count), timeout=300, every=1)
        if not self.first:
            raise RuntimeError(f"no {count} ports free for a test between {PORTS_FIRST} and {PORTS_LAST}")

    def take(self, count):
        for first in range(PORTS_FIRST, PORTS_LAST + 2 - count, 100):
            try:
                lock = struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
                fcntl.fcntl(self.file, self.F_OFD_SETLK, lock)
            except OSError:
                continue
            if not self.guarded(first, count):
                return first
            self.unlock(first, count)
        return None

    def unlock(self, first, count):
        fcntl.fcntl(self.file, self.F_OFD_SETLK, struct.pack("hhqqixxxx", fcntl.F_UNLCK, os.SEEK_SET, first, count, 0))

    @staticmethod
    def guarded(first, count):
        """Whether a guard that nobody holds a lock for refuses a port of the block: a run that was killed left it behind."""
        for port in {*range(first, first + count, 100), first + count - 1}:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except PermissionError:
                    print(f"port {port} is guarded by an instance that a killed run left behind: it is passed over; to end "
                          "it: RUN_DIR=ITS_FOLDER control/embedded/instance.sh destroy, with its instance.env",
                          file=sys.stderr)
                    return True
                except OSError:
                    continue  # taken by somebody else: the instance will tell
        return False

    def close(self):
        self.file.close()


class HttpOverUnix(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("fanwired", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Instance:
    def __init__(self, ports=200, workers=1, huge_pages=0, config=None, receiver_addresses=None):
        self.number = next(numbers)
        self.name = f"t{os.getpid()}-{self.number}"
        self.dir = pathlib.Path(f"/tmp/fanwire-{self.name}")
        self.engine_netns, self.receiver_netns = f"fw-{self.name}-e", f"fw-{self.name}-r"
        self.engine_if, self.receiver_if = "fwengine", "fwreceiver"
        self.engine4, self.receiver4 = "198.18.0.1", "198.18.0.2"
        self.engine6, self.receiver6 = "fd00:f1::1", "fd00:f1::2"
        self.engine_port = 7400
        self.block = PortBlock(ports)
        self.port_first = self.block.first
        self.port_last = self.port_first + ports - 1
        self.config = dict(config or {})
        if not huge_pages:
            self.config.setdefault("dataplane.mbuf_cnt", 8192)
        self.settings = {
            "RUN_DIR": str(self.dir), "STATE_DIR": str(self.dir / "state"), "BUILD_DIR": str(BUILD), "NAME": self.name,
            "ENGINE_NETNS": self.engine_netns, "RECEIVER_NETNS": self.receiver_netns,
            "ENGINE_IF": self.engine_if, "RECEIVER_IF": self.receiver_if,
            "ENGINE4": self.engine4, "RECEIVER4": self.receiver4, "ENGINE6": self.engine6, "RECEIVER6": self.receiver6,
            "ENGINE_PORT": str(self.engine_port), "PORT_FIRST": str(self.port_first), "PORT_LAST": str(self.port_last),
            "HUGE_PAGES": str(huge_pages), "WORKERS": str(workers), "METRICS_PORT": "9617",
        }
        self.opened, self.forger = [], None

    # ---- life ------------------------------------------------------------------------------------

    def script(self, *args, check=True, timeout=90):
        run = subprocess.run(
            [str(SCRIPT), *args], env={**os.environ, **self.settings}, capture_output=True, text=True, timeout=timeout)
        if check and run.returncode:
            raise AssertionError(f"instance.sh {' '.join(args)}: {run.stdout}{run.stderr}\n{self.logs()}")
        return run

    def up(self):
        self.create()
        self.script("start")
        self.script("wait")
        return self

    def create(self):
        self.script("create", *(f"{key}={value}" for key, value in self.config.items()))

    def down(self):
        for one in self.opened:
            with contextlib.suppress(OSError):
                one.close()
        self.opened.clear()
        for program in ("fanwired", "dataplane"):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(self.pid(program), signal.SIGCONT)
        self.script("destroy")
        shutil.rmtree(self.dir, ignore_errors=True)
        self.block.close()

    def start(self, program):
        self.script("start", program)

    def wait(self):
        self.script("wait")

    def pid(self, program):
        return int((self.dir / f"{program}.pid").read_text())

    def kill(self, program, number=signal.SIGKILL):
        pid = self.pid(program)
        os.kill(pid, number)
        if number == signal.SIGKILL:
            assert wait_for(lambda: not self.alive(pid), 10), f"{program} is still there"
        if number == signal.SIGSTOP:  # a thread goes on until it notices
            assert wait_for(lambda: set(self.thread_states(pid)) == {"T"}, 10, every=0.001), f"{program} does not stop"

    @staticmethod
    def thread_states(pid):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            yield (task / "stat").read_text().rsplit(")", 1)[1].split()[0]

    @staticmethod
    def alive(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def restart(self, program):
        self.kill(program)
        self.start(program)
        self.wait()

    def logs(self, lines=40):
        text = []
        for program in ("fanwired", "dataplane"):
            with contextlib.suppress(FileNotFoundError):
                tail = (self.dir / f"{program}.log").read_text(errors="replace").splitlines()[-lines:]
                text += [f"---- last lines of {program}", *tail]
        return "\n".join(text)

    # ---- talking to it ---------------------------------------------------------------------------

    @property
    def control_socket(self):
        return self.dir / "control.sock"

    @property
    def client_socket(self):
        return self.dir / "client.sock"

    def ctl(self, *args, check=True, timeout=60, **popen):
        run = subprocess.run(self.ctl_command(*args), capture_output=True, text=True, timeout=timeout,
                             env=self.ctl_env(), **popen)
        if check and run.returncode:
            raise AssertionError(f"fanwirectl {' '.join(map(str, args))}: exit {run.returncode}: {run.stdout}{run.stderr}")
        return run

    def ctl_command(self, *args):
        return [str(BUILD / "control/ctl/fanwirectl"), *map(str, args)]

    def ctl_env(self):
        return {**os.environ, "FANWIRE_CONTROL_SOCKET": str(self.control_socket),
                "FANWIRE_CLIENT_SOCKET": str(self.client_socket)}

    def ctl_json(self, *args, **how):
        return [json.loads(line) for line in self.ctl("-j", *args, **how).stdout.splitlines()]

    def api(self, method, path, body=None, raw=None):
        """(HTTP status, answer) of a request on control.sock."""
        connection = HttpOverUnix(self.control_socket)
        try:
            data = raw if raw is not None else (None if body is None else json.dumps(body))
            connection.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def get(self, path):
        status, answer = self.api("GET", path)
        assert status == 200, answer
        return answer

    def status(self):
        return self.get("/v1/status")

    def counters(self):
        return self.status()["counters"]

    def verdicts(self):
        return self.status()["filter"]

    def audit(self, event=None):
        records = self.get("/v1/audit?limit=1000")["records"]
        return [record for record in records if event in (None, record["event"])]

    def connections(self, user=None):
        return self.get("/v1/connections" + (f"?user={user}" if user else ""))["connections"]

    def token(self, user, ttl=None):
        body = {"user": user} if ttl is None else {"user": user, "ttl_seconds": ttl}
        status, answer = self.api("POST", "/v1/tokens", body)
        assert status == 200, answer
        return answer["token"]

    def subscribe(self, user, wait=True, token=None, **how):
        subscriber = peer.Subscriber(self.client_socket, self.token(user) if token is None else token, **how)
        self.opened.append(subscriber)
        return subscriber.wait_active() if wait else subscriber

    def credential(self, user=None):
        name = f"publisher-{time.monotonic_ns()}"
        status, answer = self.api("POST", "/v1/publishers", {"name": name, **({"user": user} if user else {})})
        assert status == 201, answer
        return {"name": name, "secret": answer["secret"]}

    def publisher(self, user=None):
        publisher = peer.Publisher(self.client_socket, **self.credential(user))
        self.opened.append(publisher)
        return publisher

    # ---- sockets on its network ------------------------------------------------------------------

    def engine_socket(self, *args):
        return self.socket_in(self.engine_netns, *args)

    def receiver_socket(self, *args):
        return self.socket_in(self.receiver_netns, *args)

    def socket_in(self, namespace, family=socket.AF_INET, kind=socket.SOCK_DGRAM, protocol=0):
        with netns(namespace):
            made = socket.socket(family, kind, protocol)
        self.opened.append(made)
        return made

    def as_engine(self):
        """A UDP socket that sends from the engine's own address and port, as a forger beside it could."""
        if self.forger is None:
            self.forger = self.engine_socket()
            self.forger.bind((self.engine4, self.engine_port))
        return self.forger
