#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Streams through a bad network: 0.1, 1, 5, 20 and 50 % loss, each with 10 % duplicates and reordering, in both
directions of the dataplane's port; one run with bursts of loss and flipped bits besides.

Each connection checks each of its streams: no silent gap, no repetition, order, every byte. The log holds all of it
here, so nothing may be told as lost either.
"""
import json
import subprocess
import sys

import live

CONNECTIONS, FRAGMENTS = 3, 40
BAD = "dup=0.1,reorder=64"
NETWORKS = [*(f"loss={loss},{BAD}" for loss in (0.001, 0.01, 0.05, 0.2, 0.5)),
            f"loss=0.01,{BAD},burst=0.002/0.1,flip=0.01"]


def scale(network):
    """(users, sessions): a session is accepted strictly in its order, and what a connection missed is asked for again,
    so under heavy loss each of them is slow: there, more of them."""
    return next((many for loss, many in (("loss=0.5", (60, 512)), ("loss=0.2", (20, 128))) if network.startswith(loss)), (5, 4))


def run_streams(instance, network, events, timeout):
    credential = instance.credential()
    users, sessions = scale(network)
    lines = "".join(f"user-{i} {instance.token(f'user-{i}', ttl=86400)}\n" for i in range(users))
    run = subprocess.run(
        [f"{live.BUILD}/tests/prove/stream", str(instance.client_socket), credential["name"], credential["secret"],
         str(CONNECTIONS), str(-(-events // users)), str(sessions), str(FRAGMENTS), "60"],
        input=lines, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if run.returncode:
        raise SystemExit(f"loss: stream ended with {run.returncode}\n{instance.logs()}")
    return json.loads(run.stdout)


def judge(part, network, events, got):
    part.tried(got["published"])
    for what in ("foreign", "damaged", "duplicates", "disorder", "gaps", "missing", "lost", "ended", "failed"):
        part.expect(f"{network}: {what}", got[what])
    part.expect(f"{network}: not published", max(0, events - got["published"]))
    part.expect(f"{network}: not acknowledged", got["published"] - got["acknowledged"])


def shim_log(instance):
    return [line for line in (instance.dir / "dataplane.log").read_text().splitlines() if " shim: " in line]


def main():
    how = live.arguments(__doc__, events=(int, 10000, "events to all users together, in each network"),
                         only=(str, "", "networks that begin with this"))
    part = live.Part("loss", "events", how.seed)
    networks = [network for network in NETWORKS if network.startswith(how.only)]
    for number, network in enumerate(networks):
        # registrations first: three challenges are all that one gets
        shim = f"seed={how.seed + number},{network},calm={max(100, 4 * scale(network)[0] * CONNECTIONS)}"
        log_mb = max(64, how.events * 800 // 2**20 * 4)
        one = live.instance(shim, ports=800, kind=live.InMemory, config={"dataplane.log_mb": log_mb, "dataplane.log_user_kb": log_mb * 512,
                                                    "limits.max_sessions_per_publisher": 1024, "limits.max_sessions": 1100})
        try:
            got = run_streams(one, network, how.events, timeout=240 + how.events // 20)
            one.script("stop", "dataplane")
            print(f"{shim}: {json.dumps(got)}", *shim_log(one)[1:], sep="\n  ", flush=True)
            judge(part, network, how.events, got)
            if len(shim_log(one)) < 3:
                part.got_through(f"{network}: nothing was lost on the way: that proves nothing")
        finally:
            one.down()
    return part.close(networks=len(networks))


if __name__ == "__main__":
    sys.exit(main())
