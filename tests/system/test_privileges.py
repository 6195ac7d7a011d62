# SPDX-License-Identifier: BSD-3-Clause
"""What each daemon may do once it has started, as the kernel tells it of every thread."""
import os
import pathlib
import pwd
import socket
import stat
import subprocess

import pytest

from instance import wait_for

CAP_NET_ADMIN, CAP_BPF = 1 << 12, 1 << 39
# Program: user, effective and permitted of the main thread, whether its system calls are limited.
WANTED = {
    "fanwired": ("fanwire", CAP_NET_ADMIN | CAP_BPF, CAP_NET_ADMIN | CAP_BPF, False),
    "dataplane": ("fanwire-dp", 0, CAP_NET_ADMIN, True),
}
REFUSED = {"EACCES", "EPERM", "Permission denied", "Operation not permitted"}


def statuses(pid):
    """{thread: {field: value}} of every thread."""
    threads = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        threads[int(task.name)] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return threads


@pytest.mark.parametrize("program", WANTED)
def test_each_thread_has_its_user_and_what_it_needs(instance, program):
    """`control.user`, `dataplane.user`; capabilities and their bounding set; no_new_privs; seccomp."""
    user, effective, permitted, limited = WANTED[program]
    pid = instance.pid(program)
    threads = statuses(pid)
    assert len(threads) > 1, "the other threads are the point"
    for thread, seen in threads.items():
        main = thread == pid
        assert set(seen["Uid"].split()) == {str(pwd.getpwnam(user).pw_uid)}, seen
        assert set(seen["Gid"].split()) == {str(pwd.getpwnam(user).pw_gid)} and not seen["Groups"].strip(), seen
        assert int(seen["CapEff"], 16) == (effective if main else 0), seen
        assert int(seen["CapPrm"], 16) == int(seen["CapBnd"], 16) == (permitted if main else 0), seen
        assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0, seen
        assert seen["NoNewPrivs"] == "1" and seen["Seccomp"] == ("2" if limited else "0"), seen


@pytest.mark.parametrize("program", WANTED)
def test_no_core_file_and_no_debugger_of_the_same_user(instance, program):
    """Non-dumpable: its own user can neither trace it nor read its memory or its descriptors."""
    pid, user = instance.pid(program), WANTED[program][0]
    limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "of root where a process is not dumpable"
    trace = ("import ctypes,os,sys;libc=ctypes.CDLL(None,use_errno=True);"
             f"libc.ptrace(16,{pid},0,0)==0 and sys.exit('traced');print(os.strerror(ctypes.get_errno()))\n"
             f"try: open('/proc/{pid}/mem','rb');sys.exit('read')\n"
             "except PermissionError: pass\n"
             f"try: os.listdir('/proc/{pid}/fd');sys.exit('listed')\n"
             "except PermissionError: pass\n")
    run = subprocess.run(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "/usr/bin/python3", "-c", trace],
                         capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.strip() in REFUSED, run.stdout + run.stderr


def test_files_are_each_daemons_own(instance):
    """Regions are their writer's and readable by the other's group; keys 0600; run_dir stays root's."""
    def seen(path):
        info = os.lstat(path)
        return pwd.getpwuid(info.st_uid).pw_name, info.st_gid, stat.S_IMODE(info.st_mode)

    fanwire, dataplane = (pwd.getpwnam(name).pw_gid for name in ("fanwire", "fanwire-dp"))
    assert seen(instance.dir / "regions") == ("fanwire", dataplane, 0o2750)
    assert seen(instance.dir / "regions/registry") == ("fanwire", dataplane, 0o640)
    assert seen(instance.dir / "regions/state") == ("fanwire-dp", fanwire, 0o640)
    assert seen(instance.dir / "state") == ("fanwire", fanwire, 0o700)
    assert seen(instance.dir / "state/keys") == ("fanwire", fanwire, 0o600)
    assert seen(instance.dir / "bpf")[::2] == ("fanwire", 0o700)
    assert seen(instance.dir)[::2] == ("root", 0o755), "what root runs there is nobody else's to change"
    assert seen(instance.client_socket)[2] == 0o666
    assert seen(instance.control_socket)[::2] in (("root", 0o660), ("root", 0o600))


