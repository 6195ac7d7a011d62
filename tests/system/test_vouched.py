# SPDX-License-Identifier: BSD-3-Clause
"""Connections that an administrator vouches for: imported in bulk, durable, served after a crash and a boot, nobody else's."""
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time

import pytest

import wire
from instance import wait_for

# A receiver that is no client has no keys: what it gets is not sealed.
VOUCHED = {"scope.seal": "false", "scope.vouched": '[ "198.18.0.0/24", "10.0.0.0/8" ]', "limits.max_users": "100000",
           "limits.max_connections": "100000", "limits.max_groups": "200000"}


@pytest.fixture
def site(make_instance):
    return routed(make_instance(config=VOUCHED).up())


def routed(instance):
    """10.0.0.0/8 stands behind the receivers' end of the veth."""
    subprocess.run(["ip", "-n", instance.engine_netns, "route", "add", "10.0.0.0/8", "via", instance.receiver4], check=True)
    return instance


def line(user, address, port, number=None):
    return {"user": user, "address": address, "port": port, **({"id": f"{number:016x}"} if number else {})}


def add(instance, *lines, status=200):
    got, answer = instance.api("POST", "/v1/vouched", raw="\n".join(map(json.dumps, lines)))
    assert got == status, answer
    return answer


def total(instance):
    return instance.status()["vouched"]["total"]


def receives(instance, user):
    answer = instance.get(f"/v1/explain?user={user}")
    return {(one["address"], one["port"]) for one in answer["would_receive"]}


def reboot(instance):
    for program in ("fanwired", "dataplane"):
        instance.kill(program)
    for region in (instance.dir / "regions").iterdir():
        if region.is_file():
            region.unlink()
    for program in ("fanwired", "dataplane"):
        instance.start(program)
    instance.wait()
    assert wait_for(lambda: instance.status()["vouched"]["state"] == "served", 30)


def plain_receiver(instance):
    """A socket as any program has one, outside of the scoped range."""
    one = instance.receiver_socket()
    one.bind((instance.receiver4, 0))
    one.settimeout(5)
    return one, one.getsockname()[1]


def next_delivery(receiver):
    """Its next event, and where it came from; what says where the stream stands may come between."""
    while True:
        packet, source = receiver.recvfrom(2048)
        delivery = wire.Delivery.decode(packet)
        if delivery.type != wire.STATUS:
            return delivery, source


def gets_nothing(receiver, user, seconds=0.2):
    """No event; and no word of any stream but its own user's."""
    receiver.settimeout(seconds)
    try:
        while True:
            delivery = wire.Delivery.decode(receiver.recv(2048))
            assert (delivery.type, delivery.handle) == (wire.STATUS, wire.handle(user))
    except TimeoutError:
        receiver.settimeout(5)


def test_events_reach_a_plain_receiver_and_it_gets_nobody_elses(site):
    (alice, alice_port), (bob, bob_port) = plain_receiver(site), plain_receiver(site)
    add(site, line("alice", site.receiver4, alice_port), line("bob", site.receiver4, bob_port))
    for again in (lambda: None, lambda: site.restart("fanwired"), lambda: reboot(site)):
        again()
        for user, own, other, others in (("alice", alice, "bob", bob), ("bob", bob, "alice", alice)):
            text = f"for {user} {random.random()}".encode()
            receipt = site.publisher().publish(user, text)
            assert (receipt.sent, receipt.attempted) == (1, 1)
            delivery, source = next_delivery(own)
            assert source == (site.engine4, site.engine_port)
            assert (delivery.handle, delivery.payload) == (wire.handle(user), text)
            gets_nothing(others, other)


def test_with_a_subscriber_of_the_same_user_both_get_it(site):
    receiver, port = plain_receiver(site)
    add(site, line("alice", site.receiver4, port))
    subscriber = site.subscribe("alice")
    assert site.publisher().publish("alice", "both").sent == 2
    assert subscriber.wait_events(1)
    assert next_delivery(receiver)[0].payload == b"both"


def test_refusals_change_nothing_and_are_audited(site):
    add(site, line("alice", "10.0.0.1", 5000, 0xA1))
    scoped = site.subscribe("carol")
    place = site.connections("carol")[0]
    for lines, error in (
            ([line("bob", "10.0.0.2", 5000), line("bob", "192.0.2.1", 5000)], "not_vouched"),
            ([line("bob", place["address"], place["port"])], "not_vouched"),
            ([line("bob", site.engine4, 5000)], "not_vouched"),
            ([line("bob", "10.0.0.2", 5000), line("bob", "10.0.0.1", 5000)], "address_taken"),
            ([line("bob", "10.0.0.3", 5000), line("dave", "10.0.0.3", 5000)], "address_taken"),
            ([line("bob", "10.0.0.2", 5000, 0xA1)], "connection_foreign"),
            ([line("bob", "10.0.0.2", 5000, int(scoped.id, 16))], "connection_foreign")):
        assert add(site, *lines, status=409)["error"] == error
    assert total(site) == 1
    assert receives(site, "bob") == set()
    refused = site.audit("vouch_refused")
    assert len(refused) == 7
    assert all(record["uid"] == os.getuid() for record in refused)
    assert refused[3]["victim"] == wire.handle("alice").hex() and refused[3]["foreign"] == wire.handle("bob").hex()
    assert refused[3]["source"] == "10.0.0.1:5000"


