# SPDX-License-Identifier: BSD-3-Clause
"""What the figures were measured on: without it a figure says nothing."""
import os
import pathlib
import platform
import re
import subprocess

from .hugepages import meminfo

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What the dataplane and its peers make use of, or suffer from.
FLAGS = ("sse4_2", "aes", "pclmulqdq", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vbmi2", "vaes", "vpclmulqdq", "gfni",
         "constant_tsc", "nonstop_tsc", "hypervisor")
PACKAGES = ("libbpf1", "libxdp1", "libipsec-mb1", "liburcu8", "redis-server", "nats-server", "mosquitto", "liburing2",
            "libssl3", "libsodium23", "libsqlite3-0", "libevent-2.1-7")


def _read(path, default=""):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return default


def _output(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def _caches(cpu=0):
    found = {}
    for index in sorted(pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(_read(index / "type"), "")
        found[f"L{_read(index / 'level')}{kind}"] = _read(index / "size")
    return found


def _mitigations():
    folder = pathlib.Path("/sys/devices/system/cpu/vulnerabilities")
    files = sorted(folder.glob("*")) if folder.exists() else []
    return {path.name: text for path in files if (text := _read(path)) != "Not affected"}


def _cpuinfo(name):
    match = re.search(rf"^{name}\s*:\s*(.*)$", _read("/proc/cpuinfo"), re.M)
    return match.group(1) if match else ""


def describe():
    """The machine as it is now; load is that of the last minute, before the scenario began."""
    info = meminfo()
    flags = set(_cpuinfo("flags").split())
    siblings = _output("lscpu")
    per_core = re.search(r"Thread\(s\) per core:\s*(\d+)", siblings)
    hypervisor = re.search(r"Hypervisor vendor:\s*(\S+)", siblings)
    return {
        "cpu": f"{_cpuinfo('model name')} (family {_cpuinfo('cpu family')}, model {_cpuinfo('model')})",
        "cores": os.cpu_count(), "threads_per_core": int(per_core.group(1)) if per_core else None,
        "mhz": round(float(_cpuinfo("cpu MHz") or 0)), "flags": [flag for flag in FLAGS if flag in flags], "caches": _caches(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none"),
        "isolated_cpus": _read("/sys/devices/system/cpu/isolated"),
        "kernel": platform.release(), "command_line": _read("/proc/cmdline"), "mitigations": _mitigations(),
        "system": _read("/etc/os-release").split("PRETTY_NAME=\"")[-1].split("\"")[0],
        "memory_mb": info["MemTotal"] // 1024, "memory_free_mb": info["MemAvailable"] // 1024,
        "hugepages": {"size_kb": info["Hugepagesize"], "total": info["HugePages_Total"], "free": info["HugePages_Free"]},
        "transparent_hugepages": re.sub(r".*\[(\w+)\].*", r"\1", _read("/sys/kernel/mm/transparent_hugepage/enabled")),
        "virtualised": hypervisor.group(1) if hypervisor else "no", "load_1min": os.getloadavg()[0],
    }


def versions():
    """Of Fanwire with its commit, DPDK, and what else of Debian's takes part."""
    found = {"fanwire": fanwire_version(), "commit": commit()}
    found["dpdk"] = _output("pkg-config", "--modversion", "libdpdk")
    listed = _output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev} ${Version}\n", *PACKAGES)
    for line in listed.splitlines():
        package, status, version = (line.split() + ["", ""])[:3]
        if status == "ii":
            found[package] = version
    return {name: version for name, version in found.items() if version}


def fanwire_version():
    match = re.search(r"version: '([^']+)'", _read(ROOT / "meson.build"))
    return match.group(1) if match else "unknown"


def commit():
    """The commit that is checked out; "+" where the sources were changed since."""
    head = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", ":!bench/results", ":!docs")
    return head + ("+" if head and changed else "")


def cores():
    """CPUs in the order in which they are given out: the last first, for interrupts go to the first; never two of one core
    as long as there are others."""
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    first, rest, seen = [], [], set()
    for cpu in allowed:
        topology = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        core = (_read(topology / "physical_package_id"), _read(topology / "core_id", str(cpu)))
        (rest if core in seen else first).append(cpu)
        seen.add(core)
    return first + rest