def test_killed_daemons_start_again_on_what_is_there(make_instance):
    """`kill -9` of each: the next start takes over what belongs to the users, and both work."""
    instance = make_instance().up()
    subscriber, publisher = instance.subscribe("again"), instance.publisher()
    for program in ("dataplane", "fanwired"):
        instance.restart(program)
    assert wait_for(lambda: instance.status()["walls"]["kernel"] == "on")
    subscriber.attach()
    publisher = instance.publisher()
    assert publisher.publish("again", "x").sent == 1 and subscriber.wait_events(1)
    for program in WANTED:
        assert (instance.dir / f"{program}.log").read_text().count("privileges: runs as") == 2


def test_telemetry_is_answered_by_a_limited_dataplane(make_instance):
    """A thread a connection, and answers about the port: all within the system calls that are left."""
    instance = make_instance().up()
    path = next(pathlib.Path("/var/run/dpdk").glob(f"fanwire-{instance.name}/dpdk_telemetry.v2"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(10)
        asking.connect(str(path))
        asking.recv(16384)
        for question in ("/", "/fanwire/counters", "/fanwire/workers", "/fanwire/port", "/ethdev/list", "/ethdev/stats,0",
                         "/ethdev/xstats,0", "/ethdev/info,0", "/ethdev/link_status,0", "/eal/params", "/info"):
            asking.send(question.encode())
            assert asking.recv(65536), question
    assert instance.alive(instance.pid("dataplane"))
    assert "refused" not in (instance.dir / "dataplane.log").read_text()


def test_an_unknown_user_is_said_and_capabilities_go_all_the_same(make_instance):
    instance = make_instance(config={"control.user": '"nobody-of-ours"', "dataplane.user": '""'}).up()
    for program, (_, effective, permitted, limited) in WANTED.items():
        for thread, seen in statuses(instance.pid(program)).items():
            main = thread == instance.pid(program)
            assert set(seen["Uid"].split()) == {"0"}
            assert int(seen["CapEff"], 16) == (effective if main else 0), seen
            assert int(seen["CapBnd"], 16) == (permitted if main else 0), seen
            assert seen["NoNewPrivs"] == "1" and seen["Seccomp"] == ("2" if limited else "0")
        assert "stays user 0" in (instance.dir / f"{program}.log").read_text()
    subscriber = instance.subscribe("root")
    assert instance.publisher().publish("root", "x").sent == 1 and subscriber.wait_events(1)


def test_a_memif_server_starts_again_on_the_socket_that_it_left(make_instance):
    """Stopped, it may not remove its socket any more; killed, it cannot: the next start does, where nobody listens."""
    instance = make_instance()
    path = instance.dir / "memif"
    instance.config.update({
        "network.interface": '""', "network.static_mac": '"02:00:00:00:00:02"',
        "dataplane.port": f'"net_memif0,role=server,socket-abstract=no,socket={path}"'})
    instance.up()
    instance.script("stop", "dataplane")
    assert path.exists()
    instance.start("dataplane")
    instance.wait()
    instance.restart("dataplane")
    log = (instance.dir / "dataplane.log").read_text()
    assert log.count("main: ready") == 3 and "gave no port" not in log


def test_doctor_says_what_each_may(instance):
    found = {f["check"]: f for f in instance.get("/v1/doctor")["findings"]}
    for program, wanted in (("fanwired", "at most cap_net_admin cap_bpf"),
                            ("the dataplane", "at most cap_net_admin, system calls limited")):
        finding = found[f"privileges of {program}"]
        assert finding["state"] == "ok" and finding["found"].endswith(wanted), finding
