#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Ten thousand users come and go on a few hundred ports, in crowds at times, while a forger sends what it captured to
whom it is not for: other users' packets, those of a port's former holder, and a holder's own with another handle or tag.

Three oracles that know nothing of each other: the subscribers (half of them look at every datagram that their socket
accepted), the filter's counters (each forged packet is among the dropped), and a capture beside sockets whose user was
revoked: what still arrives at the host, and what the socket accepts of it. Delivery is not sealed here: a seal would
make a leak unreadable, and hide it.
"""
import collections
import json
import random
import socket
import subprocess
import sys
import threading
import time

import live
from live import netns

sys.path.insert(0, str(live.ROOT / "tests/system"))
import wire  # noqa: E402

LIVE = 256
MARK = 4  # in the type of service of what the forger sends: a capture tells it from the engine's own
KEEP = 4000


def parse(frame):
    """(type of service, address, port, UDP payload) of an IPv4 UDP frame, else None."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    return frame[15], socket.inet_ntoa(frame[30:34]), int.from_bytes(frame[36:38], "big"), frame[42:]


class Capture:
    """What arrives in the receivers' namespace, before any filter."""

    def __init__(self, instance):
        self.instance = instance
        self.socket = instance.receiver_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((instance.receiver_if, 0))
        self.socket.settimeout(0.05)

    def read(self, most=256):
        for _ in range(most):
            try:
                got = parse(self.socket.recv(2048))
            except TimeoutError:
                return
            if got and self.instance.port_first <= got[2] <= self.instance.port_last and len(got[3]) >= wire.HEADER.size:
                yield got


class Forger(threading.Thread):
    """Sends from the engine's own address and port."""

    def __init__(self, instance, seed):
        super().__init__(daemon=True)
        self.capture, self.chance, self.stop = Capture(instance), random.Random(seed), threading.Event()
        self.out = instance.as_engine()
        self.out.setsockopt(socket.SOL_IP, socket.IP_TOS, MARK)
        self.kept = collections.deque(maxlen=KEEP)
        self.holder, self.former = {}, {}  # by (address, port): the handle and a packet of its
        self.sent = collections.Counter()

    def run(self):
        while not self.stop.is_set():
            for mark, address, port, packet in self.capture.read():
                if mark != MARK and packet[1] == wire.DELIVERY:
                    self.see((address, port), packet)
            for _ in range(24):
                self.forge()
        self.capture.socket.close()

    def see(self, place, packet):
        before = self.holder.get(place)
        if before and before[8:24] != packet[8:24]:
            self.former[place] = before
        self.holder[place] = packet
        self.kept.append((place, packet))

    def forge(self):
        if not self.kept:
            return
        place, own = self.chance.choice(self.kept)
        own = self.holder[place]
        kind = self.chance.choice(("another", "former", "handle", "tag", "generation"))
        if kind == "another":
            packet = self.chance.choice(self.kept)[1]
        elif kind == "former":
            packet = self.former.get(place, own)
        else:
            flipped = bytearray(own)
            first, last = {"handle": (8, 24), "tag": (92, 100), "generation": (56, 60)}[kind]
            flipped[self.chance.randrange(first, last)] ^= 1 << self.chance.randrange(8)
            packet = bytes(flipped)
        if packet[8:24] == own[8:24] and kind in ("another", "former"):
            return  # its own: no forgery
        self.out.sendto(packet, place)
        self.sent[kind] += 1


def dropped(instance):
    """Everything that says of a datagram for the reserved ports that no socket accepted it."""
    status = instance.status()
    with netns(instance.receiver_netns), open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
    no_port = int(values[names.index("NoPorts")])
    return sum(count for name, count in status["filter"].items() if name != "accepted") + status["guard"][
        "ingress_denied"] + no_port


