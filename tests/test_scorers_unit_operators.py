"""Operators of what unittest cases compare: mocks and functions of libraries that an answer borrows, and honest ones."""

from __future__ import annotations

import ast
import unittest
import unittest.mock
from typing import Any

import pytest

from firsthand.scorers.programs.unit_cases import looked_at
from firsthand.scorers.programs.unit_libraries import codes_in
from firsthand.scorers.programs.unit_values import Judge

MOCK = "from unittest import mock\nfrom unittest.mock import MagicMock\n"
CALL = "class Call:\n  def __call__(s, a, b): return True\n  def __get__(s, i, t): return lambda o: True\n"
DECORATED = f"import contextlib, types\n{CALL}class D(contextlib.ContextDecorator):\n  def __enter__(s): return s\n" + (
    "  def __exit__(s, *a): return None\n"
)
BORROWED = {
    "side_effect": "class R: __eq__ = MagicMock(side_effect=lambda o: True)\nvalue = R()",
    "return_value": "class R: __eq__ = MagicMock(return_value=1)\nvalue = R()",
    "nothing given": "class R: __eq__ = MagicMock()\nvalue = R()",
    "NotImplemented in a class": "class R: __eq__ = MagicMock(return_value=NotImplemented)\nvalue = R()",
    "wraps": "class R: __sub__ = MagicMock(wraps=lambda o: 0.0)\nvalue = R()",
    "of a whole mock": "value = MagicMock()\nvalue.__eq__.side_effect = lambda o: True",
    "a whole mock that is one": "value = MagicMock()\nvalue.__eq__.return_value = 1",
    "a mock set": "value = MagicMock()\nvalue.__lt__ = MagicMock()",
    "a difference": "value = MagicMock()\nvalue.__sub__.side_effect = lambda o: 0.0",
    "a difference of it": "value = MagicMock()\nvalue.__sub__.return_value.__lt__.return_value = True",
    "contains": "value = MagicMock()\nvalue.__contains__.return_value = True",
    "a method of the mock": "value = MagicMock()\nvalue.__lt__._mock_call = lambda *a, **k: True",
    "a delegate": "value = MagicMock()\nvalue.__lt__._mock_delegate = MagicMock(return_value=True)",
    "its children": "class M(MagicMock):\n  def _get_child_mock(s, **k): return MagicMock(return_value=True)\nvalue = M()",
    "a call of its own": "class M(MagicMock):\n  def _mock_call(s, *a, **k): return True\nvalue = MagicMock()\n"
    "value.__lt__ = M(return_value=NotImplemented)",
    "a proxy of its own": "class P(mock.MagicProxy):\n  def __get__(s, i, t): return lambda o: True\nclass R:\n"
    "  __eq__ = P('__eq__', 1)\nvalue = R()",
    "mock's own eq, of another": "class R: __eq__ = MagicMock(side_effect=mock._get_eq(mock.Mock()))\nvalue = R()",
    "a difference in a class": "class R: __sub__ = MagicMock()\nvalue = R()",
    "a whole mock with the eq of another": "other = MagicMock()\nother.__eq__.return_value = True\nvalue = MagicMock()\n"
    "value.__eq__.side_effect = mock._get_eq(other)",
    "a context decorator": f"{DECORATED}class R: __eq__ = D()(Call())\nvalue = R()",
    "a function of other globals": "import fractions, types\nclass R: __eq__ = types.FunctionType(\n"
    "  fractions.Fraction.__eq__.__code__, {'__name__': 'fractions', 'type': lambda o: int, 'int': 1})\nvalue = R()",
    "a partial": "import contextlib, functools, types\ncode = contextlib.ContextDecorator.__call__.__code__.co_consts\n"
    "inner = next(each for each in code if isinstance(each, types.CodeType))\nclass R: __eq__ = types.FunctionType(\n"
    "  inner, vars(contextlib), '', None, tuple(map(types.CellType, [functools.partial(lambda *a: True), None])))\n"
    "value = R()",
    "a class of that name": "class cython_function_or_method:\n  def __call__(s, o): return True\n"
    "class R: __eq__ = cython_function_or_method()\nvalue = R()",
}


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in BORROWED.items()])
def test_a_mock_or_a_librarys_function_that_says_what_the_answer_likes_is_no_operator(answer: str) -> None:
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(MOCK + answer, "<answer>", "exec"), space)
    changes: list[str] = []
    Judge(changes)(space["value"])
    assert changes == ["an object equals, or passes for, what it is not"]


HONEST = """
import contextlib, functools, unittest
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec
class TestCases(unittest.TestCase):
    def test_a(self):
        class Fake:
            __eq__ = MagicMock(return_value=True)
        one, two = MagicMock(), MagicMock(spec=dict)
        one.__contains__.return_value = True
        two.__eq__ = lambda this, other: other == 1
        three = MagicMock()
        three.__lt__ = MagicMock(return_value=True)
        self.assertEqual(Fake(), 1)
        self.assertIn(7, one)
        self.assertEqual(two, 1)
        self.assertTrue(three < 1)
    def test_b(self):
        for one in (MagicMock(), Mock(), AsyncMock(), MagicMock(wraps=len), create_autospec(dict), MagicMock(spec=str)):
            for _ in range(2):
                self.assertEqual(one, one)
                self.assertNotEqual(one, 1)
                self.assertEqual(one.__class__, one.__class__)
        one = MagicMock()
        self.assertEqual(one.a.b, one.a.b)
        for _ in range(2):
            self.assertNotIn(1, one)
            self.assertNotEqual(one - 1, 2)
            self.assertNotEqual(one + one, one * 2)
            with self.assertRaises(TypeError): one < 1
"""


@pytest.mark.slow
def test_mocks_of_the_tests_and_those_that_nobody_has_set_may_be_compared() -> None:
    changes: list[str] = []
    judge = Judge(changes)
    code = compile(looked_at(ast.parse(HONEST), "look"), "<tests>", "exec")
    judge.codes.update(codes_in(code))
    space: dict[str, Any] = {"look": judge, "__name__": __name__}
    exec(code, space)
    result = unittest.TestResult()
    unittest.TestLoader().loadTestsFromTestCase(space["TestCases"]).run(result)
    assert (result.testsRun, result.errors, result.failures, changes) == (2, [], [], [])


@pytest.mark.parametrize(
    "made",
    ["numpy.lib.mixins.NDArrayOperatorsMixin()", "pandas.Series([1])", "pandas.Index([1])", "pandas.DataFrame({'a': [1]})",
     "pandas.Categorical(['a'])", "pandas.array([1, None])", "pandas.Timestamp('2020-01-01')",
     "pandas.date_range('2020-01-01', periods=2)", "sympy.Symbol('x') + 1", "sympy.Matrix([[1]])", "torch.ones(2)",
     "scipy.sparse.csr_matrix([[1]])", "pandas.Interval(1, 2)", "numpy.float64(1)", "sympy.Rational(1, 3)",
     "fractions.Fraction(1)", "pathlib.Path('.')", "ipaddress.ip_address('::1')", "networkx.Graph([(1, 2)])",
     "typing.List[int]"],
)  # fmt: skip
def test_what_libraries_compare_with_functions_that_they_decorate_is_a_value(made: str) -> None:
    module = pytest.importorskip(made.partition(".")[0])
    space = {module.__name__: module}
    for name in ("numpy.lib.mixins", "scipy.sparse"):
        if made.startswith(name):
            pytest.importorskip(name)
    changes: list[str] = []
    Judge(changes)(eval(made, space))
    assert changes == []
