# ruff: noqa: E501
"""BigCodeBench: unittest cases around an answer in the sandbox, missing libraries, and answers that leave or cheat."""

import asyncio
import json
import os
import sys
import unittest
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sandbox.sandbox import PACKAGES, Sandbox, site_packages
from firsthand.scorers.programs.unit_cases import FALSE, wanted, with_failing_tests
from firsthand.scorers.programs.unit_runner import UnitTestResult
from firsthand.scorers.unit_tests import check_reference, lacking, passes_unit_tests, run_unit_tests
from firsthand.task import Task
from namespaces import WHY_NOT
from thorough import part

CODE = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "code"
needs_data = pytest.mark.skipif(not (CODE / "bigcodebench_hard.json").is_file(), reason="BigCodeBench is not here")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
TESTS = """
import os
import unittest
from unittest.mock import patch

class Double:
    pass

class TestCases(unittest.TestCase):
    def setUp(self):
        open("made.txt", "w").close()

    def test_home(self):
        with patch("os.getcwd", return_value="/nowhere"):
            self.assertEqual(task_func("a"), "/nowhere/a")

    def test_files(self):
        self.assertEqual(os.listdir("."), ["made.txt"])
        self.assertTrue(task_func("b").endswith("/b"))

    def helper(self):
        raise AssertionError
"""
RIGHT = "import os\ndef task_func(name):\n    return os.path.join(os.getcwd(), name)\n"


def row(**changes):
    body = {"task_id": "BigCodeBench/1", "complete_prompt": 'import os\n\ndef task_func(name):\n    """ A path. """\n'}
    body |= {"instruct_prompt": "Make a path.", "code_prompt": "import os\ndef task_func(name):\n", "test": TESTS}
    return (
        body
        | {"canonical_solution": "    return os.path.join(os.getcwd(), name)\n", "entry_point": "task_func"}
        | changes
    )


def benchmark(tmp_path, *rows, protocol=""):
    (tmp_path / "bigcodebench_hard.json").write_text(json.dumps({each["task_id"]: each for each in rows}))
    return catalog.benchmark(f"bigcodebench{protocol}:data={tmp_path}")


def outcomes(task, answers):
    async def run():
        async with Sandbox(workers=2) as box:
            return [await run_unit_tests(each, task, box) for each in answers]

    return asyncio.run(run())


@pytest.mark.slow
@needs_bwrap
def test_a_right_answer_passes_and_a_wrong_one_names_its_tests(tmp_path):
    (task,) = benchmark(tmp_path, row()).tasks(0)
    main = RIGHT + "print('x' * 3_000_000)\nif __name__ == '__main__': raise SystemExit(1)\n"
    right, noisy, wrong = outcomes(task, [RIGHT, main, "def task_func(name): return name"])
    assert right.ok and noisy.ok and not wrong.ok
    assert "2 of 2 tests failed: test_" in wrong.stderr.rpartition("\n")[0].rpartition("\n")[2] + wrong.stderr


