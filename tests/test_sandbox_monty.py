"""Monty tries only what CPython compiles, and never an answer against its tests."""

from __future__ import annotations

import asyncio
import inspect
import os

import pytest

from firsthand.sandbox import monty
from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits

REFUSED = (
    "return", "if 1:\n    return 0", "try:\n    return\nfinally:\n    pass", "class A:\n    return", "break",
    "print(1)\ncontinue", "print(1)\nreturn\nprint(2)", "if 0:\n    return", "def f():\n    nonlocal x", "x\0", "1 +",
)  # fmt: skip


def test_what_cpython_does_not_compile_is_not_tried() -> None:
    assert not any(map(monty._is_python, REFUSED))
    assert not monty._is_python("(" * 10_000 + ")" * 10_000) and not monty._is_python("x" + ".a" * 100_000)
    assert monty._is_python("f = lambda: 1\ndef g():\n    return 1") and monty._is_python("")


@pytest.mark.parametrize("code", [
    "print(round(2.675, 2))", "print({1: 'a', True: 'b'})", "import json\nprint(json.dumps({1: 2, True: 4}))",
    "print(1 / 3)", "print('%.1f' % 3)", "print(len)",
    "import math\nprint(math.lgamma(3.3))", "print({3, 1})", "print(2 ** -1)", "print(0.1)", "print('\u00df'.upper())",
    "x: int = 5\nprint(__annotations__)", "print('a'.upper())", "r = round\nprint(r(5))", "m = map(str, [1])",
    "print(f'{1:>5}')",
    "print([*(x for x in [1])])", "print(__name__)", "f = lambda: 1", "def print(x): ...", "print('\u0130')", "float('0.1')",
])  # fmt: skip
def test_code_that_may_mean_another_thing_there_is_cpythons(code: str) -> None:
    assert monty._is_python(code) and not monty._is_alike(code)


@pytest.mark.parametrize("code", [
    "", "print(1)", "def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(20), f(5) // 7 % 3)",
    "x = [n * n for n in range(9) if n % 2]\nprint(x[1:], sorted(x)[-1], sum(x), 'a' + str(len(x)), 3 in x, not x)",
    "n = 0\nwhile True:\n    n += 1\n    if n > 9 and n != 3:\n        break\nprint(n, (1, None, False))",
])  # fmt: skip
def test_whole_numbers_texts_and_lists_are_tried(code: str) -> None:
    assert monty._is_alike(code)


def test_a_program_that_cpython_refuses_has_not_run_well() -> None:
    if monty._pool(os.getpid()) is None:
        pytest.skip("pydantic-monty is not installed, or its program is not found")
    for code in REFUSED:
        assert asyncio.run(monty.attempt(SandboxRun("python", code, RunLimits()))) is None, code
    tries = [asyncio.run(monty.attempt(SandboxRun("python", "print(1)", RunLimits()))) for _ in range(5)]
    assert "1\n" in {each and each.stdout for each in tries}  # on a busy machine not all are fast


def test_tests_of_an_answer_are_decided_by_cpython_alone() -> None:
    """An iterator that Monty reads twice, or a set that keeps its order, passes tests that it fails on CPython."""
    assert "pure" in inspect.signature(Sandbox.python).parameters
    assert "pure" not in inspect.signature(Sandbox.check).parameters
