"""Joins two Python sources into one program, and finds the function that a source defines."""

from __future__ import annotations

import io
import re
import tokenize
import warnings

from firsthand.patterns.parts.parsed_python import parsable

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
    """Return whether a source defines a function of this name, by `def` or by an assignment: `f = lambda x: x`.

    The body of a function may assign to a variable that is named like it. One that has lost its indent has a `return`, so
    that it does not compile by itself, and defines nothing.
    """
    if not name:
        return False
    called = re.escape(name)
    if re.search(rf"^(?:async )?def {called}\b", code, re.MULTILINE):
        return True
    return bool(re.search(rf"^{called}[ \t]*(?::[^=\n]*)?=(?!=)", code, re.MULTILINE)) and _compiles(code)


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


def _compiles(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(parsable(code), "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True