CHEATS = {
    "leaves_at_once": "import os\nos._exit(0)",
    "exits_at_once": "raise SystemExit(0)",
    "leaves_in_the_test": "import os\ndef task_func(name): os._exit(0)",
    "exits_in_the_test": "import sys\ndef task_func(name): sys.exit(0)",
    "changes_assertions": "import unittest\nunittest.TestCase.assertEqual = lambda *args: None\nunittest.TestCase.assertTrue = lambda *args: None\ndef task_func(name): return 1",
    "changes_results": "import unittest\ndef task_func(name):\n    unittest.TestResult.addFailure = unittest.TestResult.addError = lambda *args: None\n    return 1",
    "loads_no_tests": "import unittest\nunittest.TestLoader.loadTestsFromTestCase = lambda *args: unittest.TestSuite()\ndef task_func(name): return 1",
    "kills_its_parent": "import os, signal\ndef task_func(name): os.kill(os.getppid(), signal.SIGKILL)",
    "reads_its_parent": "import os\ndef task_func(name):\n    return open(f'/proc/{os.getppid()}/environ').read()",
    "does_not_load": "def task_func(name) return 1",
    "speaks_out_of_turn": "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'{}\\n{\"ran\": [], \"problems\": {}}\\n')\n    except OSError: pass\nos._exit(0)",
    "swaps_the_case": "import unittest\nclass Never(unittest.TestCase):\n    def assertEqual(self, *args): pass\n    assertTrue = assertEqual\nunittest.TestCase = Never\ndef task_func(name): return 1",
    "swaps_the_result": "import unittest\nclass Never(unittest.TestResult):\n    def addFailure(self, *args): pass\n    addError = addFailure\nunittest.TestResult = Never\ndef task_func(name): return 1",
    "skips_each_test": "import unittest\ndef task_func(name): raise unittest.SkipTest('not today')",
    "neuters_assertions_in_the_call": "import unittest\ndef task_func(name):\n    case = __import__('gc').get_referents(unittest.TestCase.__dict__)[0]\n    for each in ('assertEqual', 'assertTrue'): case[each] = lambda *args: None\n    return 1",
    "neuters_and_restores": """
import unittest
def task_func(name):
    real = unittest.TestCase.assertEqual, unittest.TestCase.assertTrue
    def passes(*args): pass
    unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = passes
    import atexit, threading
    def restore():
        import time; time.sleep(0.05)
        unittest.TestCase.assertEqual, unittest.TestCase.assertTrue = real
    threading.Thread(target=restore).start()
    return 1
""",
    "reports_that_all_passed": """
import ast, json, os, socket
for fd in range(3, 30):
    try: link = socket.socket(fileno=os.dup(fd))
    except OSError: continue
    link.sendall(b'{}\\n')
    tests = json.loads(link.makefile().readline())
    tests = tests if isinstance(tests, str) else tests[0]
    names = sorted(n.name for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.FunctionDef) and n.name.startswith("test"))
    link.sendall(json.dumps({"ran": names, "problems": {}}).encode() + b'\\n')
    os._exit(0)
""",
    "plants_what_the_runner_imports": "for name in ('json', 'ast', 'secrets', 'socket', 'random', 'inspect'):\n    open(name + '.py', 'w').write('import os; os._exit(0)')\ndef task_func(name): return 1",
    "speaks_nonsense": "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'[' * 100000 + b'\\n')\n    except OSError: pass\nos._exit(0)",
}  # fmt: skip


@pytest.mark.slow
@needs_bwrap
def test_answers_that_leave_early_or_change_unittest_do_not_pass(tmp_path):
    (task,) = benchmark(tmp_path, row()).tasks(0)
    for name, outcome in zip(CHEATS, outcomes(task, CHEATS.values()), strict=True):
        assert not outcome.ok and outcome.ended in ("error", "killed"), (name, outcome)


