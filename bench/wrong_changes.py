"""Small wrong changes of the sources: every one that this file knows, to draw from.

A change is of one expression or statement: a comparison, a boundary, a sign, a number, a condition that always or never
holds, a part of an `and`, a choice between `min` and `max`, an argument that is not passed on or changes places with its
neighbour, a forgotten `strip` or `sorted`, a filter of a comprehension, a slice, a call that is not made, a value where None
is asked about, another parameter of the same type, an error too many or too few that is caught, a loop that ends at what it
should pass over, a note in an object that is not made. Texts of errors, types, decorators and assertions are left alone.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

PACKAGE = Path(__file__).parents[1] / "src" / "firsthand"


class Change(NamedTuple):
    """One wrong change: the bytes from `begin` to `end` of a file below the package become `new`."""

    file: str
    line: int
    begin: int
    end: int
    old: str
    new: str


def lines_of(room: str) -> dict[tuple[str, int], list[Change]]:
    """The possible changes of each line of a room."""
    found: dict[tuple[str, int], list[Change]] = defaultdict(list)
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for change in changes_of(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE))):
            found[change.file, change.line].append(change)
    return dict(found)


def changes_of(source: str, file: str) -> Iterator[Change]:
    """Every change that this file knows, in the order of the source."""
    starts, encoded = [0], source.encode()
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, wrong in changed_nodes(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        old = encoded[begin:end].decode()
        for new in wrong:
            yield Change(file, node.lineno, begin, end, old, new)


KEPT = {"strict", "help", "encoding", "default", "metadata", "maxsize", "stacklevel", "description", "name"}
"""Arguments that are texts for people, or change nothing that can be observed."""
TELLS = ("logger.", "logging.", "print(", "warnings.")

Peers = Mapping[str, Sequence[str]]
"""The parameters of a function by name, each with the others of the same type."""
ALONE: Peers = {}


def changed_nodes(tree: ast.AST, peers: Peers = ALONE) -> Iterator[tuple[ast.expr | ast.stmt, list[str]]]:
    """What computes something, outside of annotations, decorators, assertions and errors' texts, with its wrong texts."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                continue
            case ast.If(test) if "TYPE_CHECKING" in ast.unparse(test):
                continue
            case ast.FunctionDef(name, given, body) | ast.AsyncFunctionDef(name, given, body):
                defaults = (*given.defaults, *(each for each in given.kw_defaults if each))
                yield from ((each, wrong_texts(each)) for each in defaults if isinstance(each, ast.Constant))
                inner = changed_nodes(ast.Module(body, []), same_type(given))
                yield from (each for each in inner if name != "__init__" or not isinstance(each[0], ast.Assign))
                continue
            case ast.ClassDef(body=body):
                yield from changed_nodes(ast.Module(body, []))
                continue
            case ast.AnnAssign(value=value):
                yield from changed_nodes(ast.Module([ast.Expr(value)] if value else [], []), peers)
                continue
            case ast.keyword(arg=name) if name in KEPT:
                continue
            case ast.If(test):
                yield test, ["True", "False"]
            case ast.Expr(ast.Call() | ast.Await() as call) if not ast.unparse(call).startswith(TELLS):
                yield call, ["None"]
            case ast.AugAssign(target, ast.Add() | ast.Sub() as operator, value) if not is_text(value):
                yield node, [ast.unparse(ast.AugAssign(target, COMPUTED[type(operator)](), value))]
            case ast.Assign([ast.Attribute() | ast.Subscript()]):
                yield node, ["None"]
            case ast.Continue():
                yield node, ["break"]
            case ast.ExceptHandler(ast.Name("BaseException") as kind):
                yield kind, ["Exception"]
            case ast.ExceptHandler(ast.Tuple(kinds) as several):
                fewer = (kinds[:place] + kinds[place + 1 :] for place in range(len(kinds)))
                yield several, [ast.unparse(ast.Tuple(each)) for each in fewer]
        if isinstance(node, ast.expr):
            yield node, list(peers.get(node.id, ())) if is_read(node) else wrong_texts(node)
        yield from changed_nodes(node, peers)


def same_type(given: ast.arguments) -> Peers:
    """The parameters of a function that have others of the same type, with these."""
    named: dict[str, list[str]] = defaultdict(list)
    for each in (*given.posonlyargs, *given.args, *given.kwonlyargs):
        if each.annotation is not None:
            named[ast.unparse(each.annotation)].append(each.arg)
    return {name: [other for other in names if other != name] for names in named.values() for name in names}


