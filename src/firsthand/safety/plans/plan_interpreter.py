"""Carries out a plan with labelled values: what a value depends on, conditions and loops included, is in its label.

Calls that were made are kept, so that a plan that is written anew after an error makes none of them again; what was read is
read again behind other changes. What tools and readers say of an error is not passed on, for anybody may have written it.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import operator
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from firsthand.message import Json, canonical
from firsthand.safety.plans.labelled import MAX_PARTS, Flat, Labelled, flattened
from firsthand.safety.plans.plan_number import StatedNumber, as_number, is_true, numbers
from firsthand.safety.plans.plan_program import MAX_BITS, PlanError, format_of
from firsthand.safety.rules.labels import USER, Label, join_all

CallTool = Callable[[str, Json, dict[str, Label]], Awaitable[Labelled]]
"""Name, plain arguments and the label of each -> the labelled result; PlanError if it was refused or failed."""
Read = Callable[[str, str, str], Awaitable[Any]]
"""Text, question and kind -> the quarantined reader's typed answer; PlanError if it has none."""
MAX_STEPS = 5_000
MAX_WORK = 2_000_000
"""The most parts of values that a plan handles, each as often as it does; `TEXT_PER_PART` characters are as much as one."""
STATEMENT = 10
"""The work of a statement or of an item of a loop."""
TURN = 20_000
"""The work after which the event loop has a turn."""
MAX_ITEMS = 500
MAX_SIZE = 1_000_000
"""The most characters or items of a value that a plan makes."""
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: _holds(b, a), ast.NotIn: lambda a, b: not _holds(b, a),
}  # fmt: skip
_WIDTH = re.compile(r"(.?[<>^])?(?:[1-9][0-9]*)?")


class _Answered(Exception):
    def __init__(self, value: Labelled):
        self.value = value