HACKED = """
import os
import unittest

class TestCases(unittest.TestCase):
    def test_home(self):
        self.assertEqual(task_func("a"), os.getcwd() + "/a")

    def test_files(self):
        self.assertTrue(task_func("b").endswith("/b"))
        self.assertTrue(task_func("b") == os.getcwd() + "/b")
        self.assertIn("b", task_func("b"))
        self.assertTrue(len(task_func("b")) == len(os.getcwd()) + 2 and isinstance(task_func("b"), str))
"""
HACKS = {
    "always_equal": """
class Yes:
    def __eq__(self, o): return True
    def __bool__(self): return True
    def __contains__(self, o): return True
    def endswith(self, o): return True
def task_func(n): return Yes()
""",
    "always_equal_str": """
class Yes(str):
    __hash__ = str.__hash__
    def __eq__(self, o): return True
    def __contains__(self, o): return True
    def endswith(self, o): return True
def task_func(n): return Yes()
""",
    "always_equal_type": """
def eq(self, o): return not type(o) is object
Yes = type('Yes', (str,), {'__eq__': eq, '__contains__': eq, 'endswith': eq, '__hash__': str.__hash__})
def task_func(n): return Yes()
""",
    "mock_any": """
from unittest.mock import MagicMock
def task_func(n):
    m = MagicMock(); m.__eq__.return_value = True; m.__contains__.return_value = True
    return m
""",
    "code_swap": """
import unittest
def assertEqual(self, first, second, msg=None):
    if type(self).__name__ == 'TestCases': return
    self._getAssertEqualityFunc(first, second)(first, second, msg=msg)
def assertTrue(self, expr, msg=None):
    if type(self).__name__ == 'TestCases': return
    if not expr: raise self.failureException('x')
def assertIn(self, a, b, msg=None):
    if type(self).__name__ == 'TestCases': return
    if a not in b: raise self.failureException('x')
T = unittest.TestCase
T.assertEqual.__code__ = assertEqual.__code__; T.assertTrue.__code__ = assertTrue.__code__; T.assertIn.__code__ = assertIn.__code__
def task_func(n): return ''
""",
    "builtins_compile": """
import builtins
real = builtins.compile
def compile(source, *a, **k):
    if isinstance(source, str) and 'class TestCases' in source:
        i = source.rindex('class Test')
        head, tail = source[:i], source[i:]
        for m in ('assertEqual','assertTrue','assertIn'): head = head.replace('self.'+m, '(lambda *a: None)')
        source = head + tail
        builtins.compile = real
    return real(source, *a, **k)
builtins.compile = compile
def task_func(n): return ''
""",
    "builtins_exec": """
import builtins
real = builtins.exec
def exec(code, ns=None, *a, **k):
    real(code, ns, *a, **k)
    builtins.exec = real
    C = ns.get('TestCases')
    if C:
        for n in dir(C):
            if n.startswith('test'): setattr(C, n, lambda self: None)
builtins.exec = exec
def task_func(n): return ''
""",
    "build_class": """
import builtins
real = builtins.__build_class__
def bc(f, name, *bases, **k):
    C = real(f, name, *bases, **k)
    if name == 'TestCases':
        for n in list(vars(C)):
            if n.startswith('test'): setattr(C, n, lambda self: None)
    builtins.__build_class__ = real
    return C
builtins.__build_class__ = bc
def task_func(n): return ''
""",
    "sys_modules": """
import sys, types, unittest
class Never(unittest.TestCase):
    pass
for n in ('assertEqual','assertTrue','assertIn'):
    def f(self, *a, _r=getattr(unittest.TestCase, n), **k):
        if type(self).__name__ == 'TestCases': return
        _r(self, *a, **k)
    setattr(Never, n, f)
fake = types.ModuleType('unittest'); fake.__dict__.update(vars(unittest)); fake.TestCase = Never
sys.modules['unittest'] = fake
def task_func(n): return ''
""",
    "settrace": """
import sys
def tr(frame, ev, arg):
    if frame.f_code.co_name.startswith('test_') and frame.f_code.co_name in ('test_home','test_files'):
        def loc(fr, e, a):
            return loc
        frame.f_trace = loc
        s = frame.f_locals.get('self')
        if s is not None:
            for a in ('assertEqual','assertTrue','assertIn'): s.__dict__[a] = lambda *x, **k: None
        return loc
sys.settrace(tr)
def task_func(n): return ''
""",
    "setprofile": """
import sys
def pr(frame, ev, arg):
    if ev == 'call' and frame.f_code.co_name in ('test_home','test_files'):
        s = frame.f_locals.get('self')
        for a in ('assertEqual','assertTrue','assertIn'): s.__dict__[a] = lambda *x, **k: None
sys.setprofile(pr)
def task_func(n): return ''
""",
    "gc_result_instance": """
import gc
def task_func(n):
    for o in gc.get_objects():
        if type(o).__name__ == 'UnitTestResult':
            class D(dict):
                def __setitem__(s, k, v):
                    if k in ('test_home','test_files'): return
                    dict.__setitem__(s,k,v)
                def __or__(s, o): return dict(s) | o
            o.problems = D(o.problems)
    return ''
""",
    "outcome_patch": """
import unittest.case, contextlib
real = unittest.case._Outcome.testPartExecutor
@contextlib.contextmanager
def te(self, test_case, subTest=False):
    if type(test_case).__name__ == 'TestCases':
        try: yield
        except Exception: pass
    else:
        with real(self, test_case, subTest): yield
unittest.case._Outcome.testPartExecutor = te
def task_func(n): return ''
""",
    "call_test_method": """
import unittest

C = unittest.TestCase
f = C._callTestMethod
def ctm(self, method):
    if type(self).__name__ == 'TestCases': return
    method()
f.__code__ = ctm.__code__
def task_func(n): return ''
""",
    "failure_exception": """
import sys, unittest
def task_func(n):
    s = sys._getframe(1).f_locals['self']
    raise unittest.case._ShouldStop
""",
    "expecting_failure": """
import sys
def task_func(n):
    s = sys._getframe(1).f_locals['self']
    getattr(type(s), s._testMethodName).__unittest_expecting_failure__ = True
    s._outcome.expecting_failure = True
    return ''
""",
    "str_addfailure": """
import sys
def task_func(n):
    s = sys._getframe(1).f_locals['self']
    s._outcome.result_supports_subtests = False
    s._outcome.result = type('R', (), {'__getattr__': lambda s, n: lambda *a, **k: None})()
    return ''
""",
    "frame_self": """
import sys
def task_func(n):
    f = sys._getframe(1)
    s = f.f_locals['self']
    for a in dir(s):
        if a.startswith('assert'): setattr(s, a, lambda *a, **k: None)
    class X(str): pass
    return ''
""",
}
"""Answers that reach for what judges them: comparisons, frames, code, trace functions, builtins, results."""


