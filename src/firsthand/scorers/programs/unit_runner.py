"""Runs unittest cases against an answer in one interpreter, inside the sandbox. Standard library only.

Two processes: this one starts another, which loads the answer before any test is there, then the tests, and reports on each.
The cases patch the answer's own modules, so both must share an interpreter: unlike `checker.py`, this cannot keep an
answer from looking at the tests while they call it. It keeps what it can:

- what runs the cases (the classes of `unittest` and `json` with the code of their functions, `compile`, `exec`, builtins) is
  taken before the answer loads, compared before the tests are read, and around each of them but for builtins, which tests
  patch; so are the test class and its instances, and there is no trace or profile function;
- only a report on every test counts, so an answer that leaves early has failed, and a test that was skipped, or expected to
  fail, has failed unless the file says so;
- the tests use Python's own builtins, whatever the answer calls `len`;
- whatever the tests compare, calculate with or hand to a call is looked at first: an operator of its class must be
  Python's, or a function whose code is in a library's file or in the tests, and it must not equal a new object;
- a class of the answer's that equals everything is found by comparing it with objects that nothing equals;
- a message counts only with a random text that the answer is not told: finding the link is not enough;
- for each assertion that the tests use, the file that the other process gets holds one that must fail, run between tests.
  A report in which one of them passed comes from a process whose assertions are not Python's.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import dataclasses
import functools
import json
import json.scanner
import os
import secrets
import socket
import sys
import sysconfig
import types
import unittest
import unittest.mock
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

MODULE = "__test__"
MODULES = (
    unittest, unittest.case, unittest.result, unittest.suite, unittest.loader,
    json, json.encoder, json.decoder, json.scanner,
)  # fmt: skip
WATCHED: tuple[type, ...] = tuple(
    {each for module in MODULES for each in vars(module).values() if isinstance(each, type) and each.__module__ in
     {module.__name__ for module in MODULES}}
)  # fmt: skip
ASSERTIONS = frozenset(name for name in dir(unittest.TestCase) if callable(getattr(unittest.TestCase, name)))
MARKS = ("__unittest_expecting_failure__", "__unittest_skip__")
FALSE = {
    "assertEqual": "self.assertEqual({0}, {1})",
    "assertEquals": "self.assertEqual({0}, {1})",
    "assertNotEqual": "self.assertNotEqual({0}, {0})",
    "assertTrue": "self.assertTrue({0} == {1})",
    "assertFalse": "self.assertFalse({0} == {0})",
    "assertIs": "self.assertIs([{0}], [{0}])",
    "assertIsNot": "self.assertIsNot(None, None)",
    "assertIsNone": "self.assertIsNone({0})",
    "assertIsNotNone": "self.assertIsNotNone(None)",
    "assertIn": "self.assertIn({0}, [{1}])",
    "assertNotIn": "self.assertNotIn({0}, [{0}])",
    "assertIsInstance": "self.assertIsInstance({0}, str)",
    "assertNotIsInstance": "self.assertNotIsInstance({0}, int)",
    "assertAlmostEqual": "self.assertAlmostEqual({0}, {1})",
    "assertNotAlmostEqual": "self.assertNotAlmostEqual({0}, {0})",
    "assertGreater": "self.assertGreater(-{0}, {1})",
    "assertGreaterEqual": "self.assertGreaterEqual(-{0}, {1})",
    "assertLess": "self.assertLess({0}, -{1})",
    "assertLessEqual": "self.assertLessEqual({0}, -{1})",
    "assertRegex": "self.assertRegex('{0}', '^{1}$')",
    "assertNotRegex": "self.assertNotRegex('{0}', '^{0}$')",
    "assertCountEqual": "self.assertCountEqual([{0}], [{1}])",
    "assertListEqual": "self.assertListEqual([{0}], [{1}])",
    "assertTupleEqual": "self.assertTupleEqual(({0},), ({1},))",
    "assertSetEqual": "self.assertSetEqual({{{0}}}, {{{1}}})",
    "assertDictEqual": "self.assertDictEqual({{1: {0}}}, {{1: {1}}})",
    "assertSequenceEqual": "self.assertSequenceEqual([{0}], [{1}])",
    "assertMultiLineEqual": "self.assertMultiLineEqual('{0}', '{1}')",
    "assertRaises": "self.assertRaises(ValueError, int, '{0}')",
    "assertRaisesRegex": "self.assertRaisesRegex(ValueError, '{0}', int, '{1}')",
    "fail": "self.fail('{0}')",
}
"""For each assertion, one that must fail for any two different positive integers."""


OPERATORS = (
    *(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "class", "getattribute")),
    *(f"__{name}__" for name in ("array_ufunc", "array_function", "torch_function", "instancecheck")), "equals",
    *(f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow") for side in ("", "r")),
)  # fmt: skip
"""Special methods that decide how objects compare, or which class they claim."""
DESCRIPTORS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
               types.BuiltinFunctionType, types.GetSetDescriptorType, types.MemberDescriptorType)  # fmt: skip
LIBRARY = os.path.realpath(sysconfig.get_path("stdlib"))
COMPILE = compile
LIBRARIES = tuple(
    {sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {each for each in sys.path if each and not Path.cwd().is_relative_to(os.path.realpath(each))}
    | {os.path.realpath(sysconfig.get_path(each)) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.path.realpath(each) for each in sys.path if each and not Path.cwd().is_relative_to(os.path.realpath(each))}
)
ANYTHING = unittest.mock._ANY()
"""Replaces `mock.ANY` in the tests, so that an answer that returns `mock.ANY` is rejected."""


def main() -> None:
    """Exit with status 0 if the answer passes all tests; otherwise say on stderr which it failed."""
    path = Path("answer.py")
    answer = path.read_text(encoding="utf-8")
    path.unlink()  # the tests begin in an empty folder
    ours, theirs = socket.socketpair()
    word = secrets.token_hex(16)
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: the answer, of the same user, must not look in here
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        ours.close()
        sys.path.insert(0, str(Path.cwd()))
        serve(theirs, answer, word)
    theirs.close()
    tests = sys.stdin.read()
    names, (case, failing, spiked) = wanted(tests), with_failing_tests(tests)
    with ours.makefile("rwb") as link:
        loaded = message(link.readline(), word)
        if "error" in loaded:
            sys.exit(f"the answer did not load: {loaded['error']}")
        link.write(json.dumps([spiked, case]).encode() + b"\n")
        link.flush()
        report = message(link.readline(), word)
    if "error" in report:
        sys.exit(str(report["error"]))
    problems = report.get("problems")
    if not isinstance(problems, dict) or report.get("ran") != sorted([*names, *failing]):
        sys.exit("the tests did not run to their end")
    if any(not str(problems.pop(name, "")).startswith("AssertionError") for name in failing):
        problems["unittest"] = "an assertion that must fail did not: the answer changed what judges it"
    if problems:
        lines = [f"{name}: {str(text)[:200]}" for name, text in list(problems.items())[:20]]
        sys.exit("\n".join([*lines, f"{len(problems)} of {len(names)} tests failed: {lines[0]}"]))


def message(line: bytes, word: str) -> dict[str, Any]:
    """Parse a message of the other process, which is not trusted and may have ended; without the word it is not its own."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "its process ended" if not line else "it said nothing that can be read"}
    if not isinstance(body, dict):
        return {"error": "it said nothing that can be read"}
    return body if body.pop("word", None) == word else {"error": "something else than the runner wrote to its link"}


