"""Parses a plan: Python's syntax, of which only assignments, calls, fields, lists, conditions and loops are there.

Nothing of Python runs: `plan_interpreter.py` walks the tree. Attributes are fields of data, names are the plan's own, and
calls are of tools or of the few functions in `FUNCTIONS`, so that there is nothing to escape to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

from firsthand.errors import ToolError, nearest
from firsthand.system.normalised_text import MAX_MARKS, has_long_marks

FUNCTIONS = ("read", "answer", "len", "text", "first", "last", "sorted", "unique", "number")
"""`read(text, question, kind)` asks the quarantined reader; `answer(value)` ends the plan."""
MAX_CHARS = 8_000
MAX_NODES = 2_000
MAX_BITS = 1024
"""The most bits of a whole number."""
_STATEMENTS = (ast.Assign, ast.Expr, ast.If, ast.For, ast.Pass)
_EXPRESSIONS = (
    ast.Constant, ast.Name, ast.Call, ast.Attribute, ast.Subscript, ast.List, ast.Dict, ast.Compare, ast.BoolOp, ast.UnaryOp,
    ast.BinOp, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.ListComp, ast.comprehension, ast.keyword,
)  # fmt: skip
_FORMAT = re.compile(r"(?:.?[<>=^])?[-+ ]?0?[0-9]{0,3}[,_]?(?:\.[0-9]{1,3})?[bdeEfFgGosxX%]?")
"""Formats of f-strings, of at most 999 characters and digits."""
_OPERATORS = (
    ast.Load, ast.Store, ast.And, ast.Or, ast.Not, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip


class PlanError(ToolError):
    """A plan that cannot be carried out. Its message holds nothing that was read."""


def parse_plan(text: str, tools: Collection[str]) -> list[ast.stmt]:
    """The statements of a plan. PlanError names the line and what is not allowed there."""
    if len(text) > MAX_CHARS:
        raise PlanError(f"the plan has {len(text)} characters: at most {MAX_CHARS} are read")
    if has_long_marks(text):
        raise PlanError(f"the plan has a letter with many combining marks: at most {MAX_MARKS} are read")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlanError(f"line {getattr(error, 'lineno', 1) or 1}: the plan does not parse") from None
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES:
        raise PlanError(f"the plan has {len(nodes)} parts: at most {MAX_NODES} are carried out")
    for node in nodes:
        for each in ast.iter_child_nodes(node):
            _check(each, tools, f"line {getattr(each, 'lineno', getattr(node, 'lineno', 1))}")
    return tree.body


def _check(node: ast.AST, tools: Collection[str], where: str) -> None:
    if not isinstance(node, (*_STATEMENTS, *_EXPRESSIONS, *_OPERATORS)):
        raise PlanError(f"{where}: {type(node).__name__} is not part of the language")
    match node:
        case ast.Assign(targets=targets) if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise PlanError(f"{where}: assign to one name")
        case ast.For(target=target) | ast.comprehension(target=target) if not isinstance(target, ast.Name):
            raise PlanError(f"{where}: loop over one name")
        case ast.For(orelse=[_, *_]):
            raise PlanError(f"{where}: a loop has no else")
        case ast.Compare(ops=[_, _, *_]):
            raise PlanError(f"{where}: compare two values at a time, and join comparisons with and")
        case ast.ListComp(generators=[_, _, *_]):
            raise PlanError(f"{where}: a comprehension has one for")
        case ast.Attribute(attr=name) if name.startswith("__"):
            raise PlanError(f"{where}: {name} is no field")
        case ast.Constant(value=value) if not isinstance(value, str | int | float | bool | None):
            raise PlanError(f"{where}: {type(value).__name__} is no value of the language")
        case ast.Constant(value=int(value)) if value.bit_length() > MAX_BITS:
            raise PlanError(f"{where}: a number has {value.bit_length()} bits: at most {MAX_BITS} are read")
        case ast.Call(func=ast.Name(id=name)) if name not in (*tools, *FUNCTIONS):
            close = nearest(name, [*tools, *FUNCTIONS])
            hint = f" did you mean {close!r}?" if close else ""
            raise PlanError(f"{where}: no tool {name!r};{hint} there are {', '.join([*tools, *FUNCTIONS])}")
        case ast.Call(func=ast.Name(id=name), args=[_, *_]) if name not in FUNCTIONS:
            raise PlanError(f"{where}: give {name} its arguments by name")
        case ast.Call(func=func) if not isinstance(func, ast.Name):
            raise PlanError(f"{where}: only tools and {', '.join(FUNCTIONS)} are called")
        case ast.Call(func=ast.Name(id=name), keywords=[_, *_]) if name in FUNCTIONS and name != "read":
            raise PlanError(f"{where}: {name} takes no arguments by name")
        case ast.FormattedValue(conversion=conversion) if conversion not in (-1, ord("s")):
            raise PlanError(f"{where}: !{chr(conversion)} is not part of the language")
        case ast.FormattedValue(format_spec=ast.expr() as given) if not _FORMAT.fullmatch(format_of(given)):
            raise PlanError(f"{where}: write formats like :.2f, :03d or :>10, in plain digits of at most 999")
        case ast.keyword(arg=None):
            raise PlanError(f"{where}: ** is not part of the language")
        case ast.Dict(keys=keys) if None in keys:
            raise PlanError(f"{where}: ** is not part of the language")


def format_of(given: ast.expr | None) -> str:
    """The format behind the colon of a value in an f-string; "{}" for one that is computed, which none is."""
    match given:
        case ast.JoinedStr(values=[ast.Constant(value=str(text))]):
            return text
        case None | ast.JoinedStr(values=[]):
            return ""
    return "{}"
