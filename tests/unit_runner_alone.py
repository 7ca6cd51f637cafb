"""Checks of the program that runs unittest cases, in a process of their own: each of its looks goes through every class.

Run by `test_scorers_unit_runner.py` with the program's path; prints what each check raised, as JSON by its name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import tempfile
import traceback
import unittest
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

spec = importlib.util.spec_from_file_location("unit_runner", sys.argv[1])
assert spec is not None and spec.loader is not None
unit_runner: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(unit_runner)
MODULE, Watch, impostors = unit_runner.MODULE, unit_runner.Watch, unit_runner.impostors

PLUS = "def f(x):\n    return x + 1\n"
CASES = """
import unittest
class TestCases(unittest.TestCase):
    def test_b(self):
        self.assertEqual(f(2), 3)
    def test_a(self):
        self.assertEqual(f(2), 5)
"""
ALWAYS = "\nclass TestLast(unittest.TestCase):\n    def test_zz(self):\n        self.assertEqual(1, 2)\n"
CASE = "import unittest\nunittest.TestCase"
FAILED = {"test_a": "AssertionError: 3 != 5", "test_zz": "AssertionError: 1 != 2"}


def forked(work: Callable[[], object], stdin: bytes = b"") -> tuple[int, str]:
    """The exit status of work in a process of its own, and what it says last."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(stdin)
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            os.dup2(given.fileno(), 0)
            try:
                work()
            except SystemExit as error:
                os.write(said.fileno(), str(error.code).encode())
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return status, said.read().decode()


def served(answer: str, tests: str = CASES, *, added: str = ALWAYS) -> list[Any]:
    """What the process that runs the cases says, message by message."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in ([], [tests + added, "TestLast"])))
        assert forked(lambda: unit_runner.serve(theirs, answer, "word")) == (0, "")
        theirs.close()
        said = b""
        while True:
            try:
                piece = ours.recv(1 << 16)
            except ConnectionResetError:  # it ended without reading the tests; what it said is still there
                continue
            if not piece:
                return [unit_runner.message(line, "word") for line in said.splitlines()]
            said += piece


def check_cases_are_reported_with_every_one_that_did_not_pass() -> None:
    more = """
    @unittest.skip("on purpose")
    def test_c(self): pass
    def test_d(self): self.skipTest("no file")
    def test_e(self): raise SystemExit(3)
    @unittest.expectedFailure
    def test_g(self): self.fail()
    def helper(self): pass
