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
