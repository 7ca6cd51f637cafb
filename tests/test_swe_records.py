"""A record made from a commit: its tests are told from its fix, and run before and after it in the sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.benchmarks.swe_records import from_commit, is_test
from firsthand.errors import ConfigError, DataError
from namespaces import WHY_NOT
from swe_local import COMMAND, FULL_NAME, git, make_repository

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    make_repository(tmp_path / "calc")
    return tmp_path / "calc"


@pytest.mark.slow
@needs_bwrap
def test_a_commit_becomes_a_record_that_a_benchmark_reads(repo: Path, tmp_path: Path) -> None:
    record = from_commit(repo, "HEAD", test_cmd=COMMAND, repeats=1, problem="half is wrong for odd numbers")
    assert record["FAIL_TO_PASS"] == [FULL_NAME] and record["PASS_TO_PASS"] == ["tests/test_calc.py::test_double"]
    assert record["base_commit"] == git(repo, "rev-parse", "HEAD~1") and record["problem_statement"].startswith(
        "half is"
    )
    assert "calc/__init__.py" in record["patch"] and "tests/" not in record["patch"]
    assert "tests/test_calc.py" in record["test_patch"] and "__init__" not in record["test_patch"]
    (tmp_path / "tasks.jsonl").write_text(json.dumps(record) + "\n")
    (task,) = catalog.benchmark(f"swe_records:data={tmp_path / 'tasks.jsonl'}").tasks(0)
    assert task.secret["FAIL_TO_PASS"] == [FULL_NAME] and task.id.startswith("calc-")


@needs_bwrap
@pytest.mark.slow
def test_a_flaky_test_is_left_out_and_tests_that_fail_anyway_are_too(repo: Path) -> None:
    tests = repo / "tests" / "test_calc.py"
    (repo / "calc" / "__init__.py").write_text(
        "def half(x):\n    return x * 0.5\n\n\ndef double(x):\n    return x * 2\n"
    )
    tests.write_text(
        tests.read_text()
        + "\n\ndef test_fraction():\n    assert half('x' and 1) == 0.5 and half.__code__.co_consts[-1] == 0.5\n"
        "\n\ndef test_flaky():\n    import os\n    assert os.urandom(1)[0] % 2\n\n\ndef test_never():\n    assert False\n"
    )
    git(repo, "commit", "--quiet", "--all", "--message", "multiply")
    record = from_commit(repo, "HEAD", test_cmd=COMMAND, repeats=6)
    assert record["FAIL_TO_PASS"] == ["tests/test_calc.py::test_fraction"]
    assert "tests/test_calc.py::test_never" not in record["PASS_TO_PASS"]
    assert "tests/test_calc.py::test_flaky" not in record["FAIL_TO_PASS"] + record["PASS_TO_PASS"]


@needs_bwrap
@pytest.mark.slow
def test_a_commit_that_makes_no_test_pass_is_refused_with_the_end_of_the_log(repo: Path) -> None:
    (repo / "calc" / "__init__.py").write_text("HALF = 2\n" + (repo / "calc" / "__init__.py").read_text())
    (repo / "tests" / "test_calc.py").write_text((repo / "tests" / "test_calc.py").read_text() + "\n# more\n")
    git(repo, "commit", "--quiet", "--all", "--message", "say nothing new")
    with pytest.raises(DataError, match=r"no test fails before the patch and passes after .*1 failed, 3 passed"):
        from_commit(repo, "HEAD", test_cmd=COMMAND, repeats=1)


@pytest.mark.slow
def test_what_is_no_fix_with_its_tests_is_told(repo: Path, tmp_path: Path) -> None:
    (repo / "README").write_text("x")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message", "no tests")
    (repo / "tests" / "test_more.py").write_text("x")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message", "only tests")
    for commit, reason in (
        ("HEAD~1", "changes no test"),
        ("HEAD", "changes nothing but tests"),
        ("HEAD~3", "0 parents"),
        ("nothing", "git rev-parse failed"),
        ("--output=x", "all 40 digits"),
        ("0" * 40, "git fetch failed"),
    ):
        with pytest.raises(DataError, match=reason):
            from_commit(repo, commit)
    git(repo, "checkout", "--quiet", "-b", "side", "HEAD~1")
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "side")
    git(repo, "merge", "--quiet", "--no-edit", "-")
    merge = git(repo, "rev-parse", "HEAD")
    with pytest.raises(DataError) as merged:
        from_commit(repo, merge)
    assert str(merged.value) == f"the commit {merge[:12]} has 2 parents: give a commit with one parent"
    with pytest.raises(DataError, match="is not there"):
        from_commit(tmp_path / "none", "0" * 40)
    with pytest.raises(ConfigError, match="repeats is 0"):
        from_commit(repo, "HEAD", repeats=0)


def test_tests_are_known_by_name_and_folder() -> None:
    tests = ("tests/a.txt", "x/test/y.py", "test_a.py", "a/b_test.py", "conftest.py", "app/tests.py", "testing/x/y.py")
    others = ("src/contest.py", "latest.py", "x/attest/y.py", "testdata.py", "setup.py")
    assert all(map(is_test, tests)) and not any(map(is_test, others))