def test_moving_keeping_and_removing(site):
    first = add(site, line("alice", "10.0.0.1", 5000, 0xA1), line("alice", "10.0.0.2", 5000, 0xA2))
    assert add(site, line("alice", "10.0.0.1", 5000, 0xA1))["unchanged"] == 1
    assert add(site, line("alice", "10.0.0.9", 5000, 0xA1))["replaced"] == 1
    assert receives(site, "alice") == {("10.0.0.9", 5000), ("10.0.0.2", 5000)}
    assert add(site, line("bob", "10.0.0.1", 5000))["added"] == 1
    assert [one["address"] for one in site.ctl_json("vouched", "list")] == ["10.0.0.9", "10.0.0.2", "10.0.0.1"]
    assert sorted(one["id"] for one in site.ctl_json("vouched", "list", "alice")) == [f"{0xA1:016x}", f"{0xA2:016x}"]
    assert "removed: 2" in site.ctl("vouched", "remove", "--batch", first["batch"]).stdout
    assert "removed: 1" in site.ctl("vouched", "remove", "--user", "bob").stdout
    assert site.ctl("vouched", "remove", check=False).returncode == 1
    reboot(site)
    assert total(site) == 0
    assert [record["count"] for record in site.audit("unvouch")] == [2, 1]


def test_disconnect_ends_one_for_good(site):
    add(site, line("alice", "10.0.0.1", 5000, 0xA1))
    site.ctl("disconnect", f"{0xA1:016x}")
    reboot(site)
    assert total(site) == 0


def test_a_revocation_ends_them_for_good(site):
    receiver, port = plain_receiver(site)
    add(site, line("alice", site.receiver4, port, 0xA1), line("bob", "10.0.0.1", 5000))
    status, answer = site.api("POST", "/v1/revocations", {"user": "alice"})
    assert (status, answer["connections_ended"]) == (200, 1)
    for again in (lambda: None, lambda: site.restart("fanwired"), lambda: reboot(site)):
        again()
        assert total(site) == 1
        assert site.publisher().publish("alice", "gone").sent == 0
    receiver.settimeout(0.2)
    with pytest.raises(TimeoutError):
        receiver.recvfrom(2048)
    add(site, line("alice", site.receiver4, port, 0xA1))
    assert site.publisher().publish("alice", "back").sent == 1


def test_a_configuration_that_vouches_no_more(site):
    add(site, line("alice", "10.0.0.1", 5000), line("bob", "198.18.0.2", 5000))
    conf = site.dir / "fanwire.conf"
    conf.write_text(conf.read_text().replace(', "10.0.0.0/8"', ""))
    site.restart("fanwired")
    assert (total(site), receives(site, "alice")) == (1, set())


# ---- imports ----

def write_file(instance, count, first=0):
    path = instance.dir / f"import-{first}.ndjson"
    with open(path, "w", encoding="ascii") as out:
        for n in range(first, first + count):
            out.write(json.dumps(line(f"user-{n // 3}", f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 5000, n + 1)) + "\n")
    return path


def test_importing_a_file_again_changes_nothing(site):
    path = write_file(site, 20000)
    assert site.ctl_json("import", path)[0]["added"] == 20000
    assert site.ctl_json("import", path)[0]["unchanged"] == 20000
    batches = site.audit("vouch")
    assert len(batches) == 6 and sum(batch["count"] for batch in batches) == 40000
    assert "20000 unchanged" in site.ctl("import", "--batch", 16384, "-", stdin=open(path, "rb")).stdout
    reboot(site)
    assert total(site) == 20000
    assert site.publisher().publish("user-1234", "x").sent == 3


def test_a_bad_line_is_named_by_its_number_in_the_file(site):
    path = write_file(site, 100)
    text = path.read_text().splitlines()
    text[41] = text[41].replace('"10.', '"11.')
    path.write_text("\n".join(text))
    run = site.ctl("import", "--batch", 16, path, check=False)
    assert run.returncode == 2 and f"{path}:42: 11.0.0.41 port 5000 lies in no prefix" in run.stderr
    assert total(site) == 32
    path.write_text('{"user":"u","address":"10.0.0.1","port":"5"}\n')
    assert ":1: port must be a whole number" in site.ctl("import", path, check=False).stderr