class PlanRun:
    """One run of a plan's statements; `made` holds the results of earlier runs, by the text that `same` gives for a call.

    Of a tool that changes nothing, as `changes` tells by its name, an earlier result stands only where the same changes came
    before it in this run: what was read before a payment is not what is there after it.
    With `strict`, what a loop or a condition lets happen depends on what it looked at, so that everything in a loop over
    untrusted items is untrusted. Without, only data flow counts: the planner foresaw the loop (CaMeL's two modes).
    """

    def __init__(
        self, call: CallTool, read: Read, made: dict[str, Labelled] | None = None, *, strict: bool = False,
        same: Callable[[str, Json], str] = lambda _, arguments: canonical(arguments),
        changes: Callable[[str], bool] = lambda _: False,
    ):  # fmt: skip
        self._call, self._read, self._strict, self._same, self._changes = call, read, strict, same, changes
        self._changed = ""
        self.made: dict[str, Labelled] = {} if made is None else made
        self._seen: Counter[str] = Counter()
        self._names: dict[str, Labelled] = {}
        self._steps = self._work = self._turned = 0
        self._passed = Label()
        self._ends: dict[ast.AST, bool] = {}

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
                await self._spend(STATEMENT)
                await self._statement(statement, under.join(self._passed))
            except (
                KeyError,
                TypeError,
                ValueError,
                IndexError,
                ZeroDivisionError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                raise PlanError(f"line {statement.lineno}: {type(error).__name__}") from None

    async def _statement(self, statement: ast.stmt, under: Label) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._names[name] = (await self._value(value, under)).under(under)
            case ast.Expr(value=value):
                await self._value(value, under)
            case ast.If(test=test, body=body, orelse=orelse):
                plain, label, _ = await self._plain(await self._value(test, under))
                inner = self._within(under, label)
                taken, left = (body, orelse) if is_true(plain) else (orelse, body)
                await self._block(taken, inner)
                await self._taint(left, inner)
                self._pass([*body, *orelse], inner)
            case ast.For(target=ast.Name(id=name), iter=iterated, body=body):
                whole = await self._value(iterated, under)
                inner = self._within(under, whole.label)
                for item in await self._items(whole):
                    self._names[name] = item.under(inner)
                    await self._block(body, inner)
                await self._taint(body, inner)
                self._pass(body, inner)

    def _within(self, under: Label, condition: Label) -> Label:
        return under.join(condition) if self._strict else under

    async def _taint(self, statements: Sequence[ast.stmt], label: Label) -> None:
        """Labels the names that a branch which was not taken would have set: that it was not says something too."""
        if label == Label():
            return
        nodes = [node for statement in statements for node in ast.walk(statement)]
        await self._spend(len(nodes))
        for node in nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in self._names:
                self._names[node.id] = self._names[node.id].under(label)

    def _pass(self, within: Sequence[ast.AST], label: Label) -> None:
        """Labels all that comes after a place where the plan could have ended: that it goes on says something too."""
        if label != Label() and any(map(self._can_end, within)):
            self._passed = self._passed.join(label)

    def _can_end(self, place: ast.AST) -> bool:
        if place not in self._ends:
            self._ends[place] = any(map(_is_answer, ast.walk(place)))
        return self._ends[place]

    async def _spend(self, work: int) -> None:
        """Counts work, and gives the event loop a turn now and then. PlanError beyond `MAX_WORK`."""
        self._work += work
        if self._work > MAX_WORK:
            raise PlanError(f"the plan handles more than {MAX_WORK} values: loop less often, or over smaller values")
        if self._work - self._turned >= TURN:
            self._turned = self._work
            await asyncio.sleep(0)

    async def _plain(self, value: Any) -> Flat:
        found = flattened(value)
        await self._spend(found.work)
        return found

    async def _items(self, whole: Labelled) -> list[Labelled]:
        if isinstance(whole.value, list):
            if len(whole.value) > MAX_ITEMS:
                raise PlanError(f"a loop has {len(whole.value)} items: at most {MAX_ITEMS} are carried out")
            await self._spend(STATEMENT * len(whole.value))
        return whole.items()

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
                names = [await self._plain(await self._value(key, under)) for key in keys if key is not None]
                label = join_all(each.label for each in names)
                made = {
                    str(name.plain): await self._value(each, under) for name, each in zip(names, values, strict=True)
                }
                return Labelled(made, label)
            case ast.ListComp(elt=element, generators=[generator]):
                return await self._comprehension(element, generator, under)
            case ast.Call(func=ast.Name(id=name)):
                return await self._called(name, node, under)
            case ast.BoolOp(op=op, values=values):
                return await self._first_deciding(values, isinstance(op, ast.Or), under)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return await self._conditional(test, body, orelse, under)
        return await self._computed(node, under)

    async def _subscript(self, whole: Labelled, key: Labelled) -> Labelled:
        index, label, _ = await self._plain(key)
        if isinstance(index, StatedNumber) and isinstance(whole.value, list):
            index = as_number(index)
        found = whole.at(index) if isinstance(index, str) else whole.item(index)
        return found if label == USER else found.under(label)

    async def _first_deciding(self, operands: Sequence[ast.expr], deciding: bool, under: Label) -> Labelled:
        """The first operand whose truth is `deciding`, else the last; those behind it are not carried out.

        It depends on every operand that was looked at.
        """
        *earlier, last = operands
        about = Label()
        for place, operand in enumerate(earlier):
            inner = self._within(under, about)
            found = (await self._value(operand, inner)).under(about)
            plain, about, _ = await self._plain(found)
            if is_true(plain) is deciding:
                self._pass(operands[place + 1 :], self._within(under, about))
                return found
        return (await self._value(last, self._within(under, about))).under(about)

    async def _conditional(self, test: ast.expr, body: ast.expr, orelse: ast.expr, under: Label) -> Labelled:
        plain, label, _ = await self._plain(await self._value(test, under))
        inner = self._within(under, label)
        found = await self._value(body if is_true(plain) else orelse, inner)
        self._pass([body, orelse], inner)
        return found.under(label)

    async def _comprehension(self, element: ast.expr, generator: ast.comprehension, under: Label) -> Labelled:
        assert isinstance(generator.target, ast.Name)
        name, found = generator.target.id, []
        whole = await self._value(generator.iter, under)
        outer, label = self._names.get(name), self._within(Label(), whole.label)
        for item in await self._items(whole):
            self._names[name] = item
            inner = self._within(under, whole.label)
            for test in generator.ifs:
                plain, about, _ = await self._plain(await self._value(test, inner))
                label, inner = self._within(label, about), self._within(inner, about)
                if not is_true(plain):
                    break
            else:
                found.append(await self._value(element, inner))
            self._pass([element, *generator.ifs], inner)
        self._pass([element, *generator.ifs], under.join(label))
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
            case ast.UnaryOp(op=op, operand=operand):
                parts, compute = [operand], operator.not_ if isinstance(op, ast.Not) else operator.neg
            case ast.JoinedStr(values=values):
                parts, compute = values, lambda *v: "".join(map(_shown, v))
            case ast.FormattedValue(value=value, format_spec=None):
                return await self._value(value, under)
            case ast.FormattedValue(value=value, conversion=conversion, format_spec=given):
                wanted, is_text = format_of(given), conversion != -1
                parts, compute = [value], lambda v: _formatted(_shown(v) if is_text else v, wanted)
            case _:
                raise PlanError(f"line {node.lineno}: {type(node).__name__} is not part of the language")
        operands = [await self._plain(await self._value(each, under)) for each in parts]
        plain = [each.plain for each in operands]
        if isinstance(node, ast.BinOp | ast.UnaryOp) or (
            isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.In | ast.NotIn)
        ):
            plain = numbers(plain)
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mult)
            and not all(isinstance(v, int | float) for v in plain)
        ):
            raise TypeError
        return Labelled(_bounded(compute(*plain)), join_all(each.label for each in operands))

    async def _called(self, name: str, node: ast.Call, under: Label) -> Labelled:
        given = [await self._value(each, under) for each in node.args]
        named = {each.arg: await self._value(each.value, under) for each in node.keywords if each.arg is not None}
        under = under.join(self._passed)
        if name == "answer":
            (value,) = given
            await self._plain(value)
            raise _Answered(value.under(under))
        if name == "read":
            return await self._reading(*given, **named)
        if name in _FUNCTIONS or name in _ENDS:
            return await self._applied(name, *given)
        pairs = {key: await self._plain(value) for key, value in named.items()}
        arguments = {key: each.plain for key, each in pairs.items()}
        labels = {key: each.label.join(under) for key, each in pairs.items()} | {"": under}
        key, changes = f"{name} {self._same(name, arguments)}", self._changes(name)
        after = f" after {self._changed}" if self._changed and not changes else ""
        found = await self._once(f"{key}{after}", lambda: self._call(name, arguments, labels))
        if changes:
            self._changed = hashlib.sha256(f"{self._changed}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()
        return found.under(join_all(labels.values()))

    async def _applied(self, name: str, whole: Labelled) -> Labelled:
        """The result of one of the language's own functions."""
        if name in _ENDS:
            return whole.item(_ENDS[name])
        plain, label, work = await self._plain(whole)
        if name in ("sorted", "unique"):
            if len(plain) > MAX_PARTS:
                raise ValueError
            await self._spend(work * len(plain).bit_length())
        return Labelled(_FUNCTIONS[name](plain), label)

    async def _reading(self, text: Labelled, question: Labelled, kind: Labelled | None = None) -> Labelled:
        given = [await self._plain(each) for each in (text, question, kind or Labelled("text"))]
        shown, asked, of = (each.plain for each in given)

        async def ask() -> Labelled:
            return Labelled(await self._read(_shown(shown), str(asked), str(of)))

        found = await self._once(f"read {canonical([shown, asked, of])}", ask)
        return found.under(join_all(each.label for each in given))

    async def _once(self, key: str, action: Callable[[], Awaitable[Labelled]]) -> Labelled:
        """The result of an action in an earlier run of the plan, or now; equal actions are told apart by their number.

        Its label is that of the action alone: what the arguments depend on may be another thing in each run.
        """
        self._seen[key] += 1
        key = f"{self._seen[key]} {key}"
        if key not in self.made:
            self.made[key] = await action()
        return self.made[key]


def _bounded(value: Any) -> Any:
    """The value, if it is of a size that a plan may make; ValueError if not."""
    if (isinstance(value, str | list) and len(value) > MAX_SIZE) or (
        isinstance(value, int) and value.bit_length() > MAX_BITS
    ):
        raise ValueError
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _formatted(value: Any, wanted: str) -> str:
    """The value in a format of an f-string; one that gives a width alone leaves the digits of a stated number."""
    if not wanted:
        return _shown(value)
    if isinstance(value, StatedNumber) and (alone := _WIDTH.fullmatch(wanted)):
        return format(str(value), wanted if alone[1] else f">{wanted}")
    return format(numbers([value])[0], wanted)


def _is_answer(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "answer"


def _unique(values: Any) -> list[Any]:
    """The values without those that are equal to an earlier one, in time linear in their number.

    A number is looked up by its digits, for numbers with equal hashes are easily made.
    """
    found: dict[Any, Any] = {}
    for each in values:
        (number,) = numbers([each])
        number = int(number) if isinstance(number, float) and number.is_integer() else number
        found.setdefault((f"{number:d}",) if isinstance(number, int) else each, each)
    return list(found.values())


def _sorted(values: Any) -> list[Any]:
    return [each for _, each in sorted(zip(numbers(values), values, strict=True), key=lambda pair: pair[0])]


def _holds(whole: Any, value: Any) -> bool:
    """True if a list, an object or a text holds the value."""
    return value in whole or (isinstance(whole, list) and isinstance(value, StatedNumber) and as_number(value) in whole)


_ENDS = {"first": 0, "last": -1}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "len": len, "text": _shown, "sorted": _sorted, "unique": _unique, "number": as_number,
}  # fmt: skip
