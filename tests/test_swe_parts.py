"""Parts of the software benchmarks, without a sandbox: an agent's tools, the sorting of tests, scripts."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks import swe_records
from firsthand.benchmarks.swe.swe_environment import MAX_READ, Checkout
from firsthand.benchmarks.swe.swe_tasks import (
    default_command,
    make_script,
)
from firsthand.errors import ConfigError, DataError, ToolError
from firsthand.sandbox.sandbox import Outcome
from firsthand.scorers.patches.patch import MAX_BYTES, MAX_FILES
from firsthand.scorers.resolved import COMMANDS, END, START, TaskWorkplaces, TestRun
from firsthand.task import Task
from firsthand.tools.python import MAX_CHARS
from swe_local import GOOD, adds, git, make_repository


class Place:
    """A workplace without a sandbox: notes what it is asked and answers in turn."""

    base = "b" * 40

    def __init__(self, *answers: Outcome | dict[str, Any]):
        self.answers, self.asked, self.closed = list(answers), [], 0

    async def shell(self, command: str, **given: Any) -> Outcome:
        answer = self.answers.pop(0)
        stdin = given.get("stdin")
        self.asked.append(json.loads(stdin) if stdin else (command, given))
        return answer if isinstance(answer, Outcome) else ended("done", 0, json.dumps(answer))

    async def close(self) -> None:
        self.closed += 1


class Places:
    """Gives workplaces in turn."""

    limits = "the limits"

    def __init__(self, *places: Place):
        self.places, self.opened, self.asked = list(places), [], []

    async def open(self, task: Task) -> Place:
        self.opened.append(task)
        return self.places[len(self.opened) - 1]

    def ready(self, task: Task) -> None:
        self.asked.append(task)


def ended(how: Any, status: int | None, out: str = "", err: str = "") -> Outcome:
    return Outcome(how, status, out, err, 0.1, None, None, "bubblewrap")


def at_work(*answers: Outcome | dict[str, Any]) -> tuple[Checkout, Place]:
    place, task = Place(*answers), Task("t", "p")
    checkout = Checkout(task, Places(place))  # type: ignore[arg-type]
    checkout.ready()
    asyncio.run(checkout.open())
    assert checkout.places.opened == checkout.places.asked == [task]  # type: ignore[attr-defined]
    return checkout, place


def say(checkout: Checkout, name: str, /, **arguments: object) -> str:
    found = next(each for each in checkout.tools if each.name == name)
    try:
        return asyncio.run(found(arguments))
    except ToolError as error:
        return f"[{error}]"


def test_the_shell_tells_what_was_printed_and_how_a_command_that_failed_ended() -> None:
    checkout, place = at_work(
        ended("done", 0, "out\n", "warned  \n"),
        ended("done", 0, " \n"),
        ended("error", 3, "", "no such file\n"),
        ended("timeout", None, "begun"),
        ended("memory", None),
        ended("output", None, "y"),
        ended("killed", -9, "z"),
        ended("done", 0, "a" * MAX_CHARS + "b"),
    )
    assert say(checkout, "shell", command="ls -a") == "out\nwarned"
    assert say(checkout, "shell", command="true") == "(no output)"
    assert say(checkout, "shell", command="cat x") == "no such file\n[exit status 3]"
    stopped = "it did not finish within 120 s and was stopped"
    assert say(checkout, "shell", command="sleep 999") == f"begun\n[{stopped}]"
    too_much = "it used too much memory or made too many files, and was stopped"
    assert say(checkout, "shell", command="m") == f"(no output)\n[{too_much}]"
    assert say(checkout, "shell", command="yes") == "y\n[it printed too much and was stopped]"
    assert say(checkout, "shell", command="kill") == "z\n[exit status -9]"
    assert "\n[1 characters left out]\n" in say(checkout, "shell", command="long")
    assert place.asked[0] == ("ls -a", {"limits": COMMANDS}) and place.asked[2] == ("cat x", {"limits": COMMANDS})
    assert [(each.name, each.effect, each.timeout_s) for each in checkout.tools] == [
        ("shell", "write", 180),
        ("view", "read", 180),
        ("edit", "write", 180),
        ("create", "write", 180),
        ("submit", "write", 180),
    ]


def test_files_are_seen_and_changed_inside_the_workplace() -> None:
    checkout, place = at_work(
        {"result": "1 a"}, {"result": "2 b"}, {"result": "edited"}, {"result": "made"}, {"problem": "no"}
    )
    assert say(checkout, "view", path="a.py") == "1 a"
    assert say(checkout, "view", path="b.py", start=7, lines=10_001) == "2 b"
    assert say(checkout, "edit", path="c.py", old="x", new="y") == "edited"
    assert say(checkout, "create", path="d.py", text="z") == "made"
    assert say(checkout, "view", path="e.py", start=1, lines=1) == "[no]"
    assert say(checkout, "view", path="a.py", start=0, lines=5) == "[start is 0 and lines is 5: give 1 or more]"
    assert say(checkout, "view", path="a.py", start=2, lines=0) == "[start is 2 and lines is 0: give 1 or more]"
    root = place.asked[0]["with"]["root"]
    assert [each["do"] for each in place.asked] == ["view", "view", "edit", "create", "view"]
    assert [each["with"] for each in place.asked] == [
        {"root": root, "path": "a.py", "start": 1, "lines": 400, "most": MAX_READ},
        {"root": root, "path": "b.py", "start": 7, "lines": 10_000, "most": MAX_READ},
        {"root": root, "path": "c.py", "old": "x", "new": "y", "most": MAX_READ},
        {"root": root, "path": "d.py", "text": "z"},
        {"root": root, "path": "e.py", "start": 1, "lines": 1, "most": MAX_READ},
    ]
    asyncio.run(checkout.close())
    assert place.closed == 1
    asyncio.run(Checkout(Task("t", "p"), Places()).close())  # type: ignore[arg-type]


def test_what_is_submitted_is_the_state_and_nothing_is_changed_after_it() -> None:
    diff = "diff --git a/x b/x\n+1\ndiff --git a/y b/y\n+ diff --git a/z\n"
    left = [[f"f{number}", "a binary file"] for number in range(6)]
    checkout, place = at_work({"result": {"diff": diff, "left_out": left}})
    shown = ", ".join(f"f{number} (a binary file)" for number in range(5))
    assert say(checkout, "submit") == f"submitted: 2 files changed; left out: {shown}. Give your final answer now."
    given = {"base": "b" * 40, "most_bytes": MAX_BYTES - 1, "most_files": MAX_FILES}
    assert place.asked == [{"do": "diff", "with": {"root": place.asked[0]["with"]["root"], **given}}]
    over = "[the work has been submitted: nothing more can be changed, end with your final answer]"
    for name, arguments in (
        ("submit", {}),
        ("shell", {"command": "ls"}),
        ("view", {"path": "x"}),
        ("edit", {"path": "x", "old": "1", "new": "2"}),
        ("create", {"path": "q", "text": ""}),
    ):
        assert say(checkout, name, **arguments) == over
    assert asyncio.run(checkout.final_state()) == {"diff": diff, "left_out": left, "submitted": True}
    empty, _ = at_work({"result": {"diff": "", "left_out": []}})
    assert say(empty, "submit") == "submitted: 0 files changed. Give your final answer now."
    unsent, _ = at_work({"result": {"diff": diff, "left_out": []}}, {"problem": "too large"})
    assert asyncio.run(unsent.final_state()) == {"diff": diff, "left_out": [], "submitted": False}
    assert asyncio.run(unsent.final_state()) == {"diff": "", "submitted": False, "problem": "too large"}


def ran(how: str = "done", doubt: str = "", log: str = "", /, **results: str) -> TestRun:
    return TestRun(results, 0, how, "git apply", doubt, 1.0, "bubblewrap", log)


def sorted_tests(monkeypatch: pytest.MonkeyPatch, *runs: TestRun) -> Any:
    """The tests of these runs, the first half before the patch."""
    places, left, seen = Places(*(Place() for _ in runs)), list(runs), []
    row = {"repo": "r", "base_commit": "c" * 40, "patch": "P", "test_patch": "T", "eval_script": "S", "log_parser": "L"}

    async def run_tests(place: Place, patch: str, tests: Any, limits: Any) -> TestRun:
        seen.append((places.places.index(place), patch, tests.test_patch, limits))
        return left.pop(0)

    monkeypatch.setattr(swe_records, "run_tests", run_tests)
    try:
        return asyncio.run(swe_records._sort_tests(row, places, len(runs) // 2))  # type: ignore[arg-type]
    finally:
        half = len(runs) // 2
        assert seen == [(at, "" if at < half else "P", "T", "the limits") for at in range(len(runs))]
        assert [place.closed for place in places.places] == [1] * len(runs)
        assert {(task.id, *task.metadata.values()) for task in places.opened} == {("record", "r", "c" * 40)}


def test_tests_are_sorted_by_all_runs_before_and_after_the_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {
        "keeps": "PASSED",
        "fixed": "FAILED",
        "starts": "PASSED",
        "breaks": "PASSED",
        "fails": "FAILED",
        "late": "PASSED",
    }
    second = {**first, "starts": "FAILED", "keeps": "XFAIL"}
    third = {
        "late": "FAILED",
        "new": "PASSED",
        "keeps": "PASSED",
        "fixed": "XFAIL",
        "starts": "PASSED",
        "breaks": "ERROR",
        "fails": "FAILED",
    }
    fourth = {**third, "late": "PASSED", "odd": "SKIPPED"}
    found = sorted_tests(monkeypatch, ran(**first), ran(**second), ran(**third), ran("error", **fourth))
    assert found == {"FAIL_TO_PASS": ["new", "fixed"], "PASS_TO_PASS": ["keeps"], "XFAIL": ["fixed"]}
    passing = ran(b="PASSED", a="PASSED")
    both = {"FAIL_TO_PASS": ["b", "a"], "PASS_TO_PASS": [], "XFAIL": []}
    assert sorted_tests(monkeypatch, ran(), passing) == both
    counted = [replace(passing, skips=count) for count in (1, 3, None)]
    assert sorted_tests(monkeypatch, ran(), ran(), *counted[:2]) == {**both, "SKIPS": 3}, "the most of all runs"
    assert sorted_tests(monkeypatch, ran(), ran(), *counted[1:]) == both, "one log does not tell it"


def test_runs_without_a_result_and_patches_that_fix_nothing_are_told_with_the_end_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = "x" + "y" * 500
    with pytest.raises(DataError) as told:
        sorted_tests(monkeypatch, ran(a="FAILED"), ran("timeout", "", log, a="PASSED"))
    start = "the tests with the reference patch give no result: "
    assert str(told.value) == f"{start}timeout; the log ends {'y' * 500!r}"
    with pytest.raises(DataError) as told:
        sorted_tests(monkeypatch, ran(a="FAILED"), ran("done", "a canary passed", log, a="PASSED"))
    assert str(told.value) == f"{start}a canary passed; the log ends {'y' * 500!r}"
    with pytest.raises(DataError) as told:
        sorted_tests(monkeypatch, ran(a="PASSED", b="PASSED"), ran("done", "", log, b="PASSED", a="XFAIL", c="FAILED"))
    assert str(told.value) == (
        "no test fails before the patch and passes after it (2 pass): does the command run the tests that the commit "
        f"changes? The log ends {'y' * 500!r}"
    )


def test_of_several_runs_the_last_says_whether_there_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before, passes, start = ran(a="FAILED"), ran(a="PASSED"), "the tests with the reference patch give no result: "
    for last, why in (
        (ran("timeout", "", "end", a="PASSED"), "timeout; the log ends 'end'"),
        (ran("error", "doubtful", "end", a="PASSED"), "doubtful; the log ends 'end'"),
        (ran("memory", "doubtful", a="PASSED"), "doubtful; the log ends ''"),
    ):
        with pytest.raises(DataError) as told:
            sorted_tests(monkeypatch, before, before, before, passes, passes, last)
        assert str(told.value) == start + why
        fixed = {"FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "XFAIL": []}
        assert sorted_tests(monkeypatch, before, before, last, passes) == fixed
    several = ran(c="PASSED", b="PASSED", a="PASSED"), ran(a="PASSED", c="PASSED", d="PASSED")
    none = ran(b="FAILED", c="PASSED")
    lacking = {"FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["c"], "XFAIL": []}
    assert sorted_tests(monkeypatch, none, none, *several) == lacking, "what one run lacks has not passed in it"
    with pytest.raises(DataError, match=r"passes after it \(1 pass\): .* The log ends 'end'$"):
        sorted_tests(monkeypatch, passes, passes, passes, ran("done", "", "end", a="PASSED"))


@pytest.mark.slow
def test_a_record_of_a_commit_holds_its_two_patches_its_script_and_the_sorted_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "..my calc!!v2.git"
    base = make_repository(path)
    head = git(path, "rev-parse", "HEAD")
    asked: list[Any] = []

    async def sort(row: Any, places: Any, repeats: int) -> Any:
        asked.append((row["patch"], places, repeats))
        both = {"FAIL_TO_PASS": ["t::new"], "PASS_TO_PASS": ["t::old", "t::older"]}
        return {**both, "XFAIL": ["t::older"], "SKIPS": 1}

    monkeypatch.setattr(swe_records, "_sort_tests", sort)
    record = swe_records.from_commit(path, "HEAD", packages=["/p"], test_s=9.0)
    patch, tests = (git(path, "diff", base, head, "--", part) + "\n" for part in ("calc", "tests"))
    command = "python -m pytest -rA -v tests/test_calc.py"
    expected = {
        "instance_id": f"my-calc-v2-{head[:12]}",
        "repo": str(path),
        "base_commit": base,
        "problem_statement": "halve odd numbers",
        "FAIL_TO_PASS": ["t::new"],
        "PASS_TO_PASS": ["t::old", "t::older"],
        "XFAIL": ["t::older"],
        "SKIPS": 1,
        "patch": patch,
        "test_patch": tests,
        "log_parser": "pytest",
        "eval_type": "pass_and_fail",
        "image": "",
        "text": "",
        "eval_script": make_script(command, base, tests),
        "test_cmd": command,
    }
    assert record == expected
    assert asked == [(patch, TaskWorkplaces(folder=Path("/"), packages=("/p",), test_s=9.0), 2)]
    changed = {"problem": "half fails", "test_cmd": "make test", "log_parser": "unittest", "repeats": 1}
    other = swe_records.from_commit(str(path), head, **changed)  # type: ignore[arg-type]
    told = {"problem_statement": "half fails", "test_cmd": "make test", "log_parser": "unittest"}
    assert other == {**expected, **told, "eval_script": make_script("make test", base, tests)}
    assert asked[1][1:] == (TaskWorkplaces(folder=Path("/"), packages=(), test_s=600.0), 1)
    with pytest.raises(ConfigError, match=r"^repeats is 0: give 1 or more$"):
        swe_records.from_commit(path, "HEAD", repeats=0)
    nameless = path.rename(tmp_path / "計算")
    assert swe_records.from_commit(nameless, head)["instance_id"] == f"repo-{head[:12]}"


def test_a_script_checks_out_the_old_tests_and_applies_the_new_ones() -> None:
    fresh, changed = adds("tests/test a.py", "def test():\n    pass\n"), GOOD.replace("calc/__init__", "tests/test_b")
    mark = f"EOF_{hashlib.sha256((changed + fresh).encode()).hexdigest()[:12]}"
    lines = ["#!/bin/bash", "set -uxo pipefail", "cd /testbed", f"git checkout {'c' * 40} tests/test_b.py"]
    lines += [f"git apply -v - <<'{mark}'", *(changed + fresh).splitlines(), mark, START, "run it", END]
    assert make_script("run it", "c" * 40, changed + fresh) == "\n".join(lines) + "\n"
    assert "git checkout" not in make_script("run it", "c" * 40, fresh)
    both = adds("conftest.py", "x\n") + fresh + adds("a/conftest.py", "x\n") + adds("a/data.txt", "x\n") + changed
    assert default_command(both) == "python -m pytest -rA -v 'tests/test a.py' tests/test_b.py"
