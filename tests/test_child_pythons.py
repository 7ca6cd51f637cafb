"""Processes of Python that we start run no file of the folder that the user stands in, which may be a stranger's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import firsthand
from firsthand.commands import completion
from firsthand.errors import DownloadError
from firsthand.hub.wheel import _pip_download
from firsthand.tokens.isolated_grammar import _Server

MARKS = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"


def is_sys_executable(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"


def first_word(node: ast.expr, module: ast.Module) -> str:
    """The first text after `sys.executable`; for `*WORDS` that of the module's constant."""
    if isinstance(node, ast.Starred):
        name = ast.unparse(node.value)
        node = next(
            each.value for each in module.body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name
        )
    return ast.unparse(node.elts[0] if isinstance(node, ast.Tuple) else node)


def test_each_python_that_is_started_leaves_the_current_folder_out_of_its_path() -> None:
    found = []
    for path in Path(firsthand.__file__).parent.rglob("*.py"):
        if "sys.executable" not in (text := path.read_text("utf-8")):
            continue
        module = ast.parse(text)
        for node in ast.walk(module):
            if isinstance(node, ast.List) and node.elts and is_sys_executable(node.elts[0]):
                found.append((path.name, first_word(node.elts[1], module)))
    assert len(found) >= 6 and [each for each in found if each[1] not in ("'-P'", "'-I'")] == []


def test_no_file_of_the_current_folder_runs_in_pip_or_where_grammars_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pip", "json", "socket"):
        (tmp_path / f"{name}.py").write_text(MARKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "to").mkdir()
    with pytest.raises(DownloadError, match="pip download no-such-thing failed"):
        _pip_download("no-such-thing", tmp_path / "to", 1, lambda done, of: None)
    _Server(None)
    assert not (tmp_path / "ran").exists()


def test_a_pattern_in_a_file_is_not_run_to_complete_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MARKS + "def mine(ctx, *, tries=1): ...\n")
    monkeypatch.chdir(tmp_path)
    assert completion._options("./mine.py:") == completion._options("./mine.py:mine:") == []
    assert "react:max_steps=" in completion._options("react:")
    assert not (tmp_path / "ran").exists()
