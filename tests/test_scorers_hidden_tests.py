"""Hidden tests of a software task: applied in a folder that stands for the workplace, run, and scored to the last detail."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DataError, SandboxError
from firsthand.sandbox.repository_workspace import ROOT, ContainerPlace
from firsthand.sandbox.sandbox import Outcome
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.patches.applied_patch import AppliedPatch, apply_patch
from firsthand.scorers.patches.patch import rewritten
from firsthand.scorers.resolved import (
    COMMANDS,
    END,
    START,
    HiddenTests,
    PatchRefused,
    TaskWorkplaces,
    _with_pytest,
    resolved,
    run_tests,
)
from firsthand.task import Task
from firsthand.trace import Trace
from swe_local import BREAKS, GOOD, HEAD, adds, make_record

SCRIPT = f"setup it\n{START}\npytest -rA tests/test_calc.py\n{END}\n"


class FolderPlace:
    """A workplace in a folder of this machine: /testbed and /tmp/work are folders in it."""

    base = f"{ROOT}/.git"

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[RunLimits | None]()

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: RunLimits | None = None
    ) -> Outcome:
        self.asked.append(limits)
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name, text in (files or {}).items():
            (work / name).write_text(text)
        line = command.replace("/tmp/work", str(work)).replace(ROOT, str(self.folder / "calc"))
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        ended: Any = "done" if done.returncode == 0 else "error"
        return Outcome(ended, done.returncode, done.stdout, done.stderr, 0.5, None, None, "bubblewrap")

    async def close(self) -> None: ...


class ToldPlace:
    """A workplace whose commands have outcomes that were written before."""

    base = ""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.asked = list(outcomes), list[Any]()

    async def shell(
        self, command: str, *, stdin: str = "", files: Mapping[str, str] | None = None, limits: RunLimits | None = None
    ) -> Outcome:
        self.asked.append((command, files, limits))
        return self.outcomes.pop(0)

    async def close(self) -> None: ...


def outcome(stdout: str = "", status: int | None = 0, *, stderr: str = "", ended: str = "") -> Outcome:
    how: Any = ended or ("done" if status == 0 else "error")
    return Outcome(how, status, stdout, stderr, 1.25, None, None, "bubblewrap")


def apply(place: Any, patch: str, tests: HiddenTests) -> AppliedPatch:
    """Apply a patch as `run_tests` does."""
    return asyncio.run(
        apply_patch(
            place, patch, base_commit=tests.base_commit, test_patch=tests.test_patch, reference=tests.reference,
            command="python -m pytest", limits=COMMANDS,
        )
    )  # fmt: skip


def hidden(record: dict[str, Any]) -> HiddenTests:
    return HiddenTests(record["base_commit"], record["test_patch"], SCRIPT, "pytest")


@pytest.mark.slow
def test_a_patch_is_applied_with_git_or_patch_and_makes_room_for_the_tests(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tests, place, calc = hidden(record), FolderPlace(tmp_path), tmp_path / "calc"
    subprocess.run(["git", "reset", "-q", "--hard", record["base_commit"]], cwd=calc, check=True)

    def applied(patch: str, tests: HiddenTests = tests) -> str:
        subprocess.run("git reset -q --hard; git clean -qfd", shell=True, cwd=calc, check=True)
        return apply(place, patch, tests).how

    assert applied(GOOD) == "git apply" and "x / 2" in (calc / "calc/__init__.py").read_text()
    taking = replace(COMMANDS, output_bytes=32 * 2**20)
    assert applied("") == "" and place.asked == [taking, COMMANDS, COMMANDS, taking, COMMANDS]
    with pytest.raises(PatchRefused, match=r"^the patch does not apply: error: "):
        applied(GOOD.replace("x // 2", "x // 3"))
    assert applied(GOOD.replace(" \n \n def", " \n # other\n def")) == "patch --fuzz=5"
    both = (
        GOOD
        + "diff --git a/tests/test_calc.py b/tests/test_calc.py\n--- a/tests/test_calc.py\n+++ b/tests/test_calc.py\n"
    )
    both += "@@ -1,2 +1,2 @@\n-from calc import double\n+from calc import *\n \n"
    assert applied(both) == "git apply" and "import double" in (calc / "tests/test_calc.py").read_text()
    made = replace(tests, test_patch=adds("tests/test_new.py", "def test_x(): pass"))
    assert applied(adds("tests/test_new.py", "mine"), made) == "git apply"
    assert not (calc / "tests/test_new.py").exists(), "a file that the hidden tests make is removed"
    told = ToldPlace(outcome(), outcome("git apply\n"), outcome(status=96, stderr="error: x"))
    with pytest.raises(PatchRefused, match=r"^the patch conflicts with the tests: error: x$"):
        apply(told, GOOD, tests)
    wrong = tests.test_patch.replace("from calc import double\n", "from other import it\n")
    with pytest.raises(DataError, match=r"^the test patch does not apply to the commit: error: ") as refused:
        applied("", replace(tests, test_patch=wrong))
    assert not isinstance(refused.value, PatchRefused)


@pytest.mark.slow
def test_files_that_the_hidden_tests_change_delete_or_move_are_set_back_first(tmp_path: Path) -> None:
    record, calc, name = make_record(tmp_path), tmp_path / "calc", "tests/test_calc.py"
    base = record["base_commit"]
    subprocess.run(["git", "reset", "-q", "--hard", base], cwd=calc, check=True)
    text = (calc / name).read_text()
    head = f"diff --git a/{name} b/{name}\n"
    gone = "".join(f"-{line}\n" for line in text.splitlines())
    deletes = (
        f"{head}deleted file mode 100644\n--- a/{name}\n+++ /dev/null\n@@ -1,{gone.count(chr(10))} +0,0 @@\n{gone}"
    )
    edit = "@@ -1,2 +1,2 @@\n-from calc import double\n+from calc import *\n \n"
    changes = f"{head}--- a/{name}\n+++ b/{name}\n{edit}"
    moves = f"diff --git a/{name} b/tests/test_new.py\nrename from {name}\nrename to tests/test_new.py\n"
    moves += f"--- a/{name}\n+++ b/tests/test_new.py\n{edit}"
    for mine in (changes, deletes):
        for theirs in (changes, deletes, moves, record["test_patch"]):
            subprocess.run("git reset -q --hard; git clean -qfd", shell=True, cwd=calc, check=True)
            tests = replace(hidden(record), test_patch=theirs)
            assert apply(FolderPlace(tmp_path), mine, tests).how == "git apply", (mine, theirs)
            assert (calc / name).read_text() == text


def test_an_end_of_no_known_status_is_an_error_of_the_sandbox() -> None:
    tests = HiddenTests("c", BREAKS, SCRIPT, "pytest")
    with pytest.raises(SandboxError, match=r"^the patch could not be applied \(error\): no room$"):
        apply(ToldPlace(outcome(), outcome(status=98, stderr=" no room\n")), GOOD, tests)
    with pytest.raises(SandboxError, match=r"^the patch could not be applied \(timeout\): $"):
        apply(ToldPlace(outcome(), outcome(status=None, ended="timeout")), GOOD, tests)
    with pytest.raises(PatchRefused, match=f"^the patch does not apply: {'x' * 500}$"):
        apply(ToldPlace(outcome(), outcome(status=95, stderr="x" * 501)), GOOD, tests)
    with pytest.raises(PatchRefused, match=r"^the patch was not applied to its end \(timeout\): $"):
        apply(ToldPlace(outcome(), outcome("ready\n", status=None, ended="timeout")), GOOD, tests)
    with pytest.raises(DataError, match=r"^the files of the test patch have more than 33,554,432 bytes: leave large "):
        apply(ToldPlace(outcome(status=None, ended="output")), GOOD, tests)
    with pytest.raises(SandboxError, match=r"^the hidden tests could not be read \(error\): no tar$"):
        apply(ToldPlace(outcome(status=1, stderr="no tar")), GOOD, tests)
    place = ToldPlace(outcome("archive"), outcome("ready\n git apply\n"), outcome())
    several = adds("a b.py", "x") + GOOD + HEAD.replace("calc/__init__", "calc/old") + "@@ -1 +0,0 @@\n-x\n"
    applied = apply(place, GOOD, replace(tests, test_patch=several))
    assert (applied.how, applied.hidden.archive) == ("git apply", "archive")
    (_, first, _), (_, given, bounds), (command, _, limits) = place.asked
    assert first == {"test.patch": several} and given["model.patch"] == GOOD and limits == bounds == COMMANDS
    assert given["plain.patch"] == rewritten(GOOD) and given["named"] == "calc/__init__.py\n"
    room = "\nrm -rf -- 'a b.py'\ngit checkout -q c -- calc/__init__.py calc/old.py\nmkdir -p -- . calc || exit 96\n"
    assert room in command


def test_tests_run_after_their_setup_with_a_canary_among_them() -> None:
    patch = adds("tests/test_calc.py", "def test_half(): pass")
    tests, limits = HiddenTests("c", patch, SCRIPT, "pytest"), RunLimits(wall_s=7)

    class Place(ToldPlace):
        async def shell(self, command: str, **given: Any) -> Outcome:
            if "canary.py" in given.get("files", ()):
                names = [
                    line.split()[1][:-3] for line in given["files"]["canary.py"].splitlines() if line.startswith("def")
                ]
                log = f"PASSED tests/z.py::{names[0]}\nFAILED tests/z.py::{names[1]}\nPASSED tests/test_calc.py::test_half\n"
                self.outcomes = [outcome(log, 1, stderr="warned")]
            return await super().shell(command, **given)

    place = Place(outcome("archive"), outcome("ready\ngit apply"), outcome())
    run = asyncio.run(run_tests(place, GOOD, tests, limits))
    assert (run.results, run.exit_status, run.ended, run.applied_with, run.doubt, run.wall_s, run.tier) == (
        {"tests/test_calc.py::test_half": "PASSED"}, 1, "error", "git apply", "", 1.25, "bubblewrap",
    )  # fmt: skip
    assert run.log.endswith("test_half\nwarned") and run.log.startswith("PASSED tests/z.py::")
    _, (_, first, _), _, (command, files, given) = place.asked
    assert (
        first["model.patch"] == GOOD
        and files["hidden.tar.base64"] == "archive"
        and command == "exec bash /tmp/work/eval.sh"
        and given == limits
    )
    lines = files["eval.sh"].split("\n")
    path = lines[9].split()[-1]
    assert path.startswith("tests/test_z") and lines == [
        "exec 3>&1 >/tmp/work/setup.log 2>&1", "setup it", "set +eux", "cd /testbed",
        'command -v python >/dev/null || python() { python3 "$@"; }',
        'command -v pytest >/dev/null || pytest() { python3 -m pytest "$@"; }',
        "rm -rf -- tests/test_calc.py",
        "{ base64 -d /tmp/work/hidden.tar.base64 >/tmp/work/hidden.tar && tar -xm --no-same-owner -f /tmp/work/hidden.tar"
        " && rm /tmp/work/hidden.tar; } || exit 98",
        "[ -d tests ] || { mkdir -p tests; : > tests/__init__.py; }", f"cp /tmp/work/canary.py {path}",
        "exec >&3 2>&1 3>&-", f"pytest -rA tests/test_calc.py {path}", "",
    ]  # fmt: skip


def test_without_a_patch_or_a_canary_the_exit_status_must_agree_with_the_log() -> None:
    whole = HiddenTests("c", adds("tests/test_calc.py", "x"), f"a\n{START}\n pytest\n{END}", "pytest")
    for log, status, ended, doubt in (
        ("PASSED t.py::a\n", 0, "done", ""),
        (
            "PASSED t.py::a\n",
            2,
            "error",
            "the log cannot be trusted: the exit status is 2, and it names no failed test",
        ),
        ("PASSED t.py::a\n", None, "timeout", ""),
        ("PASSED t.py::a\n=== 1 passed in 0.1s ===\n", 0, "done", ""),
        (
            "PASSED t.py::a\n=== 1 failed, 1 passed in 0.1s ===\n",
            0,
            "done",
            "the log cannot be trusted: the exit status is 0, and a test failed",
        ),
    ):
        place = ToldPlace(outcome(), outcome(), outcome(log, status, ended=ended))
        run = asyncio.run(run_tests(place, "", whole, COMMANDS))
        assert (run.applied_with, run.doubt, run.results) == ("nothing", doubt, {"t.py::a": "PASSED"})
        (_, files, _), _, (_, after, _) = place.asked
        assert (
            list(files) == ["test.patch"]
            and list(after) == ["eval.sh", "hidden.tar.base64"]
            and after["eval.sh"].endswith("3>&-\n pytest\n")
        )


def attempt(answer: str = "", **state: Any) -> Trace:
    return Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=answer, final_state=state)


def test_an_attempt_without_a_patch_that_can_be_read_opens_no_workplace() -> None:
    score = resolved(TaskWorkplaces(Path("/nowhere")))

    def found(trace: Trace) -> Any:
        return asyncio.run(score(Task("t", "?"), trace))  # type: ignore[arg-type]

    for trace, detail in (
        (attempt("no"), {"reason": "there is no patch"}),
        (attempt(GOOD, diff=""), {"reason": "there is no patch"}),
        (attempt(diff="", problem="the folder is gone"), {"reason": "the folder is gone"}),
        (attempt(diff="\0"), {"reason": "the patch has a zero byte: binary content is refused", "applied": False}),
    ):
        made = found(trace)
        assert (made.name, made.value, made.detail) == ("resolved", 0.0, detail)


def test_workplaces_open_by_image_or_repository_and_pass_their_limits_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = TaskWorkplaces(tmp_path, test_s=5)
    assert (places.limits.wall_s, places.limits.cpu_s, places.limits.memory_bytes) == (5, 5, 4 * 2**30)
    assert (places.limits.scratch_bytes, places.limits.output_bytes) == (2**29, 2**25)
    assert TaskWorkplaces().limits.wall_s == 1800 and COMMANDS.wall_s == 120
    task = Task("t", "?", metadata={"repo": "calc", "base_commit": "c"})
    with pytest.raises(DataError) as refused:
        asyncio.run(places.open(task))
    assert (
        str(refused.value) == f"task t names no image, and its repo 'calc' is not in {str(tmp_path)!r}: clone it there"
    )
    (tmp_path / "calc").mkdir()
    assert places.repository(task) == tmp_path / "calc"
    TaskWorkplaces(engine="podman").ready(Task("t", "?", metadata={"image": "i"}))
    monkeypatch.setenv("PATH", str(tmp_path))
    places.ready(task)
    with pytest.raises(SandboxError):
        places.ready(Task("t", "?", metadata={"image": "i"}))
    (folder,) = _with_pytest()
    assert Path(folder) == Path(pytest.__file__).parent.parent
    secret = {"test_patch": "p", "eval_script": "s", "log_parser": "l"}
    assert HiddenTests.of(Task("t", "?", metadata={"base_commit": 7}, secret=secret)) == HiddenTests("7", "p", "s", "l")
    assert not HiddenTests.of(
        Task("t", "?", metadata={"base_commit": "c"}, secret={**secret, "eval_type": "both"})
    ).fail_only
    only = HiddenTests.of(Task("t", "?", metadata={"base_commit": "c"}, secret={**secret, "eval_type": "fail_only"}))
    assert only == HiddenTests("c", "p", "s", "l", True)


ENGINE = r"""#!/bin/sh
case "$1 $*" in
  exec*'apply --cached '*) echo take >> {log}; {take} ;;
  exec*'git apply '*) echo apply >> {log}; {apply} ;;
  exec*'git checkout '* | exec*'|| exit 96'*) echo room >> {log} ;;
  exec*eval.sh) echo eval >> {log}; {tests} ;;
  exec*'cp -r'*) echo keep >> {log}; {keep} ;;
  exec*) cat > /dev/null ;;
  run*) echo "$*" >> {log}; echo ready; exec cat ;;
  *) echo "$*" >> {log} ;;
