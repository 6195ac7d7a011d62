# SPDX-License-Identifier: BSD-3-Clause
"""One user presses on what all share: ports, groups, the dataplane's buffers. The others go on as before."""
import os
import subprocess
import sys
import textwrap

import peer
import pytest
import wire
from instance import wait_for


def run_as_nobody(instance, token, code):
    """Python code as uid nobody, with this folder's modules, CLIENT (client.sock) and TOKEN."""
    text = f"CLIENT, TOKEN = {str(instance.client_socket)!r}, {token!r}\n" + textwrap.dedent(code)
    return subprocess.Popen(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", text],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__), "PYTHONDONTWRITEBYTECODE": "1"})


def test_ended_sockets_that_stay_open_count_as_their_users(make_instance):
    """Subscribe, leave, keep the socket, again: it ends at the user's own limit, and all others get ports."""
    instance = make_instance(ports=50, config={"limits.max_connections_per_user": 4, "times.quarantine": 1}).up()
    grabber = run_as_nobody(instance, instance.token("mallory"), """
        import sys, time
        import peer
        kept, refused = [], []
        while len(kept) < 110 and len(refused) < 20:
            client = peer.ClientSocket(CLIENT)
            try:
                answer, fds = client.ask({"op": "subscribe", "token": TOKEN})
                kept += fds
            except peer.Refused as error:
                if error.error != "busy":  # faster than the grace period
                    refused.append(error.error)
                time.sleep(0.2)
            client.close()
        print(len(kept), *sorted(set(refused)), flush=True)
        sys.stdin.read()
        """)
    try:
        kept, *refused = grabber.stdout.readline().split()
        assert refused == ["limit_user"] and 4 <= int(kept) <= 20, (kept, refused)
        assert wait_for(lambda: instance.status()["ports"]["held"] == int(kept), timeout=10), instance.status()["ports"]
        subscribers = [instance.subscribe(f"user-{i}", family=family) for i, family in enumerate((4, 6) * 4)]
        publisher = instance.publisher()
        for i, subscriber in enumerate(subscribers):
            assert publisher.publish(f"user-{i}", "x").sent == 1 and subscriber.wait_events(1)
        with pytest.raises(peer.Refused) as error:
            instance.subscribe("mallory")
        assert error.value.error == "limit_user" and "close" in error.value.message
    finally:
        grabber.communicate()
    assert wait_for(lambda: instance.status()["ports"]["held"] == 0, timeout=10), instance.status()["ports"]
    instance.subscribe("mallory")


def test_groups_that_linger_keep_nobody_out(make_instance):
    """Coming and going under ever new thread names: the user's own groups make way, and everybody else is let in."""
    limits = {"limits.max_groups": 1024, "limits.max_connections": 256, "limits.max_users": 256,
              "limits.max_connections_per_user": 8, "times.linger": 600}
    instance = make_instance(ports=100, config=limits).up()
    tokens = [instance.token(f"mallory-{i}", ttl=600) for i in range(8)]
    for n in range(20):
        for token in tokens:
            threads = [os.urandom(8).hex() for _ in range(16)]
            subscriber = peer.Subscriber(instance.client_socket, token, threads=threads, single=True).wait_active()
            subscriber.close()
    groups = instance.status()["groups"]
    assert groups["total"] <= 1024 and groups["lingering"] > 500, groups
    publisher = instance.publisher()
    for i in range(40):
        subscriber = instance.subscribe(f"user-{i}", threads=["room"])
        assert publisher.publish(f"user-{i}", "x").sent == 1 and subscriber.wait_events(1)
    one = run_as_nobody(instance, instance.token("mallory", ttl=600), """
        import os
        import peer
        for _ in range(60):
            peer.Subscriber(CLIENT, TOKEN, threads=[os.urandom(8).hex() for _ in range(16)]).wait_active().close()
        """)
    one.communicate(timeout=60)
    assert one.returncode == 0
    instance.subscribe("late")


def test_a_burst_to_one_user_who_does_not_read_holds_up_nobody(make_instance):
    """6,000 events to 16 sockets that nobody reads, 96,000 datagrams: the others' events go on, and the interface's
    count of packets moves with the dataplane's."""
    instance = make_instance(ports=50).up()
    bob = instance.subscribe("bob")
    for _ in range(16):
        deaf = instance.subscribe("mallory", wait=False, start=False)
        deaf.udp.settimeout(3)
        challenge = wire.Delivery.decode(deaf.udp.recv(65536))
        deaf.udp.sendto(wire.echo(challenge), deaf.engine)
        deaf.client.receive()
    publisher = instance.publisher()

    def sent():
        netdev = f"/sys/class/net/{instance.engine_if}/statistics/tx_packets"
        run = subprocess.run(["ip", "netns", "exec", instance.engine_netns, "cat", netdev], capture_output=True, text=True)
        return int(run.stdout)

    before, number = sent(), 0
    while number < 6000:
        packets = {}
        for _ in range(100):
            packet = publisher.seal("mallory", (b"mallory:%06d:" % number).ljust(1132, b"m"))
            packets[publisher.number] = packet
            number += 1
        publisher.wait(packets, timeout=5)
    assert wait_for(lambda: sent() - before >= 6000 * 16), f"the interface sent {sent() - before} of {6000 * 16}"
    fresh = instance.publisher()
    for n in range(3):
        assert fresh.publish("bob", f"bob:{n}", timeout=3).sent == 1
        assert bob.wait_events(n + 1, 2)