"""
    names = ["test_a", "test_b", "test_c", "test_d", "test_e", "test_g", "test_zz"]
    problems = {**FAILED, "test_d": "skipped: no file", "test_e": "SystemExit: 3"}
    assert served(PLUS, CASES + more) == [{}, {"ran": names, "problems": problems}]
    assert served("1 / 0") == [{"error": "ZeroDivisionError: division by zero"}]
    assert served("raise ValueError('x' * 400)") == [{"error": f"ValueError: {'x' * 300}"}]
    assert served(PLUS, "import unittest\n") == [{}, {"error": "KeyError: 'TestCases'"}]
    assert served(PLUS, CASES, added="") == [{}, {"error": "KeyError: 'TestLast'"}]
    early = "    @classmethod\n    def setUpClass(cls): raise ValueError('no')\n"
    not_run = dict.fromkeys(["test_a", "test_b"], "it did not run to its end")
    problems = {"TestCases)": "ValueError: no", "test_zz": FAILED["test_zz"], **not_run}
    assert served(PLUS, CASES + early) == [{}, {"ran": ["test_a"], "problems": problems}]
    known = "assert __file__ == '__test__.py' and environ is os.environ and sys.modules['__test__'].os is os\n"
    assert served(PLUS + known) == served(PLUS)


def check_an_answer_that_changes_what_judges_it_is_found_out() -> None:
    for change, said in (
        ("import builtins\nbuiltins.ascii = lambda x: 7", "the answer changed ascii"),
        ("import unittest\nunittest.TestCase.assertTrue = lambda *a: None", "the answer changed unittest"),
        ("import sys\nsys.setprofile(lambda *a: None)", "the answer changed unittest"),
        ("import sys\nsys.settrace(lambda *a: None)", "the answer changed unittest"),
        ("import sys\nsys.modules['unittest.case'] = sys", "the answer changed unittest"),
        ("class Same:\n    def __eq__(self, other): return True", "Same equals everything"),
        (f"{CASE}.assertAlmostEqual.__defaults__ = (None, None, 9)", "the answer changed unittest"),
        (f"{CASE}.assertTrue.__code__ = (lambda *a: None).__code__", "the answer changed unittest"),
        ("import json\njson.dumps.__kwdefaults__['sort_keys'] = True", "the answer changed unittest"),
        ("import json\njson.loads.__kwdefaults__['cls'] = None or json.JSONDecoder", "the answer changed unittest"),
        ("import json\njson._default_encoder.encode = json.JSONEncoder().encode", "the answer changed unittest"),
        ("import json\njson._default_decoder.strict = False", "the answer changed unittest"),
        ("import json\njson.JSONDecoder.added = 1", "the answer changed unittest"),
        ("import json.scanner\njson.scanner.added = 1", "the answer changed unittest"),
        ("import json.encoder\njson.encoder.ESCAPE = None", "the answer changed unittest"),
    ):
        report = served(f"{PLUS}{change}\n")[-1]
        assert report["problems"]["unittest"] == said and {**report["problems"], **FAILED} == report["problems"], change
    later = "def f(x):\n    sys.modules['__test__'].TestCases.test_b = lambda self: None\n    return x + 1\n"
    replaced = {"test_a": FAILED["test_a"], "unittest": "the answer changed the tests", "test_zz": FAILED["test_zz"]}
    assert served(later, CASES.replace("f(2), 3", "f(2), 4")) == [
        {},
        {"ran": ["test_a", "test_b", "test_zz"], "problems": replaced},
    ]
    forged = """
import json
class Forged(json.JSONEncoder):
    def encode(self, body):
        body.get("problems", {}).pop("test_a", None)
        return super().encode(body)
json.dumps.__kwdefaults__["cls"] = Forged
"""
    assert served(PLUS + forged)[-1]["problems"] == {
        "test_zz": FAILED["test_zz"],
        "unittest": "the answer changed unittest",
    }
    two = served(
        PLUS + "import builtins\nbuiltins.ascii = len\nclass Same:\n    def __eq__(self, other): return True\n"
    )[-1]
    assert two["problems"]["unittest"] == "the answer changed ascii", "the first of several"
    taken = PLUS + "def len(x):\n    return 99\n"
    own = CASES + "    def test_c(self): self.assertEqual((len([1, 2]), __name__), (2, '__test__'))\n"
    assert served(taken, own)[1] == {"ran": ["test_a", "test_b", "test_c", "test_zz"], "problems": FAILED}


def ended(answer: str, tests: str) -> tuple[int, str]:
    """How the whole program ends in a folder of its own, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "answer.py").write_text(answer, encoding="utf-8")
        found = forked(lambda: (os.chdir(folder), unit_runner.main()), stdin=tests.encode())
        assert not list(Path(folder).iterdir()), "the tests begin in an empty folder"
        return found


