"""Finds asserts of tests whose failure is caught and told to nobody: `except Exception: pass` around them, or `suppress`.

It reads the text alone. What is caught counts as told where a name that is set on the way is read elsewhere.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_CATCHES = {"AssertionError", "Exception", "BaseException"}
_TOLD_TO_NOBODY = {"print", "print_exc", "debug", "info", "warning", "error", "exception", "critical", "log"}
"""Functions that write what is read by no test."""
_BY_NAME = {"globals", "locals", "vars", "exec", "eval", "getattr"}
"""Names by which a program may call functions that it does not name."""
_Caught = ast.Try | ast.TryStar | ast.With | ast.AsyncWith


def check_caught(body: list[ast.stmt]) -> None:
    """Raise ValueError, with its line, for the first failed assert that is caught and changes nothing that is read."""
    nodes = [node for each in body for node in ast.walk(each)]
    asserting = {node.name for node in nodes if isinstance(node, FUNCTION) and any(map(_asserts, ast.walk(node)))}
    dropped = _dropped(nodes, asserting)
    read = _read(body)
    for node, function in _places(body):
        line = _catching(node, function in dropped)
        if line and _runs_asserts(node.body, asserting) and not _is_told(node, asserting, read, function in dropped):
            raise ValueError(
                f"line {line} catches the failed assert and goes on: name another error, leave out the try, or raise in it"
            )


def _places(body: list[ast.stmt]) -> Iterator[tuple[_Caught, str]]:
    """The statements that may catch, each with the name of the function it stands in."""
    pending: list[tuple[ast.AST, str]] = [(each, "") for each in reversed(body)]
    while pending:
        node, function = pending.pop()
        if isinstance(node, _Caught):
            yield node, function
        function = node.name if isinstance(node, FUNCTION) else function
        pending += [(each, function) for each in reversed([*ast.iter_child_nodes(node)])]


def _catching(node: _Caught, within_dropped: bool) -> int:
    """Return the line at which a failed assert is caught and dropped, or 0."""
    if isinstance(node, ast.With | ast.AsyncWith):
        calls = [each.context_expr for each in node.items if isinstance(each.context_expr, ast.Call)]
        caught = [part for call in calls if name_of(call.func) == "suppress" for part in call.args]
        return node.lineno if any(name_of(part) in _CATCHES for part in caught) else 0
    for each in node.handlers:
        kinds = each.type.elts if isinstance(each.type, ast.Tuple) else [each.type]
        if any(kind is None or name_of(kind) in _CATCHES for kind in kinds):
            return each.lineno if all(_is_inert(part, within_dropped) for part in each.body) else 0
    return 0


def _is_inert(node: ast.stmt, within_dropped: bool) -> bool:
    """True for a statement that changes nothing but names: pass, continue, a text, a print, a return that nobody reads."""
    if isinstance(node, ast.Expr):
        called = isinstance(node.value, ast.Call) and name_of(node.value.func) in _TOLD_TO_NOBODY
        return called or isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Return):
        return within_dropped
    plain = isinstance(node, ast.Assign | ast.AugAssign) and not any(
        isinstance(part, ast.Call) for part in ast.walk(node)
    )
    return plain or isinstance(node, ast.Pass | ast.Continue)


def _runs_asserts(body: list[ast.stmt], asserting: set[str]) -> bool:
    """True if statements assert something themselves, or call a function of the program that does."""
    pending: list[ast.AST] = list(body)
    while pending:
        part = pending.pop()
        named = isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in asserting
        if named or _asserts(part):
            return True
        if not isinstance(part, (*FUNCTION, ast.ClassDef, ast.Lambda)):
            pending += ast.iter_child_nodes(part)
    return False


def _asserts(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (
        isinstance(node, ast.Call) and (name_of(node.func).startswith("assert") or name_of(node.func) == "fail")
    )


def _is_told(node: _Caught, asserting: set[str], read: Counter[str], dropped: bool) -> bool:
    """True if what follows the assert sets a name that is read elsewhere, keeps a value, or leaves a loop or function.

    A return says nothing where the value of the function is dropped, and the handler returns as well.
    """
    first = next((at for at, each in enumerate(node.body) if _runs_asserts([each], asserting)), 0)
    handled = [each for handler in getattr(node, "handlers", ()) for each in handler.body]
    returns = dropped and any(isinstance(each, ast.Return) for each in handled)
    leaves = (ast.Break, ast.Raise, ast.Global, ast.Nonlocal, *(() if returns else (ast.Return,)))
    ways: list[ast.stmt] = [*node.body[first:], *getattr(node, "orelse", ())]
    if any(isinstance(part, leaves) for each in ways for part in ast.walk(each)):
        return True
    inside = _read([node])
    for part in (part for each in [*ways, *handled] for part in ast.walk(each)):
        if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            return True
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and read[part.id] > inside[part.id]:
            return True
        if isinstance(part, ast.Attribute) and part.attr in ("append", "add", "extend", "update"):
            name = name_of(part.value)
            if read[name] > inside[name]:
                return True
    return False


def _read(body: list[ast.stmt]) -> Counter[str]:
    """Count the reads of each name, but for what is only printed."""
    found, pending = Counter[str](), list[ast.AST](body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id] += 1
        pending += ast.iter_child_nodes(node)
    return found


def _dropped(nodes: list[ast.AST], names: set[str]) -> set[str]:
    """Those of these functions whose value no statement reads: each is only called, as a statement of its own."""
    if not _BY_NAME.isdisjoint(map(name_of, nodes)):
        return set()
    alone = {id(node.value.func) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)}
    return names - {
        name_of(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute) and id(node) not in alone
    }


def name_of(node: ast.AST) -> str:
    """Return the name, or the attribute, that a node reads; empty for other nodes."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
