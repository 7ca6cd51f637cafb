"""Answers to unittest cases whose objects equal, or pass for, what they are not, and those that forge the report."""

from __future__ import annotations

import ast
import collections
import dataclasses
import datetime
import fractions
import pathlib
import subprocess
import sys
import unittest.mock
from typing import Any

import pytest

from firsthand.scorers.programs import unit_runner
from firsthand.scorers.programs.unit_runner import Judge, looked_at

YES = "def __eq__(s, o): return True"
IMPOSTORS = {
    "mock.ANY": "from unittest.mock import ANY as value",
    "a subclass of it": "from unittest.mock import _ANY\nclass Y(_ANY): pass\nvalue = Y()",
    "test.support": "from test.support import ALWAYS_EQ as value",
    "a module that lies": f"class Y:\n  __module__ = 'collections'\n  {YES}\nvalue = Y()",
    "of __init__": "class Y:\n  def __init__(s): s.yes = True\n  def __eq__(s, o): return s.yes\nvalue = Y()",
    "of __new__": f"class Y:\n  def __new__(c, a): return object.__new__(c)\n  {YES}\nvalue = Y(1)",
    "a metaclass": f"class M(type):\n  {YES}\n  __hash__ = type.__hash__\nclass value(metaclass=M): pass",
    "a descriptor": "class D:\n  def __get__(s, i, t): return lambda *o: True\nclass Y: __eq__ = D()\nvalue = Y()",
    "partialmethod": "import functools\nclass Y: __eq__ = functools.partialmethod(lambda s, o: 1)\nvalue = Y()",
    "staticmethod": "class Y: __eq__ = staticmethod(lambda o: True)\nvalue = Y()",
    "methodcaller": "import operator\nclass Y: __eq__ = operator.methodcaller('__sizeof__')\nvalue = Y()",
    "a bound method": "class Y: __eq__ = (lambda s, o: 1).__get__(0)\nvalue = Y()",
    "another's slot": "class Y: __eq__ = object.__sizeof__\nvalue = Y()",
    "a text": f"class Y(str):\n  {YES}\nvalue = Y()",
    "in a list": f"class Y:\n  {YES}\nvalue = [1, (2, {{3: Y()}})]",
    "minus": "class Y:\n  def __rsub__(s, o): return 0\nvalue = Y()",
    "in": "class Y:\n  def __contains__(s, o): return True\nvalue = Y()",
    "greater": "class Y:\n  def __gt__(s, o): return True\nvalue = Y()",
    "a class that lies": "class Y: __class__ = property(lambda s: int)\nvalue = Y()",
    "a mock": "from unittest.mock import MagicMock\nvalue = MagicMock()\nvalue.__gt__ = lambda s, o: True",
    "a file that lies": f"space = {{}}\nexec(compile('class Y:\\n  {YES}', '{ast.__file__}', 'exec'), space)\n"
    "value = space['Y']()",
    "a dataclass": f"import dataclasses\n@dataclasses.dataclass\nclass Y:\n  a: int = 1\n  {YES}\nvalue = Y()",
}


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in IMPOSTORS.items()])
def test_an_object_that_passes_for_what_it_is_not_is_noted(answer: str) -> None:
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(answer, "<answer>", "exec"), space)
    changes: list[str] = []
    assert Judge(changes)(space["value"]) is space["value"]
    assert changes[:1] == ["an object equals, or passes for, what it is not"]


@dataclasses.dataclass(order=True)
class Point:
    x: int = 1


class Node:
    def total(self) -> int:
        return 1


def test_objects_of_python_and_of_libraries_are_not_noted() -> None:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    changes: list[str] = []
    pair = collections.namedtuple("pair", "a b")
    for value in (
        Point(), Node(), Node, collections.Counter("aab"), collections.OrderedDict(a=1),
        fractions.Fraction(1, 2), collections.UserList([1]), datetime.datetime(2020, 1, 1), pathlib.Path("a"),
        unittest.mock.MagicMock(), pair(1, 2),
        numpy.arange(3), numpy.float64(1), numpy.array(["a", None], dtype=object), pandas.Timestamp("2020-01-01"),
        pandas.DataFrame({"a": [1, 2], "b": ["x", None]}), pandas.Series(["a"]), pandas.Index([1]), ValueError("a"), len,
    ):  # fmt: skip
        Judge(changes)(value)
        assert changes == [], value


def test_a_library_is_known_while_the_tests_patch_how_files_are_read() -> None:
    unit_runner._codes_of_file.cache_clear()
    changes: list[str] = []
    with (
        unittest.mock.patch("os.path.join"),
        unittest.mock.patch("builtins.open"),
        unittest.mock.patch("os.path.realpath"),
    ):
        Judge(changes)(fractions.Fraction(1, 2))
    assert changes == []


def test_the_any_of_the_tests_is_their_own() -> None:
    tests = "from unittest import mock\nfrom unittest.mock import ANY\nf(ANY, [mock.ANY], x.ANY)"
    assert ast.unparse(looked_at(ast.parse(tests), "q")).splitlines()[-1] == "f(q(q_any), q([q_any]), q(x.ANY))"
    changes: list[str] = []
    Judge(changes)([unit_runner.ANYTHING, unittest.mock.call(unit_runner.ANYTHING)])
    assert changes == []


def test_tests_look_at_what_they_compare_calculate_with_or_hand_over() -> None:
    tests = "a = f(x)[0] == [1]\nb = y - z\nassert k(1, *v, n=w) in u\nsuper(A, s)"
    assert ast.unparse(looked_at(ast.parse(tests), "q")).splitlines() == [
        "a = q(f(q(x))[0]) == q([1])",
        "b = q(y) - q(z)",
        "assert q(k(1, *v, n=q(w))) in q(u)",
        "super(A, s)",
    ]


FORGE = """
import json, os, re, socket
for name in os.listdir("/proc/self/fd"):
    try: link = socket.socket(fileno=os.dup(int(name)))
    except OSError: continue
    link.sendall(b'{}\\n')
    tests, case = json.loads(link.makefile().readline() or "[]")
    bad = re.findall(r"def (test_[0-9a-f]{8})", tests.rpartition("class " + case)[2])
    said = {"ran": sorted(["test_a", *bad]), "problems": dict.fromkeys(bad, "AssertionError")}
    link.sendall(json.dumps(said).encode() + b'\\n')
    os._exit(0)
"""
CASES = """
import unittest
class TestCases(unittest.TestCase):
    def test_a(self): self.assertEqual(task_func(1), 42)
"""


def test_an_answer_that_finds_the_link_cannot_forge_the_report(tmp_path: pathlib.Path) -> None:
    for answer, status in ((FORGE, 1), ("def task_func(n): return 42", 0)):
        (tmp_path / "answer.py").write_text(answer)
        command = [sys.executable, "-I", unit_runner.__file__]
        done = subprocess.run(command, input=CASES, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        assert status == 0 or "something else than the runner wrote to its link" in done.stderr
