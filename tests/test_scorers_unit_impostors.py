"""Answers to unittest cases whose objects equal, or pass for, what they are not, and those that forge the report."""

from __future__ import annotations

import array
import ast
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import ipaddress
import pathlib
import re
import subprocess
import sys
import types
import unittest.mock
import uuid
import weakref
from typing import Any

import pytest

from firsthand.scorers.programs.unit_cases import looked_at
from firsthand.scorers.programs.unit_libraries import codes_of_file
from firsthand.scorers.programs.unit_values import ANYTHING, Judge
from firsthand.scorers.unit_tests import runner

YES = "def __eq__(s, o): return True"
NEW = f"class Y:\n  def __init__(s, n): s.n = n\n  {YES} and s.n is not None\n  __hash__ = None\n"
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
    "a weak proxy": f"import weakref\n{NEW}kept = Y(1)\nvalue = [weakref.proxy(kept)]",
    "a mapping proxy": f"import types\nclass Y(dict):\n  {YES}\nvalue = types.MappingProxyType(Y())",
    "what a UserList holds": f"import collections\n{NEW}value = collections.UserList()\nvalue.data = Y(1)",
    "what a Fraction holds": f"import fractions\n{NEW}value = fractions.Fraction(1)\nvalue._numerator = Y(1)",
    "what a weak reference holds": f"import weakref\n{NEW}kept = Y(1)\nvalue = weakref.ref(kept)",
    "a namespace": f"import types\n{NEW}value = types.SimpleNamespace(a=Y(1))",
    "a slice": f"{NEW}value = slice(Y(1))",
    "a cell": f"{NEW}def f(y): return lambda: y\nvalue = f(Y(1)).__closure__[0]",
    "a key of cmp_to_key": "import functools\nvalue = functools.cmp_to_key(lambda a, b: 0)(1)",
    "a deque": f"import collections\n{NEW}value = collections.deque([Y(1)])",
    "a view": f"{NEW}value = {{1: Y(1)}}.values()",
    "ten lists deep": f"{NEW}value = [[[[[[[[[[Y(1)]]]]]]]]]]",
    "a method of such an object": f"import types\n{NEW}  def __call__(s): ...\nvalue = types.MethodType(Y(1), 1)",
    "items that nobody looks at": "from unittest import mock\nclass Y:\n  def __iter__(s): yield mock.ANY\nvalue = Y()",
    "a mapping of its own": "from collections.abc import Mapping\nclass Y(Mapping):\n  def __getitem__(s, k): return 1\n"
    "  def __iter__(s): return iter(())\n  def __len__(s): return 1\n  def items(s): return [(1, 2)]\nvalue = Y()",
    "a Counter that counts anew": "import collections\nclass Y(collections.Counter):\n  def __missing__(s, k): return 1\n"
    "value = Y()",
    "a dataclass": f"import dataclasses\n@dataclasses.dataclass\nclass Y:\n  a: int = 1\n  {YES}\nvalue = Y()",
}


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in IMPOSTORS.items()])
def test_an_object_that_passes_for_what_it_is_not_is_noted(answer: str) -> None:
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(answer, "<answer>", "exec"), space)
    changes: list[str] = []
    assert Judge(changes)(space["value"]) is space["value"]
    assert changes[:1] == ["an object equals, or passes for, what it is not"]


@pytest.mark.parametrize(
    "answer",
    [
        "class Y(numpy.ndarray):\n  def all(s, *a, **k): return True\nvalue = numpy.zeros(3).view(Y)",
        "class Y(numpy.ndarray):\n  def __array_wrap__(s, a, *b): return numpy.ones(3)\nvalue = numpy.zeros(3).view(Y)",
        "class Y(numpy.ndarray):\n  all = numpy.ndarray.any\nvalue = numpy.zeros(3).view(Y)",
        "class Y(pandas.DataFrame):\n  def _ixs(s, *a): return pandas.Series([1])\nvalue = Y({'a': [0]})",
        "value = numpy.ma.masked_all(3)",
        "class Y:\n  def __array__(s, *a, **k): return numpy.ones(3)\nvalue = Y()",
    ],
)
def test_a_value_of_numpy_or_pandas_has_none_of_the_answers_methods(answer: str) -> None:
    space = {"__name__": __name__} | {name: pytest.importorskip(name) for name in ("numpy", "pandas")}
    exec(compile(answer, "<answer>", "exec"), space)
    changes: list[str] = []
    Judge(changes)(space["value"])
    assert changes == ["an object equals, or passes for, what it is not"]


@pytest.mark.timeout(30)  # or it is looked at for ever
def test_a_value_that_holds_itself_or_one_part_many_times_is_looked_at_once() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]
    changes: list[str] = []
    assert Judge(changes)(ring) is ring and Judge(changes)(shared) is shared and changes == []


CLASSES = """
import collections
class Node:
    def total(self): return 1
class Text(str):
    def startswith(self, *_): return True
class Recent(collections.OrderedDict):
    def get(self, key): return super().get(key, -1)
    def __iter__(self): return super().__iter__()
"""


