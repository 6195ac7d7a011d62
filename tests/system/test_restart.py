# SPDX-License-Identifier: BSD-3-Clause
"""A crowd of subscribers and publishers of the library, as a busy host has it, across restarts and pauses of fanwired."""
import concurrent.futures
import ctypes
import resource
import select
import signal
import subprocess
import threading
import time

import pytest

from instance import BUILD, wait_for

EVENT_DATA, EVENT_ENDED = 1, 3
AGAIN = -11


class SubscribeOptions(ctypes.Structure):
    _fields_ = [("token", ctypes.c_char_p), ("threads", ctypes.c_void_p), ("thread_cnt", ctypes.c_size_t),
                ("single", ctypes.c_int), ("connection", ctypes.c_uint64), ("family", ctypes.c_int),
                ("timeout_ms", ctypes.c_int), ("policy", ctypes.c_int), ("cursors", ctypes.c_void_p),
                ("cursor_cnt", ctypes.c_size_t)]


class Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("channel", ctypes.c_uint64), ("thread", ctypes.c_char_p),
                ("epoch", ctypes.c_uint64), ("sequence", ctypes.c_uint64), ("lost_first", ctypes.c_uint64),
                ("lost_last", ctypes.c_uint64), ("time_ns", ctypes.c_uint64), ("kind", ctypes.c_uint16),
                ("publisher", ctypes.c_uint64), ("payload", ctypes.c_void_p), ("payload_len", ctypes.c_size_t),
                ("recovered", ctypes.c_int)]


class Credential(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("secret", ctypes.c_char_p), ("grant", ctypes.c_char_p)]


@pytest.fixture(scope="module")
def library():
    found = ctypes.CDLL(str(BUILD / "client/libfanwire.so"))
    found.fan_error.restype = ctypes.c_char_p
    for name in ("fan_receive", "fan_subscription_fd", "fan_subscription_close", "fan_publisher_step",
                 "fan_publisher_fd", "fan_publisher_close"):
        getattr(found, name).argtypes = [ctypes.c_void_p]
    found.fan_receive.argtypes = [ctypes.c_void_p, ctypes.POINTER(Event), ctypes.c_int]
    found.fan_publisher_step.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    found.fan_subscribe.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(SubscribeOptions)]
    found.fan_publisher_open.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(Credential)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return found


class Crowd:
    """Subscriptions and publishers of libfanwire, driven by one thread, as a program with many would."""

    def __init__(self, library, instance):
        self.library, self.instance = library, instance
        self.path = str(instance.client_socket).encode()
        self.epoll = select.epoll()
        self.subscriptions, self.publishers = {}, {}
        self.data, self.ended, self.failed = 0, [], []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def subscribe(self, tokens):
        def one(token):
            handle = ctypes.c_void_p()
            options = SubscribeOptions(token=token.encode(), timeout_ms=30000)
            deadline = time.monotonic() + 60
            while (err := self.library.fan_subscribe(ctypes.byref(handle), self.path, ctypes.byref(options))) == AGAIN:
                assert time.monotonic() < deadline, self.library.fan_error()
                time.sleep(0.01)
            assert err == 0, (err, self.library.fan_error())
            return handle

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for handle in pool.map(one, tokens):
                self.subscriptions[self.library.fan_subscription_fd(handle)] = handle
        return self

    def publish(self, count):
        credential = {key: value.encode() for key, value in self.instance.credential().items()}
        for _ in range(count):
            handle = ctypes.c_void_p()
            err = self.library.fan_publisher_open(ctypes.byref(handle), self.path, ctypes.byref(Credential(**credential)))
            assert err == 0, self.library.fan_error()
            self.publishers[self.library.fan_publisher_fd(handle)] = handle
        return self

    def start(self):
        for fd in (*self.subscriptions, *self.publishers):
            self.epoll.register(fd, select.EPOLLIN)
        self.thread.start()
        return self

    def run(self):
        while not self.stop.is_set():
            for fd, _ in self.epoll.poll(0.1):
                if fd in self.subscriptions:
                    self.receive(fd)
                elif (err := self.library.fan_publisher_step(self.publishers[fd], 0, None, None)) < 0:
                    self.failed.append((err, self.library.fan_error()))
                    self.epoll.unregister(fd)

    def receive(self, fd):
        event = Event()
        while self.library.fan_receive(self.subscriptions[fd], ctypes.byref(event), 0) == 1:
            if event.type == EVENT_ENDED:
                self.ended.append(ctypes.string_at(event.payload, event.payload_len))
                self.epoll.unregister(fd)
                return
            self.data += event.type == EVENT_DATA

    def close(self):
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()
        for handle in self.subscriptions.values():
            self.library.fan_subscription_close(handle)
        for handle in self.publishers.values():
            self.library.fan_publisher_close(handle)
        self.epoll.close()


@pytest.fixture
def make_crowd(library, request):
    made = []

    def make(instance):
        made.append(Crowd(library, instance))
        return made[-1]

    yield make
    for crowd in made:
        crowd.close()


