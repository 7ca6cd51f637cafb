"""Source code by its symbols: Python by its syntax tree, other languages by indentation, braces and definition words.

A function stays whole where it fits; small neighbours share a chunk. The heading of a chunk is the path of its symbols, such
as `Parser > feed`. The line that defines a symbol is found, not parsed, outside Python: what is missed becomes part of the
symbol before it, and no text is lost.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from firsthand.retrieval.chunk import Chunk, Chunker
from firsthand.retrieval.chunking.markdown_chunks import heading
from firsthand.retrieval.chunking.text_spans import bounded, check_sizes, chunks_of, pieces
from firsthand.retrieval.document import Document
from firsthand.system.normalised_text import has_long_marks

MAX_TREE_CHARS = 500_000
"""Longer Python files are divided like other languages."""
MAX_DEPTH = 8
MAX_NAME_CHARS = 80
"""The characters of a symbol's name that headings repeat, in Python as by the patterns below."""
_MAX_LINE = 400
"""The characters of a line that are looked at for a definition."""
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_WORDS = (
    r"(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([a-z]+\))?|unsafe|extern|open|"
    r"override|sealed|data|inline|virtual)"
)
_DEFINES = re.compile(
    rf"\s*+(?:{_WORDS}\s++){{0,6}}(?:def|class|function\*?|func|fun|fn|sub|proc|impl(?:<[^>]*>)?|struct|enum|union|interface|trait|type|"
    r"module|namespace|package|object|record|protocol|extension|macro_rules!|contract)\s++(?:\([^)]{0,100}\)\s*+)?([\w.$:<>]{1,80})"
)
_CALLABLE = re.compile(r"\s*+(?:[\w<>\[\],:.]{1,60}[ \t*&]++){1,5}~?([\w:]{1,80})\s*+\([^;{]{0,300}(?:\{.*)?$")
"""A function of C or Java: types, a name, a parenthesis, and no semicolon before the body."""
_ASSIGNED = re.compile(
    r"\s*+(?:export\s++)?(?:const|let|var)\s++(\w{1,80})\s*+=\s*+(?:async\s*+)?(?:function\b|\([^)]{0,200}\)\s*+=>|\w{1,40}\s*+=>)"
)
_NOT_NAMES = frozenset(
    ("if", "for", "while", "switch", "return", "else", "catch", "do", "case", "new", "throw", "delete", "sizeof", "in", "of",
     "and", "or", "not")
)  # fmt: skip
_STRINGS = re.compile(r"\"(?:[^\"\\]|\\.){0,300}\"|'(?:[^'\\]|\\.){0,40}'|//.*|#.*")
_BESIDE = re.compile(r"\s*(?:@|#\[|//|#|/\*|\*|--|\[\w)")
"""A line that belongs to the definition below it: a decorator, attribute or comment."""


class Symbol(NamedTuple):
    """Consecutive text of one symbol, or of what stands between symbols."""

    start: int
    end: int
    path: tuple[str, ...]


def code(*, size: int = 1200) -> Chunker:
    """Chunks of whole symbols, at most `size` characters; longer symbols are cut between lines. Nothing overlaps."""
    check_sizes(size, 0)

    def made(document: Document) -> Iterator[Chunk]:
        text = document.text
        held: list[Symbol] = []
        for symbol in symbols(text, str(document.meta.get("language", ""))):
            for start, end in pieces(text, symbol.start, symbol.end, size):
                each = Symbol(start, end, symbol.path)
                if held and (end - held[0].start > size or not _belong(held[0].path, each.path)):
                    yield from _joined(document, held)
                    held = []
                held.append(each)
        yield from _joined(document, held)

    return lambda document: bounded(document, made(document))


def symbols(text: str, language: str) -> list[Symbol]:
    """The whole text as symbols, in order."""
    if language == "python" and len(text) <= MAX_TREE_CHARS and (found := _python(text)) is not None:
        return found
    return list(_by_lines(text))


def _joined(document: Document, held: list[Symbol]) -> list[Chunk]:
    if not held:
        return []
    paths = list(dict.fromkeys(each.path for each in held if each.path))
    shared = 0
    while paths and len({path[: shared + 1] for path in paths}) == 1 and shared < len(paths[0]):
        shared += 1
    names = list(dict.fromkeys(path[shared] for path in paths if len(path) > shared))
    listed = ", ".join(names) if len(names) <= 6 else ", ".join([*names[:6], "..."])
    parts = (*paths[0][:shared], listed) if listed else paths[0] if paths else ()
    return chunks_of(document, [(held[0].start, held[-1].end)], heading(tuple(part for part in parts if part)))


def _belong(first: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """True if two symbols may share a chunk: neighbours of one class, or at the top of the file."""
    return first[:1] == other[:1] or (len(first) <= 1 and len(other) <= 1)


def _python(text: str) -> list[Symbol] | None:
    """The symbols by the syntax tree; None where it does not parse."""
    if has_long_marks(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence in someone's string
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts = _line_starts(text)
    marks: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    _collect(tree, (), starts, marks)
    return _between(marks, len(text))


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _collect(
    tree: ast.Module | ast.ClassDef, path: tuple[str, ...], starts: list[int], marks: list[tuple[int, tuple[str, ...]]]
) -> None:
    """The starts of functions and classes, decorators included, and of the text between them."""
    ends = 0
    for node in tree.body:
        if isinstance(node, _Definition):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            inner = (*path, node.name[:MAX_NAME_CHARS])
            marks.append((starts[first - 1], inner))
            if isinstance(node, ast.ClassDef) and len(path) < MAX_DEPTH:
                _collect(node, inner, starts, marks)
            ends = node.end_lineno or node.lineno
        elif ends and marks[-1][1] != path:
            marks.append((starts[max(node.lineno - 1, ends)] if ends < len(starts) else starts[-1], path))


def _by_lines(text: str) -> Iterator[Symbol]:
    """Symbols by the lines that look like definitions; braces or indentation say which one is inside which."""
    braces = text.count("{") >= max(1, text.count("\n") // 40)
    marks: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    open_at: list[tuple[int, str]] = []
    depth, beside = 0, None
    for found in _LINES.finditer(text):
        line = text[found.start() : min(found.end(), found.start() + _MAX_LINE)].rstrip()
        if not line.strip():
            beside = None
            continue
        level = depth if braces else len(line) - len(line.lstrip())
        name = _defined_name(line)
        if name:
            while open_at and open_at[-1][0] >= level:
                open_at.pop()
            path = (*(each for _, each in open_at), name)
            if len(path) <= 3:
                marks.append((found.start() if beside is None else beside, path))
                open_at.append((level, name))
            beside = None
        elif _BESIDE.match(line):
            beside = found.start() if beside is None else beside
        else:
            beside = None
        if braces:
            bare = _STRINGS.sub("", line)
            depth = max(0, depth + bare.count("{") - bare.count("}"))
    yield from _between(marks, len(text))


def _defined_name(line: str) -> str:
    for pattern in (_DEFINES, _ASSIGNED, _CALLABLE):
        if (found := pattern.match(line)) and found[1] not in _NOT_NAMES:
            return "" if found[0].split()[0] in _NOT_NAMES else found[1].rstrip(":<>.")
    return ""


def _between(marks: list[tuple[int, tuple[str, ...]]], length: int) -> list[Symbol]:
    ends = [start for start, _ in marks[1:]] + [length]
    return [Symbol(start, end, path) for (start, path), end in zip(marks, ends, strict=True) if end > start]


def _line_starts(text: str) -> list[int]:
    """The start of each line as Python counts lines: after a line feed, carriage return, or both."""
    return [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]