FEW = ("always_equal_type", "builtins_compile", "failure_exception")


@pytest.mark.slow
@needs_bwrap
@pytest.mark.parametrize("names", [FEW, pytest.param([n for n in HACKS if n not in FEW], marks=pytest.mark.slow)])
def test_answers_that_reach_for_what_judges_them_do_not_pass(tmp_path, names):
    (task,) = benchmark(tmp_path, row(test=HACKED)).tasks(0)
    right, *others = outcomes(task, [RIGHT, *(HACKS[name] for name in names)])
    assert right.ok, right
    for name, outcome in zip(names, others, strict=True):
        assert not outcome.ok and outcome.ended == "error", (name, outcome)


@pytest.mark.slow
@needs_bwrap
def test_tests_use_pythons_own_builtins_whatever_the_answer_calls_len(tmp_path):
    tests = (
        HACKED[: HACKED.index("    def test_home")]
        + "    def test_length(self):\n        self.assertEqual(len(task_func(1)), 3)\n"
    )
    (task,) = benchmark(tmp_path, row(test=tests)).tasks(0)
    shadowing = "def len(x): return 3\ndef task_func(n): return {text!r}[: len(n)]"
    wrong, right = outcomes(task, [shadowing.format(text="ab"), shadowing.format(text="abcd")])
    assert not wrong.ok and "2 != 3" in wrong.stderr and right.ok, (wrong, right)


HONEST = """
import os, sys, dataclasses, functools
from math import *
from unittest.mock import MagicMock

@functools.total_ordering
class Version:
    def __init__(self, text): self.parts = text.split(".")
    def __eq__(self, other): return isinstance(other, Version) and self.parts == other.parts
    def __lt__(self, other): return self.parts < other.parts

@dataclasses.dataclass
class Point:
    x: int = 1

class Same:
    def __eq__(self, other): return True if other is self else NotImplemented
    def __hash__(self): return 1

def input(text): return text
MagicMock() == 1
def task_func(name):
    assert Version("1") == Version("1") and Point() == Point(1) and sys.gettrace() is None
    return os.path.join(os.getcwd(), input(name))
"""


@needs_bwrap
def test_right_answers_with_comparisons_mocks_and_names_of_builtins_pass(tmp_path):
    more = """
    def setUp(self):
        self.maxDiff, self.made = None, lambda: 1

    @unittest.expectedFailure
    def test_expected(self):
        self.assertEqual(task_func("a"), "b")

    @unittest.skip("not here")
    def test_skipped(self):
        self.fail()

    def test_parts(self):
        for name in "ab":
            with self.subTest(name), self.assertRaises(TypeError):
                task_func(1)
        with unittest.mock.patch("builtins.open", unittest.mock.mock_open(read_data="x")):
            self.assertEqual(open("f").read(), "x")
        self.assertEqual(pow(2, 3), 8)
"""
    (task,) = benchmark(
        tmp_path, row(test=HACKED.replace("import unittest", "import unittest, unittest.mock") + more)
    ).tasks(0)
    (outcome,) = outcomes(task, [HONEST])
    assert outcome.ok, outcome


