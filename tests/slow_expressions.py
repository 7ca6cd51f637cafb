"""Finds regular expressions of a package that take more than linear time on some long text of one kind."""

from __future__ import annotations

import ast
import re
import re._constants as code  # type: ignore[import-untyped]
import re._parser as parser  # type: ignore[import-untyped]
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

WAYS = ("search", "match", "fullmatch", "sub", "subn", "findall", "finditer", "split")
FLAGS = ("I", "IGNORECASE", "M", "MULTILINE", "S", "DOTALL", "X", "VERBOSE", "A", "ASCII")
CATEGORIES = {code.CATEGORY_SPACE: " ", code.CATEGORY_DIGIT: "1", code.CATEGORY_NOT_WORD: "-"}
WITH_LINE_ENDS = (code.CATEGORY_SPACE, code.CATEGORY_NOT_WORD, code.CATEGORY_NOT_DIGIT)
SHORT, LONG = 3_000, 12_000
SLOW_S = 0.02
"""A linear search of LONG characters takes less than a millisecond."""
MAX_TEXTS = 32


class Expression(NamedTuple):
    """An expression in a source, and how it is applied there."""

    place: str
    pattern: str | bytes
    flags: int
    way: str


def expressions(package: Path) -> Iterator[Expression]:
    """All expressions whose text stands in the sources."""
    for path in sorted(package.rglob("*.py")):
        if "import re\n" not in (text := path.read_text(encoding="utf-8")):  # parsing all files takes seconds
            continue
        tree = ast.parse(text)
        names = constants(tree)
        compiled = ways(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            if not isinstance(node.func.value, ast.Name) or node.func.value.id != "re":
                continue
            pattern = folded(node.args[0], names)
            if pattern is None or node.func.attr not in (*WAYS, "compile"):
                continue
            place = f"{path.relative_to(package).as_posix()}: {str(pattern)[:60]}"
            flags = sum({flag_of(each) for given in (*node.args[1:], *node.keywords) for each in ast.walk(given)})
            for way in compiled.get(id(node), all_ways(tree)) if node.func.attr == "compile" else {node.func.attr}:
                yield Expression(place, pattern, flags, way)


def all_ways(tree: ast.Module) -> set[str]:
    """The methods that a source calls on variables: how an expression that is kept in a table is applied."""
    called = [
        node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    named = {each.attr for each in called if isinstance(each.value, ast.Name) and each.value.id.islower()}
    used_by_module = {each.attr for each in called if isinstance(each.value, ast.Name) and each.value.id == "re"}
    return (named - used_by_module) & {"search", "match", "fullmatch", "findall", "finditer"} or {"search"}


def ways(tree: ast.Module) -> dict[int, set[str]]:
    """Each call of re.compile that is given a name -> the methods of that name which the source calls."""
    named = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
    }
    found: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        known = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in named
        if known and node.attr in WAYS:
            found.setdefault(id(named[node.value.id]), set()).add(node.attr)
    return found


def constants(tree: ast.Module) -> dict[str, str | bytes]:
    """The names that are given a text."""
    found: dict[str, str | bytes] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = folded(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def folded(node: ast.expr, names: dict[str, str | bytes]) -> str | bytes | None:
    """The text of an expression of texts; None if it is not known here."""
    match node:
        case ast.Constant(str() | bytes() as value):
            return value
        case ast.Name(name):
            return names.get(name)
        case ast.BinOp(left, ast.Add(), right):
            parts = folded(left, names), folded(right, names)
            return parts[0] + parts[1] if isinstance(parts[0], str) and isinstance(parts[1], str) else None
        case ast.JoinedStr(values):
            found = [folded(each.value if isinstance(each, ast.FormattedValue) else each, names) for each in values]
            texts = [each for each in found if isinstance(each, str)]
            return "".join(texts) if len(texts) == len(found) else None
    return None


def flag_of(node: ast.AST) -> int:
    """The flag that `re.NAME` is, or 0."""
    return int(getattr(re, node.attr)) if isinstance(node, ast.Attribute) and node.attr in FLAGS else 0


def samples(parts: Any, most: int = 4) -> list[str]:
    """Some texts that a part of an expression matches."""
    found = [""]
    for kind, value in parts:
        options = [""]
        if kind is code.LITERAL:
            options = [chr(value)]
        elif kind is code.NOT_LITERAL:
            options = ["b" if value == ord("a") else "a"]
        elif kind is code.ANY:
            options = ["a"]
        elif kind is code.IN:
            options = of_class(value)[:2]
        elif kind is code.BRANCH:
            options = [text for branch in value[1] for text in samples(branch, 1)][:3]
        elif kind is code.SUBPATTERN:
            options = samples(value[3], 2)
        elif kind is code.ATOMIC_GROUP:
            options = samples(value, 2)
        elif kind in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            options = [text * min(value[0], 50) for text in samples(value[2], 2)]
        found = [text + option for text in found for option in options][:most]
    return found


def of_class(items: Any) -> list[str]:
    """Characters of a class."""
    if items[0][0] is code.NEGATE:
        return ["a", " ", "<"]
    single = [chr(value if kind is code.LITERAL else value[0]) for kind, value in items if kind is not code.CATEGORY]
    return [*single, *(CATEGORIES.get(value, "a") for kind, value in items if kind is code.CATEGORY)]


def takes_line_ends(parts: Any) -> bool:
    """True if a part that repeats is a line end, or a class of characters that has it."""
    if len(parts) != 1:
        return False
    kind, value = parts[0]
    if kind is code.ANY:
        return bool(parts.state.flags & re.DOTALL)
    if kind in (code.LITERAL, code.NOT_LITERAL):
        return (value == ord("\n")) is (kind is code.LITERAL)
    if kind is not code.IN:
        return False
    listed = any(
        (of is code.LITERAL and each == ord("\n"))
        or (of is code.RANGE and each[0] <= ord("\n") <= each[1])
        or (of is code.CATEGORY and each in WITH_LINE_ENDS)
        for of, each in value
    )
    return listed is (value[0][0] is not code.NEGATE)


def pumps(parts: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Beginning and repeated text for each part of an expression that may repeat many times."""
    for number, (kind, value) in enumerate(parts):
        start = before + samples(parts[:number], 1)[0]
        inner: list[Any] = []
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            inner = [value[2]]
            if value[1] is code.MAXREPEAT or value[1] > 50:
                if takes_line_ends(value[2]):  # at each of which `^` and `$` may begin anew
                    yield start, "\n"
                yield from ((start, text) for text in samples(value[2]) if text)
        elif kind is code.SUBPATTERN:
            inner = [value[3]]
        elif kind is code.BRANCH:
            inner = list(value[1])
        elif kind in (code.ASSERT, code.ASSERT_NOT):
            inner = [value[1]]
        elif kind is code.ATOMIC_GROUP:
            inner = [value]
        for each in inner:
            yield from pumps(each, start)


def slow_text(expression: Expression) -> str:
    """The beginning of a text on which an expression takes more than linear time, and the time; empty if none is found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(expression.pattern, expression.flags)
        tree = parser.parse(expression.pattern, expression.flags)
    given = list(dict.fromkeys(pumps(tree)))
    texts = [pair for start, pump in given for pair in ((start, pump), ("", pump), ("", start + pump), ("", start))]
    for start, pump in list(dict.fromkeys(pair for pair in texts if pair[1]))[:MAX_TEXTS]:
        if all(time_s(compiled, expression, start, pump, SHORT) > SLOW_S for _ in range(3)):  # worse than quadratic
            return f"{start + pump * 3!r:.60} of {SHORT}"
        if (long_s := time_s(compiled, expression, start, pump, LONG)) < SLOW_S:
            continue
        short_s = min(
            time_s(compiled, expression, start, pump, SHORT) for _ in range(9)
        )  # a shared core is late at times
        long_s = min(long_s, *(time_s(compiled, expression, start, pump, LONG) for _ in range(9)))
        if long_s > SLOW_S and long_s > 7 * short_s:
            # Once more with longer texts, which take twice as long at most if it was a late core, and 4 times if not.
            if min(time_s(compiled, expression, start, pump, 2 * LONG) for _ in range(3)) < 3 * long_s:
                continue
            return f"{start + pump * 3!r:.60}, {long_s * 1000:.0f} ms"
    return ""


def time_s(compiled: Any, expression: Expression, start: str, pump: str, length: int) -> float:
    """Processor time of this thread for a text that begins so, repeats the pump, and ends in what does not belong to it."""
    text: Any = start + pump * (length // len(pump)) + "\0"
    if isinstance(expression.pattern, bytes):
        text = text.encode("utf-8", "replace")
    began = time.thread_time()
    if expression.way in ("match", "fullmatch"):
        getattr(compiled, expression.way)(text)
    elif expression.way == "search":
        compiled.search(text)
    else:
        for _ in compiled.finditer(text):
            pass
    return time.thread_time() - began
