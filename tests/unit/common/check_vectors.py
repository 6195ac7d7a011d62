# SPDX-License-Identifier: BSD-3-Clause
"""Checks the vectors of docs/wire-format.md with an implementation of its own.

It shares no code with the C one: who writes a client from the page does what this file does.
Usage: check_vectors.py PAGE
"""
import hashlib
import re
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MASK = (1 << 64) - 1


def rotate(x, bits):
    return ((x << bits) | (x >> (64 - bits))) & MASK


def sip_round(v):
    v[0] = (v[0] + v[1]) & MASK
    v[1] = rotate(v[1], 13) ^ v[0]
    v[0] = rotate(v[0], 32)
    v[2] = (v[2] + v[3]) & MASK
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = (v[0] + v[3]) & MASK
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = (v[2] + v[1]) & MASK
    v[1] = rotate(v[1], 17) ^ v[2]
    v[2] = rotate(v[2], 32)


def siphash24(key, message):
    """SipHash-2-4, 8 bytes (Aumasson and Bernstein, 2012)."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
         k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    whole = len(message) // 8 * 8
    last = message[whole:].ljust(7, b"\0") + bytes([len(message) & 255])
    for off in range(0, whole + 8, 8):
        word, = struct.unpack("<Q", (message[:whole] + last)[off:off + 8])
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round(v)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


def blake2b(message, key=b"", length=16):
    return hashlib.blake2b(message, digest_size=length, key=key).digest()


def thread_channel(name):
    top, = struct.unpack(">Q", blake2b(b"fanwire thread\0" + name)[:8])
    return struct.pack(">Q", 1 << 62 | top >> 2)


def tag_key(v):
    root = blake2b(b"fanwire tag root 2" + v["key_generation"] + v["registry_epoch"], v["master"], 32)
    return blake2b(b"fanwire tag 2" + v["user_generation"] + v["handle"], root)


def proof(v):
    tag = siphash24(v["key"], v["connection"] + v["salt"] + v["address"] + v["port"])
    return tag[::-1]


def delivery(v):
    head = b"\x01" + v["type"] + v["flags"] + v["key_generation"]
    head += struct.pack(">H", len(v["payload"])) + v["kind"] + v["handle"] + v["channel"]
    head += v["epoch"] + v["sequence"] + v["time_ns"] + v["user_generation"] + v["session"]
    head += v["publisher_sequence"] + bytes(16)
    assert len(head) == 92
    return head + siphash24(v["tag_key"], head) + v["payload"]


def seal_root(v):
    return blake2b(b"fanwire seal root 1" + v["key_generation"] + v["registry_epoch"], v["master"], 32)


def user_key(v):
    return blake2b(b"fanwire seal 1" + v["user_generation"] + v["handle"], seal_root(v), 32)


def stream_key(v):
    return blake2b(b"fanwire stream 1" + v["channel"] + v["epoch"], v["user_key"], 32)


def sealed(v):
    """As for an unsealed one, but that ciphertext and its tag take the places of payload and zeros."""
    head = delivery({**v, "payload": v["plaintext"]})[:76]
    first = head[:2] + bytes([head[2] & ~4]) + head[3:]
    nonce = struct.pack(">I", 3) + v["sequence"]
    text = AESGCM(stream_key(v)).encrypt(nonce, v["plaintext"], first)
    head += text[-16:]
    return head + siphash24(v["tag_key"], head) + text[:-16]


def replay_key(v):
    root = blake2b(b"fanwire replay root 2" + v["registry_epoch"], v["master"], 32)
    return blake2b(b"fanwire replay 2" + v["connection"] + v["generation"] + v["user_generation"] + v["handle"], root)


def replay_request(v):
    body = b"\x01\x04" + bytes(6) + v["handle"] + v["connection"] + v["channel"] + v["epoch"]
    body += v["first"] + v["last"] + v["counter"]
    assert len(body) == 72
    return body + siphash24(v["key"], body)


def echo(v):
    return b"\x01\x03" + bytes(6) + v["connection"] + v["salt"] + v["proof"] + bytes(8)


def publish(v):
    head = b"\x01\x01" + v["flags"] + b"\0" + struct.pack(">H", len(v["plaintext"])) + v["kind"]
    head += v["session"] + v["publisher_sequence"] + v["handle"] + v["channel"]
    assert len(head) == 48
    nonce = struct.pack(">I", 1) + v["publisher_sequence"]
    return head + AESGCM(v["session_key"]).encrypt(nonce, v["plaintext"], head)


def ack_body(v):
    """Opens the packet, as a publisher does."""
    head, sealed = v["packet"][:24], v["packet"][24:]
    assert head == b"\x01\x02" + v["count"] + bytes(5) + v["session"] + v["counter"]
    nonce = struct.pack(">I", 2) + v["counter"]
    return AESGCM(v["session_key"]).decrypt(nonce, sealed, head)


# Name of the vector (without its number): the field that must come out, and how.
CHECKS = {
    "handle": ("handle", lambda v: blake2b(v["name"])),
    "thread": ("channel", lambda v: thread_channel(v["name"])),
    "tag-key": ("key", tag_key),
    "siphash": ("tag", lambda v: siphash24(v["key"], v["message"])),
    "proof": ("proof", proof),
    "user-key": ("key", user_key),
    "stream-key": ("key", stream_key),
    "delivery": ("packet", delivery),
    "sealed-delivery": ("packet", sealed),
    "replayed-delivery": ("packet", sealed),
    "lost": ("packet", delivery),
    "replay-key": ("key", replay_key),
    "replay": ("packet", replay_request),
    "challenge": ("packet", delivery),
    "status": ("packet", delivery),
    "echo": ("packet", echo),
    "publish": ("packet", publish),
    "ack": ("body", ack_body),
}


def vectors(page):
    for name, body in re.findall(r"^```vector (\S+)\n(.*?)^```", page, re.S | re.M):
        fields = (line.partition("=") for line in body.splitlines())
        yield name, {key.strip(): bytes.fromhex(value.strip()) for key, _, value in fields}


def main(path):
    with open(path, encoding="utf-8") as file:
        page = file.read()
    seen, failed = set(), 0
    for name, fields in vectors(page):
        kind = re.sub(r"-\d+$", "", name)
        wanted, compute = CHECKS[kind]
        got = compute(fields)
        seen.add(kind)
        if got != fields[wanted]:
            failed += 1
            print(f"{name}: {wanted} is {got.hex()}, the page has {fields[wanted].hex()}")
    for kind in CHECKS.keys() - seen:
        failed += 1
        print(f"{kind}: no such vector in {path}")
    print(f"{len(seen)} kinds of vectors checked, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
