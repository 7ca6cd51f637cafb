"""What a patch makes to be imported in place of a hidden test or its runner is found in the tree, removed, and named."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.scorers import resolved as scorer
from firsthand.scorers.patches.applied_patch import PatchRefused, intrusions, made_by
from firsthand.scorers.patches.patch import Change, read_patch
from firsthand.scorers.resolved import HiddenTests, TaskWorkplaces, resolved
from firsthand.task import Task
from firsthand.trace import Trace
from swe_local import GOOD, adds, make_record
from test_scorers_hidden_tests import SCRIPT, FolderPlace, ToldPlace, apply, hidden, outcome

CLEAN = "git reset -q --hard; git clean -qfdx"


@pytest.fixture
def record(tmp_path: Path) -> dict[str, str]:
    """A record whose repository is at its commit."""
    made = make_record(tmp_path)
    subprocess.run(["git", "reset", "-q", "--hard", made["base_commit"]], cwd=tmp_path / "calc", check=True)
    return made


def new(path: str, text: str = "pass") -> str:
    """A patch that makes a file, without git's own header."""
    return adds(path, text).partition("\n")[2].partition("\n")[2]


def test_what_shadows_a_hidden_test_file_is_found_by_how_python_imports() -> None:
    tests = read_patch(adds("pkg/tests/test_calc.py", "pass") + adds("pkg/tests/test_all/test_x.py", "pass"))
    beside = "pkg/tests/test_calc"
    found = [f"{beside}/__init__.py", f"{beside}.so", f"{beside}.cpython-312-x86_64-linux-gnu.so", f"{beside}.pyc"]
    found += [f"{beside}/__init__.so", "pkg/tests.py", "pkg.py", "pkg/tests/test_all.py"]
    found += [
        "unittest/__init__.py",
        "pytest.py",
        "_pytest/__init__.py",
        "traceback.py",
        "pkg/tests/pluggy/__init__.py",
    ]
    packages = ["pkg/tests/__init__.py", "pkg/tests/test_all/__init__.py", "pkg/__init__.so"]
    others = [f"{beside}.json", f"{beside}/data.py", "pkg/tests/test_calc2.py", "pkg/calc.py", "pkg/types.py"]
    others += ["test_calc.py", "pkg/tests/test_calc.py", "__init__.py", "calendar/data.py", "html/index.html"]
    others += ["pkg/tests/.hidden.so", "src/app/traceback.py"]
    made = read_patch("".join(adds(path, "pass") for path in [*found, *packages, *others]))
    sorted_out = intrusions(made, tests)
    assert (list(sorted_out.hiding), list(sorted_out.packages)) == (found, packages)
    assert list(sorted_out.machinery) == [*found, *packages, f"{beside}/data.py"], "a helper is named, and stays"
    moved = "diff --git a/a.py b/pkg.py\nsimilarity index 100%\nrename from a.py\nrename to pkg.py\n"
    assert not intrusions(read_patch(moved), tests).hiding, "git's raw diff has no renames: a move makes a file"
    expected = intrusions(made, tests, ["pkg/tests/__init__.py", "traceback.py"])
    assert "pkg/tests/__init__.py" not in expected.packages and "traceback.py" not in expected.hiding
    assert expected.machinery == sorted_out.machinery


def test_a_reference_makes_the_files_that_are_new_in_it_and_not_those_it_changes_moves_or_deletes() -> None:
    moved = "diff --git a/a.py b/b.py\nsimilarity index 100%\nrename from a.py\nrename to b.py\n"
    deleted = "diff --git a/d.py b/d.py\ndeleted file mode 100644\n--- a/d.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-pass\n"
    assert made_by(adds("pkg/__init__.py", "pass") + GOOD + moved + deleted) == {"pkg/__init__.py"}
    assert made_by("") == frozenset()


def test_files_that_decide_how_tests_run_are_named_wherever_they_lie() -> None:
    named = ["conftest.py", "a/b/conftest.py", ".pytest.ini", "x.egg-info/entry_points.txt", "lib/unittest/__init__.py"]
    named += ["bin/test", "tests/sitecustomize.py", "pkg/__init__.py"]
    others = ["pkg/core.py", "bin/other", "docs/pytest.md", "unittest.txt", "__init__.py", "other/__init__.py"]
    made = read_patch("".join(adds(path, "pass") for path in [*named, *others]))
    tests = read_patch(adds("pkg/test_x.py", "pass"))
    assert list(intrusions(made, tests, command="./bin/test -C pkg/test_x.py").machinery) == named
    changed = [change.__class__(change.path, change.path) for change in made]
    found = intrusions(changed, tests, command="bin/test")
    assert list(found.machinery) == named and not found.hiding and not found.packages, "only new files are removed"


@pytest.mark.slow
def test_names_come_from_the_tree_however_a_patch_spells_them(record: dict[str, str], tmp_path: Path) -> None:
    path, place, calc = "tests/test_calc/__init__.py", FolderPlace(tmp_path), tmp_path / "calc"
    plain = new(path)
    spelled = {
        "prefix": plain.replace("/dev/null", f"a/{path}").replace(f"+++ b/{path}", f"+++ b/{path}~"),
        "date": plain.replace(f"+++ b/{path}", f"+++ b/{path} 2020-01-01"),
        "header": f"diff --git a/{path} b/{path}\nnew file mode 100644\njunk\n{GOOD.partition(chr(10))[2]}",
        "ignored": plain + new(".gitignore", "*.py"),
    }
    for name, patch in spelled.items():
        subprocess.run(CLEAN, shell=True, cwd=calc, check=True)
        read_patch(patch)
        applied = apply(place, patch, hidden(record))
        assert applied.machinery == (path,) and not (calc / path).exists(), name
    for text in (plain.replace(f"b/{path}", f'"b/{path}" x"'), plain.replace(f"b/{path}", '"b/\\8.py"')):
        with pytest.raises(DataError, match=r"^line 2 of the patch: "):
            read_patch(text)
    assert read_patch(plain.replace(f"b/{path}", '"b/\\303\\251.py"\t2020'))[0].after == "é.py"


