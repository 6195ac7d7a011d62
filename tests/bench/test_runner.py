# SPDX-License-Identifier: BSD-3-Clause
"""Whatever happens to a scenario: what it started is stopped, what it changed is taken back, and the others have their turn."""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest

from conftest import ROOT
from harness import results, runner, undo
from harness.bench import Bench
from harness.errors import Failure, Skip


def scenario(run, title="something"):
    return types.SimpleNamespace(TITLE=title, ORDER=1, SECONDS=(1, 2), run=run)


@pytest.fixture
def options(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(undo.Ledger.__init__, "__defaults__", (tmp_path / "ledger",))
    return argparse.Namespace(build=fake, output=tmp_path / "out", quick=True, runs=None)


def raising(error):
    def run(bench):
        bench.measure("rate", {}, "x", "more", [1])
        raise error
    return scenario(run)


def test_a_scenario_that_cannot_run_is_skipped_with_its_reason(options):
    assert runner.run(options, {"a": raising(Skip("it needs root"))}) == 0
    made = results.load(options.output)["a"]
    assert made["skipped"] == [{"name": "a", "labels": {}, "why": "it needs root"}] and made["quick"]
    assert len(made["measures"]) == 1  # what it had until then is kept


@pytest.mark.parametrize("error, words", [(Failure("the port was taken"), "failed: the port was taken"), (KeyError("x"), "KeyError: 'x'")])
def test_one_that_fails_leaves_the_others_their_turn(options, capfd, error, words):
    ran = []
    assert runner.run(options, {"a": raising(error), "b": scenario(lambda bench: ran.append(bench.scenario))}) == 1
    assert ran == ["b"] and words in results.load(options.output)["a"]["skipped"][0]["why"]
    assert "a failed" in capfd.readouterr().err


def test_an_interrupt_ends_it_and_says_what_is_left_out(options, capfd):
    assert runner.run(options, {"a": scenario(lambda bench: None), "b": raising(KeyboardInterrupt()), "c": scenario(None)}) == runner.INTERRUPTED
    assert "Not measured: b, c" in capfd.readouterr().err
    assert set(results.load(options.output)) == {"a"}


def test_programs_daemons_and_folders_end_with_the_scenario(options, tmp_path):
    seen = {}

    def run(bench):
        seen["program"] = bench.program("fanwire-bench-fake", "a", tmp_path / "diary").pid
        seen["daemon"] = bench.daemon("sleep", "600").pid
        seen["folder"] = bench.folder()
        bench.take_back("sh", "-c", 'echo "$WHAT" >"$0"', tmp_path / "taken", env={"WHAT": "back"})
        raise Failure("in the middle of it")
    runner.run(options, {"a": scenario(run)})
    for name in ("program", "daemon"):
        with pytest.raises(ProcessLookupError):
            os.kill(seen[name], 0)
    assert not seen["folder"].exists() and (tmp_path / "taken").read_text() == "back\n"


def test_a_daemon_that_does_not_get_ready_is_told_with_its_last_words(fake, ledger):
    bench = Bench("a", fake, ledger)
    with pytest.raises(Failure, match="(?s)sh did not get ready.*address in use"):
        bench.daemon("sh", "-c", "echo address in use; exit 1", ready=lambda: False)
    bench.close()


def alive(pid):
    """Neither gone nor waiting for a parent that does not care."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_killed_run_left_is_taken_back(tmp_path):
    """kill -9 of a run that has changed something: the next one finds it in the ledger."""
    words = textwrap.dedent(f"""
        import subprocess, sys, time, pathlib
        sys.path.insert(0, {str(ROOT / 'bench')!r})
        from harness import undo
        ledger = undo.Ledger({{"thing": print}}, pathlib.Path({str(tmp_path)!r}))
        ledger.add("thing", 42)
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        ledger.add("process", [daemon.pid, undo.started(daemon.pid)])
        ledger.add("process", [1, 12345])  # another process has the number by now
        print(daemon.pid, flush=True)
        time.sleep(600)""")
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE) as run:
        daemon = int(run.stdout.readline())
        taken = []
        mine = undo.Ledger({"thing": taken.append}, tmp_path)
        assert mine.recover() == "" and not taken  # it lives: that is its own
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert mine.recover() == "took back what a killed run had left: 2 x process, 1 x thing" and taken == [42]
    deadline = time.monotonic() + 5
    while alive(daemon) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(daemon)
    assert mine.recover() == ""
    mine.close()
    assert not list(tmp_path.iterdir())


def test_the_ledger_takes_back_the_last_first(ledger):
    ledger.add("thing", 1)
    ledger.add("thing", 2)
    ledger.close()
    assert ledger.taken == [2, 1]


def test_ctrl_c_on_the_command_line(fake, tmp_path):
    """SIGINT while crypto would run: status 130, nothing left, and a sentence."""
    slow = fake / "bench/fanwire-bench-crypto"
    slow.write_text((fake / "bench/fanwire-bench-fake").read_text().replace("sys.argv[1:] +", f"['slow', {str(tmp_path / 'diary')!r}, 'hangs'] +"))
    slow.chmod(0o755)
    with subprocess.Popen([ROOT / "bench/fanwire-bench", "crypto", "--quick", "--build", fake, "--output", tmp_path / "out"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        deadline = time.monotonic() + 20
        while not (tmp_path / "diary").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out = run.communicate(timeout=60)[0]
    assert run.returncode == 130 and "Not measured: crypto" in out, out
    assert not (tmp_path / "out").exists()


def test_figures_of_a_wrong_kind_are_told_in_a_sentence(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"cases": []}))
    run = subprocess.run([ROOT / "bench/fanwire-bench", "compare", tmp_path, "--output", tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "old.json is no result of fanwire-bench" in run.stderr and "Traceback" not in run.stderr