def is_read(node: ast.expr) -> TypeGuard[ast.Name]:
    """True for a name whose value is used."""
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
FORGOTTEN = {
    "strip", "lstrip", "rstrip", "lower", "upper", "casefold", "copy", "removeprefix", "removesuffix", "expanduser",
    "absolute", "resolve",
}  # fmt: skip
WRAPPED = {"sorted", "reversed", "set", "frozenset", "dict", "dict.fromkeys", "list", "abs", "round"}
ORDERLESS = {"min", "max", "isinstance", "getattr", "hasattr", "cast"}


def wrong_texts(node: ast.expr) -> list[str]:
    """Other texts for an expression, each wrong in one way."""
    match node:
        case ast.Compare(left, [ast.Is()], [ast.Constant(None)]):
            return [f"({ast.unparse(left)} is not None)", f"(not {ast.unparse(left)})"]
        case ast.Compare(left, [ast.IsNot()], [ast.Constant(None)]):
            return [f"({ast.unparse(left)} is None)", f"({ast.unparse(left)})"]
        case ast.Compare(left, [first, *others], right) if type(first) in COMPARED:
            wrong = [COMPARED[type(first)](), *([ast.Lt(), ast.Gt()] if isinstance(first, ast.NotEq) else [])]
            return [f"({ast.unparse(ast.Compare(left, [each, *others], right))})" for each in wrong]
        case ast.BoolOp(operator, values):
            other: ast.boolop = ast.Or() if isinstance(operator, ast.And) else ast.And()
            dropped = [values[:place] + values[place + 1 :] for place in range(len(values))]
            fewer = [ast.unparse(ast.BoolOp(operator, each) if len(each) > 1 else each[0]) for each in dropped]
            return [f"({ast.unparse(ast.BoolOp(other, values))})", *(f"({each})" for each in fewer)]
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            return [f"({ast.unparse(operand)})"]
        case ast.BinOp(left, operator, right) if type(operator) in COMPUTED and not is_text(left, right):
            return [f"({ast.unparse(ast.BinOp(left, COMPUTED[type(operator)](), right))})"]
        case ast.Constant(bool() as value):
            return [str(not value)]
        case ast.Constant(int() as value):
            return [f"{value + 1}", *([f"{value - 1}"] if value > 0 else [])]
        case ast.Constant(float() as value):
            return [repr(value * 2 if value else 0.5)]
        case ast.IfExp(_, body, other_body):
            return [f"({ast.unparse(body)})", f"({ast.unparse(other_body)})"]
        case ast.Subscript(value, ast.Slice(), ast.Load()):
            return [f"({ast.unparse(value)})"]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            return list(unfiltered(node))
        case ast.Call():
            return list(wrong_calls(node))
    return []


def unfiltered(node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Iterator[str]:
    """A comprehension without one of its conditions."""
    for place, generator in enumerate(node.generators):
        for number in range(len(generator.ifs)):
            other = copy.deepcopy(node)
            del other.generators[place].ifs[number]
            yield ast.unparse(other)


def wrong_calls(node: ast.Call) -> Iterator[str]:
    """Calls of another function, of none, with an argument less, or with two arguments in each other's place."""
    called, arguments, keywords = node.func, node.args, node.keywords
    name = called.id if isinstance(called, ast.Name) else ""
    if name in CALLED:
        yield ast.unparse(ast.Call(ast.Name(CALLED[name]), arguments, keywords))
    if name in ("min", "max") and len(arguments) == 2:
        yield from (f"({ast.unparse(each)})" for each in arguments if not isinstance(each, ast.Constant | ast.Starred))
    if isinstance(called, ast.Attribute) and called.attr in FORGOTTEN:
        yield f"({ast.unparse(called.value)})"
    if len(arguments) == 1 and not keywords and not isinstance(arguments[0], ast.GeneratorExp | ast.Starred):
        is_own = name.islower() and not hasattr(builtins, name) and isinstance(arguments[0], ast.Name | ast.Attribute)
        if is_own or ast.unparse(called) in WRAPPED:
            yield f"({ast.unparse(arguments[0])})"
    if name not in ("Field", "field"):
        for place, each in enumerate(keywords):
            if each.arg and each.arg not in KEPT:
                yield ast.unparse(ast.Call(called, arguments, keywords[:place] + keywords[place + 1 :]))
    if len(arguments) == 2 and name not in ORDERLESS and not any(isinstance(each, ast.Starred) for each in arguments):
        swapped = ast.unparse(ast.Call(called, arguments[::-1], keywords))
        yield from (each for each in [swapped] if each != ast.unparse(node))


def is_text(*operands: ast.expr) -> bool:
    """True if an operand is plainly a text or a list: minus would be an error and no bug."""
    return any(
        isinstance(each, ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple)
        or (isinstance(each, ast.Constant) and isinstance(each.value, str | bytes))
        for each in operands
    )
