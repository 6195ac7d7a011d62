# SPDX-License-Identifier: BSD-3-Clause
"""The lint finds what it is there to find, and nothing in what is right."""
import sys

import pytest

from instance import ROOT

sys.path.insert(0, str(ROOT / "tests/lint"))
import lint  # noqa: E402 its folder is known only now


@pytest.mark.parametrize("name,header", [
    ("control/engine/a.c", "control/agent/state.h"), ("control/engine/a.c", "control/registry/internal.h"),
    ("control/engine/a.c", "bpf/scope.h"), ("control/agent/a.c", "control/engine/engine.h"),
    ("control/agent/scope/a.c", "control/registry/registry.h"), ("control/registry/a.c", "control/messages.h"),
    ("control/messages.c", "control/engine/engine.h"), ("control/ctl/a.c", "client/publisher.h"),
    ("client/a.c", "common/shm/table.h"), ("dataplane/a.c", "control/registry/registry.h"),
    ("common/a.c", "client/fanwire.h"), ("dataplane/a.c", "../common/log.h")])
def test_an_include_across_layers_is_found(name, header):
    assert list(lint.check_includes(name, [f'#include "{header}"\n']))


@pytest.mark.parametrize("name,header", [
    ("control/engine/a.c", "control/agent/agent.h"), ("control/engine/a.c", "control/registry/registry.h"),
    ("control/agent/scope/a.c", "control/agent/state.h"), ("control/link.c", "control/messages.h"),
    ("control/ctl/a.c", "client/fanwire.h"), ("tests/unit/client/a.c", "client/publisher.h")])
def test_an_include_within_its_layers_is_fine(name, header):
    assert not list(lint.check_includes(name, [f'#include "{header}"\n']))


def test_a_second_builder_of_delivery_headers_is_found():
    line = ["\tlen = fan_delivery_encode(packet, &delivery);\n"]
    assert list(lint.check_calls("dataplane/send.c", line)) and not list(lint.check_calls("dataplane/fanout.c", line))


def test_a_page_that_names_a_test_that_is_not_there_is_found(tmp_path, monkeypatch):
    page, tests = tmp_path / "page.md", tmp_path / "tests/system/test_a.py"
    unit = tmp_path / "tests/unit/part/test_two_words.c"
    for path in (tests, unit):
        path.parent.mkdir(parents=True)
    tests.write_text("def test_one():\n    pass\n\n\ndef test_two():\n    pass\n")
    unit.write_text("Test(suite, three)\n{\n}\n")
    page.write_text("`test_a.py: test_one`,\n`test_two`; `unit-part-two-words: three`; `unit-two-words: three`\n")
    names = ["page.md", "tests/system/test_a.py", "tests/unit/part/test_two_words.c"]
    monkeypatch.setattr(lint, "ROOT", tmp_path)
    assert not list(lint.check_named_tests(names))
    page.write_text("fine: `test_a.py: test_one`\n`test_a.py: test_one`, `test_gone`; `unit-part-two-words: four`; `unit-x: three`\n")
    assert [(line, text.rpartition(" ")[2]) for _, line, text in lint.check_named_tests(names)] == [
        (2, "test_gone"), (2, "four"), (2, "three")]


def test_a_program_that_is_not_there_is_found():
    known = {"unit-a": set(), "walls": {"forged_echo"}, "prove": {"leak hunt"}}
    fine = "`unit-a`, `walls: forged_echo`; `prove: leak hunt`; `unit-bpf-*`"
    assert not list(lint.check_names(known, fine))
    wrong = "`unit-b`, `walls: forged_echo`, `forged`; `prove: leaks`"
    assert {text.rpartition(" ")[2] for _, text in lint.check_names(known, wrong)} == {"unit-b", "forged", "leaks"}


def test_a_promise_without_a_test_is_found():
    head = "| promise | test that fails without it |\n| --- | --- |\n| one | `unit-a: b` |\n"
    assert not list(lint.check_columns(head + "\n| two | nothing |\n"))
    assert list(lint.check_columns(head + "| two | it is obvious |\n")) == [(4, "a promise without a test: two")]


def test_every_row_of_the_testing_page_names_a_test():
    rows = [line for line in (ROOT / "docs/testing.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.endswith(("| --- |", "| tests |"))]
    assert len(rows) > 50
    assert not [row for row in rows if not lint.NAMED_TESTS.search(row.split("|")[2])]
