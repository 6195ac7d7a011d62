# SPDX-License-Identifier: BSD-3-Clause
"""docs/openapi.yaml against the server: the same routes, and live answers that fit its schemas."""
import subprocess

import jsonschema
import pytest
import yaml

from instance import BUILD, ROOT

PAGE = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())


def documented():
    return {f"{method.upper()} {path}" for path, item in PAGE["paths"].items() for method in item
            if method in ("get", "post", "put", "patch", "delete")}


def test_the_routes_are_the_documented_ones():
    run = subprocess.run([str(BUILD / "control/engine/fanwired"), "--print-routes"], capture_output=True, text=True, check=True)
    assert set(run.stdout.split("\n")) - {""} == documented()


def resolved(schema):
    """OpenAPI 3.0's `nullable` and references in JSON Schema's terms."""
    if isinstance(schema, list):
        return [resolved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = PAGE
        for part in schema["$ref"].lstrip("#/").split("/"):
            target = target[part]
        return resolved(target)
    plain = {key: resolved(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") else plain


def check(method, path, status, answer):
    responses = PAGE["paths"][path][method.lower()]["responses"]
    response = resolved(responses.get(str(status), responses.get("default")))
    assert response, f"{method} {path} has no response {status}"
    schema = response["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(schema).validate(answer)


def test_live_answers_fit(instance):
    subscriber = instance.subscribe("api")
    instance.publisher().publish("api", "x")
    called = set()

    def call(method, path, wanted, body=None, **fill):
        concrete = path
        query = fill.pop("query", "")
        for key, value in fill.items():
            concrete = concrete.replace("{" + key + "}", value)
        status, answer = instance.api(method, concrete + query, body)
        assert status == wanted, answer
        check(method, path, status, answer)
        called.add(f"{method} {path}")

    call("GET", "/v1/status", 200)
    call("GET", "/v1/doctor", 200)
    call("POST", "/v1/tokens", 200, {"user": "api", "ttl_seconds": 60})
    call("POST", "/v1/tokens", 400, {"user": ""})
    call("POST", "/v1/grants", 200, {"user": "api"})
    call("POST", "/v1/grants", 200, {})
    call("POST", "/v1/publishers", 201, {"name": "api-publisher"})
    call("POST", "/v1/publishers", 409, {"name": "api-publisher"})
    call("GET", "/v1/publishers", 200)
    call("DELETE", "/v1/publishers/{name}", 200, name="api-publisher")
    call("DELETE", "/v1/publishers/{name}", 404, name="api-publisher")
    call("GET", "/v1/connections", 200)
    call("GET", "/v1/connections", 200, query="?user=api&limit=1")
    call("GET", "/v1/explain", 200, query="?user=api")
    call("GET", "/v1/explain", 200, query="?user=nobody")
    call("GET", "/v1/top", 200, query="?limit=3")
    call("DELETE", "/v1/connections/{id}", 200, id=subscriber.id)
    call("DELETE", "/v1/connections/{id}", 404, id="00000000000000aa")
    call("POST", "/v1/revocations", 200, {"user": "api"})
    call("GET", "/v1/audit", 200, query="?limit=50")
    assert called == documented()


@pytest.mark.parametrize("path", sorted(PAGE["paths"]))
def test_bodies_that_do_not_fit_are_refused(instance, path):
    """The documented request schemas are closed, and the server refuses what they refuse."""
    post = PAGE["paths"][path].get("post")
    if not post:
        status, _ = instance.api("PUT", path.replace("{name}", "x").replace("{id}", "00000000000000ab"), {})
        assert status == 405
        return
    schema = resolved(post["requestBody"]["content"]["application/json"]["schema"])
    assert schema["additionalProperties"] is False
    status, answer = instance.api("POST", path, {"surprise": 1})
    assert status == 400
    check("POST", path, status, answer)


def test_metrics(instance):
    """Prometheus metrics on a loopback port: counters end in _total, no user label."""
    subscriber = instance.subscribe("metrics-user")
    instance.publisher().publish("metrics-user", "x")
    subscriber.wait_events(1)
    text = subprocess.run(["nsenter", f"--net=/run/netns/{instance.engine_netns}", "curl", "-sf",
                           "http://127.0.0.1:9617/metrics"], capture_output=True, text=True, check=True).stdout
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples and all(line.startswith("fanwire_") for line in samples)
    assert "metrics-user" not in text
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert all(name.endswith("_total") for name, kind in types.items() if kind == "counter")
    value = next(float(line.split()[-1]) for line in samples if line.split()[0] == "fanwire_copies_sent_total")
    assert value >= 1