def pool(instance, addresses):
    """Gives the receivers more addresses, so that few ports carry many connections."""
    instance.create()
    for last in range(10, 10 + addresses):
        subprocess.run(["ip", "-n", instance.receiver_netns, "addr", "add", f"198.18.0.{last}/24", "dev",
                        instance.receiver_if], check=True)
    instance.script("start")
    instance.script("wait")
    return instance


def pool_config(addresses):
    listed = ", ".join(f'"198.18.0.{last}"' for last in range(10, 10 + addresses))
    return {"network.receiver_addresses": f"[ {listed} ]", "scope.vouched": '[ "198.18.0.0/24" ]',
            "limits.max_connections_per_user": 500}


def back(instance, user):
    """How many connections of this user have their subscriber again."""
    return sum(one["reason"] == "active" for one in instance.get(f"/v1/explain?user={user}")["would_receive"])


def slow_start(instance):
    """fanwired starts, and then answers nobody for longer than an impatient client would wait."""
    instance.start("fanwired")
    assert wait_for(lambda: instance.client_socket.exists(), every=0.005)
    time.sleep(0.3)  # some of the crowd are in its queues
    instance.kill("fanwired", signal.SIGSTOP)
    time.sleep(4)
    instance.kill("fanwired", signal.SIGCONT)


@pytest.mark.parametrize("kills,slow", [(1, False), (3, False), (1, True)], ids=["once", "thrice", "slow"])
def test_a_crowd_comes_back_after_kill_9(make_instance, make_crowd, kills, slow):
    """Thousands come back in one instant; none is lost, and each goes on as the connection that it was."""
    users, each, sessions = 10, 300, 20
    instance = pool(make_instance(ports=400, config=pool_config(10)), 10)
    publisher = instance.publisher()  # before the crowd takes all descriptors that select() can name
    tokens = [instance.token(f"crowd-{n % users}") for n in range(users * each)]
    crowd = make_crowd(instance).subscribe(tokens).publish(sessions).start()
    before = {c["id"]: (c["generation"], c["port"]) for n in range(users) for c in instance.connections(f"crowd-{n}")}
    assert len(before) == users * each
    for number in range(kills):
        instance.kill("fanwired")
        slow_start(instance) if slow else instance.start("fanwired")
        if number < kills - 1:
            time.sleep(0.8)  # the next kill finds them on their way back
    instance.wait()
    started = time.monotonic()
    publisher.attach()
    assert wait_for(lambda: sum(back(instance, f"crowd-{n}") for n in range(users)) == users * each, timeout=40, every=1)
    time.sleep(max(0, started + 14 - time.monotonic()))  # past the time in which they must have come back
    assert not crowd.ended and not crowd.failed, (len(crowd.ended), crowd.ended[:3], crowd.failed[:3])
    after = {c["id"]: (c["generation"], c["port"]) for n in range(users) for c in instance.connections(f"crowd-{n}")}
    assert after == before
    assert instance.status()["sessions"] == sessions + 1
    for n in range(users):
        result = publisher.publish(f"crowd-{n}", "all of you")
        assert (result.attempted, result.sent) == (each, each)
    assert wait_for(lambda: crowd.data == users * each, timeout=10), crowd.data


def test_a_pause_of_fanwired_ends_nobody(make_instance, make_crowd):
    """Stopped for longer than a lease, it finds the renewals in its sockets."""
    instance = make_instance(config={"times.lease": 3, "scope.vouched": '[ "198.18.0.0/24" ]',
                                     "limits.max_connections_per_user": 500}).up()
    crowd = make_crowd(instance).subscribe([instance.token("paused")] * 150).publish(5).start()
    instance.kill("fanwired", signal.SIGSTOP)
    time.sleep(6)
    instance.kill("fanwired", signal.SIGCONT)
    time.sleep(5)
    assert not crowd.ended and not crowd.failed, (len(crowd.ended), crowd.ended[:3], crowd.failed[:3])
    assert len([c for c in instance.connections("paused") if c["state"] == "active"]) == 150


def test_a_revocation_is_over_when_it_is_answered_and_every_port_comes_back(make_instance, make_crowd):
    """No scope is left when the administrator hears of it, and no port rests longer than its quarantine."""
    instance = make_instance(ports=300, config={"times.quarantine": 1, "scope.vouched": '[ "198.18.0.0/24" ]',
                                                "limits.max_connections_per_user": 500}).up()
    crowd = make_crowd(instance).subscribe([instance.token("revoked")] * 400).start()
    assert instance.status()["ports"]["used"] == 400
    status, answer = instance.api("POST", "/v1/revocations", {"user": "revoked"})
    assert (status, answer["connections_ended"]) == (200, 400)
    assert instance.status()["ports"]["used"] == 0, "answered before the agent had taken all out of the kernel"
    assert wait_for(lambda: len(crowd.ended) == 400, timeout=5)
    assert wait_for(lambda: instance.status()["ports"]["resting"] == 0, timeout=5), instance.status()["ports"]