esac
"""
"""A program in docker's place that notes what it is asked, and whose containers say what was written before."""


class Container:
    """A task whose image that program runs."""

    def __init__(self, folder: Path, *, take: str = "", apply: str = "", tests: str = "", keep: str = "") -> None:
        self.log, self.engine = folder / "log", folder / "engine"
        self.engine.write_text(ENGINE.format(log=self.log, take=take, apply=apply, tests=tests, keep=keep))
        self.engine.chmod(0o700)
        secret = {"test_patch": adds("t.py", "x"), "eval_script": f"{START}\nmake check\n{END}", "log_parser": "pytest"}
        secret |= {"FAIL_TO_PASS": ["t.py::a"], "PASS_TO_PASS": ["t.py::b", "t.py::c"]}
        self.task = Task("t", "?", metadata={"image": "calc:1", "base_commit": "c"}, secret=secret)

    def places(self, **more: Any) -> TaskWorkplaces:
        return TaskWorkplaces(engine=str(self.engine), **more)

    def noted(self) -> list[str]:
        """What was asked of the engine since the last look."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


def test_a_container_gets_the_network_and_the_bounds_that_its_workplaces_have(tmp_path: Path) -> None:
    container = Container(tmp_path)

    async def started(**more: Any) -> tuple[list[str], list[str]]:
        places = container.places(**more)
        place: Any = await places.open(container.task)
        assert isinstance(place, ContainerPlace) and (place.image, place.limits) == ("calc:1", places.limits)
        assert (place.network, place.engine) == (places.network, str(container.engine))
        await place.close()
        run, keep, end = container.noted()
        assert (keep, end) == ("keep", f"rm --force {place.name}")
        return run.split(), place.command()[1:]

    closed, said = asyncio.run(started(test_s=7))
    assert closed == " ".join(said).split() and " --network none " in " ".join(closed)
    opened, said = asyncio.run(started(network=True))
    assert opened == " ".join(said).split() and "--network" not in opened


def test_a_workplace_that_does_not_open_or_whose_opening_is_cancelled_is_closed(tmp_path: Path) -> None:
    broken = Container(tmp_path, keep="echo no repository >&2; exit 4")
    with pytest.raises(SandboxError, match="the image calc:1 holds no repository in /testbed"):
        asyncio.run(broken.places().open(broken.task))
    assert [line.split()[0] for line in broken.noted()] == ["run", "keep", "rm"]
    slow = Container(tmp_path, keep="exec sleep 20")

    async def cancelled() -> None:
        opening = asyncio.ensure_future(slow.places().open(slow.task))
        while "keep" not in slow.log.read_text():
            await asyncio.sleep(0.002)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(cancelled())
    assert [line.split()[0] for line in slow.noted()] == ["run", "keep", "rm"]


def test_the_workplace_of_a_patch_is_closed_however_its_scoring_ends(tmp_path: Path) -> None:
    def score(container: Container, patch: str = GOOD) -> Any:
        try:
            return asyncio.run(resolved(container.places())(container.task, attempt(diff=patch)))  # type: ignore[arg-type]
        finally:
            asked.append([line.split()[0] for line in container.noted()])

    asked: list[list[str]] = []
    refused = score(Container(tmp_path, apply="echo no such line >&2; exit 95"))
    said = {"reason": "the patch does not apply: no such line", "applied": False}
    assert (refused.name, refused.value, refused.detail) == ("resolved", 0.0, said)
    with pytest.raises(DataError, match=r"^the test patch does not apply to the commit: old$"):
        score(Container(tmp_path, take="echo old >&2; exit 97"))
    assert asked == [["run", "keep", "take", "apply", "rm"], ["run", "keep", "take", "rm"]]
    log = "printf 'PASSED t.py::a\\nPASSED t.py::b\\nPASSED t.py::c\\n'"
    patch = GOOD + adds("tests/conftest.py", "x = 1") + adds("conftest.py.txt", "y") + adds("setup.cfg", "z")
    paths = ("tests/conftest.py", "conftest.py.txt", "setup.cfg")
    raw = "".join(f":000000 100644 {'0' * 40} {'1' * 40} A\0{path}\0" for path in paths)
    listed = f"echo ready; echo 'git apply'; echo {base64.b64encode(raw.encode()).decode()}"
    right = score(Container(tmp_path, apply=listed, tests=log), patch)
    assert 0 <= right.detail.pop("wall_s") < 60 and (right.name, right.value) == ("resolved", 1.0)
    assert right.detail == {
        "applied": True, "applied_with": "git apply", "fail_to_pass": [1, 1], "pass_to_pass": [2, 2], "exit_status": 0,
        "tier": "docker", "changes_test_machinery": ["tests/conftest.py", "setup.cfg"],
    }  # fmt: skip
    wrong = score(Container(tmp_path, tests=f"{log}; echo 'FAILED t.py::a'; exit 1"))
    assert wrong.value == 0.0 and wrong.detail["reason"] == "1 of 1 tests still fail"
    assert "changes_test_machinery" not in wrong.detail and wrong.detail["fail_to_pass"] == [0, 1]
    assert asked[2:] == [["run", "keep", "take", "apply", "room", "eval", "rm"]] * 2
