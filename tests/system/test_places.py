# SPDX-License-Identifier: BSD-3-Clause
"""An address and port is one user's, by whatever door it was taken, and rests before it is another's."""
import contextlib
import signal
import time

import pytest

import peer
import wire
from instance import wait_for
from test_vouched import VOUCHED, add, line, plain_receiver, receives, routed


@pytest.fixture
def site(make_instance):
    return routed(make_instance(config=VOUCHED).up())


def ask(instance, user, address, port, **request):
    """A receiver that bypasses the kernel, as the engine sees one: the client and the answer."""
    client = peer.ClientSocket(instance.client_socket)
    instance.opened.append(client)
    answer, _ = client.ask({"op": "bypass", "token": instance.token(user), "address": address, "port": port, **request})
    return client, answer


def bypass(instance, user, receiver, **request):
    """One that has answered its challenge from an ordinary socket."""
    client, answer = ask(instance, user, *receiver.getsockname(), **request)
    receiver.settimeout(5)
    while (delivery := wire.Delivery.decode(receiver.recv(2048))).type != wire.CHALLENGE:
        pass
    receiver.sendto(wire.echo(delivery), (answer["engine_address"], answer["engine_port"]))
    assert client.receive()[0]["event"] == "active"
    return client, answer


def got(receiver, seconds=0.3):
    """Users and texts of the events that came."""
    events, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        receiver.settimeout(left)
        with contextlib.suppress(TimeoutError):
            delivery = wire.Delivery.decode(receiver.recv(2048))
            if delivery.type == wire.DELIVERY:
                events.append((delivery.handle, delivery.payload))
    return events


def test_a_place_is_one_users_through_every_door(site):
    (alice, alice_port), (bob, bob_port) = plain_receiver(site), plain_receiver(site)
    add(site, line("alice", site.receiver4, alice_port, 0xA1))
    client, answer = bypass(site, "bob", bob)
    for user, port in (("bob", alice_port), ("bob", bob_port), ("alice", alice_port), ("carol", alice_port), ("carol", bob_port)):
        for address in (site.receiver4, f"::ffff:{site.receiver4}"):
            with pytest.raises(peer.Refused):
                ask(site, user, address, port)
    with pytest.raises(peer.Refused):  # a replacement is no way round
        ask(site, "bob", site.receiver4, alice_port, connection=answer["connection"])
    for user, port, number in (("bob", alice_port, 0), ("alice", bob_port, 0), ("alice", bob_port, 0xA1), ("carol", bob_port, 0)):
        for address in (site.receiver4, f"::ffff:{site.receiver4}"):
            status, _ = site.api("POST", "/v1/vouched", line(user, address, port, number))
            assert status in (400, 409)
    publisher = site.publisher()
    for user in ("alice", "bob", "carol"):
        publisher.publish(user, f"for {user}")
    assert got(alice) == [(wire.handle("alice"), b"for alice")]
    assert got(bob) == [(wire.handle("bob"), b"for bob")]
    assert client.unasked == []


def test_places_that_are_not_one_hosts(make_instance):
    site = routed(make_instance(config={**VOUCHED, "scope.vouched": '[ "0.0.0.0/0", "::/0" ]'}).up())
    for address, port in (("198.18.0.255", 5000), ("255.255.255.255", 5000), ("224.0.0.1", 5000),
                          ("127.0.0.1", 5000), ("0.0.0.0", 5000), (site.engine4, site.engine_port), (site.engine4, 5000),
                          ("ff02::1", 5000), ("::", 5000), ("::1", 5000), (site.engine6, 5000), (f"::ffff:{site.engine4}", 5000),
                          ("::ffff:127.0.0.1", 5000), ("::ffff:224.0.0.1", 5000), ("10.0.0.1", 0), ("10.0.0.1", 65536),
                          (site.receiver4, site.port_first), (site.receiver4, site.port_last), (site.receiver6, site.port_first),
                          (f"::ffff:{site.receiver4}", site.port_first)):
        status, answer = site.api("POST", "/v1/vouched", line("alice", address, port))
        assert status in (400, 409), (address, port, answer)
        try:
            _, granted = ask(site, "alice", address, port)
        except peer.Refused:
            continue
        assert not wait_for(lambda: receives(site, "alice"), 0.3), (address, port, granted)
    assert receives(site, "alice") == set()


def test_a_place_rests_across_a_restart(site):
    """Who had it is on its way out of the table while the dataplane, which stands still, may yet send to it."""
    receiver, port = plain_receiver(site)
    client, _ = bypass(site, "alice", receiver)
    site.kill("dataplane", signal.SIGSTOP)
    client.close()
    place = line("bob", site.receiver4, port)
    assert wait_for(lambda: not receives(site, "alice"))
    assert add(site, place, status=503)["error"] == "busy"
    site.kill("fanwired")
    site.start("fanwired")
    wait_for(lambda: site.control_socket.exists() and reachable(site))
    assert add(site, place, status=503)["error"] == "busy"
    site.kill("dataplane", signal.SIGCONT)
    assert wait_for(lambda: site.api("POST", "/v1/vouched", place)[0] == 200)
    publisher = site.publisher()
    for user in ("alice", "bob"):
        publisher.publish(user, f"for {user}")
    assert got(receiver) == [(wire.handle("bob"), b"for bob")]


def reachable(instance):
    try:
        return instance.status()
    except OSError:
        return False


def test_places_come_back_however_they_were_left(site):
    """No order of taking and leaving keeps a place from all, or gives it to two."""
    receiver, port = plain_receiver(site)
    other, other_port = plain_receiver(site)
    for _ in range(3):
        client, answer = wait_for(lambda: taken(site, "alice", receiver))
        again, _ = ask(site, "alice", site.receiver4, other_port, connection=answer["connection"])
        again.close()
        client.close()
        for user, place in (("bob", port), ("carol", other_port)):
            assert wait_for(lambda: site.api("POST", "/v1/vouched", line(user, site.receiver4, place))[0] == 200)  # noqa: B023
        for user in ("bob", "carol"):
            site.ctl("vouched", "remove", "--user", user)
        assert wait_for(lambda: not receives(site, "bob"))
    client, _ = wait_for(lambda: taken(site, "alice", receiver))
    assert receives(site, "alice") == {(site.receiver4, port)}
    assert other.getsockname()[1] == other_port


def taken(instance, user, receiver):
    try:
        return bypass(instance, user, receiver)
    except peer.Refused:
        return None


def test_nobody_foresees_the_id_of_a_line(make_instance):
    """Else whoever has a token could take the id first, and the administrator's batch would be refused."""
    known, site = (routed(make_instance(config=VOUCHED).up()) for _ in range(2))
    place = line("bob", "10.0.0.1", 5000)
    add(known, place)
    foreseen = known.ctl_json("vouched", "list", "bob")[0]["id"]
    site.subscribe("mallory", connection=foreseen)
    assert add(site, place)["added"] == 1
    site.restart("fanwired")
    assert add(site, place)["unchanged"] == 1


def test_a_place_that_does_not_echo_gets_nothing(site):
    """The prefix is vouched for; that the client receives at the address it names is only its own word."""
    victim, port = plain_receiver(site)
    ask(site, "mallory", site.receiver4, port)
    assert wire.Delivery.decode(victim.recv(2048)).type == wire.CHALLENGE
    assert site.publisher().publish("mallory", "unwanted").sent == 0
    assert [one["state"] for one in site.connections("mallory")] == ["pending"]
    assert got(victim, 0.5) == []