def check_the_program_ends_well_or_says_which_tests_failed() -> None:
    right = CASES.replace("5", "3")
    assert ended("é = 1\n" + PLUS, right) == (0, "")
    sees = "GIVEN = os.pread(0, 100, 0), os.read(0, 100), sys.stdin.read(1)\n"
    told = right + "    def test_given(self): self.assertEqual(GIVEN, (b'', b'', ''))\n"
    floods = "print('out')\nprint('errors', file=sys.stderr)\nos.write(1, b'1')\nos.write(2, b'2')\n"
    assert ended(sees + floods + PLUS, told) == (0, ""), "an answer has no input, and nobody hears it"
    line = "test_a: AssertionError: 3 != 5"
    assert ended(PLUS, CASES) == (1, f"{line}\n1 of 2 tests failed: {line}")
    assert ended("import no_such", CASES) == (
        1,
        "the answer did not load: ModuleNotFoundError: No module named 'no_such'",
    )
    assert ended("os._exit(0)", CASES) == (1, "the answer did not load: its process ended")
    assert ended("def f(x):\n    os._exit(0)", CASES) == (1, "its process ended")
    head = "import unittest\nclass TestCases(unittest.TestCase):\n"
    many = head + "".join(f"    def test_{at:02}(self): self.fail('{'y' * 300}')\n" for at in range(21))
    status, said = ended(PLUS, many)
    lines = said.split("\n")
    first = f"test_00: AssertionError: {'y' * 184}"
    assert (status, len(lines), lines[0], lines[-1]) == (1, 21, first, f"21 of 21 tests failed: {first}")
    passes = PLUS + "import unittest\nunittest.TestCase.fail = lambda *a: None\n"
    status, said = ended(passes, f"{head}    def test_a(self): self.fail()\n")
    assert status == 1 and said.endswith(
        "1 of 1 tests failed: unittest: an assertion that must fail did not: the answer changed what judges it"
    )


def kind(name: str, equal: Any, module: str = MODULE) -> type:
    return type(name, (object,), {"__module__": module, "__eq__": equal, "__hash__": object.__hash__})


def check_impostors_are_classes_of_the_answer_or_mocks_alone() -> None:
    def yes(self: object, other: object) -> bool:
        return True

    before = impostors()
    own = kind("Own", yes)
    heir = type("Heir", (own,), {"__module__": MODULE})
    elsewhere = kind("Elsewhere", yes, "json")
    below = type("Below", (elsewhere,), {"__module__": MODULE, "__eq__": yes, "__hash__": object.__hash__})
    mock = type("Mocked", (unittest.mock.MagicMock,), {"__eq__": yes, "__hash__": object.__hash__})
    found = [each for each in impostors() if each not in before]
    assert own in found and below in found and mock in found and heir not in found and elsewhere not in found


def check_a_watch_notes_each_change_once_it_looks() -> None:
    class Case(unittest.TestCase):
        def test_a(self) -> None: ...

    watch, test = Watch(unit_runner.Libraries([])), Case("test_a")
    watch.hold([test])

    def noted() -> list[str]:  # without what classes of other tests are found to be
        return [each for each in watch.changes if not each.endswith(" equals everything")]

    watch.look()
    watch.look(test)
    watch.after_load()
    assert noted() == []
    for change, undo, said in (
        (lambda: setattr(Case, "test_b", len), lambda: delattr(Case, "test_b"), "the answer changed the tests"),
        (
            lambda: setattr(test, "assertEqual", print),
            lambda: delattr(test, "assertEqual"),
            "the answer changed the assertions of a test",
        ),
        (lambda: setattr(test, "other", print), lambda: None, ""),
        (lambda: setattr(test, "assertEqual", 3), lambda: delattr(test, "assertEqual"), ""),
        (
            lambda: setattr(unittest, "firsthand_added", 1),
            lambda: delattr(unittest, "firsthand_added"),
            "the answer changed unittest",
        ),
        (lambda: sys.setprofile(_nothing), lambda: sys.setprofile(None), "the answer changed unittest"),
    ):
        watch.changes.clear()
        change()
        try:
            watch.look(test)
        finally:
            undo()
        assert noted() == ([said] if said else []), said


def _nothing(*_: object) -> None: ...


if __name__ == "__main__":
    found = {}
    for name, check in [each for each in globals().items() if each[0].startswith("check_")]:
        try:
            check()
            found[name.removeprefix("check_")] = ""
        except Exception:
            found[name.removeprefix("check_")] = traceback.format_exc()
    print(json.dumps(found))
