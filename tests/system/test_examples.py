# SPDX-License-Identifier: BSD-3-Clause
"""The client library's examples run as their page says."""
import os
import subprocess

from instance import BUILD, wait_for


def test_publish_and_subscribe(instance):
    credential = instance.credential()
    environment = {**os.environ, "FANWIRE_CLIENT_SOCKET": str(instance.client_socket)}
    subscriber = subprocess.Popen(
        ["stdbuf", "-oL", str(BUILD / "client/example-subscribe"), "room-7"], stdout=subprocess.PIPE, text=True,
        env={**environment, "FANWIRE_TOKEN": instance.token("example")})
    try:
        assert wait_for(lambda: [c for c in instance.connections("example") if c["state"] == "active"])
        run = subprocess.run([str(BUILD / "client/example-publish"), credential["name"], "example"], text=True,
                             input="first line\nsecond line\n", capture_output=True, timeout=20,
                             env={**environment, "FANWIRE_SECRET": credential["secret"]})
        assert run.returncode == 0, run.stderr
        heard = ""
        while "second line" not in heard:
            line = subscriber.stdout.readline()
            assert line, f"the subscriber ended: {heard}"
            heard += line
        assert "first line" in heard
    finally:
        subscriber.kill()
        subscriber.wait()
        subscriber.stdout.close()
