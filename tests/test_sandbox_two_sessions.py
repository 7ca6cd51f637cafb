"""Where tests are tried on Monty first, an answer can neither end nor read nor change them."""

from __future__ import annotations

import asyncio
import os

import pytest

from firsthand.sandbox import monty
from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.sandbox.sandbox_limits import RunLimits

ADD = "def add(a, b):\n    return a + b\n"
CASES = "cases = [((2, 2), 4), ((1, 5), 6)]\nfor args, want in cases:\n    assert add(*args) == want\n"
RETURNS = (
    "return", "return 1", "if 1:\n    return 0", "for i in [1]:\n    return", "try:\n    return\nfinally:\n    pass",
    "with x:\n    return", "while 1:\n    return", "match 1:\n    case 1:\n        return", f"{ADD}return None",
    "class A:\n    return", f"{ADD}if add(1, 1):\n    return\n",
)  # fmt: skip


@pytest.fixture
def installed() -> None:
    if monty._pool(os.getpid()) is None:
        pytest.skip("pydantic-monty is not installed, or its program is not found")


def decided(answer: str, tests: str, *, setup: str = "", names: tuple[str, ...] = ()) -> str | None:
    found = asyncio.run(monty.attempt_check(answer, setup, tests, names, RunLimits()))
    return None if found is None else found.stdout


def test_an_answer_that_returns_outside_of_functions_does_not_end_its_tests() -> None:
    assert [answer for answer in RETURNS if monty.cannot_bend_tests(answer)] == []
    sound = (ADD, "f = lambda: 1", "def f():\n    def g():\n        return 1\n    return g()")
    assert all(map(monty.cannot_bend_tests, sound))


def test_a_program_that_returns_outside_of_functions_has_not_run_well(installed: None) -> None:
    for code in (*RETURNS, "print(1)\nreturn\nprint(2)", "if 0:\n    return"):
        assert asyncio.run(monty.attempt(SandboxRun("python", code, RunLimits()))) is None, code


@pytest.mark.parametrize(
    ("answer", "tests"),
    [
        ("def add(a, b):\n    return want\n", CASES),
        ("want = 0\ndef add(a, b):\n    return want\n", CASES),
        ("def add(a, b):\n    while len(cases) > 1: cases.pop()\n    return 4\n", CASES),
        ("def add(a, b, c=[]):\n    c.append(1)\n    return want if c else 0\n", CASES),
        (
            "def add(a, b):\n    results[0] = results[1] = 7\n    return 7\n",
            "results = [4, 6]\nfor i, x in enumerate([(2, 2), (1, 5)]):\n    assert add(*x) == results[i]\n",
        ),
        ("kept = []\ndef f(x):\n    kept.append(x)\n    kept[0].clear()\n    return []", "x = [1]\nassert f(x) == x"),
        ("def f(x):\n    x[0].clear()\n    return []", "i = [1]\nassert f([i]) == i"),
        ("def f(x):\n    x[0] = 1.0", "x = [1]\nf(x)\nassert str(x) == '[1]'"),
        ("def add(a, b):\n    return 1 / 0", "try:\n    add(2, 2)\nexcept Exception:\n    pass"),
        ("def f():\n    return range(3)", "assert f() == 'range(0, 3)'"),
        ("def f():\n    yield 1", "assert f() == [1]"),
        ("def f(x):\n    return x", "assert f(range(3))"),
        ("def add(a, b):\n    return 0", f"def mine(a, b):\n    return add(a, b)\nreturn\n{CASES}"),
        ("x = 1", "assert add(2, 2) == 4"),
    ],
)
def test_only_plain_values_go_between_an_answer_and_its_tests(installed: None, answer: str, tests: str) -> None:
    assert decided(answer, tests) is None


def test_a_name_that_the_answer_does_not_define_is_not_taken_from_elsewhere(installed: None) -> None:
    assert decided("x = 1", "assert sum([1]) == 1", names=("sum",)) is None
    assert decided("x = 1", "assert add(2, 2) == 4", setup=ADD, names=("add",)) is None
    assert decided("x = 1", "assert f.x", names=("f.x",)) is None


def test_a_right_answer_of_plain_functions_passes_fast(installed: None) -> None:
    many = "def check(f):\n    for i in range(20):\n        assert f(i, b=i) == 2 * i\n\nprint('all')\ncheck(add)"
    kinds = "for v in (None, True, 1, 0.5, 'é', b'x', [1], (1, [2]), {1}, {'a': {2: (3,)}}):\n    assert same(v) == v"
    tries = [  # on a busy machine not all are fast
        (
            decided(f"print('unheard')\n{ADD}", f"{CASES}assert add(want, K) == 10  # end", setup="K = 4"),
            decided(ADD, many),
            decided("def same(v):\n    return v", kinds),
        )
        for _ in range(5)
    ]
    assert {each[0] for each in tries} >= {""} and "all\n" in {each[1] for each in tries}
    assert "" in {each[2] for each in tries}
