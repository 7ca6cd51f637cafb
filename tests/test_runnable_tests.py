"""Tests of a user's own table: those that are only defined are called, and those that no answer could fail are refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.errors import DataError
from firsthand.sandbox.sandbox import shared_sandbox
from firsthand.scorers.runnable_tests import imported, runnable_tests, unit_cases
from firsthand.scorers.unit_tests import passes_unit_tests
from firsthand.task import Task
from firsthand.trace import Trace

ASSERTS = "assert add(1, 2) == 3"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
CASES = "import unittest\nclass TestCases(unittest.TestCase):\n    def test_add(self):\n        assert add(1, 2) == 3"
RUN = [
    (ASSERTS, ASSERTS), ("# both\n" + ASSERTS, "# both\n" + ASSERTS), (CHECK + "check(add)", CHECK + "check(add)"),
    (CHECK, CHECK + "\ncheck(add)\n"), ([ASSERTS, "assert add(0, 0) == 0"], ASSERTS + "\nassert add(0, 0) == 0"),
    (f"[{ASSERTS!r}]", ASSERTS), ("def test_a():\n    " + ASSERTS, "def test_a():\n    " + ASSERTS + "\ntest_a()\n"),
    ("def test_a(n=1):\n    assert add(n, 2) == 3\ndef helper(x):\n    return x",
     "def test_a(n=1):\n    assert add(n, 2) == 3\ndef helper(x):\n    return x\ntest_a()\n"),
    ("if __name__ == '__main__':\n    " + ASSERTS, "if __name__ == '__main__':\n    " + ASSERTS),
    ("for n in range(3):\n    if add(n, 1) != n + 1:\n        raise ValueError(n)", ...),
    ("def verify():\n    " + ASSERTS + "\nverify()", ...),
    ("import numpy as np\nnp.testing.assert_allclose(add(1, 2), 3)", ...),
    ("try:\n    add(1, 'a') < 3\nexcept TypeError:\n    pass\nelse:\n    assert False", ...),
]  # fmt: skip
UNCALLED = "def test_a():\n    " + ASSERTS
RUN += [
    # what is run before does not stand for tests that nobody calls
    ("import random\nrandom.seed(0)\n" + CHECK, "import random\nrandom.seed(0)\n" + CHECK + "\ncheck(add)\n"),
    ("META = dict(a='b')\n" + CHECK, "META = dict(a='b')\n" + CHECK + "\ncheck(add)\n"),
    ("assert callable(add)\n" + CHECK, "assert callable(add)\n" + CHECK + "\ncheck(add)\n"),
    ("test = 3\nassert test\n" + UNCALLED, "test = 3\nassert test\n" + UNCALLED + "\ntest_a()\n"),
    ("async " + UNCALLED, "async " + UNCALLED + "\n__import__('asyncio').run(test_a())\n"),
    # tests that call what they define, by name or not
    (UNCALLED + "\nfor f in [test_a]:\n    f()", ...), (UNCALLED + "\ndef off():\n    1/0\ntest_a()", ...),
    (UNCALLED + "\nfor n, f in [*globals().items()]:\n    if n[0] == 't':\n        f()", ...),
    ("class T:\n    def a(self):\n        " + ASSERTS + "\nT().a()", ...), ("class T:\n    " + ASSERTS, ...),
    ("def case(f):\n    f()\n@case\ndef t():\n    " + ASSERTS, ...),
    # without a word such as assert
    ("if add(1, 2) != 3: 1/0", ...), ("exec('assert add(1, 2) == 3')", ...), ("eq(add(1, 2), 3)", ...),
    ("from numpy.testing import assert_equal as same\nsame(add(1, 2), 3)", ...),
    ("import doctest\nassert doctest.testmod().failed == 0", ...),
    ("import asyncio\nasync def main():\n    assert await add(1, 2) == 3\nasyncio.run(main())", ...),
    ("try:\n    import pytest\nexcept ImportError:\n    pytest = None\n" + ASSERTS, ...),
    (CASES + "\nr = unittest.TestSuite([TestCases('test_add')]).run(unittest.TestResult())\nassert r.wasSuccessful()", ...),
]  # fmt: skip
REFUSED = [
    ("assert True", "no answer could fail"), ("add(1, 2)\ndef f():\n    " + ASSERTS, "no answer could fail"),
    ("x = []\nx.append(add(1, 2))\nprint(len(x))", "no answer could fail"),
    ("import random\nrandom.seed(0)\ndef test_a(fixture):\n    " + ASSERTS, "no answer could fail"),
    ("class T:\n    def a(self):\n        " + ASSERTS + "\nrun()", "no answer could fail"),
    ("", "no answer could fail"), ("# a comment", "no answer could fail"), ("'''words'''", "no answer could fail"),
    ("import math\nX = 3", "no answer could fail"), ("print(add(1, 2))", "no answer could fail"),
    ("x = add(1, 2)", "no answer could fail"), ("def helper(x):\n    " + ASSERTS, "no answer could fail"),
    ("def test_a(fixture):\n    " + ASSERTS, "no answer could fail"), ("def test_a():\n    f()", "no answer could fail"),
    ("class TestA:\n    def test_a(self):\n        " + ASSERTS, "no answer could fail"),
    ("x = 1\nadd(1, 2) == 3", "line 2 compares two values"), ("assert (add(1, 2) == 3, 'wrong')", "line 1 asserts a tuple"),
    (CASES, "line 2 has cases of unittest"), ("import pytest\n" + ASSERTS, "line 1 imports pytest"),
    ("from pytest import raises\nassert add", "line 1 imports pytest"), ("assert add(", "line 1 is no Python"),
    ("assert add\0", "no Python"), (3, "code was expected"), ([], "code was expected"), ([ASSERTS, 1], "code was expected"),
]  # fmt: skip


RUN += [
    # a helper whose name begins as a test's, and looks at an object, leave the tests to be called
    ("def check_eq(a, b):\n    assert a == b\ncheck_eq(1, 1)\n" + UNCALLED,
     "def check_eq(a, b):\n    assert a == b\ncheck_eq(1, 1)\n" + UNCALLED + "\ntest_a()\n"),
    ("def test_eq(a, b):\n    assert a == b\ntest_eq(1, 1)\n" + UNCALLED,
     "def test_eq(a, b):\n    assert a == b\ntest_eq(1, 1)\n" + UNCALLED + "\ntest_a()\n"),
    (CHECK + "check(add)\n" + UNCALLED, CHECK + "check(add)\n" + UNCALLED + "\ntest_a()\n"),
    ("pi = getattr(add, 'pi', 3)\nvars(add)\n" + UNCALLED,
     "pi = getattr(add, 'pi', 3)\nvars(add)\n" + UNCALLED + "\ntest_a()\n"),
    ("async def g(): ...\ndef g():\n    " + ASSERTS + "\ng()", ...), ("assert [x == 1 for x in add(1, 2) if x]", ...),
    (UNCALLED + "\nexec('test_a()')", ...), (UNCALLED + "\nvars(sys.modules[__name__])['test_a']()", ...),
    ("def case(f):\n    f()\n@case\ndef test_a():\n    " + ASSERTS, ...),
    (UNCALLED + "\ndef main():\n    test_a()\nmain()", ...),
    (UNCALLED + "\ndef test_b():\n    test_a()", UNCALLED + "\ndef test_b():\n    test_a()\ntest_a()\ntest_b()\n"),
    ("class TestA:\n    def test_a(self):\n        " + ASSERTS + "\nTestA().test_a()", ...),
    ("class Test:\n    n = 1\ndef check_close(a, b):\n    assert a == b\n" + ASSERTS, ...),
    # asserts that can fail
    ("assert [x for x in add(1, 2) if x]", ...), ("assert [x + 1 for x in add(1, 2)]", ...), ("assert [*add(1, 2)]", ...),
    ("assert all([add(x, 1) == x + 1 for x in (1, 2)])", ...), ("assert {**add(1, 2)} or not []", ...),
    ("def map(f):\n    return f\nassert map(add(1, 2))", ...), (ASSERTS + " and [1]", ...), ("assert add(1, 2), 'why'", ...),
    ("ok = True\ntry:\n    " + ASSERTS + "\nexcept AssertionError:\n    ok = False\nassert ok", ...),
    ("try:\n    " + ASSERTS + "\nexcept AssertionError:\n    print('no')\n    raise", ...),
    ("try:\n    add(1)\n    assert False\nexcept TypeError:\n    pass", ...),
    ("def test_a():\n    def bad():\n        add(1, 'a') < 3\n    assert_raises(TypeError, bad)",
     "def test_a():\n    def bad():\n        add(1, 'a') < 3\n    assert_raises(TypeError, bad)\ntest_a()\n"),
    ("def each():\n    yield 1\n    yield 2\nfor x in each():\n    assert add(x, 0) == x", ...),
    ("def cases():\n    def inner():\n        yield 1\n    assert add(1, 2) == 3\ncases()", ...),
    ("r = unittest.TextTestRunner().run(s)\nassert r.wasSuccessful()", ...),
    ("def f():\n    '>>> 1'\nimport doctest\ndoctest.testmod(raise_on_error=True)\n" + ASSERTS, ...),
]  # fmt: skip
REFUSED += [
    (UNCALLED + "\ndef test_b():\n    " + ASSERTS + "\ntest_a()", "line 3: test_b is not called as other tests are"),
    (UNCALLED + "\nclass TestB:\n    def test_b(self):\n        " + ASSERTS, "line 3: .* the class TestB"),
    ("class Base:\n    def test_b(self):\n        assert add(1, 2)\nclass TestB(Base):\n    pass\n" + ASSERTS,
     "the class TestB"),
    (UNCALLED + "\ndef test_b(y):\n    " + ASSERTS, "line 3: nothing calls test_b"),
    (ASSERTS + "\nif True:\n    def test_b():\n        " + ASSERTS, "line 3: nothing calls test_b"),
    (ASSERTS + "\ndef check():\n    " + ASSERTS, "line 2: nothing calls check"),
    (ASSERTS + "\ndef check(a, b):\n    " + ASSERTS, "line 2: nothing calls check"),
    (ASSERTS + "\ndef check_b():\n    " + ASSERTS, "line 2: nothing calls check_b"),
    (UNCALLED + "\n" + UNCALLED, "line 3 defines test_a again"),
    ("def test_a():\n    yield 1\n    " + ASSERTS, "line 1: test_a is a generator"),
    ("async def main():\n    " + ASSERTS + "\nmain()", "line 3 calls main, which runs nothing of it"),
    ("def main():\n    yield\n    " + ASSERTS + "\nmain()", "line 4 calls main, which runs nothing of it"),
    ("assert [add(x, 1) == x + 1 for x in add(1, 2)]", "line 1 asserts a list"), ("assert [add(1, 2)]", "asserts a list"),
    ("assert [add(x, 1) for x in (1, 2)]", "line 1 asserts a list"), ("assert [not x for x in add(1, 2)]", "asserts a list"),
    ("assert (add(x, 1) == 2 for x in (1, 2))", "line 1 asserts a generator"), ("assert {add(1, 2) == 3}", "asserts a set"),
    ("assert lambda: add(1, 2) == 3", "asserts a function"), ("assert map(add, (1, 2), (1, 2))", "asserts an iterator"),
    ("assert {1: add(1, 2) == 3}", "asserts a dict"), ("assert add(1, 2) == 3 or 4", "asserts a choice"),
    ("assert (x := [add(1, 2)])", "asserts something true"), ("assert [1] and {add(1, 2)}", "asserts a choice"),
    ("assert add(1, 2), add(1, 2) == 3", "line 1 has a comparison as its message"),
    ("'>>> add(1, 2)'\nimport doctest\ndoctest.testmod()", "line 3 runs doctests"),
    ("import doctest\ndoctest.testmod()", "no answer could fail"),
    ("try:\n    " + ASSERTS + "\nexcept (AssertionError, TypeError):\n    print('wrong')", "line 3 catches the failed"),
    ("try:\n    " + ASSERTS + "\nexcept AssertionError:\n    pass", "line 3 catches the failed assert"),
    (CASES + "\nunittest.TextTestRunner().run(load(TestCases))", "line 5 runs cases and drops what came out"),
    (CASES + "\nx = TestCases\nunittest.main(exit=False)", "line 6 runs cases and drops what came out"),
    ("def test_a():\n    add(3, 1) == 4\n    " + ASSERTS, "line 2 compares two values"),
    ("for x in (1, 2):\n    add(x, 1) == x + 1\n" + ASSERTS, "line 2 compares two values"),
]  # fmt: skip

FAILS = "try:\n    " + ASSERTS + "\nexcept "
WRAPS = "def timed(f):\n    @functools.wraps(f)\n    def run(*a):\n        return f(*a)\n    return run\n@timed\n"
EACH = "def each(*rows):\n    def run(f):\n        for row in rows:\n            f(*row)\n    return run\n"
KEPT = "kept = []\ndef keep(f):\n    kept.append(f)\n    return f\n@keep\n" + UNCALLED + "\nfor f in kept:\n    f()"
HELD = "def test_a():\n    try:\n        " + ASSERTS + "{}\n    except Exception:\n        {}"
RUN += [
    # caught, and told by what follows
    (FAILS + "ValueError:\n    pass", ...),
    (FAILS + "AssertionError:\n    raise\nexcept Exception:\n    pass", ...),
    (FAILS + "Exception as e:\n    print(e)\n    sys.exit(1)", ...),
    ("n = 0\ntry:\n    " + ASSERTS + "\n    n += 1\nexcept AssertionError:\n    print('no')\nassert n == 1", ...),
    ("n = 0\n" + FAILS + "Exception:\n    n += 1\nassert not n", ...),
    ("bad = []\n" + FAILS + "AssertionError as e:\n    bad.append(e)\nassert not bad", ...),
    ("bad = {}\n" + FAILS + "Exception:\n    bad['a'] = 1\nassert not bad", ...),
    (HELD.format("\n        return True", "return False") + "\nassert test_a()", ...),
    (HELD.format("", "return False") + "\nif getattr(sys, 'a', test_a)() is False:\n    raise ValueError", ...),
    (
        "def f():\n    try:\n        "
        + ASSERTS
        + "\n        return\n    except Exception:\n        pass\n    1/0\nf()",
        ...,
    ),
    ("while True:\n    try:\n        " + ASSERTS + "\n        break\n    except Exception:\n        pass", ...),
    ("try:\n    x = add(1, 'a')\nexcept Exception:\n    pass\n" + ASSERTS, ...),
    ("try:\n    def bad():\n        assert 0\nexcept Exception:\n    pass\n" + ASSERTS, ...),
    (
        "def test_data():\n    yield 3\ndef test_a():\n    for x in test_data():\n        assert add(1, 2) == x",
        "def test_data():\n    yield 3\ndef test_a():\n    for x in test_data():\n        assert add(1, 2) == x\ntest_a()\n",
    ),
    # a decorator that only wraps leaves the test to be called; one that calls or keeps it does not
    (WRAPS + UNCALLED, WRAPS + UNCALLED + "\ntest_a()\n"),
    (WRAPS + CHECK, WRAPS + CHECK + "\ncheck(add)\n"),
    (EACH + "@each((1, 2, 3))\ndef test_a(x, y, z):\n    assert add(x, y) == z", ...),
    (KEPT, ...),
    (WRAPS + "async " + UNCALLED + "\nasyncio.run(test_a())", ...),
    (HELD.format("", "return False") + "\nif globals()['test_a']() is False:\n    raise ValueError", ...),
    ("with suppress(ValueError):\n    " + ASSERTS, ...),
    ("with suppress(Exception):\n    add(1)\n" + ASSERTS, ...),
]
REFUSED += [
    (WRAPS + "async " + UNCALLED, "nothing calls test_a"),
    (WRAPS + "def test_a(x):\n    assert x", "nothing calls"),
]
REFUSED += [
    (text, "catches the failed assert and goes on")
    for text in (
        FAILS + "Exception:\n    pass", FAILS[:-1] + ":\n    print('no')", FAILS + "(ValueError, BaseException):\n    ...",
        FAILS.replace("except", "except*") + "Exception:\n    pass", FAILS + "Exception as e:\n    logging.error(e)",
        FAILS + "ValueError:\n    raise\nexcept Exception:\n    pass", FAILS + "Exception:\n    failed = True",
        "n = 0\n" + FAILS + "Exception:\n    n += 1\nprint(n)",
        "try:\n    x = add(1, 2)\n    assert x == 3\nexcept Exception:\n    pass\nprint(str(x))\nassert x",
        HELD.format("", "return False"), HELD.format("\n        return True", "return False") + "\ntest_a()",
        "def same(a, b):\n    assert a == b\ntry:\n    same(add(1, 2), 3)\nexcept Exception:\n    print('no')",
        "with contextlib.suppress(AssertionError):\n    " + ASSERTS, "with suppress(Exception):\n    " + ASSERTS,
        "try:\n    np.testing.assert_equal(add(1, 2), 3)\nexcept AssertionError:\n    pass",
    )
]  # fmt: skip


@pytest.mark.parametrize(("tests", "program"), RUN)
def test_tests_that_are_only_defined_are_called_and_others_stay(tests: object, program: object) -> None:
    assert runnable_tests(tests, "add") == (tests if program is ... else program)


@pytest.mark.parametrize(("tests", "why"), REFUSED)
def test_tests_that_no_answer_could_fail_are_refused(tests: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        runnable_tests(tests, "add")


def test_check_is_called_only_where_the_answers_function_is_named() -> None:
    for tests in (CHECK, "def check(a, b):\n    assert a"):
        with pytest.raises(ValueError, match="check\\(candidate\\) beside a column entry_point"):
            runnable_tests(tests, "" if tests == CHECK else "add")


def test_unit_cases_have_a_class_with_a_test() -> None:
    assert unit_cases(CASES) == CASES
    base = "class Base(unittest.TestCase):\n    def test_a(self):\n        assert f()\nclass TestCases(Base):\n    pass"
    assert unit_cases(base) == base
    for tests, why in (
        (CASES.replace("TestCases", "TestAdd"), "a class TestCases of unittest was expected, and there is TestAdd"),
        (ASSERTS, "a class TestCases of unittest was expected$"), (CASES.replace("test_add", "add"), "no answer could fail"),
        ("class (", "line 1 is no Python"), ([CASES], "code was expected"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            unit_cases(tests)


def test_modules_that_tests_do_without_are_not_asked_for() -> None:
    program = "import os.path, a.b\nfrom c import d\ndef f():\n    import e\ntry:\n    import g\nexcept: g = 0"
    assert imported(program) == {"os", "a", "c", "e"}


def own(tmp_path: Path, scorer: str, *rows: dict[str, object]) -> Path:
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"q": "add", "t": "add"} | row) for row in rows))
    path = tmp_path / "t.toml"
    path.write_text(f'data = "t.jsonl"\nprompt = "{{q}}"\ntarget = "{{t}}"\nscorer = "{scorer}"\n')
    return path


def test_a_table_names_the_row_whose_tests_cannot_fail_or_run(tmp_path: Path) -> None:
    for scorer, tests, why in (
        ("passes_tests", "print(1)", "t.jsonl, line 2: the column 'tests': no answer could fail these tests"),
        (
            "passes_tests",
            "import notamodule\n" + ASSERTS,
            "line 2: .*the tests import notamodule, which the sandbox lacks",
        ),
        ("passes_unit_tests", ASSERTS, "t.jsonl, line 2: the column 'tests': a class TestCases"),
    ):
        right = ASSERTS if scorer == "passes_tests" else CASES
        with pytest.raises(DataError, match=why):
            catalog.benchmark(str(own(tmp_path, scorer, {"tests": right}, {"tests": tests})))


def test_the_tests_of_a_task_are_the_program_and_cases_keep_their_reference(tmp_path: Path) -> None:
    path = own(tmp_path, "passes_tests", {"tests": CHECK, "entry_point": "add"}, {"tests": [ASSERTS]})
    first, second = catalog.benchmark(str(path)).tasks(0)
    assert (first.secret["tests"], second.secret["tests"]) == (CHECK + "\ncheck(add)\n", ASSERTS)
    path = own(
        tmp_path, "passes_unit_tests", {"tests": CASES, "solution": "def add(a, b): return a + b", "before": "X = 1"}
    )
    (task,) = catalog.benchmark(str(path)).tasks(0)
    assert (task.secret["solution"], task.secret["before"]) == ("def add(a, b): return a + b", "X = 1")
    assert first.verbatim and task.verbatim, "both scorers find the code in a whole reply"
    with pytest.raises(DataError, match=r"line 1: .* beside a column entry_point"):
        catalog.benchmark(str(own(tmp_path, "passes_tests", {"tests": CHECK, "entry_point": None})))


def test_cases_without_a_reference_score_a_wrong_answer_0() -> None:
    task = Task("1", "add", secret={"tests": CASES})
    for answer, value in (("def add(a, b): return a + b", 1.0), ("def add(a, b): return a - b", 0.0)):
        trace = Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, answer=answer)
        assert asyncio.run(passes_unit_tests(task, trace)).value == value


def test_called_tests_pass_right_answers_and_fail_wrong_ones() -> None:
    async def passed(answer: str, tests: object) -> bool:
        program = runnable_tests(tests, "add")
        return (await shared_sandbox().check(answer, program, names=("add",))).ok

    for tests in (CHECK, [ASSERTS], UNCALLED, "async " + UNCALLED, "import random\nrandom.seed(0)\n" + CHECK):
        assert asyncio.run(passed("def add(a, b): return a + b", tests))
        assert not asyncio.run(passed("def add(a, b): return a - b", tests))
        assert not asyncio.run(passed("def other(): return None", tests))
