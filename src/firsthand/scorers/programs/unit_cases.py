"""Reads the file of unittest cases, and writes it anew: with tests that must fail, and a look at each value.

Joined with `unit_runner.py` into one program for the sandbox. Standard library only.
"""

from __future__ import annotations

import ast
import secrets
from collections.abc import Iterable

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
IDENTITY = frozenset({
    "assertIs", "assertIsNot", "assertIsNone", "assertIsNotNone", "assertIsInstance", "assertNotIsInstance", "assertTrue",
    "assertFalse", "assertRaises", "assertRaisesRegex", "assertWarns", "assertWarnsRegex",
})  # fmt: skip
"""Assertions that compare nothing by its value."""


def wanted(tests: str) -> list[str]:
    """Return the names of the tests that the file writes down in `TestCases` and its bases, sorted; it may make others."""
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
    """The class `TestCases`, and those of the file that it inherits from, nearest first."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found: list[ast.ClassDef] = []
    pending = ["TestCases"]
    while pending:
        case = classes.get(pending.pop(0))
        if case is not None and case not in found:
            found.append(case)
            pending = [*(base.id for base in case.bases if isinstance(base, ast.Name)), *pending]
    return found


def _methods(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods of `TestCases` by name, without those for which a class stands something else."""
    found: dict[str, ast.stmt] = {}
    for case in _cases(tree):
        own: dict[str, ast.stmt] = {}
        for node in case.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own[node.name] = node
            elif isinstance(node, ast.Assign):
                own.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        found = own | found
    return {name: node for name, node in found.items() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


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


def patched(tree: ast.Module) -> set[str]:
    """Return the attributes that the tests assign, or patch for longer than one test."""
    nodes = list(ast.walk(tree))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    found = {node.attr for node in attributes if not isinstance(node.ctx, ast.Load)}
    used = {node.attr for node in attributes} | {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    if used & {"start", "setUpClass", "setUpModule"}:
        calls = [node for node in nodes if isinstance(node, ast.Call) and "patch" in ast.unparse(node.func)]
        given = [each.value for call in calls for each in call.args if isinstance(each, ast.Constant)]
        found |= {each.rpartition(".")[2] for each in given if isinstance(each, str)}
        found |= {each.arg for call in calls for each in call.keywords if each.arg}
    return found


def imported(tests: str) -> list[str]:
    """Return the modules that a file imports or may name: `os.path`, `numpy.testing`."""
    found, names = set[str](), dict[str, str]()
    for node in (nodes := list(ast.walk(ast.parse(tests)))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
            names |= {each.asname or each.name.partition(".")[0]: each.name if each.asname else each.name.partition(".")[0]
                      for each in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    for node in nodes:
        root, _, rest = ast.unparse(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
        if root in names and rest.replace(".", "").isidentifier():
            found.add(f"{names[root]}.{rest}")
    return sorted(found)


def looked_at(tree: ast.Module, look: str) -> ast.Module:
    """Return the tests with a call of `look` around what they compare, calculate with, or hand to a call, and an own ANY.

    What goes to builtins, to the answer, or to an assertion on identity is only `handed` over, and what `in` reads is looked
    at item by item. The object whose method is called is looked at as well.
    """

    def around(node: ast.expr, method: str = "") -> ast.expr:
        if isinstance(node, ast.Constant | ast.Starred | ast.GeneratorExp | ast.Lambda):
            return node
        name: ast.expr = ast.Name(look, ast.Load())
        return ast.copy_location(
            ast.Call(ast.Attribute(name, method, ast.Load()) if method else name, [node], []), node
        )

    def called(method: str) -> ast.expr:
        return ast.Attribute(ast.Name(look, ast.Load()), method, ast.Load())

    nodes = list(ast.walk(tree))
    aliases = [each for node in nodes if isinstance(node, ast.ImportFrom | ast.Import) for each in node.names]
    names = {(each.asname or each.name).partition(".")[0] for each in aliases}
    imported = any(each.name == "ANY" for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names)

    def reads(function: ast.expr) -> bool:
        """True if a library's function is called, or an assertion that compares values."""
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "self":
            return function.attr.startswith("assert") and function.attr not in IDENTITY
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and function.id in names

    class Around(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            own = imported and node.id == "ANY" and isinstance(node.ctx, ast.Load)
            return ast.copy_location(ast.Name(f"{look}_any", node.ctx), node) if own else node

        def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
            self.generic_visit(node)
            node.decorator_list.append(ast.copy_location(called("made"), node))
            return node

        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            self.generic_visit(node)
            operator = node.value if isinstance(node.value, ast.Attribute) else node
            if isinstance(node.ctx, ast.Store):
                for each in {node, operator}:
                    if each.attr.startswith("__") and each.attr.endswith("__"):
                        each.value = ast.copy_location(
                            ast.Call(called("given"), [each.value, ast.Constant(each.attr)], []), each
                        )
            own = node.attr == "ANY" and ast.unparse(node.value) in ("mock", "unittest.mock")
            return ast.copy_location(ast.Name(f"{look}_any", node.ctx), node) if own else node

        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            same = all(isinstance(each, ast.Is | ast.IsNot) for each in node.ops)
            node.left = around(node.left, "handed" if same else "")
            node.comparators = [
                around(each, "each" if isinstance(op, ast.In | ast.NotIn) else "handed" if same else "")
                for op, each in zip(node.ops, node.comparators, strict=True)
            ]
            return node

        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            self.generic_visit(node)
            node.left, node.right = around(node.left), around(node.right)
            return node

        def visit_Call(self, node: ast.Call) -> ast.AST:
            read, function = "" if reads(node.func) else "handed", node.func
            assertion = function.attr if isinstance(function, ast.Attribute) and read == "" else ""
            self.generic_visit(node)
            if isinstance(function, ast.Name) and function.id == "super":
                return node
            if isinstance(function, ast.Attribute) and read and not _of_self(function.value):
                given: list[ast.expr] = [function.value, ast.Constant(function.attr)]
                function.value = ast.copy_location(ast.Call(called("called"), given, []), function.value)
            at = {"assertIn": (1,), "assertNotIn": (1,), "assertCountEqual": (0, 1)}.get(assertion, ())
            every = "every" if assertion == "assertCountEqual" else "each"
            node.args = [around(each, every if index in at else read) for index, each in enumerate(node.args)]
            for keyword in node.keywords:
                item = (
                    {"container": "each"}.get(keyword.arg or "", read)
                    if assertion in ("assertIn", "assertNotIn")
                    else read
                )
                item = "every" if assertion == "assertCountEqual" and keyword.arg in ("first", "second") else item
                keyword.value = around(keyword.value, item) if keyword.arg else keyword.value
            return node

    Around().visit(tree)
    return ast.fix_missing_locations(tree)


def _of_self(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id in ("self", "cls")) or (
        isinstance(node, ast.Call | ast.Constant)
        and (isinstance(node, ast.Constant) or (isinstance(node.func, ast.Name) and node.func.id == "super"))
    )
