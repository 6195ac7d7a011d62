# SPDX-License-Identifier: BSD-3-Clause
"""A subscriber and a publisher in Python, written from docs/client-socket.md and docs/wire-format.md."""
import array
import json
import random
import select
import socket
import threading
import time

import wire


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(answer.get("message"))
        self.error = answer["error"]
        self.message = answer["message"]


class ClientSocket:
    """client.sock: one JSON object a packet, descriptors beside it."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.unasked = []

    def send(self, request, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.socket.sendmsg([data], ancillary)

    def receive(self):
        """(object, descriptors), or (None, []) at the end."""
        data, ancillary, _, _ = self.socket.recvmsg(16384, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return (json.loads(data) if data else None), list(fds)

    def ask(self, request, fds=()):
        self.send(request, fds)
        while True:
            answer, got = self.receive()
            if answer is None:
                raise ConnectionError("fanwired closed the connection")
            if "event" in answer:
                self.unasked.append(answer)
                continue
            if not answer["ok"]:
                raise Refused(answer)
            return answer, got

    def close(self):
        self.socket.close()


class Stream:
    """The order of one channel: what came early waits, what is missing is asked for, each place comes out once."""

    def __init__(self, epoch, sequence, resumed=False, unfinished=0, time_ns=0, left=None):
        """
        unfinished: what was begun before the cursor, from there on, and comes again. Up to told nothing is told.
        time_ns: the engine's clock; no other epoch began before. left: former epochs, and the cursor in each.
        """
        self.epoch, self.told = epoch, sequence
        self.time_ns, self.left, self.other, self.entered = time_ns, left or {}, None, time.monotonic()
        self.cursor = self.tail = min(unfinished - 1, sequence) if unfinished else sequence
        self.resumed = resumed
        self.held, self.gone = {}, set()
        self.ask_at, self.pause = 0, 0

    def may_enter(self, epoch, time_ns):
        """Whether a datagram of another epoch is of a later one, and not of an earlier one that somebody sent again."""
        return time_ns > self.time_ns and epoch not in self.left

    def behind(self):
        return self.cursor < self.tail

    def told_tail(self, sequence):
        if not self.behind() and sequence > self.cursor:
            self.ask_at, self.pause = time.monotonic() + random.uniform(0.002, 0.005), 0.02
        self.tail = max(self.tail, sequence)

    def following(self):
        """What comes next, in order: deliveries, and numbers of sequences that are lost."""
        while self.behind():
            number = self.cursor + 1
            if number in self.held:
                out = self.held.pop(number)
            elif number in self.gone:
                self.gone.discard(number)
                out = number
            else:
                return
            self.cursor, self.pause = number, 0.02
            yield out

    def missing(self, most=256):
        """Ranges to ask for; nothing while an answer may be on its way."""
        now = time.monotonic()
        if not self.behind() or now < self.ask_at:
            return []
        self.ask_at, self.pause = now + self.pause * random.uniform(0.5, 1.5), min(self.pause * 2, 1)
        ranges = []
        for number in range(self.cursor + 1, min(self.tail, self.cursor + most) + 1):
            if number in self.held or number in self.gone:
                continue
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        return ranges[:8]


class Subscriber:
    """
    One registration. A thread answers challenges, opens seals and collects what comes. With repair it keeps the order
    of each channel and asks for what is missing (cursors: channel -> what cursor() gave, to go on from); else events are
    taken as the network brings them.
    """

    def __init__(self, path, token, family=None, start=True, repair=False, cursors=None, **request):
        self.path = path
        self.token = token
        if family is not None:
            request["family"] = family
        self.client = ClientSocket(path)
        self.answer, fds = self.client.ask({"op": "subscribe", "token": token, **request})
        assert len(fds) == 1, "subscribe gives one descriptor"
        self.udp = socket.socket(fileno=fds[0])
        self.udp.setblocking(False)
        self.id = self.answer["connection"]
        self.address, self.port = self.answer["address"], self.answer["port"]
        self.engine = (self.answer["engine_address"], self.answer["engine_port"])
        self.handle = wire.handle(self.answer["user"])
        self.keys, self.unopened = {}, []
        self.repair, self.cursors, self.streams, self.lost = repair, cursors or {}, {}, []
        self.counter = time.time_ns()
        self.asked, self.renew_at = time.monotonic(), float("inf")
        self.take_keys(self.answer)
        self.packets, self.events, self.foreign, self.malformed = [], [], [], []
        self.ended = None
        self.broken = False
        self.active = threading.Event()
        self.changed = threading.Condition()
        self.partial = {}
        self.stop = False
        self.answer_challenges = True
        self.loses = lambda packet: False  # what the network would lose; after the registration
        self.thread = None
        if start:
            self.start()

    def take_keys(self, message):
        if message.get("keys"):
            self.keys = {entry["generation"]: bytes.fromhex(entry["key"]) for entry in message["keys"]}

    def take_tails(self, message):
        """Of the first message that has them a stream begins there, or where the cursor says."""
        for tail in message.get("tails", []) if self.repair else []:
            channel, epoch = int(tail["channel"], 16), int(tail["epoch"], 16)
            if channel not in self.streams:
                before, at, unfinished = self.cursors.get(channel, (None, None, 0))
                if before is not None and (before != epoch or at > tail["sequence"]):
                    self.lost.append((channel, before, at + 1, None))
                    self.streams[channel] = Stream(epoch, tail["sequence"] if before == epoch else 0, True)
                else:
                    self.streams[channel] = Stream(epoch, tail["sequence"] if at is None else at, at is not None,
                                                   unfinished)
                self.streams[channel].time_ns = message["time_ns"]
            if epoch:
                self.on_answer(channel, epoch, tail["sequence"], message["time_ns"])

    def on_answer(self, channel, epoch, sequence, time_ns):
        """fanwired's word overrules what the network brought, once two answers have named another epoch."""
        stream = self.streams[channel]
        if stream.epoch != epoch:
            if self.asked < stream.entered:  # perhaps read before this epoch began
                self.hasten()
                return
            named, stream.other = stream.other == epoch or not stream.epoch, epoch
            if not named:
                self.hasten()
                return
            stream = self.enter(channel, epoch, time_ns)
        stream.other = None
        stream.time_ns = max(stream.time_ns, time_ns)
        stream.told_tail(sequence)

    def hasten(self):
        self.renew_at = min(self.renew_at, self.asked + 2)

    def cursor(self, channel):
        """(epoch, sequence, unfinished): up to where all is told, and from where on fragments wait for their rest."""
        stream = self.streams[channel]
        begun = [parts[0].sequence for (of, epoch, _), parts in self.partial.items()
                 if of == channel and epoch == stream.epoch]
        return stream.epoch, max(stream.cursor, stream.told), min(begun, default=0)

    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def wait_active(self, timeout=10):
        assert self.active.wait(timeout), f"not active within {timeout} s (ended: {self.ended})"
        return self

    def run(self):
        for message in self.client.unasked:
            self.on_message(message)
        self.renew_at = time.monotonic() + self.answer["lease_seconds"] / 3
        while not self.stop:
            waiting = [self.udp] if self.broken else [self.udp, self.client.socket]
            try:
                ready, _, _ = select.select(waiting, [], [], 0.005 if self.repair else 0.05)
            except (OSError, ValueError):
                return
            if self.client.socket in ready:
                self.on_client()
            if self.udp in ready:
                self.on_datagrams()
            self.ask_for_missing()
            if not self.broken and not self.ended and time.monotonic() > self.renew_at:
                self.asked = time.monotonic()
                self.renew_at = self.asked + self.answer["lease_seconds"] / 3
                self.client.send({"op": "renew"})

    def on_client(self):
        try:
            message, _ = self.client.receive()
        except OSError:
            message = None
        if message is None:
            self.broken = True
        else:
            self.on_message(message)

    def on_message(self, message):
        with self.changed:
            self.take_keys(message)
            self.take_tails(message)
            if message.get("event") == "active":
                self.active.set()
            if message.get("event") == "ended":
                self.ended = message
            self.changed.notify_all()

    def on_datagrams(self):
        while True:
            try:
                packet = self.udp.recv(65536)
            except (BlockingIOError, ConnectionError, OSError):
                return
            if not self.loses(packet):
                self.on_datagram(packet)

    def on_datagram(self, packet):
        try:
            delivery = wire.Delivery.decode(packet)
        except wire.Malformed as bad:
            self.malformed.append((str(bad), packet))
            return
        if delivery.handle != self.handle:
            self.foreign.append(delivery)
            return
        if delivery.type == wire.CHALLENGE and self.answer_challenges:
            self.udp.sendto(wire.echo(delivery), self.engine)
        with self.changed:
            if delivery.type == wire.DELIVERY:
                delivery.arrived_ns = time.time_ns()
                if self.unseal(delivery, packet):
                    self.packets.append(packet)
                    self.take(delivery)
            if delivery.type == wire.STATUS and self.repair:
                self.on_status(delivery)
            if delivery.type == wire.LOST and self.repair:
                self.on_lost(delivery)
            self.changed.notify_all()

    def unseal(self, delivery, packet):
        """What does not open has not come."""
        if not self.answer.get("seal"):
            return True
        while delivery.key_generation not in self.keys and not self.broken:
            if not select.select([self.client.socket], [], [], 0)[0]:
                break
            self.on_client()  # what was told before it may stand in front: that the key before last is retired
        try:
            delivery.payload = wire.unseal(self.keys[delivery.key_generation], packet)
        except (KeyError, wire.Malformed):
            self.unopened.append(packet)
            return False
        return True

    def enter(self, channel, epoch, time_ns):
        """Begins the stream of another epoch. The one before it is over, and its rest lost."""
        before = self.streams[channel]
        left = dict(before.left)
        if before.epoch:
            self.lost.append((channel, before.epoch, max(before.cursor, before.told) + 1, None))
            left[before.epoch] = before.cursor
        self.streams[channel] = Stream(epoch, left.get(epoch, 0), time_ns=time_ns, left=left)
        return self.streams[channel]

    def stream_of(self, delivery):
        """The stream that it belongs to; None where its epoch is not the present one, nor a later one."""
        stream = self.streams.get(delivery.channel)
        if stream is None or not delivery.epoch:
            return None
        if stream.epoch != delivery.epoch:
            if not stream.may_enter(delivery.epoch, delivery.time_ns):
                self.hasten()
                return None
            stream = self.enter(delivery.channel, delivery.epoch, delivery.time_ns)
        stream.time_ns = max(stream.time_ns, delivery.time_ns)
        return stream

    def on_status(self, delivery):
        stream = self.stream_of(delivery)
        if stream:
            stream.told_tail(delivery.sequence)

    def on_lost(self, delivery):
        stream = self.streams.get(delivery.channel)
        if stream and stream.epoch == delivery.epoch:
            first, last = delivery.sequence, delivery.publisher_sequence
            stream.told_tail(last)
            stream.gone.update(n for n in range(max(first, stream.cursor + 1), last + 1) if n not in stream.held)
            self.follow(stream, delivery.channel)

    def follow(self, stream, channel):
        for out in stream.following():
            if isinstance(out, int):
                if out > stream.told:
                    self.lost.append((channel, stream.epoch, out, out))
            else:
                self.assemble(out, stream.told)

    def take(self, delivery):
        known = self.repair and delivery.channel in self.streams
        stream = self.stream_of(delivery) if known else None
        if not known:
            self.assemble(delivery)
        elif stream and delivery.sequence > stream.cursor:
            stream.told_tail(delivery.sequence)
            stream.held[delivery.sequence] = delivery
            self.follow(stream, delivery.channel)

    def ask_for_missing(self):
        if not self.repair or self.ended:
            return
        key, connection = bytes.fromhex(self.answer["replay_key"]), int(self.id, 16)
        for channel, stream in list(self.streams.items()):
            for first, last in stream.missing():
                self.counter += 1
                self.udp.sendto(wire.replay(key, self.handle, connection, channel, stream.epoch, first, last,
                                            self.counter), self.engine)

    def assemble(self, delivery, told=0):
        key = (delivery.channel, delivery.epoch, delivery.session)
        if delivery.flags & wire.BEGIN:
            self.partial[key] = [delivery]
        elif key in self.partial and self.partial[key][-1].publisher_sequence + 1 == delivery.publisher_sequence:
            self.partial[key].append(delivery)
        else:
            self.partial.pop(key, None)
            return
        if delivery.flags & wire.END:
            parts = self.partial.pop(key)
            delivery.payload = b"".join(part.payload for part in parts)
            if delivery.sequence > told:
                self.events.append(delivery)

    def wait_events(self, count, timeout=10):
        """Waits until `count` events are there; the caller judges what they are."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) >= count, timeout)
            return list(self.events)

    def wait_ended(self, timeout=10):
        with self.changed:
            self.changed.wait_for(lambda: self.ended, timeout)
        return self.ended

    def wait_broken(self, timeout=10):
        deadline = time.monotonic() + timeout
        while not self.broken and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.broken

    def attach(self, token=None):
        """After a restart of fanwired: connects again and sends the descriptor back."""
        client = ClientSocket(self.path)
        asked = time.monotonic()
        answer, _ = client.ask(
            {"op": "attach", "connection": self.id, "token": token or self.token}, [self.udp.fileno()])
        with self.changed:
            self.asked = asked
            self.answer["seal"] = answer["seal"]
            self.take_keys(answer)
            self.take_tails(answer)
        self.client.close()
        self.client, self.broken = client, False
        return answer

    def close(self):
        self.stop = True
        if self.thread:
            self.thread.join()
        self.client.close()
        self.udp.close()


class Publisher:
    """One session; publish() waits for its result and retransmits meanwhile."""

    def __init__(self, path, **credential):
        self.path, self.credential = path, credential
        self.client = ClientSocket(path)
        self.answer, fds = self.client.ask({"op": "publish_open", **credential})
        assert len(fds) == 1, "publish_open gives one descriptor"
        self.udp = socket.socket(fileno=fds[0])
        self.session = int(self.answer["session"], 16)
        self.key = bytes.fromhex(self.answer["key"])
        self.engine = (self.answer["engine_address"], self.answer["engine_port"])
        self.limit = self.answer["payload_limit"]
        self.number = 0
        self.cumulative = 0
        self.results = {}
        self.refused_acks = 0

    def attach(self):
        """After a restart of fanwired: connects again, proves itself again, sends the descriptor back."""
        client = ClientSocket(self.path)
        answer, _ = client.ask({"op": "publish_attach", "session": self.answer["session"], **self.credential},
                               [self.udp.fileno()])
        self.client.close()
        self.client = client
        return answer

    def seal(self, user, payload, channel=wire.ALL, kind=0, flags=wire.BEGIN | wire.END, number=None):
        if number is None:
            self.number += 1
            number = self.number
        user_handle = user if isinstance(user, bytes) and len(user) == 16 else wire.handle(user)
        return wire.publish(self.key, self.session, number, user_handle, channel, wire.as_bytes(payload), kind, flags)

    def send(self, packet):
        self.udp.sendto(packet, self.engine)

    def receive(self, timeout):
        """Takes in acknowledgements for at most `timeout` seconds; False if none came."""
        ready, _, _ = select.select([self.udp], [], [], timeout)
        if not ready:
            return False
        try:
            cumulative, results = wire.open_ack(self.key, self.session, self.udp.recv(65536))
        except wire.Malformed:
            self.refused_acks += 1
            return True
        self.cumulative = max(self.cumulative, cumulative)
        for result in results:
            self.results.setdefault(result.number, result)
        return True

    def wait(self, packets, timeout=10):
        """`packets`: number -> datagram. Sends, retransmits, and returns the results in order."""
        deadline = time.monotonic() + timeout
        for packet in packets.values():
            self.send(packet)
        pause = 0.02
        while any(number not in self.results for number in packets):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not acknowledged within {timeout} s")
            if self.receive(pause):
                continue
            pause = min(pause * 2, 1)
            for number, packet in packets.items():
                if number not in self.results:
                    self.send(packet)
        return [self.results[number] for number in packets]

    def publish(self, user, payload, timeout=10, **how):
        payload = wire.as_bytes(payload)
        parts = [payload[i : i + self.limit] for i in range(0, len(payload), self.limit)] or [b""]
        results = []
        for first in range(0, len(parts), 200):
            packets = {}
            for i in range(first, min(first + 200, len(parts))):
                flags = (wire.BEGIN if i == 0 else 0) | (wire.END if i == len(parts) - 1 else 0)
                packet = self.seal(user, parts[i], flags=how.get("flags", flags),
                                   **{k: v for k, v in how.items() if k != "flags"})
                packets[self.number] = packet
            results += self.wait(packets, timeout)
        last = results[-1]
        one_stream = len({result.epoch for result in results}) == 1
        last.sent = min(result.sent for result in results) if one_stream else 0
        return last

    def close(self):
        self.client.close()
        self.udp.close()
