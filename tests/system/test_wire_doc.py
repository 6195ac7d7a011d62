# SPDX-License-Identifier: BSD-3-Clause
"""docs/wire-format.md alone is enough: its vectors, against the Python that was written from it."""
import re

import wire
from instance import ROOT


def vectors():
    page = (ROOT / "docs/wire-format.md").read_text()
    for name, body in re.findall(r"```vector (\S+)\n(.*?)```", page, re.S):
        pairs = (line.split("=", 1) for line in body.strip().splitlines())
        yield name, {key.strip(): bytes.fromhex(value.strip()) for key, value in pairs}


def test_the_pages_vectors():
    seen = set()
    for name, vector in vectors():
        seen.add(name)
        number = {key: int.from_bytes(value, "big") for key, value in vector.items()}
        if name.startswith("handle"):
            assert wire.handle(vector["name"]) == vector["handle"]
        elif name == "thread":
            assert wire.thread_channel(vector["name"]) == number["channel"]
        elif name == "siphash":
            assert wire.siphash(vector["key"], vector["message"]) == vector["tag"]
        elif name in ("delivery", "challenge", "status", "lost", "sealed-delivery", "replayed-delivery"):
            decoded = wire.Delivery.decode(vector["packet"])
            assert decoded.tagged(vector["tag_key"]) == vector["packet"]
            assert (decoded.epoch, decoded.sequence) == (number["epoch"], number["sequence"])
            if "user_key" in vector:
                assert wire.unseal(vector["user_key"], vector["packet"]) == vector["plaintext"]
            if name == "challenge":
                challenge = decoded
        elif name == "replay":
            assert wire.replay(vector["key"], vector["handle"], number["connection"], number["channel"],
                               number["epoch"], number["first"], number["last"], number["counter"]) == vector["packet"]
        elif name == "echo":
            assert wire.echo(challenge) == vector["packet"]
        elif name == "publish":
            assert wire.publish(vector["session_key"], number["session"], number["publisher_sequence"], vector["handle"],
                                number["channel"], vector["plaintext"], number["kind"]) == vector["packet"]
        elif name == "ack":
            cumulative, results = wire.open_ack(vector["session_key"], number["session"], vector["packet"])
            assert cumulative == int.from_bytes(vector["body"][:8], "big") and len(results) == number["count"]
    assert {"thread", "siphash", "delivery", "challenge", "status", "lost", "sealed-delivery", "replayed-delivery",
            "replay", "echo", "publish", "ack"} <= seen