def test_a_method_that_the_tests_call_is_not_the_answers_where_the_object_is_a_value() -> None:
    changes: list[str] = []
    judge, space = Judge(changes), dict[str, Any]()
    exec(compile(CLASSES, "<answer>", "exec"), space)
    node, text, recent = space["Node"](), space["Text"](), space["Recent"](a=1)
    assert judge(recent) is recent and judge([node]) == [node] and judge.handed(recent) is recent
    for value, name in (("a", "startswith"), (recent, "get"), (node, "total"), ([], "append"), (text, "endswith")):
        assert judge.called(value, name) is value and changes == [], value
    judge.called(text, "startswith")
    assert changes.pop() == "an object equals, or passes for, what it is not"
    error = ValueError()
    error.with_traceback = space["Node"].total  # type: ignore[method-assign]
    judge.called(error, "with_traceback")
    assert changes == ["the answer changed ValueError.with_traceback of an object"]


def test_items_that_in_reads_from_an_iterator_are_looked_at_as_it_reads_them() -> None:
    changes: list[str] = []
    judge = Judge(changes)
    assert 2 in judge.each(iter([1, 2])) and 2 in judge.each([1, 2]) and 1 in judge.each({1: 2}) and changes == []
    assert 17 in judge.each(iter([unittest.mock.ANY]))
    assert changes == ["an object equals, or passes for, what it is not"]


@dataclasses.dataclass(order=True)
class Point:
    x: int = 1


class Node:
    def total(self) -> int:
        return 1


@pytest.mark.slow
def test_objects_of_python_and_of_libraries_are_not_noted() -> None:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    changes: list[str] = []
    pair = collections.namedtuple("pair", "a b")
    for value in (
        {1: 2}.keys(), {1: [2]}.values(), collections.deque([1]), vars(Node), slice(1, 2), types.SimpleNamespace(a=1),
        list[int], int | str, enum.Enum("Colour", "RED").RED, decimal.Decimal(1), re.compile("a"), array.array("i", [1]),  # type: ignore[attr-defined]
        collections.defaultdict(list, a=[1]), uuid.UUID(int=1), ipaddress.ip_address("::1"), Node().total, range(3), ...,
        iter([1]), (each for each in [1]), open, weakref.ref(Node), inspect.signature(len).parameters,
        Point(), Node(), Node, collections.Counter("aab"), collections.OrderedDict(a=1),
        fractions.Fraction(1, 2), collections.UserList([1]), datetime.datetime(2020, 1, 1), pathlib.Path("a"),
        unittest.mock.MagicMock(), pair(1, 2),
        numpy.arange(3), numpy.float64(1), numpy.array(["a", None], dtype=object), pandas.Timestamp("2020-01-01"),
        pandas.DataFrame({"a": [1, 2], "b": ["x", None]}), numpy.ma.array([1]),
        pandas.Series(["a"]), pandas.Index([1]), ValueError("a"), len,
    ):  # fmt: skip
        Judge(changes)(value)
        assert changes == [], value


def test_a_library_is_known_while_the_tests_patch_how_files_are_read() -> None:
    codes_of_file.cache_clear()
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
    assert (
        ast.unparse(looked_at(ast.parse(tests), "q")).splitlines()[-1]
        == "f(q.handed(q_any), q.handed([q_any]), q.handed(x.ANY))"
    )
    changes: list[str] = []
    Judge(changes)([ANYTHING, unittest.mock.call(ANYTHING)])
    assert changes == []


def test_tests_look_at_what_they_compare_calculate_with_or_hand_over() -> None:
    tests = """
import numpy as np
a = f(x)[0] == [1]
b = y - z
assert k(1, *v, n=w) in u
super(A, s)
np.sum(x)
x.mean()
self.assertEqual(x, 1)
self.assertIn(1, x)
self.assertCountEqual(first=x, second=y)
self.assertIsInstance(x, str)
x is y
"""
    assert ast.unparse(looked_at(ast.parse(tests), "q")).splitlines()[1:] == [
        "a = q(f(q.handed(x))[0]) == q([1])",
        "b = q(y) - q(z)",
        "assert q(k(1, *v, n=q.handed(w))) in q.each(u)",
        "super(A, s)",
        "np.sum(q(x))",
        "q.called(x, 'mean').mean()",
        "self.assertEqual(q(x), 1)",
        "self.assertIn(1, q.each(x))",
        "self.assertCountEqual(first=q.every(x), second=q.every(y))",
        "self.assertIsInstance(q.handed(x), q.handed(str))",
        "q.handed(x) is q.handed(y)",
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


@pytest.mark.slow
def test_an_answer_that_finds_the_link_cannot_forge_the_report(tmp_path: pathlib.Path) -> None:
    for answer, status in ((FORGE, 1), ("def task_func(n): return 42", 0)):
        (tmp_path / "answer.py").write_text(answer)
        command = [sys.executable, "-I", "-c", runner()]
        done = subprocess.run(command, input=CASES, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        assert status == 0 or "something else than the runner wrote to its link" in done.stderr
