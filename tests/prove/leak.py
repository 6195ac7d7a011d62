#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Ten thousand users come and go on some hundred ports, in crowds at times, while a forger sends what it captured to
whom it is not for: other users' packets, those of a port's former holder, an ended socket's own, and a holder's own with
another handle, generation or tag.

Three oracles that know nothing of each other: the subscribers (three of four look at every datagram that their sockets
accepted), the filter's counters (each forged packet is among the dropped; and once the engine sends nothing more, none
may be among the accepted), and a capture beside every socket at all times: what arrives at the host for a socket that has
ended, by a close, a revocation or its client's death, or that was handed on to another user, and what that socket accepts
of it. Delivery is not sealed here: a seal would make a leak unreadable, and hide it.
"""
import json
import socket
import subprocess
import sys
import time

import live
from live import netns

MARK = 4  # in the type of service of what the forger sends: a capture tells it from the engine's own
PORTS = 1400
STILL = 2000  # packets that are forged while nothing else is sent
ENOUGH = 0.9  # of the sockets that ended or were handed on: so many must have been tried, or that proves little


def not_accepted(instance):
    """Everything that says of a datagram for the reserved ports that no socket accepted it; and what was accepted."""
    status = instance.status()
    with netns(instance.receiver_netns), open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
    no_port = int(values[names.index("NoPorts")])
    dropped = sum(count for name, count in status["filter"].items() if name != "accepted")
    return dropped + status["guard"]["ingress_denied"] + no_port, status["filter"]["accepted"]


class Watch:
    """The capture and the forger: a program, on sockets of both ends."""

    def __init__(self, instance, places, seed):
        capture = instance.receiver_socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        forger = instance.as_engine()
        forger.setsockopt(socket.SOL_IP, socket.IP_TOS, MARK)
        fds = capture.fileno(), forger.fileno()
        words = [f"{live.BUILD}/tests/prove/watch", *fds, instance.receiver_if, instance.receiver4, places,
                 instance.port_first, PORTS, seed]
        self.program = subprocess.Popen([str(word) for word in words], pass_fds=fds, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def forge(self, count):
        self.program.stdin.write(f"still {count}\n")
        self.program.stdin.flush()
        return int(self.program.stdout.readline())

    def close(self):
        text, _ = self.program.communicate(timeout=60)
        if self.program.returncode:
            raise SystemExit(f"leak: watch ended with {self.program.returncode}")
        return json.loads(text)


def stand_still(instance, watch, part):
    """Nothing is sent but what is forged: all of it is dropped, and nothing accepted."""
    watch.forge(0)
    before = settled(instance)
    forged = watch.forge(STILL)
    live.wait_for(lambda: not_accepted(instance)[0] - before[0] >= forged, 3)
    dropped, accepted = (after - b for after, b in zip(settled(instance), before))
    print(f"still: {forged} forged, {dropped} dropped, {accepted} accepted", flush=True)
    part.expect("accepted while nothing but forged packets was sent", accepted)
    part.expect("forged packets that nothing dropped, with nothing else sent", max(0, forged - dropped))
    if forged < STILL:
        part.got_through(f"only {forged} of {STILL} could be forged: that proves little")


def settled(instance):
    """Counters, once they stand: status messages follow a stream's last event for a while."""
    last = not_accepted(instance)
    for _ in range(50):
        time.sleep(0.3)
        now = not_accepted(instance)
        if now == last:
            break
        last = now
    return last


def hunt(instance, how, part):
    credential, places = instance.credential(), instance.dir / "places"
    places.touch()
    before = not_accepted(instance)[0]
    words = [f"{live.BUILD}/tests/prove/churn", instance.client_socket, instance.control_socket, credential["name"],
             credential["secret"], places, instance.port_first, PORTS, how.users, how.deliveries, how.revocations, how.seed]
    watch = Watch(instance, places, how.seed)
    churn = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if churn.stdout.readline() == "still\n":
            stand_still(instance, watch, part)
        text, _ = churn.communicate(timeout=120)
        if churn.returncode:
            raise SystemExit(f"leak: churn ended with {churn.returncode}\n{instance.logs()}")
        return json.loads(text), watch.close(), not_accepted(instance)[0] - before
    finally:
        for program in (churn, watch.program):
            program.kill()
            program.wait()


def judge(part, how, got, seen, dropped):
    forged = sum(seen["forged"].values())
    part.tried(got["deliveries"])
    part.expect("subscribers got what is another's", got["foreign"])
    part.expect("subscribers got what nobody sent", got["damaged"])
    part.expect("accepted by sockets that had ended", got["accepted_after"])
    part.expect("registrations whose end was never told", got["unconfirmed"])
    part.expect("sent by the engine to a port that another user held", seen["foreign_engine"])
    part.expect("forged packets that nothing dropped", max(0, forged - dropped))
    for what, little in (
            (f"{got['refused']} of {got['comings']} could not come", got["refused"] > got["comings"] // 100),
            (f"{got['users']} users came", got["users"] < how.users),
            (f"hardly anything was forged: {seen['forged']}",
             forged < how.users // 10 or min(seen["forged"].values()) < 10),
            (f"{seen['overlooked']} packets were not looked at", seen["overlooked"] > seen["captured"] // 100),
            (f"of {seen['ended']} ended sockets {seen['ended_hit']} were tried", seen["ended_hit"] < ENOUGH * seen["ended"]),
            (f"of {seen['handed']} handed-on ports {seen['handed_hit']} were tried", seen["handed_hit"] < ENOUGH * seen["handed"]),
            ("no ended or revoked socket or handed-on port was tried",
             min(seen["ended_hit"], seen["handed_hit"], seen["after_revocation"], got["kept"]) < 10)):
        if little:
            part.got_through(f"{what}: that proves little")
    return forged


def main():
    how = live.arguments(__doc__, users=(int, 10000, "users that come and go"),
                         deliveries=(int, 2000000, "events that arrive, at least"),
                         revocations=(int, 40, "users that leave by being revoked"),
                         workers=(int, 0, "of the dataplane; 0: one or two, by the seed"),
                         plant=(str, "", "a planted bug, to see an oracle fail"))
    part, workers = live.Part("leak", "deliveries", how.seed), how.workers or 1 + how.seed % 2
    one = live.instance(ports=PORTS, workers=workers, plant=how.plant, kind=live.InMemory,
                        config={"scope.seal": "false", "times.quarantine": 1, "times.linger": 5, "times.lease": 3600})
    try:
        got, seen, dropped = hunt(one, how, part)
        print(f"churn: {got}\nwatch: {seen}\ndropped: {dropped}, by reason: {one.status()['filter']}\n"
              f"{got['deliveries'] * 1000 // got['milliseconds']} deliveries/s", flush=True)
        forged = judge(part, how, got, seen, dropped)
        part.expect("copies to endpoints of another user", one.counters()["drop_endpoint_foreign"])
        if part.closing["got_through"]:
            print(one.logs())
    finally:
        one.down()
    return part.close(workers=workers, foreign=got["foreign"], forged=forged, users=got["users"], ended=seen["ended_hit"],
                      handed_on=seen["handed_hit"], deliveries_per_s=got["deliveries"] * 1000 // got["milliseconds"])


if __name__ == "__main__":
    sys.exit(main())
