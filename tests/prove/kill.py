#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 of each process at random moments under traffic: fanwired, the dataplane, a subscriber, a publisher.

Subscribers and publishers write down what they know before they go on (actor.c), so that what the dead ones knew is
known: their successors go on from there, with the last place as cursor. Judged at the end, from their files alone:
nothing of another user; each event once, in its publisher's order, in its stream's order, byte for byte; each event that
was acknowledged is there, for the log holds all of it here; nothing is told as lost but what was left of an event that a
death cut; each registration that was acknowledged lives until its process is killed.

Half of the kills are of an instance of one worker, half of one of two. Many are parted into rounds: each has users and
files of its own, and is judged at its end.
"""
import collections
import os
import random
import struct
import subprocess
import sys
import time

import live

USERS, SUBSCRIBERS, PUBLISHERS = 3, 2, 2  # subscribers and publishers of each user
LINE = struct.Struct("iiIIQQQQQ")
BEGUN, ANSWERED, GOT, LOST, STARTED, ENDED, ACTIVE = range(1, 8)
FRAGMENTS = 6  # of the longest event: content.h
KINDS = ("fanwired", "dataplane", "subscriber", "publisher")
ALIVE_AGAIN_S = 20
ROUND = 100  # kills of each kind
LONGEST_S = 0.25  # between one is up again and the next is killed


class Actor:
    """A process, its file, and its successors."""

    def __init__(self, instance, kind, user, number):
        self.instance, self.kind, self.user, self.number = instance, kind, user, number
        self.name = f"{kind}-{user}-{number}"
        self.file = instance.dir / f"actor-{self.name}"
        self.log = open(f"{self.file}.log", "ab")
        self.token = instance.token(f"user-{user}", ttl=86400)
        self.credential = instance.credential() if kind == "publisher" else None
        self.process = None
        self.asked = 0

    def start(self):
        words = [f"{live.BUILD}/tests/prove/actor", "publish" if self.kind == "publisher" else "subscribe",
                 self.instance.client_socket, self.file]
        if self.kind == "publisher":
            words += [f"user-{self.user}", self.user, self.number, self.credential["name"], self.credential["secret"]]
        else:
            words += [self.user, 1000 * self.user + self.number + 1, self.token]
        self.process = subprocess.Popen([str(word) for word in words], stdout=self.log, stderr=self.log)

    def keep_alive(self):
        """A successor, where it has left by itself: fanwired or its session was away."""
        if self.process.poll() is not None:
            self.start()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def lines(self):
        data = self.file.read_bytes() if self.file.exists() else b""
        return [LINE.unpack_from(data, at) for at in range(0, len(data) - len(data) % LINE.size, LINE.size)]

    def count(self, kind):
        return sum(line[0] == kind for line in self.lines())

    def leave(self, timeout=30):
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def kill_one(instance, actors, kind, chance):
    if kind in ("fanwired", "dataplane"):
        instance.restart(kind)
    else:
        chance.choice([actor for actor in actors if actor.kind == kind]).kill()


def settle(actors, chance):
    """Traffic for a while; who left is replaced."""
    until = time.monotonic() + chance.uniform(0.01, LONGEST_S)
    while time.monotonic() < until:
        for actor in actors:
            actor.keep_alive()
        time.sleep(0.02)


def flows_again(actors, sizes):
    """Each actor's file has grown since."""
    for actor in actors:
        actor.keep_alive()
    return all(actor.file.exists() and actor.file.stat().st_size > sizes.get(actor.name, 0) + LINE.size for actor in actors)


def run(instance, chance, users, kills, part):
    actors = [Actor(instance, "subscriber", user, n) for user in users for n in range(SUBSCRIBERS)]
    actors += [Actor(instance, "publisher", user, n) for user in users for n in range(PUBLISHERS)]
    for actor in actors[: USERS * SUBSCRIBERS]:
        actor.start()
    ready = live.wait_for(lambda: all(a.count(ACTIVE) for a in actors[: USERS * SUBSCRIBERS]), 20)
    assert ready, "subscribers do not become active"
    for actor in actors[USERS * SUBSCRIBERS:]:
        actor.start()
    # whoever dies before anything came has no place to go on from
    assert live.wait_for(lambda: all(a.count(GOT) for a in actors[: USERS * SUBSCRIBERS]), 20), "no traffic"
    try:
        kinds = [kind for kind in KINDS for _ in range(kills)]
        chance.shuffle(kinds)
        for kind in kinds:
            settle(actors, chance)
            kill_one(instance, actors, kind, chance)
            part.tried()
        sizes = {actor.name: actor.file.stat().st_size for actor in actors if actor.file.exists()}
        if not live.wait_for(lambda: flows_again(actors, sizes), ALIVE_AGAIN_S):
            part.got_through("after the last kill not everybody goes on")
        for actor in actors[USERS * SUBSCRIBERS:]:
            actor.leave()
        wait_quiet(actors)
    finally:
        for actor in actors:
            actor.leave(5)
    return actors


def wait_quiet(actors):
    """Until the subscribers' files have not grown for a while: longer than any status and request takes."""
    subscribers = [actor for actor in actors if actor.kind == "subscriber"]
    last, since = None, time.monotonic()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and time.monotonic() - since < 4:
        now = [actor.file.stat().st_size for actor in subscribers]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.1)


