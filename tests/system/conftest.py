# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the system tests. Each instance is real: two daemons, AF_XDP, BPF, its own namespaces."""
import os

import pytest

from instance import BUILD, Instance


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("system tests need root: namespaces, BPF, AF_XDP", returncode=4)
    if not (BUILD / "control/engine/fanwired").exists():
        pytest.exit(f"nothing is built in {BUILD}: ./dev build", returncode=4)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in item.funcargs.values():
            if isinstance(value, Instance):
                report.sections.append((f"instance {value.name}", value.logs()))
        for made in getattr(item, "made_instances", []):
            report.sections.append((f"instance {made.name}", made.logs()))


@pytest.fixture(scope="module")
def instance():
    """An instance with the default configuration, shared by the tests of one file."""
    one = Instance(ports=400)
    try:
        yield one.up()
    finally:
        one.down()


@pytest.fixture
def make_instance(request):
    """Makes instances of a test's own: make_instance(config={...}).up()."""
    made = request.node.made_instances = []

    def make(**how):
        made.append(Instance(**how))
        return made[-1]

    yield make
    for one in made:
        one.down()