def test_what_is_no_ordinary_file_in_the_tree_is_refused() -> None:
    link = base64.b64encode(f":000000 120000 {'0' * 40} {'1' * 40} A\0tests/here\0".encode()).decode()
    tests = HiddenTests("c", adds("tests/test_x.py", "x"), SCRIPT, "pytest")
    with pytest.raises(
        PatchRefused, match=r"^the patch makes 'tests/here', which is no ordinary file: only such may be"
    ):
        apply(ToldPlace(outcome(), outcome(f"ready\ngit apply\n{link}")), GOOD, tests)


@pytest.mark.slow
def test_a_new_package_on_the_way_to_a_hidden_test_stays_only_if_the_reference_makes_it(
    record: dict[str, str], tmp_path: Path
) -> None:
    place, calc = FolderPlace(tmp_path), tmp_path / "calc"
    patch = adds("tests/__init__.py", "__path__ = []") + adds("calc/new/__init__.py", "x = 1")
    deep = record["test_patch"] + adds("calc/new/tests/test_x.py", "pass")
    for reference, stays in ((GOOD, (False, False)), (patch, (True, True)), ("", (False, True))):
        subprocess.run(CLEAN, shell=True, cwd=calc, check=True)
        tests = HiddenTests(record["base_commit"], deep, SCRIPT, "pytest", reference=reference)
        applied = apply(place, patch, tests)
        assert applied.machinery == ("calc/new/__init__.py", "tests/__init__.py")
        there = (calc / "tests/__init__.py").exists(), (calc / "calc/new/__init__.py").exists()
        assert there == stays, "without a reference, a new folder may be a package"


def test_helpers_and_data_that_hidden_tests_may_read_are_named() -> None:
    hidden_tests = adds("tests/unit/test_calc.py", "pass") + adds("tests/unit/golden.json", "1")
    tests = read_patch(hidden_tests + adds("pkg/test_app.py", "pass"))
    old = ["tests/helpers.py", "tests/data/expected.json", "tests/unit/checks.py", "tests/unit/test_other.py"]
    old += ["pkg/test_helpers.py", "pkg/app_test.py"]
    new = ["tests/helpers/__init__.py", "tests/unit/numpy.py", "tests/unit/checks.so"]
    fine = ["pkg/app.py", "pkg/testing/checks.py", "other/tests/helpers.py", "tests/unit/golden.json", "README.md"]
    made = [
        "tests/unit/test_mine.py",
        "tests/unit/mine_test.py",
        "tests/data/more.json",
        "pkg/test_mine.py",
        "pkg/x.py",
    ]
    changes = [Change(path, path) for path in [*old, *fine]] + [Change(None, path) for path in [*new, *made]]
    assert list(intrusions(changes, tests).machinery) == [*old, *new]
    assert intrusions([Change("tests/helpers.py", None)], tests).machinery == ("tests/helpers.py",)
    assert not intrusions(changes, tests).hiding, "they stay, as in the official harness"
    nested = read_patch(adds("pkg/tests/unit/testing/test_x.py", "pass"))
    assert intrusions([Change(path, path) for path in ("pkg/tests/a.py", "lib/test_y.py")], nested).machinery == (
        "pkg/tests/a.py",
    )
    at_root = read_patch(adds("test_calc.py", "pass"))
    assert intrusions([Change(path, path) for path in ("calc.py", "test_more.py")], at_root).machinery == (
        "test_more.py",
    )


@pytest.mark.slow
def test_what_shadows_a_hidden_test_file_is_removed_and_named(
    record: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, calc = FolderPlace(tmp_path), tmp_path / "calc"
    patch = GOOD + adds("tests/test_calc/__init__.py", "mine = 1") + adds("tests/test_calc/data.py", "x = 1")
    assert apply(place, patch, hidden(record)).how == "git apply"
    assert not (calc / "tests/test_calc/__init__.py").exists() and (calc / "tests/test_calc/data.py").exists()
    for head in ("/dev/null", "a/tests/test_calc.pyc"):  # `patch` makes a file under either header
        subprocess.run(CLEAN, shell=True, cwd=calc, check=True)
        plain = f"--- {head}\n+++ b/tests/test_calc.pyc\n@@ -0,0 +1 @@\n+mine\n"
        assert apply(place, plain, hidden(record)).machinery == ("tests/test_calc.pyc",)
        assert not (calc / "tests/test_calc.pyc").exists()
    subprocess.run(CLEAN, shell=True, cwd=calc, check=True)

    async def opened(self: TaskWorkplaces, task: Task) -> FolderPlace:
        return place

    monkeypatch.setattr(scorer.TaskWorkplaces, "open", opened)
    secret = {"test_patch": record["test_patch"], "eval_script": SCRIPT.replace("pytest", "false")}
    secret |= {"log_parser": "pytest", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": []}
    task = Task("t", "?", metadata={"repo": "calc", "base_commit": record["base_commit"]}, secret=secret)
    trace = Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=f"<patch>\n{patch}</patch>")
    score = asyncio.run(resolved(TaskWorkplaces())(task, trace))
    assert not (calc / "tests/test_calc/__init__.py").exists() and (calc / "tests/test_calc/data.py").exists()
    assert score.detail["changes_test_machinery"] == ["tests/test_calc/__init__.py", "tests/test_calc/data.py"]