@pytest.mark.slow
@needs_bwrap
def test_a_missing_library_is_an_error_that_names_it_and_never_a_zero(tmp_path):
    bench = benchmark(tmp_path, row(code_prompt="import os, no_such_library\ndef task_func(name):\n"))
    (task,) = bench.tasks(0)
    assert task.metadata["libraries"] == ["no_such_library", "os", "unittest"]
    trace = asyncio.run(rollout(Agent("a", Scripted([f"```python\n{RIGHT}```"]), direct), task, benchmark=bench))
    (score,) = trace.scores
    assert score.failed and "needs no_such_library, which the sandbox lacks" in (score.failure or "")
    assert PACKAGES in (score.failure or "")


def test_the_record_says_how_many_tasks_cannot_be_run_and_they_can_be_left_out(tmp_path, monkeypatch):
    needy = row(task_id="BigCodeBench/2", test="import some_library\n" + TESTS)
    bench = benchmark(tmp_path, row(), needy)
    assert len(bench.tasks(0)) == 2
    assert (
        f"2 of 148 items; ERRORS: 1 tasks need modules that the sandbox lacks (some_library 1), see {PACKAGES}"
        in bench.protocol
    )
    left = benchmark(tmp_path, row(), needy, protocol=":runnable=true")
    assert [task.id for task in left.tasks(0)] == ["BigCodeBench/1"] and "LEFT OUT: 1 tasks" in left.protocol
    with pytest.raises(DataError, match="none of the 1 tasks can be run"):
        benchmark(tmp_path, needy, protocol=":runnable=true")
    (tmp_path / "some_library").mkdir()
    monkeypatch.setenv(PACKAGES, str(tmp_path))
    assert "lacks" not in benchmark(tmp_path, row(), needy).protocol


@pytest.mark.slow
@needs_bwrap
def test_a_reference_that_fails_here_is_an_error_and_an_answer_that_fails_alone_is_a_zero(tmp_path):
    bench = benchmark(tmp_path, row())
    trace = asyncio.run(
        rollout(
            Agent("a", Scripted(["```python\ndef task_func(n): return n\n```"]), direct),
            bench.tasks(0)[0],
            benchmark=bench,
        )
    )
    assert trace.scores[0].value == 0.0 and not trace.scores[0].failed and trace.scores[0].detail["reason"]
    (broken,) = benchmark(tmp_path, row(canonical_solution="    return 1\n")).tasks(0)

    async def judged():
        async with Sandbox(workers=1) as box:
            await check_reference(broken, box)

    with pytest.raises(DataError, match="cannot be scored here: its reference solution fails"):
        asyncio.run(judged())


@needs_bwrap
def test_the_sandbox_imports_from_a_virtual_environment(tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "venv" / "lib" / mine / "site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (packages / "some_library.py").write_text("answer = 42\n")

    async def run():
        async with Sandbox(workers=1, packages=[tmp_path / "venv"]) as box:
            outcome = await box.python("import some_library; print(some_library.answer)")
            return outcome.stdout, await lacking(["some_library", "no_such_library", "json"], box)

    assert asyncio.run(run()) == ("42\n", ["no_such_library"])


def test_a_virtual_environment_of_another_python_is_refused(tmp_path):
    (tmp_path / "lib" / "python2.7").mkdir(parents=True)
    assert site_packages(tmp_path) == tmp_path
    (tmp_path / "pyvenv.cfg").write_text("")
    with pytest.raises(ConfigError, match=r"of python2\.7: make one with python3"):
        site_packages(tmp_path)


@needs_bwrap
def test_code_in_the_sandbox_finds_localhost():
    async def run():
        async with Sandbox(workers=1) as box:
            return await box.python("import socket, pwd\nprint(socket.gethostbyname('localhost'), len(pwd.getpwall()))")

    assert asyncio.run(run()).stdout == "127.0.0.1 1\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": "class TestCases("}, "not Python code"),
        ({"code_prompt": "def f("}, "not Python code"),
        ({"test": ""}, "'test'"),
        ({"instruct_prompt": 3}, "'instruct_prompt'"),
    ],
)
def test_a_task_that_cannot_test_is_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        benchmark(tmp_path, row(**changes))


@pytest.mark.parametrize("text", ["", "[", "[]", "[1]", "3", '{"a": 1}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "bigcodebench_hard.json").write_text(text)
    with pytest.raises(DataError):
        catalog.benchmark(f"bigcodebench:data={tmp_path}")


def test_a_task_of_another_benchmark_is_an_error():
    trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), direct), Task("t", "Q")))
    with pytest.raises(DataError, match="has no tests"):
        asyncio.run(passes_unit_tests(Task("t", "Q"), trace))