def churn(instance, how, part):
    credential = instance.credential()
    lines = "".join(f"user-{i} {instance.token(f'user-{i}', ttl=86400)} {wire.handle(f'user-{i}').hex()}\n"
                    for i in range(how.users))
    before = dropped(instance)
    forger = Forger(instance, how.seed)
    forger.start()
    try:
        run = subprocess.run(
            [f"{live.BUILD}/tests/prove/churn", str(instance.client_socket), credential["name"], credential["secret"],
             str(LIVE), str(how.deliveries), str(how.seed)], input=lines, stdout=subprocess.PIPE, text=True)
    finally:
        forger.stop.set()
        forger.join()
    if run.returncode:
        raise SystemExit(f"leak: churn ended with {run.returncode}\n{instance.logs()}")
    got, forged = json.loads(run.stdout), sum(forger.sent.values())
    live.wait_for(lambda: dropped(instance) - before >= forged, 3)
    drops = dropped(instance) - before
    print(f"churn: {got}\nforged: {dict(forger.sent)}, dropped: {drops}, by reason: {instance.status()['filter']}", flush=True)
    part.tried(got["deliveries"])
    part.expect("subscribers got what is another's", got["foreign"])
    part.expect("subscribers got what nobody sent", got["damaged"])
    part.expect("forged packets that nothing dropped", max(0, forged - drops))
    part.expect("copies to endpoints of another user", instance.counters()["drop_endpoint_foreign"])
    if got["refused"] > got["comings"] // 100:
        part.got_through(f"{got['refused']} of {got['comings']} could not come: that proves little")
    if forged < how.users // 10 or min(forger.sent.values()) < 10:
        part.got_through(f"hardly anything was forged: {forger.sent}: that proves little")
    return got | {"forged": forged}


def revoke_one(instance, publisher, user, part):
    """Revoked between two events; its process keeps the socket, and everything of before comes once more."""
    subscriber = instance.subscribe(user, family=4)
    capture = Capture(instance)
    publisher.publish(user, f"before {user}")
    assert subscriber.wait_events(1)
    subscriber.stop = True
    subscriber.thread.join()
    status, answer = instance.api("POST", "/v1/revocations", {"user": user})
    assert status == 200, answer
    subscriber.udp.setblocking(False)
    held = 0
    while readable(subscriber.udp):  # what its queue already held counts as delivered
        held += 1
    mark = time.monotonic()
    for packet in subscriber.packets * 20:
        instance.as_engine().sendto(packet, (subscriber.address, subscriber.port))
    publisher.publish(user, f"after {user}")
    arrived = sum(1 for got in capture.read(100) if got[2] == subscriber.port and got[0] == MARK)
    accepted = 0
    while readable(subscriber.udp):
        accepted += 1
    capture.socket.close()
    part.expect(f"{user}: accepted after its revocation", accepted)
    if arrived < 20 * len(subscriber.packets):
        part.got_through(f"{user}: only {arrived} packets arrived in {time.monotonic() - mark:.1f} s: that proves nothing")
    subscriber.close()
    return arrived


def readable(udp):
    try:
        return bool(udp.recv(4096))
    except OSError:
        return False


def main():
    how = live.arguments(__doc__, users=(int, 10000, "users that come and go"),
                         deliveries=(int, 100000, "events that arrive, at least"),
                         revocations=(int, 40, "users revoked beside a capture"))
    part = live.Part("leak", "deliveries", how.seed)
    one = live.instance(ports=600, config={"scope.seal": "false", "times.quarantine": 1, "times.linger": 5})
    try:
        got = churn(one, how, part)
        publisher = one.publisher()
        arrived = sum(revoke_one(one, publisher, f"revoked-{i}", part) for i in range(how.revocations))
        print(f"revoked: {how.revocations}, {arrived} of their packets arrived afterwards", flush=True)
    finally:
        one.down()
    return part.close(foreign=got["foreign"], forged=got["forged"], users=got["users"], after_revocation=arrived)


if __name__ == "__main__":
    sys.exit(main())
