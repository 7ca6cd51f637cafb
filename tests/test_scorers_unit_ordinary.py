"""Ordinary answers to unittest cases, as programmers write them: none of them fails for the judge's sake."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from firsthand.scorers.programs.unit_values import Judge
from firsthand.scorers.unit_tests import runner
from unit_ordinary_answers import ASYNC, ELSEWHERE, HEAD, OPERATORS


def run(folder: Path, answer: str, tests: str) -> str:
    """The reason why an answer did not pass; nothing where it passed."""
    (folder / "answer.py").write_text(answer, encoding="utf-8")
    command = [sys.executable, "-I", "-c", runner()]
    done = subprocess.run(command, input=tests, capture_output=True, text=True, cwd=folder, check=False)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr


def joined(table: dict[str, tuple[str, str]]) -> tuple[str, str]:
    bodies = [textwrap.indent(body.strip(), " " * 8) for _, body in table.values()]
    methods = "".join(f"    def test_{at:02}(self):\n{body}\n" for at, body in enumerate(bodies))
    return "\n".join(answer for answer, _ in table.values()), HEAD + methods


@pytest.mark.parametrize("table", [OPERATORS, ELSEWHERE], ids=["operators", "elsewhere"])
def test_ordinary_answers_pass(tmp_path: Path, table: dict[str, tuple[str, str]]) -> None:
    assert run(tmp_path, *joined(table)) == ""


def test_an_asynchronous_case_may_look_at_logs(tmp_path: Path) -> None:
    answer = "\n".join(ELSEWHERE[name][0] for name in ("coroutines", "logs"))
    assert run(tmp_path, answer, HEAD.partition("class")[0] + ASYNC) == ""


@pytest.mark.parametrize(
    "made",
    ["class Y(str):\n  def startswith(s, *_): return True\nvalue = Y()",
     "class Y:\n  def __eq__(s, o): return isinstance(o, int)\nvalue = Y()",
     "class Y:\n  def __eq__(s, o): return isinstance(o, str)\nvalue = Y()",
     "class Y:\n  def __ne__(s, o): return True\nvalue = Y()",
     "class Y:\n  def __ne__(s, o): return False\nvalue = Y()",
     "class Y:\n  def __ge__(s, o): return True\nvalue = Y()",
     "class Y:\n  def __lt__(s, o): return True\nvalue = Y()",
     "class Y:\n  def __add__(s, o): return 42\nvalue = Y()",
     "class Y:\n  def __getattribute__(s, name): return int if name == '__class__' else 0\nvalue = Y()",
     "class M(type):\n  def __instancecheck__(s, o): return True\nclass value(metaclass=M): pass"],
)  # fmt: skip
def test_an_operator_that_says_yes_to_what_nothing_equals_is_noted(made: str) -> None:
    space: dict[str, object] = {"__name__": __name__}
    exec(compile(made, "<answer>", "exec"), space)
    changes: list[str] = []
    Judge(changes)(space["value"])
    Judge(changes).called(space["value"], "startswith")
    assert changes[:1] == ["an object equals, or passes for, what it is not"]
