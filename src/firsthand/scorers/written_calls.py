"""Reads the calls that a text makes and nothing else: for tasks of one's own, where no published reading is reproduced.

The leaderboard's reader (`function_calls.read_calls`) drops what a call's name hangs on, arguments without names, and
all but the last of an argument that is given twice. Here each of these makes the text no list of calls.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterator

from firsthand.patterns.parts.parsed_python import parsable

_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_LIST_OPENS = re.compile(r"\[\s*[\w.]+\(")
MAX_PART_CHARS = 20_000
MAX_LISTS = 50


def unfenced(text: str) -> str:
    """The text without the fence around all of it, and without a semicolon at its end."""
    fence = _FENCED.fullmatch(text.strip())
    return (fence[1] if fence else text).strip().removesuffix(";")


def dropped(node: ast.AST) -> str:
    """Why a call in this syntax tree is more than a name with named arguments, or ""."""
    made = {id(each) for each in getattr(node, "elts", [node])}
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and (each.keywords or id(each) in made):
            name, is_whole = _name(each.func)
            names = [keyword.arg for keyword in each.keywords]
            if not is_whole:
                return f"{name[:60]!r} is called of something that is no name"
            if each.args:
                return f"{name[:60]} has an argument without a name"
            if len(set(names)) != len(names):
                return f"{name[:60]} has an argument twice"
    return ""


def makes_a_call(text: str, functions: Collection[str]) -> bool:
    """True if a line, a fenced block or a list in brackets of the text is a call of one of the functions, or of any if none.

    A function that a sentence names, `f()` in backticks too, is not called by it.
    """
    return any(
        isinstance(each, ast.Call) and (not functions or _name(each.func)[0] in functions)
        for statement in _statements(text)
        for each in ast.walk(statement)
    )


def _statements(text: str) -> Iterator[ast.AST]:
    """What parses as Python of a text: its fenced blocks, its lines and its lists in brackets."""
    lines = [line.strip().lstrip("-*> ").strip("`") for line in text.splitlines()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in [text.strip("` \n"), *_FENCED.findall(text), *lines, *_lists(text)]:
            if "(" not in part or len(part) > MAX_PART_CHARS:
                continue
            try:
                yield ast.parse(parsable(part.strip(), MAX_PART_CHARS))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue


def _lists(text: str) -> list[str]:
    """The text's first parts in square brackets that open with a call."""
    opened, found = [], []
    for each in re.finditer(r"[\[\]]", text):
        if each[0] == "[":
            opened.append(each.start())
        elif opened and _LIST_OPENS.match(text, start := opened.pop()):
            found.append(text[start : each.end()])
            if len(found) == MAX_LISTS:
                break
    return found


def _name(node: ast.expr) -> tuple[str, bool]:
    """The dotted name that is called, and whether it is all that is called: `f().a.b(x=1)` calls `a.b` of something else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    is_whole = isinstance(node, ast.Name)
    parts += [node.id] if isinstance(node, ast.Name) else []
    return ".".join(reversed(parts)), is_whole
