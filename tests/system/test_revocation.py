# SPDX-License-Identifier: BSD-3-Clause
"""
Revocation ends keys, sockets and packets in flight. How long that takes: from the call to the kernel's time stamp of the
last event that an old socket accepted, with a publisher at full speed. docs/security.md states the figure.
"""
import multiprocessing
import socket
import struct
import time

import peer
import wire

SO_TIMESTAMPNS = 35


class Flood(multiprocessing.get_context("fork").Process):
    """Publishes to whoever is the target, as fast as it can. A process: nothing here holds it up."""

    def __init__(self, instance):
        super().__init__(daemon=True)
        self.publisher, self.user = instance.publisher(), multiprocessing.Array("c", 64)
        self.user.value = b"nobody"
        self.start()

    def run(self):
        while True:
            packets = {}
            for _ in range(16):
                packet = self.publisher.seal(self.user.value.decode(), "x" * 64)
                packets[self.publisher.number] = packet
            self.publisher.wait(packets)


def quiet_subscriber(instance, user):
    """A registration whose socket nobody reads from now on, with the kernel's time stamps."""
    subscriber = instance.subscribe(user)
    subscriber.stop = True
    subscriber.thread.join()
    subscriber.udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return subscriber


def accepted_at(subscriber):
    """Time stamps (CLOCK_REALTIME, ns) of the deliveries in its queue."""
    stamps = []
    while True:
        try:
            packet, ancillary, _, _ = subscriber.udp.recvmsg(65536, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return stamps
        assert wire.Delivery.decode(packet).handle == subscriber.handle
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, ns = struct.unpack("qq", content)
                stamps.append(seconds * 10**9 + ns)


def revoke(instance, floods, user):
    """(ms from the call to the last accepted event, ms from the call to the answer)"""
    old = [quiet_subscriber(instance, user) for _ in range(3)]
    for flood in floods:
        flood.user.value = user.encode()
    time.sleep(0.15)
    called = time.time_ns()
    status, answer = instance.api("POST", "/v1/revocations", {"user": user})
    answered = time.time_ns()
    assert status == 200 and answer["connections_ended"] == 3, answer
    # a new socket of the same user gets events again, while the old ones get nothing
    new = instance.subscribe(user)
    new.wait_events(20)
    stamps = [accepted_at(subscriber) for subscriber in old]
    for flood in floods:
        flood.user.value = b"nobody"
    assert all(stamps), "the flood did not reach every old socket"
    last = max(max(each) for each in stamps)
    assert last > called - 100 * 10**6, "the flood had stopped before the call"
    assert last <= answered, f"an old socket accepted an event {(last - answered) / 1e6:.3f} ms after the answer"
    new.close()
    return max(0, last - called) / 1e6, (answered - called) / 1e6


def test_nothing_is_accepted_once_a_revocation_is_answered(instance):
    """30 revocations under full traffic: from the call to the last accepted event, and never after the answer."""
    floods = [Flood(instance) for _ in range(2)]
    times = sorted(revoke(instance, floods, f"revoked-{i}") for i in range(30))
    for flood in floods:
        assert flood.is_alive(), "a publisher failed"
        flood.kill()
        flood.join()
    last = [time for time, _ in times]
    answers = sorted(answer for _, answer in times)
    print(f"last accepted after the call, ms: median {last[15]:.2f}, 90 % {last[27]:.2f}, most {last[-1]:.2f}; "
          f"answered: median {answers[15]:.2f}, most {answers[-1]:.2f}")
    assert last[-1] < 500


def test_old_keys_and_tokens_end_with_it(instance):
    """The user's keys are others afterwards: user key, replay key; the old token subscribes nobody."""
    token = instance.token("mallory")
    before = instance.subscribe("mallory", token=token)
    instance.api("POST", "/v1/revocations", {"user": "mallory"})
    assert before.wait_ended()["reason"] == "revoked"
    try:
        peer.Subscriber(instance.client_socket, token, start=False)
        raise AssertionError("a revoked token subscribed")
    except peer.Refused as refused:
        assert refused.error == "token_invalid"
    after = instance.subscribe("mallory", connection=before.id)
    assert after.answer["keys"][0]["key"] != before.answer["keys"][0]["key"]
    assert after.answer["replay_key"] != before.answer["replay_key"]
