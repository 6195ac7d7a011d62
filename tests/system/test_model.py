# SPDX-License-Identifier: BSD-3-Clause
"""Seeded random operations on a running instance beside a model of a few lines: who is connected gets each event, once,
in order, and nobody else gets any. FANWIRE_SEED and FANWIRE_OPS replay and lengthen it; a failure prints the operations."""
import os
import random

import peer
from instance import wait_for

USERS = ["ann", "ben", "cas"]
WEIGHTS = {"publish": 10, "subscribe": 6, "leave": 3, "revoke": 1, "kill_dataplane": 1, "kill_fanwired": 1}
LIVE_MAX = 6


class Model:
    """Beside each subscriber the numbers of the events that are his."""

    def __init__(self, instance):
        self.instance, self.publisher = instance, instance.publisher()
        self.live, self.gone, self.count = {}, [], 0

    def subscribe(self, user):
        if len(self.live) == LIVE_MAX:
            return
        try:
            self.live[self.instance.subscribe(user)] = (user, [])
        except peer.Refused as refused:  # right after his revocation: a token of that very second
            assert refused.answer.get("error"), refused.answer

    def publish(self, user):
        mine = [numbers for whose, numbers in self.live.values() if whose == user]
        result = self.publisher.publish(user, str(self.count), timeout=20)
        assert result.sent == len(mine), f"event {self.count}: sent to {result.sent}, {user} has {len(mine)} connections"
        for numbers in mine:
            numbers.append(self.count)
        self.count += 1

    def end(self, subscriber):
        self.gone.append((subscriber, *self.live.pop(subscriber)))

    def leave(self, user):
        mine = [subscriber for subscriber, (whose, _) in self.live.items() if whose == user]
        if mine:
            mine[0].wait_events(len(self.live[mine[0]][1]))
            self.end(mine[0])
            mine[0].close()
            left = len([1 for whose, _ in self.live.values() if whose == user])
            assert wait_for(lambda: len(self.instance.connections(user)) == left)

    def revoke(self, user):
        mine = [subscriber for subscriber, (whose, _) in self.live.items() if whose == user]
        for subscriber in mine:
            subscriber.wait_events(len(self.live[subscriber][1]))
        self.instance.api("POST", "/v1/revocations", {"user": user})
        for subscriber in mine:
            assert subscriber.wait_ended(), "a revoked subscriber is not told"
            self.end(subscriber)
        assert wait_for(lambda: not self.instance.connections(user))

    def kill_dataplane(self, _):
        self.instance.restart("dataplane")

    def kill_fanwired(self, _):
        self.instance.kill("fanwired")
        assert all(subscriber.wait_broken() for subscriber in self.live)
        self.instance.start("fanwired")
        self.instance.wait()
        for subscriber in self.live:
            assert subscriber.attach()["state"] == "active"
        self.publisher.attach()

    def check(self):
        for subscriber, (user, numbers) in self.live.items():
            self.judge(subscriber, user, numbers)
        for gone in self.gone:
            self.judge(*gone)

    @staticmethod
    def judge(subscriber, user, numbers):
        got = [int(event.payload) for event in subscriber.wait_events(len(numbers))]
        assert got == numbers and not subscriber.foreign, f"{user} got {got}, and {numbers} were his"


def test_random_operations_agree_with_the_model(make_instance):
    seed = int(os.environ.get("FANWIRE_SEED", random.SystemRandom().getrandbits(32)))
    draw, done = random.Random(seed), []
    model = Model(make_instance().up())
    try:
        for _ in range(int(os.environ.get("FANWIRE_OPS", "60"))):
            operation, user = draw.choices(list(WEIGHTS), WEIGHTS.values())[0], draw.choice(USERS)
            done.append(f"{operation} {user}")
            getattr(model, operation)(user)
        model.check()
    except Exception:
        print(f"FANWIRE_SEED={seed} FANWIRE_OPS={len(done)}:", "; ".join(done))
        raise
    assert model.count
