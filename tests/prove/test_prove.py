# SPDX-License-Identifier: BSD-3-Clause
"""The driver of ./dev prove, on parts of the tests' own; its table of parts; and that no figure of the page is typed."""
import json
import pathlib
import shutil
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import page  # noqa: E402 (the path comes first)
import prove  # noqa: E402

GOOD = {"name": "x", "tried": 10, "unit": "things", "got_through": 0, "seed": 7, "seconds": 0.5}


def part(name, text="", code=0, **more):
    script = f"import sys; print({text!r}); sys.exit({code})"
    command = [sys.executable, "-c", script]
    return {"name": name, "what": "a test", "short": command, "long": command, **more}


def closing(**more):
    return "chatter before\n" + json.dumps({**GOOD, **more})


def run(tmp_path, parts, *args):
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    code = prove.main(["--parts", str(tmp_path / "parts.json"), "--out", str(tmp_path / "build/prove.json"), *args])
    path = tmp_path / "build/prove.json"
    return code, json.loads(path.read_text()) if path.exists() else None


def test_what_passed_is_told_with_its_counts_and_seed(tmp_path, capsys):
    code, result = run(tmp_path, [part("one", closing()), part("two", closing(tried=1234567))], "--seed", "5")
    assert code == 0
    assert [(row["tried"], row["seed"], row["passed"]) for row in result["parts"]] == [(10, 7, True), (1234567, 7, True)]
    assert result["seed"] == 5 and result["form"] == "short"
    out = capsys.readouterr().out
    assert "1,234,567" in out and "2 of 2 parts passed" in out


@pytest.mark.parametrize("text,code,why", [
    (closing(got_through=1), 0, "1 got through"),
    (closing(tried=0), 0, "tried nothing"),
    (closing(), 3, "ended with 3"),
    ("no json", 0, "no JSON object"),
    ("[1]", 0, "no JSON object"),
    ("", 0, "no JSON object"),
    ("", 1, "said nothing"),
    (json.dumps({**GOOD, "seed": None}), 0, "no seed"),
    (json.dumps({**GOOD, "got_through": True}), 0, "no got_through"),
    (closing() + "\nand then more", 0, "no JSON object"),
])
def test_whatever_is_not_a_proof_fails(tmp_path, text, code, why):
    exit_code, result = run(tmp_path, [part("bad", text, code), part("good", closing())])
    assert exit_code == 1
    assert not result["parts"][0]["passed"] and why in result["parts"][0]["failure"]
    assert result["parts"][1]["passed"], "the others run all the same"


def test_a_part_whose_command_is_missing_fails(tmp_path):
    missing = {"name": "gone", "short": ["tests/prove/no-such-program"], "long": ["tests/prove/no-such-program"]}
    code, result = run(tmp_path, [missing])
    assert code == 1 and "cannot be run" in result["parts"][0]["failure"]


def test_a_part_that_hangs_is_ended_and_fails(tmp_path):
    hanging = part("hangs", timeout_s=0.5)
    hanging["short"] = [sys.executable, "-c", "import time; time.sleep(600)"]
    code, result = run(tmp_path, [hanging])
    assert code == 1 and "not done after" in result["parts"][0]["failure"]
    assert result["seconds"] < 60


def test_a_table_that_cannot_be_meant_is_refused(tmp_path):
    for table in ([part("one"), part("one")], [{"name": "x", "short": ["true"]}], [{"short": ["true"], "long": ["true"]}]):
        with pytest.raises(SystemExit):
            run(tmp_path, table)
    with pytest.raises(SystemExit):
        run(tmp_path, [part("one")], "--only", "another")
    with pytest.raises(SystemExit):
        run(tmp_path, [part("one")], "--minutes", "5")


