"""Reads the definitions in this package's files from their source, without importing them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType


@cache
def description(path: Path, wanted: str) -> str | None:
    """The first docstring line of a file that defines that name; None if it does not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if any(wanted in defined(statement) for statement in tree.body):
        return (ast.get_docstring(tree) or "").split("\n")[0]
    return None


@cache
def keyword_defaults(path: Path, name: str) -> Mapping[str, str]:
    """Keyword-only argument of the function of that name in a file -> its default as text, `...` for one without."""
    for made in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef) and made.name == name:
            pairs = zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
            return MappingProxyType({each.arg: "..." if value is None else _shown(value) for each, value in pairs})
    return MappingProxyType({})


def _shown(value: ast.expr) -> str:
    """A default as text; the name of a constant is left as it is."""
    return str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)


def constants(tree: ast.AST, keyword: str) -> set[object]:
    """The constants in the values of a keyword, wherever it is given in a tree."""
    given = [each.value for each in ast.walk(tree) if isinstance(each, ast.keyword) and each.arg == keyword]
    return {each.value for value in given for each in ast.walk(value) if isinstance(each, ast.Constant)}


def defined(statement: ast.stmt) -> list[str]:
    """Names defined by a top-level statement."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


def first_text(call: ast.expr) -> str:
    """The first positional argument of a call, if it is a string: a Protocol's is the source of its number."""
    first = call.args[0] if isinstance(call, ast.Call) and call.args else None
    return str(first.value) if isinstance(first, ast.Constant) else ""
