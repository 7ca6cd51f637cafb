"""Cases of unittest in a user's own table: each test is run, also an inherited or made one, or the row is refused."""

from __future__ import annotations

import asyncio

import pytest

from firsthand.sandbox.sandbox import shared_sandbox
from firsthand.scorers.runnable_tests import unit_cases
from firsthand.scorers.unit_tests import run_unit_tests
from firsthand.task import Task

HEAD = "import unittest\n"
CASES = "class TestCases(unittest.TestCase):\n"
TEST = "    def test_a(self):\n        self.assertEqual(f(1), 2)\n"
MORE = TEST.replace("test_a", "test_b")
MIXIN = "class Base:\n" + MORE
RIGHT, WRONG = "def f(x): return x + 1", "def f(x): return x"

ACCEPTED = [
    CASES + TEST,
    MIXIN + "class TestCases(Base, unittest.TestCase):\n    pass\n",
    MIXIN + "class TestCases(Base, unittest.TestCase):\n" + TEST,
    "class Common(unittest.TestCase):\n" + MORE + "class TestCases(Common):\n    maxDiff = None\n",
    "class Common(unittest.TestCase):\n    def same(self, a, b):\n        self.assertEqual(a, b)\n"
    "class TestCases(Common):\n    def test_a(self):\n        self.same(f(1), 2)\n",
    "class Base:\n    def test_b(self):\n        self.fail('not this one')\n"
    "class TestCases(Base, unittest.TestCase):\n    test_b = None\n" + TEST,
    "class Base:\n    def test_a(self):\n        self.fail()\nclass TestCases(Base, unittest.TestCase):\n" + TEST,
    CASES + "    def test_x(self):\n        self.assertTrue(callable(f))\n"
    "for i in range(3):\n    setattr(TestCases, f'test_{i}', lambda self, i=i: self.assertEqual(f(i), i + 1))\n",
    CASES + "    def check(self):\n        self.assertEqual(f(1), 2)\n    test_a = check\n",
    CASES + "    if True:\n" + "\n".join("    " + line for line in TEST.splitlines()),
    "class TestCases(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self):\n        self.assertEqual(f(1), 2)\n",
    CASES + TEST + "    @unittest.skip('later')\n" + MORE.replace("2)", "3)"),
    CASES
    + TEST
    + "class FakeBase:\n    def test_link(self): ...\nclass Fake(FakeBase): ...\nfake = FakeBase(), Fake()\n",
    CASES
    + TEST
    + "    def test_run(self):\n        self.assertTrue(issubclass(Sample, unittest.TestCase), 'a class')\n"
    "class Sample(unittest.TestCase):\n" + MORE,
    CASES + TEST + "        self.assertTrue(f(1), 2)\n        self.assertTrue([f(1)])\n",
    CASES + "    def test_a(self):\n        self.assertTrue(f(1) == 2, 'two')\n        self.assertFalse([], None)\n",
    CASES + "    def test_a(self):\n        self.assertTrue(f(1) == 2, None)\n",
    CASES + TEST + "    def test_raises(self):\n        with self.assertRaises(TypeError):\n            f('a') < 3\n",
    CASES + TEST + "if __name__ == '__main__':\n    unittest.main(argv=[''], exit=False)\n",
    "import asyncio\ndef run(c):\n    def w(*a):\n        return asyncio.run(c(*a))\n    return w\n"
    + CASES
    + "    @run\n    async"
    + TEST[3:],
    CASES + TEST + "@unittest.skip('old')\nclass TestOld(unittest.TestCase):\n" + MORE,
    CASES
    + "    def test_data(self):\n        yield 1, 2\n"
    + "    def test_a(self):\n        for a, b in self.test_data():\n            self.assertEqual(f(a), b)\n",
]
REFUSED = [
    (CASES + TEST + "class TestMore(unittest.TestCase):\n" + MORE, "line 5: only TestCases is run, and TestMore has tests"),
    (CASES + TEST + "class TestMore(TestCases): ...\n", "line 5: only TestCases is run, and TestMore has tests"),
    (CASES + TEST + MIXIN + "class TestMore(Base, unittest.TestCase): ...\nload(TestMore)", "and TestMore has tests"),
    (CASES + "    pass\nclass TestMore(unittest.TestCase):\n" + MORE, "only TestCases is run, and TestMore has tests"),
    (CASES + TEST + MIXIN, "line 5: only TestCases is run, and Base has tests"),
    (CASES + TEST + "def test_b():\n    assert f(1) == 2", "line 5: only TestCases is run, and test_b is outside of it"),
    (CASES + TEST + "def load_tests(a, b, c): ...", "line 5: load_tests is not called"),
    (CASES + TEST.replace("def", "async def"), "line 3: nothing awaits test_a"),
    ("class Base:\n" + MORE.replace("def", "async def") + "class TestCases(Base, unittest.TestCase):\n" + TEST,
     "awaits test_b"),
    (CASES.replace(")", ", object)") + TEST.replace("def", "async def"), "line 3: nothing awaits test_a"),
    (CASES + TEST + "        yield\n", "line 3: test_a is a generator"),
    (CASES + "    @unittest.skipIf(False, '')\n    async" + TEST[3:], "nothing awaits test_a"),
    (CASES + TEST + "@unittest.skipIf(False, '')\nclass TestOld(unittest.TestCase):\n" + MORE, "and TestOld has tests"),
    (CASES + "    def test_a(self):\n        return f(1) == 2\n", "line 4 returns what it compares"),
    (CASES + "    def test_a(self):\n        f(1) == 2\n", "line 4 compares two values"),
    (CASES + "    def test_a(self):\n        f(1)\n", "no answer could fail these tests: they assert nothing"),
    (CASES + "    def test_a(self):\n        self.assertTrue(f(1), 2)\n", "line 4: no .* assertTrue is given"),
    (CASES + "    def test_a(self):\n        self.assertFalse(f(1), [])\n", "line 4: no answer could fail"),
    (CASES + "    def test_a(self):\n        self.assertTrue([f(1) == 2])\n", "line 4: no answer could fail"),
    (CASES + "    @unittest.skip('x')\n" + TEST, "no answer could fail these tests: all of them are skipped"),
    ("@unittest.skip\n" + CASES + "    maxDiff = None\n" + TEST + MORE, "all of them are skipped"),
    (CASES + "    n = 1\n", "TestCases has no method test_"),
]  # fmt: skip


async def verdicts(tests: str) -> tuple[bool, bool]:
    """Whether the right and the wrong answer pass."""
    task = Task("1", "f", secret={"tests": tests})
    right, wrong = [await run_unit_tests(answer, task, shared_sandbox()) for answer in (RIGHT, WRONG)]
    return right.ok, wrong.ok


@pytest.mark.parametrize("cases", ACCEPTED)
def test_cases_that_are_accepted_pass_the_right_answer_alone(cases: str) -> None:
    assert unit_cases(HEAD + cases) == HEAD + cases
    assert asyncio.run(verdicts(HEAD + cases)) == (True, False)


@pytest.mark.parametrize(("cases", "why"), REFUSED)
def test_cases_that_do_not_run_or_cannot_fail_are_refused(cases: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unit_cases(HEAD + cases)


def test_a_test_that_the_file_takes_away_has_not_run() -> None:
    assert asyncio.run(verdicts(HEAD + CASES + TEST + MORE + "del TestCases.test_b\n")) == (False, False)