class Importer(threading.Thread):
    """Sends batches one after the other and remembers which were acknowledged."""

    def __init__(self, instance, first):
        super().__init__()
        self.instance, self.acknowledged, self.sent = instance, first, first

    def run(self):
        for number in range(self.sent, 250):
            self.sent = number + 1
            try:
                add(self.instance, *(line(f"user-{number}-{n // 3}", f"10.{number}.{n >> 8}.{n & 255}", 5000) for n in range(400)))
            except (OSError, ValueError, AssertionError):
                return
            self.acknowledged = number + 1


@pytest.mark.parametrize("again", ["restart", "reboot"])
def test_killed_in_the_middle_of_an_import(make_instance, again):
    """Nothing that was acknowledged is lost; of what was not, all is there or none."""
    site = routed(make_instance(config=VOUCHED).up())
    batches = 0
    for _ in range(3):
        importer = Importer(site, batches)
        importer.start()
        wait_for(lambda: importer.acknowledged > batches, every=0.001)  # noqa: B023
        time.sleep(random.random() / 20)
        site.kill("fanwired", signal.SIGKILL)
        importer.join()
        site.start("fanwired")
        site.wait()
        if again == "reboot":
            reboot(site)
        # what was half in the table at the kill is undone first, and the dataplane has to let go of it
        wait_for(lambda: site.status()["vouched"]["waiting"] == 0, 5)
        count = total(site)
        assert count in (400 * importer.acknowledged, 400 * importer.sent)
        assert rows(site) == count
        batches, publisher = count // 400, site.publisher()
        for number in range(batches):
            assert publisher.publish(f"user-{number}-{number % 133}", "x").sent == 3


def rows(instance):
    with sqlite3.connect(f"file:{instance.dir}/state/fanwire.db?mode=ro", uri=True) as database:
        return database.execute("SELECT count(*) FROM vouched").fetchone()[0]


def test_an_import_goes_on_where_fanwired_was_killed(site):
    path = write_file(site, 60000)
    importing = subprocess.Popen(site.ctl_command("-j", "import", "--batch", 500, path), env=site.ctl_env(),
                                 stdout=subprocess.PIPE, text=True)
    assert wait_for(lambda: total(site) > 5000, every=0.005)
    site.restart("fanwired")
    answer = json.loads(importing.communicate(timeout=60)[0])
    assert importing.returncode == 0 and answer["lines"] == 60000
    assert total(site) == rows(site) == 60000


def damage(instance, sql):
    """To the database of an instance that is down, in front of a new table."""
    for program in ("fanwired", "dataplane"):
        instance.kill(program)
    with sqlite3.connect(instance.dir / "state/fanwire.db") as database:
        database.execute(sql)
    (instance.dir / "regions/registry").unlink()
    for program in ("fanwired", "dataplane"):
        instance.start(program)
    instance.wait()


def doctor_says(instance):
    return next(one for one in instance.get("/v1/doctor")["findings"] if one["check"] == "vouched connections")


@pytest.mark.parametrize("change", ["address = x'00'", "address = x'0a000001'", "user = 'user-1'", "port = 5001", "generation = 2"])
def test_a_row_that_a_disk_has_hurt_is_told_and_not_served(site, change):
    """Also where what it says now is a registration like any other: it is nobody's, all others are served, and it can go."""
    site.ctl("import", write_file(site, 3000))
    damage(site, f"UPDATE vouched SET {change} WHERE row = 2500")
    assert wait_for(lambda: site.status()["vouched"]["state"] == "failed", 20)
    finding = doctor_says(site)
    assert finding["state"] == "failed" and "the first is row 2500" in finding["found"]
    assert wait_for(lambda: total(site) == 2999, 20)
    publisher = site.publisher()
    assert publisher.publish(f"user-{2499 // 3}", "x").sent == 2
    assert publisher.publish("user-1", "x").sent == 3
    assert "removed: 1" in site.ctl("vouched", "remove", "--row", 2500).stdout
    assert (doctor_says(site)["state"], total(site), rows(site)) == ("ok", 2999, 2999)
    assert add(site, line(f"user-{2499 // 3}", "10.0.9.195", 5000, 2500))["added"] == 1
    reboot(site)
    assert total(site) == 3000
    assert publisher_sent(site, f"user-{2499 // 3}") == 3


def publisher_sent(instance, user):
    return instance.publisher().publish(user, "x").sent


def test_a_revoked_user_never_comes_back_by_a_damaged_row(site):
    """Its generation cannot be known any more: fanwired does not start, and says whose row it is."""
    add(site, line("alice", "10.0.0.1", 5000))
    assert site.api("POST", "/v1/revocations", {"user": "alice"})[0] == 200
    site.kill("fanwired")
    with sqlite3.connect(site.dir / "state/fanwire.db") as database:
        database.execute("UPDATE users SET generation = 1")
    site.start("fanwired")
    assert wait_for(lambda: "a row is not as it was written: user alice" in site.logs(), 10)
    assert wait_for(lambda: not site.alive(site.pid("fanwired")), 10)