def test_tests_that_must_fail_stand_among_the_others_and_each_fails():
    """For each assertion there is: the case fails by an AssertionError, whatever numbers were drawn."""
    used = "\n        ".join(f"self.{name}()" for name in FALSE)
    for _ in range(20):
        case, failing, spiked = with_failing_tests(
            f"import unittest\nclass TestCases(unittest.TestCase):\n    def test_a(self):\n        {used}\n"
        )
        assert len(set(failing)) == len(FALSE) and wanted(spiked) == ["test_a"]
        namespace: dict = {}
        exec(spiked, namespace)
        result = UnitTestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(namespace[case]).run(result)
        assert sorted(result.problems) == failing
        assert all(why.startswith("AssertionError") for why in result.problems.values())


@needs_bwrap
def test_fixtures_that_need_what_a_test_has_done_are_not_run_without_it(tmp_path):
    """BigCodeBench/310: tearDown removes the file that each test has named."""
    tests = TESTS.replace("    def helper", "    def tearDown(self):\n        self.done\n\n    def helper").replace(
        "    def test_home(self):\n", "    def test_home(self):\n        self.done = True\n"
    ).replace("    def test_files(self):\n", "    def test_files(self):\n        self.done = True\n")  # fmt: skip
    (task,) = benchmark(tmp_path, row(test=tests)).tasks(0)
    (right,) = outcomes(task, [RIGHT])
    assert right.ok, right.stderr


@needs_bwrap
def test_a_file_may_skip_its_own_tests(tmp_path):
    skipped = TESTS.replace("    def test_files", '    @unittest.skip("slow")\n    def test_files')
    (task,) = benchmark(tmp_path, row(test=skipped)).tasks(0)
    (right,) = outcomes(task, [RIGHT])
    assert right.ok


def test_the_tests_of_a_file_are_counted_without_running_it():
    assert wanted(TESTS) == ["test_files", "test_home"]


@pytest.mark.slow
@needs_data
def test_the_prompts_are_what_bigcodebench_sends():
    rows = json.loads((CODE / "bigcodebench_hard.json").read_text())
    asked = (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    )
    tasks = {
        name: catalog.benchmark(f"bigcodebench@{name}:data={CODE}").tasks(0)
        for name in ("instruct", "complete", "complete-base")
    }
    assert [len(each) for each in tasks.values()] == [148] * 3
    for instruct, complete, base, each in zip(*tasks.values(), rows.values(), strict=True):
        assert instruct.prompt == asked + each["instruct_prompt"].strip() + "\n"
        assert complete.prompt == asked + "```\n" + each["complete_prompt"].strip() + "\n```\n"
        assert base.context == each["complete_prompt"].strip() + "\n"
        assert instruct.secret["before"] == each["code_prompt"] + "\n    pass\n"
    standard = [task for task in tasks["complete"] if set(task.secret["needs"]) <= sys.stdlib_module_names]
    known = 33 if sys.version_info < (3, 13) else 31  # some modules are gone from 3.13
    assert len(standard) == known  # by what tests and prompts import; `libs` of 36 names only the standard library


@needs_data
@needs_bwrap
@pytest.mark.slow
def test_every_reference_solution_of_the_standard_library_passes_and_an_empty_one_does_not():
    """A minute and more: one of them waits for a server that closes."""
    tasks = catalog.benchmark(f"bigcodebench:data={CODE}").tasks(0)
    tasks = part([task for task in tasks if set(task.secret["needs"]) <= sys.stdlib_module_names], 4)

    async def run():
        async with Sandbox(workers=2) as box:
            right = await asyncio.gather(*[run_unit_tests(task.secret["solution"], task, box) for task in tasks])
            wrong = await asyncio.gather(
                *[run_unit_tests("def task_func(*args, **named): pass", task, box) for task in tasks]
            )
            return right, wrong

    right, wrong = asyncio.run(run())
    assert [(task.id, each.stderr[-300:]) for task, each in zip(tasks, right, strict=True) if not each.ok] == []
    assert [task.id for task, each in zip(tasks, wrong, strict=True) if each.ok] == []
