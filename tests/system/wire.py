# SPDX-License-Identifier: BSD-3-Clause
"""Fanwire's wire format in Python, written from docs/wire-format.md alone: it proves that page."""
import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
PUBLISH, ACK, ECHO, REPLAY, DELIVERY, CHALLENGE, STATUS, LOST = 0x01, 0x02, 0x03, 0x04, 0x10, 0x11, 0x12, 0x13
BEGIN, END, REPLAYED = 1, 2, 4
ALL = 0
TO_THE_TAIL = (1 << 64) - 1
ID_MASK = (1 << 62) - 1
RESULT_STATUS = ("ok", "no_group", "scope", "too_large", "interrupted", "expired", "channel", "unattended")

HEADER = struct.Struct(">BBBBHH16sQQQQIQQ16s8s")
assert HEADER.size == 100


def handle(user):
    return hashlib.blake2b(as_bytes(user), digest_size=16).digest()


def thread_channel(name):
    digest = hashlib.blake2b(b"fanwire thread\0" + as_bytes(name), digest_size=16).digest()
    return (1 << 62) | (int.from_bytes(digest[:8], "big") >> 2)


def single_channel(connection):
    return (2 << 62) | connection


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def siphash(key, message):
    """SipHash-2-4, 8 bytes in the order that the algorithm puts them out."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, bits):
        return ((x << bits) | (x >> (64 - bits))) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


class Malformed(ValueError):
    pass


@dataclass
class Delivery:
    type: int
    flags: int
    key_generation: int
    kind: int
    handle: bytes
    channel: int
    epoch: int
    sequence: int
    time_ns: int
    user_generation: int
    session: int
    publisher_sequence: int
    seal_tag: bytes
    filter_tag: bytes
    payload: bytes

    @classmethod
    def decode(cls, packet):
        if len(packet) < 2:
            raise Malformed("short")
        if packet[0] != VERSION:
            raise Malformed("version")
        if packet[1] not in (DELIVERY, CHALLENGE, STATUS, LOST):
            raise Malformed("type")
        if len(packet) < HEADER.size:
            raise Malformed("short")
        _, kind_of, flags, key, length, *rest = HEADER.unpack_from(packet)
        if flags & ~7:
            raise Malformed("flags")
        if length > 8832:
            raise Malformed("length")
        if len(packet) != HEADER.size + length:
            raise Malformed("short" if len(packet) < HEADER.size + length else "long")
        return cls(kind_of, flags, key, *rest, packet[HEADER.size:])

    def encode(self):
        return HEADER.pack(
            VERSION, self.type, self.flags, self.key_generation, len(self.payload), self.kind, self.handle,
            self.channel, self.epoch, self.sequence, self.time_ns, self.user_generation, self.session,
            self.publisher_sequence, self.seal_tag, self.filter_tag) + self.payload

    def tagged(self, key):
        """The packet with the filter tag that belongs to it under `key`."""
        packet = self.encode()
        return packet[:92] + siphash(key, packet[:92]) + packet[100:]


def stream_key(user_key, channel, epoch):
    return hashlib.blake2b(b"fanwire stream 1" + struct.pack(">QQ", channel, epoch), key=user_key, digest_size=32).digest()


def unseal(user_key, packet):
    """The payload of a sealed delivery; Malformed if it does not open."""
    header = bytearray(packet[:76])
    header[2] &= ~REPLAYED
    channel, epoch, sequence = struct.unpack_from(">QQQ", packet, 24)
    try:
        return AESGCM(stream_key(user_key, channel, epoch)).decrypt(
            struct.pack(">IQ", 3, sequence), packet[100:] + packet[76:92], bytes(header))
    except InvalidTag as bad:
        raise Malformed("seal") from bad


def replay(key, user_handle, connection, channel, epoch, first, last, counter):
    """A request for first..last of a stream again."""
    body = struct.pack(">BB6x16sQQQQQQ", VERSION, REPLAY, user_handle, connection, channel, epoch, first, last, counter)
    return body + siphash(key, body)


def echo(challenge):
    return struct.pack(">BB6xQQQ8x", VERSION, ECHO, challenge.channel & ID_MASK, challenge.epoch, challenge.sequence)


def publish(key, session, number, user_handle, channel, payload, kind=0, flags=BEGIN | END):
    header = struct.pack(">BBBxHHQQ16sQ", VERSION, PUBLISH, flags, len(payload), kind, session, number, user_handle, channel)
    nonce = struct.pack(">IQ", 1, number)
    return header + AESGCM(key).encrypt(nonce, payload, header)


@dataclass
class Result:
    number: int
    epoch: int
    sequence: int
    attempted: int
    sent: int
    status: str


OVER_BUDGET = 0x01  # flag of an acknowledgement: four bytes behind it say for how many milliseconds


def open_ack(key, session, packet):
    """(cumulative, results) of an acknowledgement of this session; Malformed if it is not one."""
    if len(packet) < 24 or packet[0] != VERSION or packet[1] != ACK:
        raise Malformed("not an acknowledgement")
    count = packet[2]
    got_session, counter = struct.unpack_from(">QQ", packet, 8)
    if got_session != session or count > 28 or packet[3] & ~OVER_BUDGET or len(packet) != 24 + 8 + 40 * count + 16:
        raise Malformed("another session or length")
    try:
        body = AESGCM(key).decrypt(struct.pack(">IQ", 2, counter), packet[24:], packet[:24])
    except InvalidTag as bad:
        raise Malformed("tag") from bad
    results = []
    for i in range(count):
        number, epoch, sequence, attempted, sent, status = struct.unpack_from(">QQQIIH", body, 8 + 40 * i)
        results.append(Result(number, epoch, sequence, attempted, sent, RESULT_STATUS[status]))
    return struct.unpack_from(">Q", body)[0], results
