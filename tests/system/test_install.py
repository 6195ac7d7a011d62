# SPDX-License-Identifier: BSD-3-Clause
"""What `meson install` puts down is all that another program needs: header, pkg-config file, shared and static library."""
import os
import pathlib
import shutil
import subprocess

import pytest

from instance import BUILD, ROOT, wait_for

EXAMPLES = ROOT / "client/examples"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A DESTDIR install; the tree itself is not on any search path of what is compiled against it."""
    folder = tmp_path_factory.mktemp("installed")
    run = subprocess.run(["/usr/bin/meson", "install", "-C", str(BUILD), "--no-rebuild", "--destdir", str(folder)],
                         capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def pkg_config(installed, *options):
    (file,) = installed.rglob("fanwire.pc")
    prefix = next(line for line in file.read_text().splitlines() if line.startswith("prefix=")).removeprefix("prefix=")
    return subprocess.run(
        ["pkg-config", f"--define-variable=prefix={installed}{prefix}", *options, "fanwire"], check=True, text=True,
        capture_output=True, env={**os.environ, "PKG_CONFIG_PATH": str(file.parent)}).stdout.split()


def compile_example(name, folder, *flags):
    program = folder / name
    run = subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", str(program),
                          str(EXAMPLES / f"{name}.c"), *flags], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stderr
    return program


def needed(program):
    out = subprocess.run(["readelf", "-d", str(program)], check=True, capture_output=True, text=True).stdout
    return [line.split("[")[1].rstrip("]") for line in out.splitlines() if "(NEEDED)" in line]


def run_both(instance, publish, subscribe, **environment):
    """An event from one program to the other, through the instance."""
    credential, user = instance.credential(), publish.parent.name
    environment = {**os.environ, "FANWIRE_CLIENT_SOCKET": str(instance.client_socket), **environment}
    listening = subprocess.Popen(["stdbuf", "-oL", str(subscribe)], stdout=subprocess.PIPE, text=True,
                                 env={**environment, "FANWIRE_TOKEN": instance.token(user)})
    try:
        assert wait_for(lambda: [c for c in instance.connections(user) if c["state"] == "active"])
        run = subprocess.run([str(publish), credential["name"], user], text=True, input="hello\n", capture_output=True,
                             timeout=20, env={**environment, "FANWIRE_SECRET": credential["secret"]})
        assert run.returncode == 0 and "sent to 1 of 1" in run.stdout, run.stdout + run.stderr
        assert "hello" in listening.stdout.readline()
    finally:
        listening.kill()
        listening.wait()
        listening.stdout.close()


def test_a_program_with_the_shared_library(instance, installed, tmp_path):
    """By pkg-config alone: it finds header and library, and needs no library of ours but this one."""
    folder = tmp_path / "with-shared"
    folder.mkdir()
    flags = pkg_config(installed, "--cflags", "--libs")
    publish, subscribe = (compile_example(name, folder, *flags) for name in ("publish", "subscribe"))
    assert [name for name in needed(publish) if "fanwire" in name] == ["libfanwire.so.0"]
    (library,) = installed.rglob("libfanwire.so.0")
    run_both(instance, publish, subscribe, LD_LIBRARY_PATH=str(library.parent))


def test_a_program_with_the_static_library(instance, installed, tmp_path):
    """By pkg-config --static, where only the archive is there: nothing of ours is missing in it, or needed beside it."""
    folder = tmp_path / "with-static"
    only_static = tmp_path / "installed"
    folder.mkdir()
    shutil.copytree(installed, only_static, symlinks=True)
    for shared in only_static.rglob("libfanwire.so*"):
        shared.unlink()
    flags = pkg_config(only_static, "--static", "--cflags", "--libs")
    publish, subscribe = (compile_example(name, folder, *flags) for name in ("publish", "subscribe"))
    assert not [name for name in needed(publish) if "fanwire" in name]
    run_both(instance, publish, subscribe)


def test_what_is_installed(installed):
    """Two headers, one a library; `fanwire.h` needs nothing of the other, and its library links neither DPDK nor libbpf."""
    headers = {p.name: p.read_text() for p in installed.rglob("*.h")}
    assert sorted(headers) == ["fanwire.h", "fanwire_bypass.h"]
    assert "bypass.h" not in headers["fanwire.h"]
    (library,) = (p for p in installed.rglob("libfanwire.so*") if not p.is_symlink())
    assert not [name for name in needed(library) if "rte_" in name or "bpf" in name or "xdp" in name]
    exported = subprocess.run(["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True)
    names = {line.split()[2].partition("@")[0] for line in exported.stdout.splitlines() if " T " in line}
    header = (pathlib.Path(ROOT) / "client/fanwire.h").read_text()
    assert names == {name for name in names if f"{name}(" in header} and "fan_publish" in names
    programs = {p.name for p in installed.rglob("*") if p.is_file() and p.parent.name in ("bin", "sbin")}
    assert {"fanwired", "fanwire-dataplane", "fanwirectl"} <= programs
