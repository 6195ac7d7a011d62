# SPDX-License-Identifier: BSD-3-Clause
"""docs/openapi.yaml against the server: the same routes, and every answer as it says."""
import pathlib
import re
import subprocess
import time
import urllib.parse

import jsonschema
import pytest
import yaml

from instance import BUILD, wait_for

SPEC = yaml.safe_load((pathlib.Path(__file__).parents[2] / "docs/openapi.yaml").read_text())
ROUTES = [(method.upper(), path) for path, item in SPEC["paths"].items() for method in item]


def schema_of(node):
    """A schema of OpenAPI 3.0 as JSON Schema: `nullable` is the one difference that is used here."""
    if isinstance(node, list):
        return [schema_of(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: schema_of(value) for key, value in node.items() if key not in ("nullable", "description")}
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made


COMPONENTS = schema_of(SPEC["components"])


def check(method, path, status, answer):
    responses = SPEC["paths"][path][method.lower()]["responses"]
    response = responses.get(str(status), responses["default"])
    if "$ref" in response:
        response = SPEC["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    schema = schema_of(response["content"]["application/json"]["schema"])
    jsonschema.validate(answer, {"components": COMPONENTS, **schema} if "$ref" not in schema
                        else {"components": COMPONENTS, "allOf": [schema]})


def test_the_same_routes():
    printed = subprocess.run([BUILD / "control/engine/fanwired", "--print-routes"], capture_output=True, text=True,
                             check=True).stdout.split("\n")
    assert sorted(line for line in printed if line) == sorted(f"{method} {path}" for method, path in ROUTES)


class Caller:
    """Calls the server, and checks each answer against the document."""

    def __init__(self, instance):
        self.instance, self.called = instance, set()

    def __call__(self, method, path, body=None, status=200, query=None, **params):
        url = re.sub(r"\{(\w+)\}", lambda m: urllib.parse.quote(params[m[1]], safe=""), path)
        url += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote) if query else ""
        got, answer = self.instance.api(method, url, body)
        assert got == status, answer
        check(method, path, got, answer)
        if status < 300:
            self.called.add((method, path))
        return answer


def test_every_answer_is_as_documented(make_instance):
    instance = make_instance(config={"scope.vouched": '[ "198.18.0.0/24" ]'}).up()
    call = Caller(instance)
    line = {"user": "älice", "address": "198.18.0.2", "port": 5000}
    added = call("POST", "/v1/vouched", line)
    assert (added["added"], added["total"]) == (1, 1)
    assert call("POST", "/v1/vouched", line)["unchanged"] == 1
    call("POST", "/v1/vouched", {**line, "user": "bob"}, status=409)
    call("GET", "/v1/vouched", query={"limit": 1})
    call("GET", "/v1/connections", query={"user": "älice"})
    call("GET", "/v1/explain", query={"user": "älice"})
    assert call("GET", "/v1/keys")["rotation"] is None
    assert call("POST", "/v1/keys/rotate")["rotation"]["to"] == 2
    assert call("POST", "/v1/keys/rotate", status=409)["error"] == "busy"
    call("GET", "/v1/keys")
    assert call("DELETE", "/v1/vouched", query={"user": "älice"})["removed"] == 1
    call("GET", "/v1/top")
    token = call("POST", "/v1/tokens", {"user": "älice", "ttl_seconds": 60})["token"]
    call("POST", "/v1/grants", {"user": "älice"})
    call("POST", "/v1/grants", {})
    first = instance.subscribe("älice", token=token, threads=["room"], single=True)
    instance.subscribe("älice")
    call("POST", "/v1/publishers", {"name": "a/b", "user": None}, status=201)
    call("POST", "/v1/publishers", {"name": "a/b"}, status=409)
    publisher = instance.publisher()
    assert publisher.publish("älice", "x").sent == 2
    call("GET", "/v1/publishers")
    for query in ({"user": "älice"}, {"user": "älice", "channel": "room"}, {"user": "älice", "channel": "@" + first.id},
                  {"user": "nobody"}):
        call("GET", "/v1/explain", query=query)
    assert call("GET", "/v1/connections", query={"user": "älice", "limit": 1})["next"]
    call("GET", "/v1/connections")
    call("GET", "/v1/status")
    call("GET", "/v1/doctor")
    time.sleep(0.3)
    call("GET", "/v1/top")
    time.sleep(0.3)
    call("GET", "/v1/top", query={"limit": 5})
    call("DELETE", "/v1/connections/{id}", id=first.id)
    assert call("POST", "/v1/revocations", {"user": "älice"})["connections_ended"] == 1
    call("DELETE", "/v1/publishers/{name}", name="a/b")
    assert wait_for(lambda: instance.audit("end"))
    call("GET", "/v1/audit", query={"limit": 1000})
    assert call.called == set(ROUTES), "a route without its call"


@pytest.mark.parametrize("method, path, body, query, params, status", [
    ("POST", "/v1/tokens", {"user": ""}, None, {}, 400),
    ("POST", "/v1/tokens", {"user": "x" * 256}, None, {}, 400),
    ("POST", "/v1/tokens", {"user": "a", "more": 1}, None, {}, 400),
    ("POST", "/v1/tokens", ["a"], None, {}, 400),
    ("POST", "/v1/grants", {"ttl_seconds": 3601}, None, {}, 400),
    ("GET", "/v1/explain", None, {"user": "a", "channel": "@12"}, {}, 400),
    ("GET", "/v1/connections", None, {"after": "xyz"}, {}, 400),
    ("GET", "/v1/audit", None, {"more": "1"}, {}, 400),
    ("POST", "/v1/vouched", None, None, {}, 400),
    ("POST", "/v1/vouched", ["a"], None, {}, 400),
    ("POST", "/v1/vouched", {"user": "a", "address": "198.18.0.2", "port": 5000}, None, {}, 409),
    ("DELETE", "/v1/vouched", None, None, {}, 400),
    ("DELETE", "/v1/vouched", None, {"user": "a", "batch": 1}, {}, 400),
    ("DELETE", "/v1/publishers/{name}", None, None, {"name": "nobody"}, 404),
    ("DELETE", "/v1/connections/{id}", None, None, {"id": "00000000000000ff"}, 404),
])
def test_refusals_are_as_documented(instance, method, path, body, query, params, status):
    Caller(instance)(method, path, body, status, query, **params)


def test_metrics(instance):
    subscriber = instance.subscribe("metered")
    instance.publisher().publish("metered", "x")
    assert subscriber.wait_events(1)
    text, samples = "", {}

    def counted():
        nonlocal text, samples
        text = subprocess.run(["nsenter", f"--net=/run/netns/{instance.engine_netns}", "curl", "-sf",
                               "http://127.0.0.1:9617/metrics"], capture_output=True, text=True, check=True).stdout
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return int(samples["fanwire_events_sequenced_total"]) >= 1

    wait_for(counted)  # a worker tells its counters when it has time, after the event has left
    assert all(name.startswith("fanwire_") for name in samples)
    assert int(samples["fanwire_events_sequenced_total"]) >= 1
    assert int(samples['fanwire_filter_packets_total{verdict="accepted"}']) >= 1
    assert int(samples['fanwire_connections{state="active"}']) >= 1
    assert 4096 <= int(samples["fanwire_database_cache_bytes"]) <= 4 << 20
    assert "metered" not in text
    types = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert all(kind == ("counter" if name.endswith("_total") else "gauge") for name, kind in types.items())
