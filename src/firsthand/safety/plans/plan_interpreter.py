"""Carries out a plan with labelled values: what a value depends on, conditions and loops included, is in its label.

Calls that were made are kept, so that a plan that is written anew after an error makes none of them again. What tools and
readers say of an error is not passed on: it may have been written by anybody.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from firsthand.message import Json, canonical
from firsthand.safety.plans.labelled import Labelled, flat
from firsthand.safety.plans.plan_program import PlanError
from firsthand.safety.rules.labels import USER, Label, join_all

CallTool = Callable[[str, Json, dict[str, Label]], Awaitable[Labelled]]
"""Name, plain arguments and the label of each -> the labelled result; PlanError if it was refused or failed."""
Read = Callable[[str, str, str], Awaitable[Any]]
"""Text, question and kind -> the quarantined reader's typed answer; PlanError if it has none."""
MAX_STEPS = 5_000
MAX_ITEMS = 500
MAX_SIZE = 1_000_000
"""The most characters or items of a value that a plan makes."""
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class _Answered(Exception):
    def __init__(self, value: Labelled):
        self.value = value


class PlanRun:
    """One run of a plan's statements; `made` holds the results of earlier runs.

    With `strict`, what a loop or a condition lets happen depends on what it looked at, so that everything in a loop over
    untrusted items is untrusted. Without, only data flow counts: the planner foresaw the loop (CaMeL's two modes).
    """

    def __init__(self, call: CallTool, read: Read, made: dict[str, Labelled] | None = None, *, strict: bool = False):
        self._call, self._read, self._strict = call, read, strict
        self.made: dict[str, Labelled] = {} if made is None else made
        self._seen: Counter[str] = Counter()
        self._names: dict[str, Labelled] = {}
        self._steps = 0

    async def run(self, statements: Sequence[ast.stmt]) -> Labelled:
        """The plan's answer; an empty text if it gives none."""
        try:
            await self._block(statements, Label())
        except _Answered as answered:
            return answered.value
        return Labelled("")

    async def _block(self, statements: Sequence[ast.stmt], under: Label) -> None:
        for statement in statements:
            try:
                await self._statement(statement, under)
            except (
                KeyError,
                TypeError,
                ValueError,
                IndexError,
                ZeroDivisionError,
                AttributeError,
                OverflowError,
            ) as error:
                raise PlanError(f"line {statement.lineno}: {type(error).__name__}") from None

    async def _statement(self, statement: ast.stmt, under: Label) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._names[name] = (await self._value(value, under)).under(under)
            case ast.Expr(value=value):
                await self._value(value, under)
            case ast.If(test=test, body=body, orelse=orelse):
                condition = await self._value(test, under)
                plain, label = flat(condition)
                inner = self._within(under, label)
                await self._block(body if plain else orelse, inner)
                self._taint(orelse if plain else body, inner)
            case ast.For(target=ast.Name(id=name), iter=iterated, body=body):
                whole = await self._value(iterated, under)
                inner = self._within(under, whole.label)
                for item in self._items(whole):
                    self._names[name] = item.under(inner)
                    await self._block(body, inner)
                self._taint(body, inner)

    def _within(self, under: Label, condition: Label) -> Label:
        return under.join(condition) if self._strict else under

    def _taint(self, statements: Sequence[ast.stmt], label: Label) -> None:
        """Labels the names that a branch which was not taken would have set: that it was not says something too."""
        for node in (node for statement in statements for node in ast.walk(statement)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in self._names:
                self._names[node.id] = self._names[node.id].under(label)

    def _items(self, whole: Labelled) -> list[Labelled]:
        items = whole.items()
        if len(items) > MAX_ITEMS:
            raise PlanError(f"a loop has {len(items)} items: at most {MAX_ITEMS} are carried out")
        return items

    async def _value(self, node: ast.expr, under: Label) -> Labelled:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise PlanError(f"the plan takes more than {MAX_STEPS} steps")
        match node:
            case ast.Constant(value=value):
                return Labelled(value, USER)
            case ast.Name(id=name):
                if name not in self._names:
                    raise PlanError(f"line {node.lineno}: the name {name} has no value")
                return self._names[name]
            case ast.Attribute(value=inner, attr=name):
                return (await self._value(inner, under)).at(name)
            case ast.Subscript(value=inner, slice=key):
                return await self._subscript(await self._value(inner, under), await self._value(key, under))
            case ast.List(elts=parts):
                return Labelled([await self._value(each, under) for each in parts])
            case ast.Dict(keys=keys, values=values):
                names = [flat(await self._value(key, under)) for key in keys if key is not None]
                label = join_all(each for _, each in names)
                made = {
                    str(name): await self._value(each, under) for (name, _), each in zip(names, values, strict=True)
                }
                return Labelled(made, label)
            case ast.ListComp(elt=element, generators=[generator]):
                return await self._comprehension(element, generator, under)
            case ast.Call(func=ast.Name(id=name)):
                return await self._called(name, node, under)
        return await self._computed(node, under)

    async def _subscript(self, whole: Labelled, key: Labelled) -> Labelled:
        index, label = flat(key)
        found = whole.at(index) if isinstance(index, str) else whole.items()[index]
        return found if label == USER else found.under(label)

    async def _comprehension(self, element: ast.expr, generator: ast.comprehension, under: Label) -> Labelled:
        assert isinstance(generator.target, ast.Name)
        name, found = generator.target.id, []
        whole = await self._value(generator.iter, under)
        outer, label = self._names.get(name), self._within(Label(), whole.label)
        for item in self._items(whole):
            self._names[name] = item
            kept = [flat(await self._value(test, under)) for test in generator.ifs]
            label = self._within(label, join_all(each for _, each in kept))
            if all(plain for plain, _ in kept):
                found.append(await self._value(element, under))
        self._names.pop(name, None)
        if outer is not None:
            self._names[name] = outer
        return Labelled(found, label)

    async def _computed(self, node: ast.expr, under: Label) -> Labelled:
        """Operators: the result depends on every operand."""
        parts: list[ast.expr] = []
        compute: Callable[..., Any]
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                parts, compute = [left, right], _BINARY[type(op)]
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                parts, compute = [left, right], _COMPARE[type(op)]
            case ast.BoolOp(op=op, values=values):
                parts, compute = values, lambda *v: all(v) if isinstance(op, ast.And) else any(v)
            case ast.UnaryOp(op=op, operand=operand):
                parts, compute = [operand], operator.not_ if isinstance(op, ast.Not) else operator.neg
            case ast.JoinedStr(values=values):
                parts, compute = values, lambda *v: "".join(map(_shown, v))
            case ast.FormattedValue(value=value):
                return await self._value(value, under)
            case _:
                raise PlanError(f"line {node.lineno}: {type(node).__name__} is not part of the language")
        plain, labels = zip(*[flat(await self._value(each, under)) for each in parts], strict=True)
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mult)
            and not all(isinstance(v, int | float) for v in plain)
        ):
            raise TypeError
        return Labelled(_bounded(compute(*plain)), join_all(labels))

    async def _called(self, name: str, node: ast.Call, under: Label) -> Labelled:
        given = [await self._value(each, under) for each in node.args]
        named = {each.arg: await self._value(each.value, under) for each in node.keywords if each.arg is not None}
        if name == "answer":
            (value,) = given
            raise _Answered(value.under(under))
        if name == "read":
            return await self._reading(*given, **named)
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](*given)
        pairs = {key: flat(value) for key, value in named.items()}
        arguments = {key: plain for key, (plain, _) in pairs.items()}
        labels = {key: label.join(under) for key, (_, label) in pairs.items()} | {"": under}
        return await self._once(f"{name} {canonical(arguments)}", lambda: self._call(name, arguments, labels))

    async def _reading(self, text: Labelled, question: Labelled, kind: Labelled | None = None) -> Labelled:
        (shown, label), (asked, about), (of, _) = flat(text), flat(question), flat(kind or Labelled("text"))

        async def ask() -> Labelled:
            found = await self._read(_shown(shown), str(asked), str(of))
            return Labelled(found, label.join(about))

        return await self._once(f"read {canonical([shown, asked, of])}", ask)

    async def _once(self, key: str, action: Callable[[], Awaitable[Labelled]]) -> Labelled:
        """The result of an action in an earlier run of the plan, or now; equal actions are told apart by their number."""
        self._seen[key] += 1
        key = f"{self._seen[key]} {key}"
        if key not in self.made:
            self.made[key] = await action()
        return self.made[key]


def _bounded(value: Any) -> Any:
    """The value, if it is of a size that a plan may make; ValueError if not."""
    if (isinstance(value, str | list) and len(value) > MAX_SIZE) or (
        isinstance(value, int) and value.bit_length() > 1024
    ):
        raise ValueError
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _first(whole: Labelled) -> Labelled:
    return whole.items()[0]


def _last(whole: Labelled) -> Labelled:
    return whole.items()[-1]


def _of_plain(function: Callable[[Any], Any]) -> Callable[[Labelled], Labelled]:
    def applied(whole: Labelled) -> Labelled:
        plain, label = flat(whole)
        return Labelled(function(plain), label)

    return applied


_FUNCTIONS: dict[str, Callable[..., Labelled]] = {
    "first": _first,
    "last": _last,
    "len": _of_plain(len),
    "text": _of_plain(_shown),
    "sorted": _of_plain(sorted),
    "unique": _of_plain(lambda values: list(dict.fromkeys(values))),
    "number": _of_plain(float),
}
