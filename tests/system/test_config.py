# SPDX-License-Identifier: BSD-3-Clause
"""One configuration file: commented, checked, an unknown key or a bad value named with its line."""
import subprocess

import pytest

from instance import BUILD, ROOT

DEFAULT = (ROOT / "control/embedded/fanwire.conf").read_text()


def check(tmp_path, text):
    path = tmp_path / "fanwire.conf"
    path.write_text(text)
    run = subprocess.run([str(BUILD / "control/engine/fanwired"), "--check-config", str(path)], capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr, str(path)


def line_of(text, part):
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_default_is_good(tmp_path):
    status, out, _ = check(tmp_path, DEFAULT)
    assert status == 0, out


def test_every_key_stands_in_the_default_and_may_be_set(tmp_path):
    """Every key is in the file, commented out where its default stands: with all of them set, it is good too."""
    lines = []
    for line in DEFAULT.splitlines():
        stripped = line.strip()
        if stripped.startswith("// ") and " = " in stripped and ";" in stripped:
            line = stripped[3:]
        lines.append(line)
    status, out, _ = check(tmp_path, "\n".join(lines))
    assert status == 0, out


@pytest.mark.parametrize("old,new,word", [
    ("engine_port = 7400;", "engine_prot = 7400;", "engine_prot"),
    ("engine_port = 7400;", "engine_port = 70000;", "engine_port"),
    ("engine_port = 7400;", 'engine_port = "seven";', "engine_port"),
    ("port_first = 20000;", "port_first = 24000;", "port_"),
    ("cores = [ 1 ];", "cores = [ ];", "cores"),
    ('"198.18.0.1"', '"198.18.0.300"', "engine_addresses"),
    ('name = "embedded";', 'name = "Not allowed";', "name"),
])
def test_a_bad_value_is_named_with_its_line(tmp_path, old, new, word):
    assert old in DEFAULT
    text = DEFAULT.replace(old, new, 1)
    status, out, path = check(tmp_path, text)
    assert status != 0
    assert f"{path}:{line_of(text, new)}: " in out and word in out, out


def test_a_syntax_error_is_named_with_its_line(tmp_path):
    text = DEFAULT.replace("engine_port = 7400;", "engine_port = = 7400;", 1)
    status, out, path = check(tmp_path, text)
    assert status != 0 and f"{path}:{line_of(text, '= =')}" in out, out


def test_a_file_that_is_not_there(tmp_path):
    run = subprocess.run([str(BUILD / "control/engine/fanwired"), "--check-config", str(tmp_path / "none")],
                         capture_output=True, text=True)
    assert run.returncode != 0 and str(tmp_path / "none") in run.stdout + run.stderr


def test_two_problems_are_both_named(tmp_path):
    text = DEFAULT.replace("engine_port = 7400;", "engine_port = 0;", 1).replace("cores = [ 1 ];", "cors = [ 1 ];", 1)
    status, out, _ = check(tmp_path, text)
    assert status != 0 and "engine_port" in out and "cors" in out