def answered(actors, user):
    """(publisher, index) -> (epoch, sequence) of each event that was acknowledged as accepted for this user; and the others
    that were begun: their publisher died, or was told that the dataplane's death had interrupted them."""
    answers, begun = {}, set()
    for actor in actors:
        if actor.kind == "publisher" and actor.user == user:
            for kind, status, _, _, index, epoch, sequence, _, _ in actor.lines():
                if kind == BEGUN:
                    begun.add((actor.number, index))
                if kind == ANSWERED and status == 0 and epoch:
                    answers[actor.number, index] = (epoch, sequence)
    return answers, begun - answers.keys()


def judge_subscriber(part, actor, answers, others):
    place, newest, seen, lost, places = (0, 0), {}, set(), 0, set()
    for kind, status, publisher, _, index, epoch, sequence, last, _ in actor.lines():
        if kind == LOST:
            lost += min(last, sequence + 10**6) - sequence + 1
            places.update((epoch, at) for at in range(sequence, min(last, sequence + 10**6) + 1))
        if kind != GOT:
            continue
        if status < 0:
            part.got_through(f"{actor.name}: {'not exact' if status == -1 else 'another user'} at {epoch:x}:{sequence}")
            continue
        if (publisher, index) in seen:
            part.got_through(f"{actor.name}: event {publisher}:{index} twice, at {epoch:x}:{sequence}")
        if epoch == place[0] and sequence <= place[1]:
            part.got_through(f"{actor.name}: {epoch:x}:{sequence} after {place[1]}")
        if index < newest.get(publisher, -1):
            part.got_through(f"{actor.name}: event {publisher}:{index} after {newest[publisher]}")
        if (epoch, sequence) in places:
            part.got_through(f"{actor.name}: {epoch:x}:{sequence} after it was told as lost")
        place, newest[publisher] = (epoch, sequence), index
        seen.add((publisher, index))
    missing = [key for key in answers if key not in seen]
    if missing:
        told = sum(answers[key] in places for key in missing)
        part.got_through(f"{actor.name}: acknowledged events never came: {len(missing)} of {len(answers)}, {told} of them "
                         f"told as lost, first {sorted((key, answers[key]) for key in missing)[:3]}", len(missing))
    # the log holds everything: only what has no end can be lost, the fragments of events that a death cut
    cut = len(others - seen)
    if lost > cut * (FRAGMENTS - 1):
        part.got_through(f"{actor.name}: {lost} told as lost, though the log holds everything and {cut} events were cut", lost)
    return len(seen), lost


def judge(part, actors, users):
    counts = {"events": 0, "acknowledged": 0, "lost": 0, "ended": 0}
    for user in users:
        answers, others = answered(actors, user)
        counts["acknowledged"] += len(answers)
        for actor in actors:
            if actor.kind == "subscriber" and actor.user == user:
                got, lost = judge_subscriber(part, actor, answers, others)
                counts["events"] += got
                counts["lost"] += lost
                ended = actor.count(ENDED)
                part.expect(f"{actor.name}: an acknowledged registration ended by itself", ended)
                counts["ended"] += ended
    if counts["events"] < 100 or counts["acknowledged"] < 100:
        part.got_through(f"hardly any traffic: {counts}: that proves nothing")
    return counts


def rounds(kills):
    """(workers, first of each instance's rounds, kills of each kind) of each round."""
    for workers, share in ((1, kills // 2), (2, kills - kills // 2)):
        for done in range(0, share, ROUND):
            yield workers, done == 0, min(ROUND, share - done)


def start(how, workers):
    log_mb = 4 * ROUND  # of each
    return live.instance(ports=200, workers=workers, plant=how.plant, kind=live.InMemory,
                         config={"dataplane.log_mb": log_mb * workers, "dataplane.log_user_kb": log_mb * 512})


def judge_instance(part, one):
    """False: a failure, kept for whoever looks into it."""
    part.expect("copies to endpoints of another user", one.counters()["drop_endpoint_foreign"])
    if not part.closing["got_through"]:
        return True
    print(one.logs())
    keep(one)
    return False


def main():
    how = live.arguments(__doc__, kills=(int, 20, "of each kind of process"),
                         plant=(str, "", "a planted bug, to see it fail"))
    part = live.Part("kill", "kills", how.seed)
    chance, counts, one = random.Random(how.seed), collections.Counter(), None
    try:
        for number, (workers, is_first, kills) in enumerate(rounds(how.kills)):
            if is_first:
                if one:
                    one.down()
                one = start(how, workers)
            users = range(number * USERS, (number + 1) * USERS)
            actors = run(one, chance, users, kills, part)
            counts.update(judge(part, actors, users))
            if not judge_instance(part, one):
                break
            print(f"{part.closing['tried']} kills, {workers} workers: {dict(counts)}", flush=True)
            forget(actors)
    finally:
        if one:
            one.down()
    return part.close(**counts)


def forget(actors):
    for actor in actors:
        actor.log.close()
        actor.file.unlink()


def keep(instance):
    """What the actors knew, for whoever looks into a failure."""
    folder = f"{instance.dir}-actors"
    os.makedirs(folder, exist_ok=True)
    subprocess.run(f"cp {instance.dir}/actor-* {instance.dir}/fanwired.log {instance.dir}/dataplane.log {folder}/", shell=True, check=False)
    print(f"kept in {folder}")


if __name__ == "__main__":
    sys.exit(main())
