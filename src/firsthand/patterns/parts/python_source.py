"""Joins two Python sources into one program, and finds the source that defines a function."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence

from firsthand.patterns.parts.parsed_python import MAX_BRACES, MAX_CHARS, parsable

BYTE_ORDER_MARK = "\ufeff"


def joined_source(first: str, second: str) -> str:
    """Return the program that runs both sources in one namespace, the second after the first.

    Python takes `from __future__` imports at the beginning of a program alone, and no byte-order mark within one: the
    imports of both sources go before everything else, with a `pass` where they stood, and the marks are left out.
    """
    first, second = first.removeprefix(BYTE_ORDER_MARK), second.removeprefix(BYTE_ORDER_MARK)
    if not first:
        return second
    first = first if first.endswith("\n") else f"{first}\n"
    (imports, before), (further, after) = _without_futures(first), _without_futures(second)
    return imports + further + before + after


def defines(code: str, name: str) -> bool:
    """Return whether a source defines a function of this name: by `def`, `class` or an assignment, also in an `if` or `try`.

    The body of a function may assign to a variable that is named like it. One that has lost its indent has a `return`, so
    that it does not compile by itself, and defines nothing. A loop's variable and the name after `with ... as` are no
    functions, and a name that is set in another way, such as by `globals()`, is not seen.
    """
    if not name:
        return False
    if _def_of(name, code):
        return True
    for node in _outside_functions(code):
        match node:
            case ast.FunctionDef(name=bound) | ast.AsyncFunctionDef(name=bound) | ast.ClassDef(name=bound):
                if bound == name or any(isinstance(each, ast.Global) and name in each.names for each in ast.walk(node)):
                    return True
            case ast.Name(id=bound, ctx=ast.Store()) if bound == name:
                return True
    return False


def imports(code: str, name: str) -> bool:
    """Return whether a source imports something under this name: `from math import gcd as f`."""
    aliases = (node for node in _outside_functions(code) if isinstance(node, ast.alias))
    return any((each.asname or each.name.partition(".")[0]) == name for each in aliases)


def last_defining(sources: Sequence[str], name: str) -> str | None:
    """Return the last source that defines the function, else the last one that imports it; None if there is neither.

    A source that shows how a function is used, or tests it, imports it from somewhere. All sources together are parsed up
    to the bounds of one, from the last on; before that, a `def` at the start of a line counts alone.
    """
    importing, chars, braces = None, 0, 0
    for source in reversed(sources):
        if name not in source:
            continue
        chars, braces = chars + len(source), braces + source.count("{")
        if chars > MAX_CHARS or braces > MAX_BRACES:
            if _def_of(name, source):
                return source
        elif defines(source, name):
            return source
        elif importing is None and imports(source, name):
            importing = source
    return importing


def _def_of(name: str, code: str) -> bool:
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE) is not None


def _without_futures(source: str) -> tuple[str, str]:
    """Return the `from __future__` imports that a source begins with, a line each, and the source with `pass` for each."""
    if "__future__" not in source:
        return "", source
    starts = [0, *(found.end() for found in re.finditer("\n", source))]
    imports, rest, at = "", "", 0
    words: list[str] = []  # the first two of a statement
    begin = end = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in (tokenize.COMMENT, tokenize.NL):
                continue
            if token.type == tokenize.NEWLINE or token.string == ";":
                if words[:1] == ["from"]:
                    imports += source[begin:end] + "\n"
                    rest, at = rest + source[at:begin] + "pass", end
                words = []
                continue
            if token.type == tokenize.ENDMARKER:
                break
            if not words:
                begin = starts[token.start[0] - 1] + token.start[1]
            end = starts[token.end[0] - 1] + token.end[1]
            words = [*words, token.string][:2]
            if words[0] == "from" and words[1:] in ([], ["__future__"]):
                continue
            if token.type != tokenize.STRING:  # neither such an import nor a docstring
                break
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # Python will say so when it runs the program
    return imports, rest + source[at:]


def _outside_functions(code: str) -> Iterator[ast.AST]:
    """Yield what a program runs when it is loaded, if it compiles by itself.

    A function or class is yielded without its parts. Targets of loops and of `with` are left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(parsable(code))
            compile(tree, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda() | ast.comprehension():
                pass
            case ast.AnnAssign(value=None):  # `f: int` sets nothing
                pass
            case ast.For():
                left += [node.iter, *node.body, *node.orelse]
            case ast.withitem():
                left.append(node.context_expr)
            case _:
                left += ast.iter_child_nodes(node)