def wanted(tests: str) -> list[str]:
    """Return the names of the tests in the file, sorted."""
    return sorted(name for name in _methods(ast.parse(tests)) if name.startswith("test"))


def with_failing_tests(tests: str) -> tuple[str, list[str], str]:
    """Return a random class name, the names of its tests, which must fail, and the file with that class appended.

    The class has the bases of `TestCases` and none of its fixtures, which may need what a test has done.
    """
    tree = ast.parse(tests)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & set(FALSE)
    bases = ", ".join(ast.unparse(base) for case in _cases(tree)[:1] for base in case.bases)
    name, methods = f"Test{secrets.token_hex(4)}", {}
    for assertion in sorted(used or {"assertEqual"}):
        first = 2 + secrets.randbelow(10**6)
        line = FALSE[assertion].format(first, first + 1 + secrets.randbelow(10**6))
        methods[f"test_{secrets.token_hex(4)}"] = line
    body = "".join(f"    def {method}(self):\n        {line}\n" for method, line in methods.items())
    return name, sorted(methods), f"{tests}\n\nclass {name}({bases}):\n{body}"


def _cases(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TestCases"]


def _methods(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {
        node.name: node
        for case in _cases(tree)
        for node in case.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def skipped_on_purpose(tests: str) -> set[str]:
    """Return the tests that the file itself skips, or expects to fail, by a decorator; all where it does so to the class."""
    tree = ast.parse(tests)
    everything = any(_skips(case.decorator_list) for case in _cases(tree))
    return {name for name, method in _methods(tree).items() if everything or _skips(method.decorator_list)}


def _skips(decorators: Iterable[ast.expr]) -> bool:
    words = [ast.unparse(each).lower() for each in decorators]
    return any("skip" in word or "expectedfailure" in word for word in words)


def with_own_builtins(tests: str, names: Iterable[str]) -> tuple[ast.Module, dict[str, str]]:
    """Return the file's tree, in which these builtins have other names unless the file defines them, and those names."""
    tree = ast.parse(tests)
    nodes = list(ast.walk(tree))
    defined = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    renamed = {name: f"{name}_{secrets.token_hex(4)}" for name in names if name not in defined}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in renamed:
            node.id = renamed[node.id]
    return tree, {new: name for name, new in renamed.items()}


class UnitTestResult(unittest.TestResult):
    """Records the error of each test that did not pass, without calling a method of `unittest.TestResult`."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, str] = {}
        self.skips: dict[str, str] = {}
        self.passed: list[str] = []

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.problems[_name(test)] = f"{err[0].__name__}: {err[1]}"

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        if err is not None:
            self.addFailure(test, err)

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.passed.append(_name(test))

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.skips[_name(test)] = f"expected to fail: {err[1]}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.skips[_name(test)] = f"skipped: {reason}"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.problems[_name(test)] = "unexpected success"


def _name(test: unittest.TestCase) -> str:
    return test.id().rpartition(".")[2]


def run(tests: list[Any], failing: list[Any], result: UnitTestResult, watch: Watch) -> None:
    """Run the tests as one suite, so that their class is set up once, with the tests that must fail in between."""
    between = list(failing)

    class Suite(unittest.TestSuite):
        _cleanup = False

        def __iter__(self) -> Iterator[Any]:
            for test in tests:
                watch.look()
                yield test
                watch.look(test)
                if between:
                    between.pop()(result)

    Suite().run(result)
    for test in between:
        test(result)
    watch.look()


class Watch:
    """Compares what runs the cases with what it was before the answer was loaded."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._state, self._builtins = _state(), dict(vars(builtins))
        self._modules = {module.__name__: module for module in (*MODULES, builtins, unittest.mock, ast, sys)}
        self._cases: dict[type, dict[str, Any]] = {}
        self._compare, self._look_up = _state, sys.modules

    def after_load(self) -> None:
        """Note what the answer changed while it was loaded."""
        for name, value in self._builtins.items():
            if vars(builtins).get(name) is not value and name != "_":
                self.changes.append(f"the answer changed {name}")
        self.look()

    def hold(self, tests: Iterable[Any]) -> None:
        """Remember the classes of the tests as they are before any is run."""
        self._cases = {type(test): _methods_of(type(test)) for test in tests}

    def look(self, test: Any = None) -> None:
        """Note what is not as it was; of a test that has run, too, whether its own assertions were replaced."""
        changed = self._compare() != self._state
        moved = any(self._look_up.get(name) is not module for name, module in self._modules.items())
        if changed or moved or sys.gettrace() is not None or sys.getprofile() is not None:
            self.changes.append("the answer changed unittest")
        if any(_methods_of(case) != before for case, before in self._cases.items()):
            self.changes.append("the answer changed the tests")
        if test is not None and any(name in ASSERTIONS and callable(each) for name, each in vars(test).items()):
            self.changes.append("the answer changed the assertions of a test")
        self.changes += [f"{each.__name__} equals everything" for each in impostors()]


def impostors() -> list[type]:
    """Return the classes of the answer, and the mocks, whose objects say that they equal what nothing equals."""
    found, pending, seen = [], [object], {object}
    while pending:
        for each in type.__subclasses__(pending.pop()):
            if each not in seen:
                seen.add(each)
                pending.append(each)
                own = each.__module__ == MODULE or issubclass(each, unittest.mock.NonCallableMock)
                if own and _equals_everything(each):
                    found.append(each)
    return found


def _equals_everything(kind: type) -> bool:
    """True if `==` of a class says yes to a new object, or to two different values of every plain type."""
    equal = vars(kind).get("__eq__")
    if equal is None or isinstance(equal, unittest.mock.MagicProxy):
        return False
    this = equal.return_value if isinstance(equal, unittest.mock.NonCallableMock) else None
    if this is not None:
        return this is True
    number = 2 + secrets.randbelow(10**9)
    pairs = [(number, -number), (f"{number}", f"x{number}"), ([number], [number, 1]), ({number: 1}, {number: 2})]

    def says(other: object) -> bool:
        said = equal(one, other)
        return said is not NotImplemented and bool(said)

    try:
        new: Any = kind.__new__
        one = new(kind)
        return says(object()) or any(says(first) and says(second) for first, second in pairs)
    except Exception:  # it needs what its `__init__` gives it
        return False


def looked_at(tree: ast.Module, look: str) -> ast.Module:
    """Return the tests with a call of `look` around what they compare, calculate with, or hand to a call, and an own ANY."""

    def around(node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant | ast.Starred | ast.GeneratorExp | ast.Lambda):
            return node
        return ast.copy_location(ast.Call(ast.Name(look, ast.Load()), [node], []), node)

    imported = any(
        each.name == "ANY" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names
    )

    class Around(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            own = imported and node.id == "ANY" and isinstance(node.ctx, ast.Load)
            return ast.copy_location(ast.Name(f"{look}_any", node.ctx), node) if own else node

        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            self.generic_visit(node)
            own = node.attr == "ANY" and ast.unparse(node.value) in ("mock", "unittest.mock")
            return ast.copy_location(ast.Name(f"{look}_any", node.ctx), node) if own else node

        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            node.left, node.comparators = around(node.left), [around(each) for each in node.comparators]
            return node

        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            self.generic_visit(node)
            node.left, node.right = around(node.left), around(node.right)
            return node

        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.func, ast.Name) and node.func.id == "super":
                return node
            node.args = [around(each) for each in node.args]
            for keyword in node.keywords:
                keyword.value = around(keyword.value) if keyword.arg else keyword.value
            return node

    Around().visit(tree)
    return ast.fix_missing_locations(tree)


class Judge:
    """Called with a value of the tests, returns it, and notes when operators of its class are the answer's own."""

    def __init__(self, changes: list[str]) -> None:
        self.codes: set[types.CodeType] = set()
        self._changes = changes

    def __call__(self, value: Any) -> Any:
        self._look(value, 4)
        return value

    def _look(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind in (int, str, float, bool, bytes, types.NoneType) or value is ANYTHING:
            return
        if self._own(kind) or _says_yes(value, kind):
            self._changes.append("an object equals, or passes for, what it is not")
        elif depth:
            for each in _parts(value, kind):
                self._look(each, depth - 1)

    def _own(self, kind: type) -> bool:
        for each in type.__dict__["__mro__"].__get__(kind):
            held = type.__dict__["__dict__"].__get__(each)
            if _heap(each) and any(name in held and not self._allowed(held[name], name, each) for name in OPERATORS):
                return True
        return False

    def _allowed(self, what: Any, name: str, owner: type) -> bool:
        kind = type(what)
        if kind in (classmethod, staticmethod):
            return kind is not staticmethod and self._allowed(what.__func__, name, owner)
        if kind is property:
            return self._allowed(what.fget, name, owner)
        if kind in DESCRIPTORS:
            return bool(what.__name__ == name)
        if kind is types.FunctionType:
            cells = [cell.cell_contents for cell in what.__closure__ or () if cell.cell_contents is not what]
            inner = [each for each in cells if type(each) is types.FunctionType]
            return self._known(what.__code__, owner) and all(self._known(each.__code__, owner) for each in inner)
        mocked = isinstance(what, unittest.mock.MagicProxy) or _is(kind, unittest.mock.NonCallableMock)
        return what is None or mocked or kind.__name__ == "cython_function_or_method"

    def _known(self, code: types.CodeType, owner: type) -> bool:
        return code in self.codes or code in _codes_of_file(code.co_filename) or _of_dataclass(code, owner)


def _heap(kind: type) -> bool:
    """True if a class is none of the interpreter's own static ones, which nobody can change."""
    return bool(type.__dict__["__flags__"].__get__(kind) & 1 << 9)


def _is(kind: type, base: type) -> bool:
    return any(each is base for each in type.__dict__["__mro__"].__get__(kind))


def _parts(value: Any, kind: type) -> list[Any]:
    """Return what a container holds, one object of each plain type."""
    if _is(kind, dict):
        held = [*dict.keys(value), *dict.values(value)]
    elif base := next((each for each in (list, tuple, set, frozenset) if _is(kind, each)), None):
        held = list(base.__iter__(value))
    else:
        array = getattr(sys.modules.get("numpy"), "ndarray", None)
        frame = [getattr(sys.modules.get("pandas"), name, None) for name in ("DataFrame", "Series", "Index")]
        if isinstance(array, type) and _is(kind, array):
            held = value.ravel().tolist() if value.dtype == object else []
        elif any(isinstance(each, type) and _is(kind, each) for each in frame):
            held = [value.to_numpy()] if "object" in str(getattr(value, "dtypes", "")) else []
        else:
            held = []
    return [each for each in held if type(each) not in (int, str, float, bool, bytes, types.NoneType)]


def _says_yes(value: Any, kind: type) -> bool:
    """True if an object of a class with an `==` in Python says that it equals a new object."""
    for each in type.__dict__["__mro__"].__get__(kind):
        equal = type.__dict__["__dict__"].__get__(each).get("__eq__")
        if equal is not None:
            try:
                return type(equal) is types.FunctionType and equal(value, object()) is True
            except Exception:
                return False
    return False


@functools.cache
def _codes_of_file(name: str) -> frozenset[types.CodeType]:
    """Return all code of a file of Python's library or of an installed one; of any other file, none."""
    if name.startswith("<frozen "):
        name = f"{LIBRARY}/{name[8:-1].replace('.', '/')}.py"
    if "/../" in name or not any(name.startswith(f"{each}/") for each in LIBRARIES):
        return frozenset()
    try:
        with FileIO(name) as file:  # tests patch `open` and `os.path`, and an answer might
            return frozenset(_codes(COMPILE(file.readall(), name, "exec", dont_inherit=True)))
    except (OSError, ValueError, SyntaxError):
        return frozenset()


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _of_dataclass(code: types.CodeType, owner: type) -> bool:
    """True if this is what `dataclasses` writes for a class with these fields."""
    fields = type.__dict__["__dict__"].__get__(owner).get("__dataclass_fields__")
    if type(fields) is not dict:
        return False
    names = [name for name, each in fields.items() if getattr(each, "compare", False)]
    fresh = vars(dataclasses.make_dataclass("Fresh", names, order=True)).get(code.co_name)
    return isinstance(fresh, types.FunctionType) and fresh.__code__ == code


def _methods_of(case: type) -> dict[str, Any]:
    """All that decides how a test class runs: its functions with their code and marks, and assertions that are its own."""
    return {
        name: (each, getattr(each, "__code__", None), [getattr(each, mark, None) for mark in MARKS])
        for name, each in vars(case).items()
        if callable(each) or name in ASSERTIONS or name in MARKS
    } | {"__bases__": case.__bases__}


def serve(link: socket.socket, answer: str, word: str) -> NoReturn:
    """Load the answer, then the tests, and run them. Nothing here is trusted."""
    dump, leave, stream, read, execute = json.dumps, os._exit, link.makefile("rwb"), compile, exec
    result, load, cases = UnitTestResult(), unittest.TestLoader().loadTestsFromTestCase, unittest.TestCase
    plain, parse, on_purpose = dict(vars(builtins)), with_own_builtins, skipped_on_purpose

    def tell(body: dict[str, Any]) -> None:
        stream.write(dump(body | {"word": word}).encode() + b"\n")
        stream.flush()

    # Raised, it ends a test as if it had passed. Only `failfast`, which is not used here, raises it.
    vars(unittest.case)["_ShouldStop"] = ()
    module = types.ModuleType(MODULE)
    module.__dict__.update(__builtins__=builtins, __file__=f"{MODULE}.py", sys=sys, os=os, environ=os.environ)
    sys.modules[MODULE] = module
    watch = Watch()
    judge = Judge(watch.changes)
    try:
        exec(compile(answer, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        watch.after_load()
        tell({})
        tests, failing = json.loads(stream.readline())
        shadowed = {name for name in plain.keys() & module.__dict__.keys() if not name.startswith("__")}
        tree, names = parse(tests, shadowed)
        module.__dict__.update({new: plain[name] for new, name in names.items()})
        look = f"look_{secrets.token_hex(4)}"
        code = read(looked_at(tree, look), f"{MODULE}.py", "exec", dont_inherit=True)
        judge.codes.update(_codes(code))
        module.__dict__.update({look: judge, f"{look}_any": ANYTHING})
        execute(code, module.__dict__)
        suites: list[list[Any]] = [list(load(module.__dict__[each])) for each in ("TestCases", failing)]
        if not all(isinstance(test, cases) for suite in suites for test in suite):
            raise TypeError("TestCases is no unittest.TestCase")
        names_of = sorted(_name(test) for suite in suites for test in suite)
        watch.hold(suites[0])
        run(suites[0], suites[1], result, watch)
        expected = on_purpose(tests)
        problems = dict(result.problems) | {name: why for name, why in result.skips.items() if name not in expected}
        for test in suites[0]:
            if (name := _name(test)) not in result.passed and name not in expected:
                problems.setdefault(name, "it did not run to its end")
        if watch.changes:
            problems["unittest"] = watch.changes[0]
        tell({"ran": names_of[: result.testsRun], "problems": problems})
    except BaseException as error:
        tell({"error": f"{type(error).__name__}: {str(error)[:300]}"})
    finally:
        leave(0)


def _state() -> list[Any]:
    """The content of what runs the cases, to see whether anything in it was replaced.

    It holds the code of its functions too, what they take where a caller gives nothing, and what its objects hold.
    """
    held = [dict(vars(each)) for each in (*WATCHED, *MODULES)]
    inside = [
        [
            (
                getattr(each, "__code__", None),
                getattr(each, "__defaults__", None),
                dict(getattr(each, "__kwdefaults__", None) or {}),
                dict(vars(each)) if isinstance(each, WATCHED) else None,
            )
            for each in content.values()
        ]
        for content in held
    ]
    return [held, inside]


if __name__ == "__main__":
    main()