def test_minutes_are_shared_by_weight_and_the_seed_is_passed_on():
    parts = [{"name": "a", "long": ["x", "--minutes", "{minutes}"], "weight": 3},
             {"name": "b", "long": ["y", "--hours", "{hours}", "--seed={seed}"]}, {"name": "c", "long": ["z"]}]
    of = prove.shares(parts, "long", 40)
    assert of == {"a": 30, "b": 10}
    assert prove.command_of(parts[0], "long", 9, of["a"]) == ["x", "--minutes", "30.00"]
    assert prove.command_of(parts[1], "long", 9, of["b"]) == ["y", "--hours", "0.1667", "--seed=9"]


def test_each_part_of_the_tree_has_a_command_that_is_there():
    for one in prove.load_parts(HERE / "parts.json"):
        for form in ("short", "long"):
            program = one[form][0]
            if not program.startswith("build"):
                assert (prove.ROOT / program).exists() or shutil.which(program), f"{one['name']}: {program}"
            scripts = [word for word in one[form][1:] if word.startswith("tests/") and word.endswith(".py")]
            assert all((prove.ROOT / word).exists() for word in scripts), f"{one['name']}: {scripts}"


def test_the_short_forms_together_stay_below_twenty_minutes():
    limits = [one.get("expected_s", 60) for one in prove.load_parts(HERE / "parts.json")]
    assert sum(limits) <= 1000, "with the build, ./dev prove has 20 minutes"


def test_the_page_is_made_from_the_results():
    results = {form: page.load(form) for form in ("short", "long")}
    text = page.PAGE.read_text()
    assert len(page.MARK.findall(text)) == 2
    assert page.rewrite(text, results) == text, "docs/reliability.md: ./dev prove --docs"


def row(name, **more):
    return {**GOOD, "name": name, "what": "w", "passed": True, "commit": "c1", "date": "2026-01-02",
            "machine": {"cpu": "m", "cpus": 2, "kernel": "k"}, **more}


def test_a_failed_part_is_not_hidden_in_the_page():
    assert "**failed**" in page.table([row("one", passed=False)])


def saved(tmp_path, parts, *args):
    run(tmp_path, parts, "--results", str(tmp_path / "kept"), *args)
    return {one["name"]: one for one in page.load("short", tmp_path / "kept")}


def test_each_part_is_kept_as_it_ends_in_the_place_of_its_last_row(tmp_path):
    parts = [part("one", closing()), part("two", closing(tried=5))]
    assert not saved(tmp_path, parts), "only with --save"
    first = saved(tmp_path, parts, "--save")
    assert list(first) == ["one", "two"] and first["two"]["tried"] == 5
    parts[1] = part("two", closing(tried=6, seed=8))
    second = saved(tmp_path, parts, "--save", "--only", "two")
    assert second["one"] == first["one"] and (second["two"]["tried"], second["two"]["seed"]) == (6, 8)
    assert second["two"]["commit"] and second["two"]["date"] and second["two"]["machine"]["cpus"]
    text = page.table(list(second.values()))
    assert "| 6 things |" in text and "| 10 things |" in text and "| 8 |" in text


def test_a_run_that_broke_off_leaves_what_had_ended(tmp_path, monkeypatch):
    parts = [part("one", closing()), part("two", closing())]
    run_part = prove.run_part
    monkeypatch.setattr(prove, "run_part", lambda one, *more: sys.exit(143) if one["name"] == "two" else run_part(one, *more))
    with pytest.raises(SystemExit):
        saved(tmp_path, parts, "--save")
    assert [one["name"] for one in page.load("short", tmp_path / "kept")] == ["one"]


def test_resuming_runs_what_is_missing_or_has_failed(tmp_path):
    parts = [part("one", closing()), part("two", closing(got_through=1)), part("three", closing())]
    saved(tmp_path, parts, "--save", "--only", "one", "--only", "two")
    parts[0] = part("one", closing(tried=99))
    parts[1] = part("two", closing())
    after = saved(tmp_path, parts, "--resume")
    assert after["one"]["tried"] == 10, "it had passed: it is not run again"
    assert all(one["passed"] for one in after.values()) and list(after) == ["one", "two", "three"]
