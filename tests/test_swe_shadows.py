"""What a patch makes beside a hidden test file, to be imported in its place, is removed before the tests run and named."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from firsthand.scorers import resolved as scorer
from firsthand.scorers.patches.patch import read_patch
from firsthand.scorers.resolved import TaskWorkplaces, _apply, resolved, shadows
from firsthand.task import Task
from firsthand.trace import Trace
from swe_local import GOOD, adds, make_record
from test_scorers_hidden_tests import SCRIPT, FolderPlace, hidden


def test_what_shadows_a_hidden_test_file_is_found_by_how_python_imports() -> None:
    tests = read_patch(adds("pkg/tests/test_calc.py", "pass") + adds("pkg/tests/test_all/test_x.py", "pass"))
    beside = "pkg/tests/test_calc"
    found = [f"{beside}/__init__.py", f"{beside}.so", f"{beside}.cpython-312-x86_64-linux-gnu.so", f"{beside}.pyc"]
    found += [f"{beside}/__init__.so", "pkg/tests.py", "pkg.py", "pkg/tests/test_all.py"]
    others = [f"{beside}.json", f"{beside}/data.py", "pkg/tests/__init__.py", "pkg/tests/test_calc2.py", "pkg/calc.py"]
    others += ["test_calc.py", "pkg/tests/test_all/__init__.py", "pkg/tests/test_calc.py", "__init__.py"]
    others += ["pkg/tests/.hidden.so"]
    made = read_patch("".join(adds(path, "pass") for path in [*found, *others]))
    assert shadows(made, tests) == found
    moved = "diff --git a/a.py b/pkg.py\nsimilarity index 100%\nrename from a.py\nrename to pkg.py\n"
    assert shadows(read_patch(moved), tests) == ["pkg.py"]


def test_what_shadows_a_hidden_test_file_is_removed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, place, calc = make_record(tmp_path), FolderPlace(tmp_path), tmp_path / "calc"
    subprocess.run(["git", "reset", "-q", "--hard", record["base_commit"]], cwd=calc, check=True)
    patch = GOOD + adds("tests/test_calc/__init__.py", "mine = 1") + adds("tests/test_calc/data.py", "x = 1")
    hiding = shadows(read_patch(patch), read_patch(record["test_patch"]))
    assert asyncio.run(_apply(place, patch, hidden(record), hiding)) == "git apply"
    assert not (calc / "tests/test_calc/__init__.py").exists() and (calc / "tests/test_calc/data.py").exists()
    fresh = "git reset -q --hard; git clean -qfd"
    subprocess.run(fresh, shell=True, cwd=calc, check=True)
    for head in ("/dev/null", "a/tests/test_calc.pyc"):  # `patch` makes a file under either header
        plain = f"--- {head}\n+++ b/tests/test_calc.pyc\n@@ -0,0 +1 @@\n+mine\n"
        assert asyncio.run(_apply(place, plain, hidden(record), ["tests/test_calc.pyc", "calc/__init__.py"]))
        assert not (calc / "tests/test_calc.pyc").exists()
        assert (calc / "calc/__init__.py").exists(), "what the commit holds is the repository's own"
        subprocess.run(fresh, shell=True, cwd=calc, check=True)

    async def opened(self: TaskWorkplaces, task: Task) -> FolderPlace:
        return place

    monkeypatch.setattr(scorer.TaskWorkplaces, "open", opened)
    secret = {"test_patch": record["test_patch"], "eval_script": SCRIPT.replace("pytest", "false")}
    secret |= {"log_parser": "pytest", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": []}
    task = Task("t", "?", metadata={"repo": "calc", "base_commit": record["base_commit"]}, secret=secret)
    trace = Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=f"<patch>\n{patch}</patch>")
    score = asyncio.run(resolved(TaskWorkplaces())(task, trace))
    assert not (calc / "tests/test_calc/__init__.py").exists() and (calc / "tests/test_calc/data.py").exists()
    assert score.detail["changes_test_machinery"] == ["tests/test_calc/__init__.py"]
