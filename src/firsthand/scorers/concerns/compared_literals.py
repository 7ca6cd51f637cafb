"""Finds the literals that code compares a value with, or looks it up among: `x == 3`, `x in (3, 4)`, `[3, 4].index(x)`.

Looks at the syntax tree, names of collections included; code that computes its literals is not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_LOOKED_UP = frozenset({"index", "count", "get", "find", "pop", "setdefault", "__contains__", "__getitem__", "__eq__"})
_MAKERS = frozenset({"dict", "zip", "list", "tuple", "set", "frozenset", "sorted", "enumerate", "OrderedDict"})


def compared_with(tree: ast.AST, entry_point: str = "") -> list[ast.expr]:
    """Return the expressions that values are compared with, keys of dicts and elements of collections looked in included.

    What results of `entry_point` are compared with outside of any function is left out: it is a test of the code.
    """
    named, tests = _named_collections(tree), set(_tests_of(tree, entry_point))
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and node in tests:
            continue
        if isinstance(node, ast.Compare):
            for each in (node.left, *node.comparators):
                found += [each, *_elements(each, named)]
        elif isinstance(node, ast.Dict):
            found += [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            found.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOOKED_UP:
            found += _elements(node.func.value, named)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("dict", "OrderedDict"):
            for each in node.args:
                found += _keys(each, named)
    return found


def _tests_of(tree: ast.AST, entry_point: str) -> Iterator[ast.Compare]:
    """Return the comparisons of a call of the entry point that stand in no function, where no input is known yet."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Compare):
            calls = [each for each in (node.left, *node.comparators) if isinstance(each, ast.Call)]
            if any(isinstance(each.func, ast.Name) and each.func.id == entry_point for each in calls):
                yield node


def _named_collections(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what names stand for collections: name -> what was assigned to it."""
    named: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                named.setdefault(target.id, []).append(node.value)
    return named


def _elements(node: ast.expr, named: dict[str, list[ast.expr]]) -> Iterator[ast.expr]:
    """Return the elements of a collection that is written out, by its name or in `set(...)` and the like too."""
    if isinstance(node, ast.Name):
        for value in named.get(node.id, []):
            yield from _elements(value, {})
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        yield from node.elts
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS:
        for each in node.args:
            yield from _elements(each, named)


def _keys(node: ast.expr, named: dict[str, list[ast.expr]]) -> Iterator[ast.expr]:
    """Return the keys of the pairs that a dict is made of: `[(3, 1), (4, 2)]`, or the elements of what is zipped first."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
        yield from (key for each in node.args[:1] for key in _elements(each, named))
        return
    for pair in _elements(node, named):
        yield from (pair.elts[:1] if isinstance(pair, ast.List | ast.Tuple) else ())
